"""
Learning with forward passes alone: PEPITA (Dellaferrera and Kreiman, ICML 2022) and MEMPEPITA.

    pass 1     h_l of the input, error e = p - onehot
    pass 2     h'_l of the input + e F, with the same dropout
    gradient   (h_l - h'_l) of each stage's output, at its input of pass 2, mean over tokens
               the last stage's output has the loss's own slope of pass 2 instead

PEPITA keeps every h_l until pass 2. MEMPEPITA keeps none: a third pass beside the second computes
each h_l again, and a stage's h and h' are forgotten together. The results are the same.

What is ours. A stage is what a target hands out: for a linear layer the gradient is the published
``(h - h')ᵀ h'_in``, and for gates and norm scales it is formed in the same way. The error of a
language model has the vocabulary's width, and so would F: here F is the head's rows times a fixed
random matrix of width H, so that ``e F`` is the loss's slope at the state times that matrix. The
directions go to the recipe's optimizer, where the publications have plain momentum.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from adapters.losses.base import Batch, Loss
from adapters.rules.base import Weights
from adapters.rules.noise import even
from adapters.rules.order import after, known_when
from adapters.targets.base import Target
from adapters.targets.chain import Block, Chain, Stage, Stages, assemble

FEEDBACK_SEED = 7919
"""Of the fixed random matrix: every kit has the same one."""

Backward = Callable[[Tensor], tuple[dict[str, Tensor]]]


def feedback(inputs: int, outputs: int, modulation: float) -> Tensor:
    """Return the fixed random matrix F, entries within ±sqrt(6 / outputs) * ``modulation``."""
    return even(FEEDBACK_SEED, (inputs, outputs), (6 / outputs) ** 0.5 * modulation)


@dataclass(frozen=True, slots=True)
class Pepita:
    """The rule, for both of its schedules."""

    modulation: float
    """Size of F's entries, in units of sqrt(6 / H)."""

    forgets: bool
    """Whether pass 1 is computed again instead of kept: MEMPEPITA."""

    def __call__(
        self,
        target: Target,
        loss: Loss,
        weights: Weights,
        batch: Batch,
        softcap: float | None,
        count: Tensor,
    ) -> tuple[Tensor, Weights]:
        """Return the loss, (), and every weight's direction."""
        chain, final = cast(Chain, target), batch["final"]
        states = (batch["taps"], final, batch.get("mask"))
        tokens = batch["scored"].sum().clamp(min=torch.finfo(final.dtype).tiny)
        plain = chain.blocks(*states, None)
        state, kept = _first_pass(plain, weights, final)
        value, slope = loss(state, batch, softcap)
        # The loss is a mean: times the tokens, its slope is every token's own error.
        width = final.shape[1]
        moved = torch.mm(slope * tokens, feedback(width, width, self.modulation))
        passes = _Passes(tokens, None if self.forgets else kept)
        parts, last = [], None
        state = again = final
        zero = known_when([moved])
        for block, other in zip(plain, chain.blocks(*states, moved), strict=True):
            own = block.own(weights)
            own = after(zero, own) if self.forgets else own
            part, last, again, state = passes.through(block, other, own, again, state)
            parts.append(part)
            zero = known_when(part.values())
        assert last is not None  # a chain has a block, and a block a stage
        _, slope = loss(state, batch, softcap)
        parts[-1] |= last(slope)[0]
        return value, assemble(plain, parts)


def _first_pass(
    blocks: Sequence[Block], weights: Weights, state: Tensor
) -> tuple[Tensor, list[Tensor]]:
    """Return the last state and every stage's output."""
    kept: list[Tensor] = []
    for block in blocks:
        own = block.own(weights)
        stages = block.run(own, state)
        stage = next(stages)
        while True:
            kept.append(stage.compute(own, stage.input))
            following = _following(stages, kept[-1])
            if isinstance(following, Tensor):
                state = following
                break
            stage = following
    return state, kept


class _Passes:
    """Pass 2, and beside it pass 1: read from what was kept, or computed again."""

    def __init__(self, tokens: Tensor, kept: list[Tensor] | None) -> None:
        self._tokens = tokens
        self._kept = None if kept is None else iter(kept)

    def through(
        self, plain: Block, modulated: Block, own: Weights, again: Tensor, state: Tensor
    ) -> tuple[dict[str, Tensor], Backward, Tensor, Tensor]:
        """
        Go through one block.

        Returns:
            The directions of its weights, the way back through its last stage, and the states
            behind it: of pass 1 (only where it is computed again), of pass 2.

        """
        part: dict[str, Tensor] = {}
        first, second = plain.run(own, again), modulated.run(own, state)
        near, far = next(first), next(second)
        while True:
            taken = {name: own[name] for name in far.names}
            there, back = _with_backward(far, taken)
            here = near.compute(own, near.input) if self._kept is None else next(self._kept)
            part |= back((here - there) / self._tokens)[0]
            following, ahead = _following(first, here), _following(second, there)
            if isinstance(ahead, Tensor) or isinstance(following, Tensor):
                return part, back, cast(Tensor, following), cast(Tensor, ahead)
            near, far = following, ahead


def _with_backward(stage: Stage, taken: Weights) -> tuple[Tensor, Backward]:
    return cast(
        tuple[Tensor, Backward],
        torch.func.vjp(lambda own: stage.compute(own, stage.input), dict(taken)),
    )


def _following(stages: Stages, output: Tensor) -> Stage | Tensor:
    """Return the stage after ``output``, or what the block returns at its end."""
    try:
        return stages.send(output)
    except StopIteration as end:
        state: Tensor = end.value
        return state
