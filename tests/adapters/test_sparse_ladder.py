"""Thresholds that leave neurons out, against the publication's formulas in plain torch."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from adapters.check import onnx_session
from adapters.plan import make_plan
from adapters.recipe import RECIPES
from adapters.targets.sparse_ladder import LEAST, PACE, PRUNED, SPARSITY
from tests.adapters import reference
from tests.adapters.conftest import compiled
from tests.adapters.samples import LADDER, tiny_facts, tiny_head
from tests.adapters.test_graphs import Device, random_batch, reference_loss, shaken

SPARSE = replace(LADDER, name="tiny-sparse", target="sparse_ladder")
THRESHOLDS = [f"{name}_threshold" for name in PRUNED]


@pytest.fixture(scope="module")
def kit(tmp_path_factory):
    return compiled(SPARSE, tiny_facts(), tiny_head(), tmp_path_factory.mktemp("kits"))


def halved(kit, seed=7):
    """Weights in the middle of a training, with thresholds near what they are compared with."""
    weights = shaken(kit)
    generator = torch.Generator().manual_seed(seed)
    for name in PRUNED:
        size = weights[name].abs().mean(1)
        noise = torch.randn(size.shape, generator=generator)
        # Nowhere so near that rounding decides.
        weights[f"{name}_threshold"] = size * (1 + 0.2 * noise.sign() + 0.05 * noise)
    return weights


def share_left(weights):
    used = [weights[n].abs().mean(1) > weights[f"{n}_threshold"] for n in PRUNED]
    return torch.cat([one.flatten() for one in used]).float().mean().item()


def test_a_fresh_one_leaves_nothing_out_and_changes_nothing(kit):
    weights = {name: weight.detach() for name, weight in kit.target.named_parameters()}
    assert share_left(weights) == 1
    batch = random_batch(kit, 6, 10, 5, torch.Generator().manual_seed(0))
    assert torch.equal(kit.target(batch["taps"], batch["final"], None), batch["final"])


def test_the_compiled_graph_leaves_out_what_is_below_its_threshold(kit):
    weights = halved(kit)
    assert 0.3 < share_left(weights) < 0.7
    batch = random_batch(kit, 9, 10, 5, torch.Generator().manual_seed(1))
    feeds = {name: batch[name].numpy() for name in ("taps", "final")}
    feeds |= {name: weight.numpy() for name, weight in weights.items()}
    (state,) = onnx_session(kit.folder / "infer.onnx").run(["state"], feeds)
    expected = reference.sparse_ladder(weights, batch["taps"], batch["final"], None)
    np.testing.assert_allclose(state, expected, rtol=1e-4, atol=1e-4)
    dense = reference.ladder(weights, batch["taps"], batch["final"], None)
    assert np.abs(state - dense.numpy()).max() > 0.1


def test_a_layer_of_which_nothing_would_be_left_stays_whole(kit):
    weights = halved(kit)
    weights["inner_threshold"][1] = 99.0
    batch = random_batch(kit, 9, 10, 5, torch.Generator().manual_seed(1))
    states = (batch["taps"], batch["final"], None)
    state = torch.func.functional_call(kit.target, weights, states)
    expected = dict(weights, inner_threshold=weights["inner_threshold"].clone())
    expected["inner_threshold"][1] = 0.0
    torch.testing.assert_close(state, torch.func.functional_call(kit.target, expected, states))
    assert LEAST == 0.01


def test_five_compiled_steps_are_the_published_ones(kit):
    """Autograd through a step that is the identity backwards; torch's SGD for thresholds, AdamW for the rest."""
    weights = halved(kit)
    leaves = {name: weight.clone().requires_grad_() for name, weight in weights.items()}
    undecayed = kit.target.undecayed - set(THRESHOLDS)
    matrices = leaves.keys() - kit.target.undecayed
    rates = {"lr": 1e-3, "betas": kit.recipe.betas}
    adamw = torch.optim.AdamW(
        [
            {"params": [leaves[n] for n in sorted(matrices)], "weight_decay": kit.recipe.decay},
            {"params": [leaves[n] for n in sorted(undecayed)], "weight_decay": 0.0},
        ],
        **rates,
    )
    sgd = torch.optim.SGD(
        [leaves[n] for n in THRESHOLDS], lr=PACE * 1e-3, momentum=kit.recipe.betas[0]
    )
    device = Device(kit, weights)
    generator = torch.Generator().manual_seed(2)
    for count in range(1, 6):
        batch = random_batch(kit, 20, 110, 30, generator)
        # So many steps of warm-up that the rate rises by a thousandth of the peak in each.
        device.step(batch, count, rate=1.0, warmup=1000, total=2000)
        penalty = SPARSITY * sum(torch.exp(-leaves[n]).sum() for n in THRESHOLDS)
        for one in (adamw, sgd):
            one.zero_grad()
        (reference_loss(kit, leaves, batch) + penalty).backward()
        torch.nn.utils.clip_grad_norm_(leaves.values(), kit.recipe.clip)
        for one, pace in ((adamw, 1.0), (sgd, PACE)):
            for group in one.param_groups:
                group["lr"] = pace * count / 1000
            one.step()
    for name, leaf in leaves.items():
        way = (leaf.detach() - weights[name]).norm().item()
        apart = np.linalg.norm(device.state[name] - leaf.detach().numpy())
        assert apart < 1e-2 * way, name


def test_weights_follow_thresholds_as_published(kit):
    weights, generator = halved(kit), torch.Generator().manual_seed(3)
    before = {
        name: weights[name] + 0.1 * torch.randn(weights[name].shape, generator=generator)
        for name in THRESHOLDS
    }
    session = onnx_session(kit.folder / "received.onnx")
    feeds = {name: weights[name].numpy() for name in (*PRUNED, *THRESHOLDS)}
    feeds |= {f"before.{name}": one.numpy() for name, one in before.items()}
    names = [given.name for given in session.get_outputs()]
    assert names == [f"next.{name}" for name in PRUNED]
    for name, moved in zip(PRUNED, session.run(names, feeds), strict=True):
        for rung, matrix in enumerate(weights[name]):
            for neuron, column in enumerate(matrix.T):  # (N,)
                threshold = f"{name}_threshold"
                way = weights[threshold][rung, neuron] - before[threshold][rung, neuron]
                expected = column - way * torch.sign(column.sum()) / len(column)
                np.testing.assert_allclose(moved[rung, :, neuron], expected, atol=1e-6)


def test_thresholds_are_what_is_shared_and_hundreds_of_times_smaller(kit):
    assert list(kit.manifest.shared) == THRESHOLDS
    assert [one.name for one in kit.manifest.federated] == THRESHOLDS
    _, target = make_plan(RECIPES["ladder-thresholds"], tiny_facts(layers=30))
    sizes = {name: weight.numel() for name, weight in target.named_parameters()}
    assert sum(sizes[name] for name in THRESHOLDS) == 5 * (128 + 256 + 128)
