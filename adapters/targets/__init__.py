"""What can be trained, by name. To add one: a module and a row."""

from collections.abc import Callable, Mapping

import torch

from adapters.recipe import Recipe
from adapters.targets.base import Target
from adapters.targets.classifier import Classifier
from adapters.targets.ladder import Ladder
from adapters.targets.spa import Spa


def _ladder(recipe: Recipe, taps: int, hidden: int) -> Target:
    return Ladder(taps, hidden, recipe.width, _generator(recipe))


def _spa(recipe: Recipe, taps: int, hidden: int) -> Target:
    # Released, swapped constructor arguments make the inner MLP as wide as the backbone. How narrow
    # it was meant to be is not said: half the side's width, as bottlenecks of that time have it.
    inner = hidden if recipe.mlp == "expand" else max(1, recipe.width // 2)
    return Spa(taps, hidden, recipe.width, inner, _generator(recipe))


def _classifier(recipe: Recipe, taps: int, hidden: int) -> Target:
    return Classifier(hidden, recipe.width, _generator(recipe))


def _generator(recipe: Recipe) -> torch.Generator:
    return torch.Generator().manual_seed(recipe.seed)


TARGETS: Mapping[str, Callable[[Recipe, int, int], Target]] = {
    "ladder": _ladder,
    "spa": _spa,
    "classifier": _classifier,
}
"""Builders from a recipe, the number of taps K and the backbone's width H."""
