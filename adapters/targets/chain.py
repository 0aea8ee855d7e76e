"""
A target as a chain of blocks, for rules that do not look at the network as a whole.

A block turns one state into the next. Inside, it is a run of stages: the operations that have
weights. It hands each stage out and is given the result, so that a rule decides how a stage is
computed, and two passes can go through one block side by side.
"""

from abc import abstractmethod
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from adapters.targets.base import Target

Weights = Mapping[str, Tensor]
"""Weights, or as many tensors of their shapes, by the target's names for them."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One operation with weights."""

    names: tuple[str, ...]
    """The weights it reads, by their names."""

    compute: Callable[[Weights, Tensor], Tensor]
    """From its weights and its input to its output."""

    input: Tensor


Stages = Generator[Stage, Tensor, Tensor]
"""Gives stages, takes their outputs, returns the block's output."""


@dataclass(frozen=True, slots=True)
class Block:
    """One link of the chain."""

    places: Mapping[str, int | None]
    """Its weights: the slice that is the block's of those that are stacked, None for a whole one."""

    run: Callable[[Weights, Tensor], Stages]
    """From the block's own weights and its input to its stages."""

    def own(self, weights: Weights) -> dict[str, Tensor]:
        """Return the block's part of the target's weights."""
        return {
            name: weights[name] if place is None else weights[name][place]
            for name, place in self.places.items()
        }

    def output(self, own: Weights, state: Tensor) -> Tensor:
        """Return what the block makes of ``state``."""
        stages = self.run(own, state)
        stage = next(stages)
        while True:
            try:
                stage = stages.send(stage.compute(own, stage.input))
            except StopIteration as end:
                output: Tensor = end.value
                return output


class Chain(Target):
    """A target that can be taken apart."""

    def entry(self, taps: Tensor, final: Tensor) -> Tensor:
        """Return what the first block takes, (T, H)."""
        return final

    @abstractmethod
    def blocks(
        self, taps: Tensor, final: Tensor, mask: Tensor | None, modulation: Tensor | None
    ) -> Sequence[Block]:
        """
        Return the chain for one batch: the first block takes ``entry``, the last gives the state.

        Args:
            taps: As ``forward`` takes them, (K, T, H).
            final: The same, (T, H).
            mask: The same, (M, T, R), or None.
            modulation: Added to what the network's first weights read, (T, H); None adds nothing.

        """


def state_of(blocks: Sequence[Block], weights: Weights, state: Tensor) -> Tensor:
    """Return what the chain makes of its input (T, H)."""
    for block in blocks:
        state = block.output(block.own(weights), state)
    return state


def assemble(blocks: Sequence[Block], parts: Sequence[Weights]) -> dict[str, Tensor]:
    """Return tensors of the target's shapes from the blocks' own parts."""
    whole: dict[str, Tensor] = {}
    stacks: dict[str, dict[int, Tensor]] = {}
    for block, part in zip(blocks, parts, strict=True):
        for name, place in block.places.items():
            if place is None:
                whole[name] = part[name]
            else:
                stacks.setdefault(name, {})[place] = part[name]
    for name, slices in stacks.items():
        whole[name] = torch.stack([slices[place] for place in sorted(slices)])
    return whole
