"""
Says when something may be computed, in a graph that a runtime orders as it likes.

A runtime sees that two products are the same and computes them once, and it may put off a gradient
until the end. Both keep activations that a rule meant to forget. What follows waits, because it
reads a number that comes from what it has to wait for.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from adapters.targets.chain import Weights


def known_when(done: Iterable[Tensor]) -> Tensor:
    """Return a zero, (), that is known when every tensor of ``done`` is."""
    # No runtime may leave out a product with zero: it would not be zero for a NaN.
    return 0.0 * torch.stack([tensor.reshape(-1)[0] for tensor in done]).sum()


def after(zero: Tensor, weights: Weights) -> dict[str, Tensor]:
    """Return the same weights; those that are vectors wait for ``zero``."""
    return {
        name: weight + zero if weight.dim() <= 1 else weight for name, weight in weights.items()
    }
