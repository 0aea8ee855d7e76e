"""The rules against autograd, against their formulas in plain torch, and in compiled steps."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from adapters.export import export
from adapters.graphs import train_graph
from adapters.losses import LOSSES
from adapters.plan import make_plan
from adapters.rules import RULES
from adapters.rules.noise import PRIME, even, hashed, signs
from adapters.rules.pepita import feedback
from tests.adapters import reference
from tests.adapters.samples import HIDDEN, LADDER, tiny_facts, tiny_head
from tests.adapters.test_graphs import Device, random_batch, shaken

CHAINS = ["ladder", "classifier"]


def recipe_of(target, rule, **others):
    return replace(LADDER, target=target, rule=rule, **others)


class Torch:
    """A recipe in torch alone; with its training step as ``train.onnx`` once it has a folder."""

    folder = None

    def __init__(self, recipe):
        self.recipe, self.head = recipe, tiny_head()
        self.plan, self.target = make_plan(recipe, tiny_facts())

    def directions(self, batch, weights, count=1.0):
        rule = RULES[self.recipe.rule](self.recipe)
        loss = LOSSES[self.plan.loss]
        return rule(self.target, loss, weights, batch, None, torch.tensor(count))


@pytest.fixture(scope="module")
def steps(tmp_path_factory):
    """Compiled training steps by target and rule, each made when it is first asked for."""
    made = {}

    def step(target, rule):
        if (target, rule) not in made:
            one = Torch(recipe_of(target, rule))
            one.folder = tmp_path_factory.mktemp("step")
            model = export(train_graph(one.plan, one.target))
            (one.folder / "train.onnx").write_bytes(model.SerializeToString())
            made[target, rule] = one
        return made[target, rule]

    return step


TARGETS = ["ladder", pytest.param("classifier", marks=pytest.mark.slow)]


def a_batch(kit, tokens=17, seed=1):
    return random_batch(kit, tokens, 120, 40, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("target", CHAINS)
def test_the_blocks_of_a_chain_are_its_forward(target):
    made = Torch(recipe_of(target, "backprop"))
    weights, batch = shaken(made), a_batch(made)
    states = (batch["taps"], batch["final"], batch["mask"])
    state = batch["final"]
    for block in made.target.blocks(*states, None):
        state = block.output(block.own(weights), state)
    expected = torch.func.functional_call(made.target, weights, states)
    torch.testing.assert_close(state, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("target", CHAINS)
def test_recomputation_gives_the_gradient_of_backprop(target):
    exact, ours = Torch(recipe_of(target, "backprop")), Torch(recipe_of(target, "recompute"))
    weights, batch = shaken(exact), a_batch(exact)
    value, gradients = exact.directions(batch, weights)
    again, recomputed = ours.directions(batch, weights)
    assert again.item() == pytest.approx(value.item(), rel=1e-6)
    assert recomputed.keys() == gradients.keys()
    for name, gradient in gradients.items():
        size = gradient.abs().max().item()
        torch.testing.assert_close(recomputed[name], gradient, rtol=0, atol=1e-5 * size)


@pytest.mark.slow
@pytest.mark.parametrize("target", CHAINS)
@pytest.mark.parametrize("rule", sorted(set(RULES) - {"backprop"}))
def test_a_compiled_step_takes_the_direction_of_its_rule_in_torch(target, rule, steps):
    kit = steps(target, rule)
    weights, batch = shaken(kit), a_batch(kit)
    value, directions = kit.directions(batch, weights, count=3.0)
    norm = torch.stack([d.square().sum() for d in directions.values()]).sum().sqrt().item()
    device = Device(kit, weights)
    loss, our_norm = device.step(batch, 3)
    assert loss.item() == pytest.approx(value.item(), rel=1e-4)
    assert our_norm.item() == pytest.approx(norm, rel=2e-3)
    shrink = min(1.0, kit.recipe.clip / norm) * (1 - kit.recipe.betas[0])
    for name, direction in directions.items():
        apart = np.linalg.norm(device.state[f"first.{name}"] - shrink * direction.numpy())
        assert apart <= 2e-3 * shrink * direction.norm().item(), name


def classes(kit, tokens=17):
    """A batch whose head is the identity: the state is the class scores."""
    batch = a_batch(kit, tokens)
    labels = torch.randint(0, HIDDEN, (tokens,), generator=torch.Generator().manual_seed(5))
    rows = {"rows": torch.eye(HIDDEN), "bias": torch.zeros(HIDDEN), "targets": labels}
    return {**batch, **rows, "scored": torch.ones(tokens)}


def published_pepita(weights, batch, modulation):
    """Each line as the publication has it, on the plain classifier without dropout."""
    names, x = ("first", "inner", "last"), batch["final"]
    onehot = torch.eye(HIDDEN)[batch["targets"]]

    def passed(x):
        hidden = [x]
        for name in names:
            x = torch.relu(x) if name != "first" else x
            hidden.append(x @ weights[name] + weights[f"{name}_bias"])
            x = hidden[-1]
        return hidden

    plain = passed(x)
    error = plain[-1].softmax(1) - onehot
    again = passed(x + error @ feedback(HIDDEN, HIDDEN, modulation))
    directions = {}
    for layer, name in enumerate(names):
        read = again[0] if layer == 0 else torch.relu(again[layer])
        last = layer == len(names) - 1
        wrong = again[-1].softmax(1) - onehot if last else plain[layer + 1] - again[layer + 1]
        directions[name] = read.t() @ wrong / len(x)
        directions[f"{name}_bias"] = wrong.mean(0)
    return directions


@pytest.mark.parametrize("rule", ["pepita", "mempepita"])
def test_the_classifier_s_directions_are_the_published_ones(rule):
    made = Torch(recipe_of("classifier", rule, loss="full", dropout=0.0))
    weights, batch = shaken(made), classes(made)
    expected = published_pepita(weights, batch, made.recipe.modulation)
    _, directions = made.directions(batch, weights)
    for name, direction in directions.items():
        torch.testing.assert_close(direction, expected[name], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("target", TARGETS)
def test_mempepita_is_pepita_after_a_hundred_compiled_steps(target, steps):
    kits = [steps(target, rule) for rule in ("pepita", "mempepita")]
    begin = {name: weight.detach() for name, weight in kits[0].target.named_parameters()}
    devices = [Device(kit, begin) for kit in kits]
    for count in range(1, 101):
        batch = a_batch(kits[0], tokens=12, seed=count)
        for device in devices:
            device.step(batch, count, rate=1e-3, total=100)
    first, second = (device.state for device in devices)
    for name, weight in begin.items():
        assert np.abs(first[name] - weight.numpy()).max() > 1e-3
        np.testing.assert_allclose(second[name], first[name], rtol=0, atol=1e-5)


@pytest.mark.parametrize("target", CHAINS)
def test_a_direction_of_zeroth_order_is_the_slope_along_the_signs(target):
    recipe = recipe_of(target, "zeroth_order", queries=3, dropout=0.0)
    made = Torch(recipe)
    weights, batch = shaken(made), a_batch(made)
    _, directions = made.directions(batch, weights, count=7.0)
    total = torch.zeros(())
    for query in range(3):
        drawn = {}
        for place, (name, weight) in enumerate(weights.items()):
            shape, seed = weight.shape, 7 * 4096 + 2 * place
            columns = signs(seed + 1, (3, *shape[:-2], *shape[-1:]))[query]
            rows = signs(seed, (3, *shape[:-1]))[query].unsqueeze(-1) if len(shape) > 1 else 1.0
            drawn[name] = rows * (columns.unsqueeze(-2) if len(shape) > 1 else columns)

        def loss(sign, drawn=drawn):
            moved = {n: w + sign * recipe.epsilon * drawn[n] for n, w in weights.items()}
            state = torch.func.functional_call(
                made.target, moved, (batch["taps"], batch["final"], None)
            )
            return reference.LOSSES["shortlist"](state, batch, None)

        slope = (loss(1) - loss(-1)) / (2 * recipe.epsilon * 3)
        total = total + slope.square()
        for name in drawn:
            drawn[name] = slope * drawn[name]
        directions = {n: directions[n] - drawn[n] for n in weights}
    for name, left in directions.items():
        assert left.abs().max() < 2e-3 * total.sqrt(), name


def test_directions_of_zeroth_order_are_the_gradient_in_the_mean():
    made = Torch(recipe_of("classifier", "zeroth_order", queries=64, dropout=0.0, epsilon=1e-3))
    weights, batch = shaken(made), a_batch(made)
    _, exact = Torch(replace(made.recipe, rule="backprop")).directions(batch, weights)
    runs = [made.directions(batch, weights, count=float(count))[1] for count in range(40)]
    mean = torch.cat([torch.stack([run[n] for run in runs]).mean(0).flatten() for n in exact])
    true = torch.cat([exact[name].flatten() for name in exact])
    # Of 2,560 random directions in a space of 2,400, about half of what they show is true.
    assert torch.cosine_similarity(mean, true, dim=0) > 0.55


@pytest.mark.parametrize(
    ("rule", "rate"), [("pepita", 3e-3), ("mempepita", 3e-3), ("zeroth_order", 1e-2)]
)
def test_a_classifier_learns_classes(rule, rate):
    """Sixteen clusters; the scores are read through an identity."""
    made = Torch(
        recipe_of(
            "classifier", rule, loss="full", dropout=0.0, width=16, modulation=1.0, queries=16
        )
    )
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(16, HIDDEN, generator=generator)
    weights = {name: w.detach().clone() for name, w in made.target.named_parameters()}
    optimizer = torch.optim.Adam(weights.values(), lr=rate)
    losses = []
    for count in range(1, 121):
        labels = torch.randint(0, 16, (64,), generator=generator)
        noise = torch.randn(64, HIDDEN, generator=generator)
        batch = {
            **classes(made, 64),
            "final": centres[labels] + 0.3 * noise,
            "targets": labels,
        }
        value, directions = made.directions(batch, weights, count=float(count))
        for name, weight in weights.items():
            weight.grad = directions[name]
        optimizer.step()
        losses.append(value.item())
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10])


def test_hashed_numbers_never_change():
    """They are part of what a kit is: others would change every run that was begun."""
    assert hashed(0, (3,)).tolist() == [80992663, 1024571490, 534837498]
    assert hashed(1, (3,)).tolist() == [2129046233, 427949869, 1656970901]


def test_a_hash_is_fifth_powers_of_whole_numbers():
    def mixed(number):
        for added in (1013904223, 1640531527, 362437069):
            number = pow(number + added, 5, PRIME)
        return number

    expected = [mixed(place + 69621 * mixed(123456789)) for place in range(1000)]
    assert hashed(123456789, (10, 100)).flatten().tolist() == expected


def test_hashed_numbers_are_spread_evenly_and_do_not_repeat():
    drawn = hashed(5, (100_000,))
    assert int(drawn.min()) >= 0
    assert int(drawn.max()) < PRIME
    assert len(drawn.unique()) == len(drawn)
    counts = torch.histc(drawn.double(), 100, 0, PRIME)
    assert float(((counts - 1000) ** 2 / 1000).sum()) < 150  # chi-square of 99 degrees
    other = hashed(6, (100_000,))
    pair = torch.stack((drawn.double(), other.double()))
    assert abs(torch.corrcoef(pair)[0, 1]) < 0.015
    assert abs(torch.corrcoef(torch.stack((drawn[1:], drawn[:-1])).double())[0, 1]) < 0.015


def test_feedback_has_the_published_spread():
    matrix = feedback(300, 96, 0.05)
    bound = (6 / 96) ** 0.5 * 0.05
    assert matrix.abs().max() <= bound
    assert matrix.std().item() == pytest.approx(bound / 3**0.5, rel=0.02)
    assert torch.equal(matrix, even(7919, (300, 96), bound))
