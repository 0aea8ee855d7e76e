from dataclasses import replace

import pytest
import torch

from adapters.plan import make_plan
from adapters.recipe import RECIPES
from adapters.targets import TARGETS
from tests.adapters import reference
from tests.adapters.samples import HIDDEN, tiny_facts

TOKENS = 7
SIDE = [name for name, recipe in RECIPES.items() if recipe.target != "tail"]
"""Networks beside the backbone; the tail is its own blocks, see ``test_tail``."""


def built(name):
    recipe = replace(RECIPES[name], width=12)
    layers = recipe.layers(5)
    return TARGETS[recipe.target](recipe, layers, HIDDEN, None), len(layers)


def states(taps):
    generator = torch.Generator().manual_seed(2)
    # A channel that dwarfs the others, as backbones have them.
    taps = torch.randn(taps, TOKENS, HIDDEN, generator=generator)
    taps[:, :, 3] *= 500
    return taps, torch.randn(TOKENS, HIDDEN, generator=generator)


def shaken(target):
    generator = torch.Generator().manual_seed(3)
    return {
        name: weight.detach() + 0.1 * torch.randn(weight.shape, generator=generator)
        for name, weight in target.named_parameters()
    }


@pytest.mark.parametrize("name", ["ladder", "ladder-full"])
def test_a_fresh_ladder_changes_nothing(name):
    target, count = built(name)
    taps, final = states(count)
    assert torch.equal(target(taps, final, None), final)


@pytest.mark.parametrize("name", SIDE)
@pytest.mark.parametrize("dropped", [False, True])
def test_the_target_computes_its_formula(name, dropped):
    target, count = built(name)
    weights = shaken(target)
    taps, final = states(count)
    places, width = target.mask
    mask = (torch.rand(places, TOKENS, width) > 0.3).float() / 0.7 if dropped else None
    expected = reference.TARGETS[RECIPES[name].target](weights, taps, final, mask)
    got = torch.func.functional_call(target, weights, (taps, final, mask))
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", SIDE)
def test_the_seed_decides_the_initial_weights(name):
    facts = tiny_facts()
    first, again, other = (
        dict(make_plan(replace(RECIPES[name], seed=seed), facts)[1].named_parameters())
        for seed in (1, 1, 2)
    )
    assert all(torch.equal(first[weight], again[weight]) for weight in first)
    # A gate stands beside the network.
    down = "down" if "down" in first else "plugin.down"
    assert not torch.equal(first[down], other[down])


@pytest.mark.parametrize("name", SIDE)
def test_only_matrices_decay(name):
    target, _ = built(name)
    decayed = {name for name, _ in target.named_parameters()} - target.undecayed
    assert decayed == {"down", "inner", "outer", "up"}
    assert target.undecayed < {name for name, _ in target.named_parameters()}


def test_spa_on_the_published_backbone_has_the_published_size():
    """12.99 M with the gate's classifier, 2 x 4096 weights and 2 biases, which is not part of it."""
    with torch.device("meta"):
        target = TARGETS["spa"](RECIPES["spa"], tuple(range(33)), 4096, None)
    assert sum(weight.numel() for weight in target.parameters()) + 2 * 4096 + 2 == 12_990_498


def test_the_narrow_mlp_is_narrower_than_the_side():
    narrow = TARGETS["spa"](RECIPES["spa-narrow"], (0, 1, 2), HIDDEN, None)
    wide = TARGETS["spa"](RECIPES["spa"], (0, 1, 2), HIDDEN, None)
    assert narrow.mask == (2, RECIPES["spa-narrow"].width // 2)
    assert wide.mask == (2, HIDDEN)


def test_five_rungs_of_width_192_take_a_million_and_a_half_weights():
    target = TARGETS["ladder"](replace(RECIPES["ladder"], width=192), (8, 15, 21, 27), 576, None)
    assert sum(weight.numel() for weight in target.parameters()) == 1_408_708
