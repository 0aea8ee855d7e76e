"""How weights can move, by name. To add one: a module and a row."""

from collections.abc import Callable, Mapping

from adapters.recipe import Recipe
from adapters.rules.backprop import backprop
from adapters.rules.base import Rule
from adapters.rules.pepita import Pepita
from adapters.rules.recompute import recompute
from adapters.rules.zeroth_order import ZerothOrder

RULES: Mapping[str, Callable[[Recipe], Rule]] = {
    "backprop": lambda recipe: backprop,
    "recompute": lambda recipe: recompute,
    "pepita": lambda recipe: Pepita(recipe.modulation, forgets=False),
    "mempepita": lambda recipe: Pepita(recipe.modulation, forgets=True),
    "zeroth_order": lambda recipe: ZerothOrder(recipe.queries, recipe.epsilon),
}
"""Builders from a recipe."""
