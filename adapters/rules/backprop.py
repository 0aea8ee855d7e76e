"""The exact gradient, by reverse differentiation of the target alone: the loss brings its own."""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

from adapters.losses.base import Batch, Loss
from adapters.rules.base import Weights
from adapters.targets.base import Target


def backprop(
    target: Target, loss: Loss, weights: Weights, batch: Batch, softcap: float | None, count: Tensor
) -> tuple[Tensor, Weights]:
    """Return the loss, (), and its gradient at every weight."""
    states = (batch["taps"], batch["final"], batch.get("mask"))

    def forward(current: dict[str, Tensor]) -> Tensor:
        state: Tensor = torch.func.functional_call(target, current, states)
        return state

    state, backward = cast(
        tuple[Tensor, Callable[[Tensor], tuple[Weights]]], torch.func.vjp(forward, dict(weights))
    )
    value, slope = loss(state, batch, softcap)
    (gradients,) = backward(slope)
    return value, gradients
