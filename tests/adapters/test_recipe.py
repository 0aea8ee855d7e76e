import json
from dataclasses import replace

import pytest

from adapters.errors import RecipeRefused
from adapters.losses import LOSSES
from adapters.recipe import CHOICES, RECIPES, Recipe
from adapters.rules import RULES
from adapters.targets import TARGETS


@pytest.mark.parametrize("name", RECIPES)
def test_every_named_recipe_comes_back_from_json(name):
    recipe = RECIPES[name]
    assert recipe.name == name
    assert Recipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe


def test_what_a_recipe_can_name_is_what_the_compiler_has():
    assert set(CHOICES["target"]) == set(TARGETS)
    assert set(CHOICES["loss"]) == set(LOSSES)
    assert set(CHOICES["rule"]) == set(RULES)


def test_a_missing_field_takes_its_default():
    assert Recipe.from_json({"name": "mine", "width": 8}) == Recipe(name="mine", width=8)


def test_a_whole_number_will_do_where_a_fraction_may_stand():
    assert Recipe.from_json({"name": "mine", "clip": 2}).clip == 2.0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "Two Words"),
        ("name", ""),
        ("name", "../up"),
        ("target", "head"),
        ("mlp", "wide"),
        ("loss", "half"),
        ("rule", "guess"),
        ("selection", "far"),
        ("compression", "int8"),
        ("width", 0),
        ("shortlist", 0),
        ("modulation", 0.0),
        ("queries", 0),
        ("epsilon", 0.0),
        ("negatives", 0),
        ("dropout", 1.0),
        ("dropout", float("nan")),
        ("decay", -0.1),
        ("clip", 0.0),
        ("seed", -1),
        ("rate", 0.0),
        ("rate", float("inf")),
        ("warmup", 1.5),
        ("epochs", 0),
        ("batch_tokens", 0),
        ("segment", 0),
        ("patience", 0),
        ("answers", 0),
        ("betas", (0.9,)),
        ("betas", (0.9, 1.0)),
        ("taps", (0.5, 0.5)),
        ("taps", (0.9, 0.1)),
        ("taps", (-0.1,)),
        ("taps", (1.1,)),
        ("taps", (float("nan"),)),
    ],
)
def test_a_recipe_of_nonsense_is_refused_by_the_field_s_name(field, value):
    with pytest.raises(RecipeRefused) as refusal:
        replace(RECIPES["ladder"], **{field: value})
    assert refusal.value.field == field


def test_spa_reads_every_layer_or_is_refused():
    with pytest.raises(RecipeRefused, match="taps must be empty for spa"):
        replace(RECIPES["spa"], taps=(0.5,))


@pytest.mark.parametrize("rule", ["recompute", "pepita", "mempepita", "zeroth_order"])
@pytest.mark.parametrize(
    ("name", "target"), [("spa", "spa"), ("ladder-thresholds", "sparse_ladder")]
)
def test_rules_that_take_a_network_apart_are_refused_for_what_is_no_chain(name, target, rule):
    with pytest.raises(RecipeRefused, match=f"rule must be backprop for {target}"):
        replace(RECIPES[name], rule=rule)


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        {},
        {"name": 3},
        {"name": "a", "colour": "red"},
        {"name": "a", "width": "8"},
        {"name": "a", "width": True},
        {"name": "a", "width": 8.0},
        {"name": "a", "rate": "fast"},
        {"name": "a", "rate": False},
        {"name": "a", "taps": 0.5},
        {"name": "a", "taps": ["x"]},
        {"name": "a", "betas": {"0": 1}},
    ],
)
def test_json_of_wrong_types_is_refused(data):
    with pytest.raises(RecipeRefused):
        Recipe.from_json(data)


@pytest.mark.parametrize(
    ("taps", "depth", "layers"),
    [
        ((0.6, 0.7, 0.8, 0.9), 30, (18, 21, 24, 27)),
        ((0.0, 1.0), 12, (0, 12)),
        ((), 3, (0, 1, 2, 3)),
        ((0.6, 0.7, 0.8, 0.9), 4, (2, 3, 4)),
    ],
)
def test_taps_are_shares_of_depth_and_no_layer_is_read_twice(taps, depth, layers):
    assert Recipe(name="a", taps=taps).layers(depth) == layers
