"""
The exact gradient with gradient checkpointing (Chen et al., arXiv 1604.06174), a block at a time.

The way up keeps each block's input alone; the way down computes a block again before it goes
through it. One more forward pass buys the activations inside all blocks but one.
"""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

from adapters.losses.base import Batch, Loss
from adapters.rules.base import Weights
from adapters.rules.order import after, known_when
from adapters.targets.base import Target
from adapters.targets.chain import Chain, assemble

Backward = Callable[[Tensor], tuple[dict[str, Tensor], Tensor]]


def recompute(
    target: Target, loss: Loss, weights: Weights, batch: Batch, softcap: float | None, count: Tensor
) -> tuple[Tensor, Weights]:
    """Return the loss, (), and its gradient at every weight."""
    chain = cast(Chain, target)
    blocks = chain.blocks(batch["taps"], batch["final"], batch.get("mask"), None)
    inputs, state = [], chain.entry(batch["taps"], batch["final"])
    for block in blocks:
        inputs.append(state)
        state = block.output(block.own(weights), state)
    value, slope = loss(state, batch, softcap)
    parts: list[Weights] = []
    zero = known_when([slope])
    for block, entered in zip(reversed(blocks), reversed(inputs), strict=True):
        # Both: a block may read taps first, or have no vector among its weights.
        own, entered = after(zero, block.own(weights)), entered + zero
        _, back = cast(tuple[Tensor, Backward], torch.func.vjp(block.output, own, entered))
        part, slope = back(slope)
        parts.append(part)
        # Its weights' gradients too, or a runtime puts them off and keeps what they read.
        zero = known_when([slope, *part.values()])
    return value, assemble(blocks, parts[::-1])
