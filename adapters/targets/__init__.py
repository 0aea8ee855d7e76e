"""What can be trained, by name. To add one: a module and a row."""

from collections.abc import Callable, Mapping

import torch

from adapters.blocks import BlockWeights
from adapters.errors import RecipeRefused
from adapters.recipe import Recipe
from adapters.targets.base import Target
from adapters.targets.classifier import Classifier
from adapters.targets.ladder import Ladder
from adapters.targets.spa import Spa
from adapters.targets.sparse_ladder import SparseLadder
from adapters.targets.tail import Tail

Layers = tuple[int, ...]


def _ladder(recipe: Recipe, layers: Layers, hidden: int, blocks: BlockWeights | None) -> Target:
    return Ladder(len(layers), hidden, recipe.width, _generator(recipe))


def _sparse_ladder(
    recipe: Recipe, layers: Layers, hidden: int, blocks: BlockWeights | None
) -> Target:
    return SparseLadder(len(layers), hidden, recipe.width, _generator(recipe))


def _spa(recipe: Recipe, layers: Layers, hidden: int, blocks: BlockWeights | None) -> Target:
    # Released, swapped constructor arguments make the inner MLP as wide as the backbone. How narrow
    # it was meant to be is not said: half the side's width, as bottlenecks of that time have it.
    inner = hidden if recipe.mlp == "expand" else max(1, recipe.width // 2)
    return Spa(len(layers), hidden, recipe.width, inner, _generator(recipe))


def _classifier(recipe: Recipe, layers: Layers, hidden: int, blocks: BlockWeights | None) -> Target:
    return Classifier(hidden, recipe.width, _generator(recipe))


def _tail(recipe: Recipe, layers: Layers, hidden: int, blocks: BlockWeights | None) -> Target:
    if blocks is None:
        raise RecipeRefused("target", "be given the backbone's blocks", recipe.target)
    return Tail(blocks, layers[0], recipe.width, _generator(recipe))


def _generator(recipe: Recipe) -> torch.Generator:
    return torch.Generator().manual_seed(recipe.seed)


TARGETS: Mapping[str, Callable[[Recipe, Layers, int, BlockWeights | None], Target]] = {
    "ladder": _ladder,
    "sparse_ladder": _sparse_ladder,
    "spa": _spa,
    "classifier": _classifier,
    "tail": _tail,
}
"""Builders from a recipe, the tapped layers, the backbone's width H, and its blocks."""
