"""What every target is: a side network from the backbone's states to the state that the head reads."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from adapters.ports import Axis


class Target(nn.Module, ABC):
    """
    A side network whose weights are the ones that train.

    Weights of equal shape are stacked along a first axis, one slice a tap: one batched product
    reads all taps at once, and the optimizer meets a dozen tensors instead of a hundred.
    """

    undecayed: frozenset[str]
    """Names of the weights that weight decay leaves alone: gates, norm scales, biases."""

    mask: tuple[int, int]
    """(M, R): what a dropout mask (M, T, R) multiplies, M places of width R."""

    reads: ClassVar[Mapping[str, tuple[Axis, ...]]] = {}
    """Further inputs of its graphs, float32, and their axes."""

    frozen: Mapping[str, Tensor] = {}
    """Weights that its graphs hold and that never move, by name."""

    cache: tuple[int, ...] = ()
    """What the device keeps of each token for those that follow: the shape of one token's; () for nothing."""

    plain: ClassVar[Mapping[str, float]] = {}
    """Weights that move by their gradient with momentum, as torch's SGD, and at how many times the rate."""

    shared: ClassVar[tuple[str, ...]] = ()
    """What a federation moves, where it is not all: the rest stays with each device."""

    followers: ClassVar[tuple[str, ...]] = ()
    """Those of the rest that move when the ``shared`` ones have come anew."""

    @abstractmethod
    def forward(self, taps: Tensor, final: Tensor, mask: Tensor | None) -> Tensor:
        """
        Return the state that the head reads, (T, H).

        Args:
            taps: The backbone's states after the recipe's layers, (K, T, H).
            final: The state that the head would read without a plugin, (T, H).
            mask: Dropout, 0 or 1/(1-p), (M, T, R); None leaves nothing out.

        """

    def infer(self, taps: Tensor, final: Tensor) -> tuple[Tensor, ...]:
        """Return the state that the head reads, and behind it what is kept of the tokens, if anything."""
        return (self(taps, final, None),)

    def penalty_gradient(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the gradient of what is added to the loss, of the weights that it reaches."""
        return {}

    def received(
        self, weights: Mapping[str, Tensor], before: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Return the ``followers`` anew: ``weights`` are these and the ``shared`` ones, ``before`` the last of those."""
        return {}

    def bound(self, inputs: Mapping[str, Tensor]) -> Self:
        """Return the target over its ``reads``, its frozen weights, and ``past`` where it infers."""
        return self


def uniform(shape: tuple[int, ...], fan_in: int, generator: torch.Generator) -> nn.Parameter:
    """Return weights drawn evenly from -1/sqrt(fan_in) to 1/sqrt(fan_in)."""
    bound = 1 / math.sqrt(fan_in)
    return nn.Parameter((2 * torch.rand(shape, generator=generator) - 1) * bound)


def zeros(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(shape))


def ones(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.ones(shape))
