"""
The ladder with a threshold for every neuron: SpaFL (Kim, Saad, Debbah and Hong, NeurIPS 2024, arXiv 2406.00431).

    a neuron's weights w are used where  mean |w| - threshold > 0,  and are zero elsewhere
    loss + SPARSITY sum exp(-threshold)

The gradient passes the step as if it were the identity, so that it reaches thresholds and, through the
mean, weights that are left out; thresholds move by it with momentum, as published. Devices share
thresholds alone. When those that come have moved by ``d``, every weight of a neuron with N inputs moves by
``-d sign(sum w) / N``: that is how one device learns from the others which neurons matter.

What is ours. The published networks have thresholds on every linear layer; here ``down``, ``inner`` and
``outer`` have them, but ``up`` has none: it begins at zero, where everything would be left out. Where a
hundredth of a layer or less would be left, its thresholds are published to begin at zero again; here they count as
zero for as long as that is so. Weights move by the recipe's optimizer.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from adapters.targets.base import zeros
from adapters.targets.ladder import Ladder

SPARSITY = 1e-4
"""Published for their transformer."""

PACE = 10.0
"""At the recipe's rate this is the published one, 0.01."""

LEAST = 0.01
"""Share of a layer's neurons of which more have to be left."""

PRUNED = ("down", "inner", "outer")
"""Matrices (K + 1, N, neurons) with a threshold a neuron, (K + 1, neurons)."""


def _threshold(name: str) -> str:
    return f"{name}_threshold"


class SparseLadder(Ladder):
    """A ladder some of whose neurons are left out; the thresholds are what devices share."""

    shared: ClassVar = tuple(map(_threshold, PRUNED))
    followers: ClassVar = PRUNED
    undecayed = Ladder.undecayed | frozenset(shared)
    plain: ClassVar = dict.fromkeys(shared, PACE)

    def __init__(self, taps: int, hidden: int, width: int, generator: torch.Generator) -> None:
        super().__init__(taps, hidden, width, generator)
        self.down_threshold = zeros(taps + 1, width)
        self.inner_threshold = zeros(taps + 1, 2 * width)
        self.outer_threshold = zeros(taps + 1, width)

    def matrix(self, name: str) -> Tensor:
        """Return a matrix with nothing but zeros for neurons that are left out."""
        weight = super().matrix(name)
        return weight * _left(weight, getattr(self, _threshold(name))).unsqueeze(1)

    def penalty_gradient(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the slope of ``SPARSITY sum exp(-threshold)``."""
        return {name: -SPARSITY * torch.exp(-weights[name]) for name in self.shared}

    def received(
        self, weights: Mapping[str, Tensor], before: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Return the matrices after the thresholds have moved from ``before``."""
        moved = {}
        for name in PRUNED:
            weight, threshold = weights[name], _threshold(name)
            way = (weights[threshold] - before[threshold]).unsqueeze(1)  # (K + 1, 1, neurons)
            moved[name] = weight - way * weight.sum(1, keepdim=True).sign() / weight.shape[1]
        return moved


def _left(weight: Tensor, threshold: Tensor) -> Tensor:
    """Return 1 for neurons that are used and 0 for the others, (K + 1, neurons)."""
    size = weight.abs().mean(1)
    used = (size > threshold).to(weight.dtype)
    enough = (used.mean(1, keepdim=True) > LEAST).to(weight.dtype)
    above = size - enough * threshold
    # The second part is zero, and has the gradient that the step has not.
    return (above > 0).to(weight.dtype) + (above - above.detach())
