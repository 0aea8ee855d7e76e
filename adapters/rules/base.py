"""What every rule is: a way from a batch to the directions in which the weights move."""

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor

from adapters.losses.base import Batch, Loss
from adapters.targets.base import Target

Weights = Mapping[str, Tensor]
"""Weights, or as many tensors of their shapes, by the target's names for them."""


class Rule(Protocol):
    def __call__(
        self,
        target: Target,
        loss: Loss,
        weights: Weights,
        batch: Batch,
        softcap: float | None,
        count: Tensor,
    ) -> tuple[Tensor, Weights]:
        """
        Return the loss, (), and for every weight what the optimizer takes as its gradient.

        ``count`` is the number of the step, (): rules that draw something draw it from there.
        """
        ...
