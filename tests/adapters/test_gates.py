"""The classifier that says which tokens need the device, against torch's own formulas and autograd."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from adapters.check import onnx_session
from adapters.errors import RecipeRefused
from adapters.gates import GATES
from adapters.recipe import CHOICES, RECIPES
from protocol.kit import GATE_BIAS, GATE_ROW
from tests.adapters import reference
from tests.adapters.conftest import compiled
from tests.adapters.samples import LADDER, SPA, tiny_facts, tiny_head
from tests.adapters.test_graphs import Device, random_batch, shaken

WAYS = [(base, gate) for base in (LADDER, SPA) for gate in ("mix", "errors")]


@pytest.fixture(scope="module", params=WAYS, ids=lambda way: f"{way[0].target}-{way[1]}")
def gated_kit(request, tmp_path_factory):
    base, gate = request.param
    recipe = replace(base, gate=gate, gate_cost=0.3)
    facts, head = tiny_facts(softcap=8.0), tiny_head(bias=True, softcap=8.0)
    return compiled(recipe, facts, head, tmp_path_factory.mktemp("gated"))


def share(weights, final):
    """The second class of a softmax over two, whose first always scores 0."""
    score = final @ weights[GATE_ROW] + weights[GATE_BIAS]
    return torch.softmax(torch.stack([torch.zeros_like(score), score], 1), 1)[:, 1]


def spoken(kit, weights, batch, mask):
    own = {name.removeprefix("plugin."): weight for name, weight in weights.items()}
    state = reference.TARGETS[kit.recipe.target](own, batch["taps"], batch["final"], mask)
    if kit.recipe.gate == "errors":
        return state
    p = share(weights, batch["final"]).unsqueeze(1)
    return (1 - p) * batch["final"] + p * state


def objective(kit, weights, batch):
    state = spoken(kit, weights, batch, batch.get("mask"))
    loss = reference.LOSSES[kit.plan.loss](state, batch, kit.plan.softcap)
    p, weight = share(weights, batch["final"]), batch["scored"] / batch["scored"].sum()
    if kit.recipe.gate == "mix":
        return loss + 0.3 * (weight * p).sum()
    base = reference.logits(batch["final"], batch["rows"], batch["bias"], kit.plan.softcap)
    wrong = (base.argmax(1) != batch["targets"]).float()
    each = functional.binary_cross_entropy(p, wrong, reduction="none")
    return loss + (weight * each).sum()


def test_every_way_that_a_recipe_can_name_is_there():
    assert set(CHOICES["gate"]) == {"none", *GATES}
    assert {recipe.gate for recipe in RECIPES.values()} == set(CHOICES["gate"])


@pytest.mark.parametrize("recipe", ["tail", "ladder-recompute", "ladder-pepita"])
def test_a_gate_is_refused_where_none_can_be_trained(recipe):
    with pytest.raises(RecipeRefused, match="gate must be none"):
        replace(RECIPES[recipe], gate="errors")


def test_the_manifest_says_whether_there_is_a_gate(gated_kit, ladder_kit):
    assert gated_kit.manifest.gated
    assert not ladder_kit.manifest.gated


def test_where_the_device_speaks_its_state_is_the_formula_s(gated_kit):
    weights = shaken(gated_kit)
    batch = random_batch(gated_kit, 7, 10, 5, torch.Generator().manual_seed(1))
    feeds = {name: batch[name].numpy() for name in ("taps", "final")}
    feeds |= {name: weight.numpy() for name, weight in weights.items()}
    session = onnx_session(gated_kit.folder / "infer.onnx")
    # A kit's graph takes what it reads, and the device feeds every weight.
    assert {taken.name for taken in session.get_inputs()} == feeds.keys()
    (state,) = session.run(["state"], feeds)
    expected = spoken(gated_kit, weights, batch, None)
    np.testing.assert_allclose(state, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("tokens", [1, 12])
def test_one_step_s_loss_and_every_gradient_are_autograd_s(gated_kit, tokens):
    weights = shaken(gated_kit)
    batch = random_batch(gated_kit, tokens, 90, 40, torch.Generator().manual_seed(2))
    leaves = {name: weight.clone().requires_grad_() for name, weight in weights.items()}
    expected = objective(gated_kit, leaves, batch)
    expected.backward()
    device = Device(gated_kit, weights)
    loss, norm = device.step(batch, 1)
    np.testing.assert_allclose(loss, expected.item(), rtol=1e-4)
    whole = torch.stack([leaf.grad.square().sum() for leaf in leaves.values()]).sum().sqrt()
    np.testing.assert_allclose(norm, whole, rtol=1e-3)
    shrink = min(1.0, gated_kit.recipe.clip / float(norm))
    first = 1 - gated_kit.recipe.betas[0]
    for name, leaf in leaves.items():
        gradient = device.state[f"first.{name}"] / (first * shrink)
        size = max(float(leaf.grad.abs().max()), 1e-6)
        np.testing.assert_allclose(gradient / size, leaf.grad / size, atol=2e-3, err_msg=name)


@pytest.mark.parametrize("gated_kit", [(LADDER, "errors")], indirect=True, ids=["ladder-errors"])
def test_the_gate_learns_where_the_backbone_errs(gated_kit):
    generator = torch.Generator().manual_seed(3)
    batch = random_batch(gated_kit, 60, 90, 40, generator)
    base = reference.logits(batch["final"], batch["rows"], batch["bias"], None)
    # A direction of the final state tells where the token that comes is not the likeliest.
    wrong = batch["final"][:, 5] > 0
    batch["targets"] = torch.where(wrong, base.argmin(1), base.argmax(1))
    device = Device(gated_kit, {n: w.detach() for n, w in gated_kit.target.named_parameters()})
    for count in range(1, 61):
        device.step(batch, count, rate=3e-2, total=60)
    weights = {name: torch.from_numpy(device.state[name]) for name in (GATE_ROW, GATE_BIAS)}
    assert ((share(weights, batch["final"]) > 0.5) == wrong).float().mean() > 0.9
