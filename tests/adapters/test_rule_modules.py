"""The rules on torch modules: against each other, and against the rules that kits are compiled from."""

import pytest
import torch
from torch import nn

from adapters.rules.modules import mempepita, pepita, zeroth_order
from adapters.rules.pepita import feedback
from tests.adapters.samples import HIDDEN
from tests.adapters.test_rules import Torch, classes, recipe_of, shaken

NAMES = ("first", "inner", "last")


def plain_classifier(weights):
    """The target ``classifier`` once more, of torch's own layers."""
    layers = [nn.Linear(*weights[name].shape) for name in NAMES]
    for name, layer in zip(NAMES, layers, strict=True):
        layer.weight.data = weights[name].t().clone()
        layer.bias.data = weights[f"{name}_bias"].clone()
    first, inner, last = layers
    return nn.Sequential(first, nn.ReLU(), inner, nn.ReLU(), last)


def batch_of(classes=5, width=12, rows=40):
    generator = torch.Generator().manual_seed(3)
    labels = torch.randint(0, classes, (rows,), generator=generator)
    return torch.randn(rows, width, generator=generator), labels


def network(dropout=0.0):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(12, 20), nn.Tanh(), nn.Dropout(dropout), nn.Linear(20, 16), nn.GELU(),
        nn.Dropout(dropout), nn.LayerNorm(16), nn.Linear(16, 5, bias=False),
    )  # fmt: skip


def gradients(model):
    return [
        weight.grad.clone()
        for layer in model.modules()
        if isinstance(layer, nn.Linear)
        for weight in layer.parameters()
    ]


@pytest.mark.parametrize("rule", ["pepita", "mempepita"])
def test_a_module_s_directions_are_those_of_the_kit_s_rule(rule):
    made = Torch(recipe_of("classifier", rule, loss="full", dropout=0.0))
    weights, batch = shaken(made), classes(made)
    value, directions = made.directions(batch, weights)
    model = plain_classifier(weights)
    fixed = feedback(HIDDEN, HIDDEN, made.recipe.modulation)
    learn = {"pepita": pepita, "mempepita": mempepita}[rule]
    loss = learn(model, batch["final"], batch["targets"], fixed)
    assert loss.item() == pytest.approx(value.item(), rel=1e-5)
    layers = [layer for layer in model if isinstance(layer, nn.Linear)]
    for name, layer in zip(NAMES, layers, strict=True):
        ours = (layer.weight.grad.t(), layer.bias.grad)
        for mine, theirs in zip(ours, (directions[name], directions[f"{name}_bias"]), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_mempepita_is_pepita_after_a_hundred_steps(dropout):
    inputs, labels = batch_of()
    ends = []
    for learn in (pepita, mempepita):
        model = network(dropout)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
        losses = []
        for step in range(100):
            torch.manual_seed(step)  # the masks of this step
            losses.append(learn(model, inputs, labels, feedback(5, 12, 0.05)).item())
            optimizer.step()
        assert losses[-1] < losses[0]
        ends.append([weight.detach() for weight in model.parameters()])
    for first, second in zip(*ends, strict=True):
        torch.testing.assert_close(second, first, rtol=0, atol=1e-5)


def test_the_last_layer_s_direction_is_its_gradient_on_the_modulated_input():
    model, (inputs, labels) = network(), batch_of()
    fixed = feedback(5, 12, 0.05)
    error = model(inputs).softmax(1) - nn.functional.one_hot(labels, 5)
    pepita(model, inputs, labels, fixed)
    found = model[-1].weight.grad.clone()
    model.zero_grad()
    nn.functional.cross_entropy(model(inputs + (error @ fixed).detach()), labels).backward()
    torch.testing.assert_close(found, model[-1].weight.grad, rtol=1e-4, atol=1e-6)


def test_the_hooks_are_gone_afterwards():
    model, (inputs, labels) = network(0.3), batch_of()
    for learn in (pepita, mempepita):
        learn(model, inputs, labels, feedback(5, 12, 0.05))
    assert not any(module._forward_hooks for module in model.modules())
    with pytest.raises(RuntimeError):
        pepita(model, inputs[:, :3], labels, feedback(5, 3, 0.05))
    assert not any(module._forward_hooks for module in model.modules())


def test_zeroth_order_leaves_the_weights_and_finds_the_gradient_in_the_mean():
    model, (inputs, labels) = nn.Linear(12, 5), batch_of()
    before = [weight.detach().clone() for weight in model.parameters()]

    def loss():
        return nn.functional.cross_entropy(model(inputs), labels)

    loss().backward()
    exact = torch.cat([weight.grad.flatten() for weight in model.parameters()])
    zeroth_order(model, loss, seed=3, queries=400, epsilon=1e-3)
    found = torch.cat([weight.grad.flatten() for weight in model.parameters()])
    for weight, old in zip(model.parameters(), before, strict=True):
        torch.testing.assert_close(weight.detach(), old, rtol=0, atol=1e-5)
    assert torch.cosine_similarity(found, exact, dim=0) > 0.85
