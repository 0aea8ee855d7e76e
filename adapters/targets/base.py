"""What every target is: a side network from the backbone's states to the state that the head reads."""

import math
from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn


class Target(nn.Module, ABC):
    """
    A side network whose weights are the ones that train.

    Weights of equal shape are stacked along a first axis, one slice a tap: one batched product
    reads all taps at once, and the optimizer meets a dozen tensors instead of a hundred.
    """

    undecayed: ClassVar[frozenset[str]]
    """Names of the weights that weight decay leaves alone: gates, norm scales, biases."""

    mask: tuple[int, int]
    """(M, R): what a dropout mask (M, T, R) multiplies, M places of width R."""

    @abstractmethod
    def forward(self, taps: Tensor, final: Tensor, mask: Tensor | None) -> Tensor:
        """
        Return the state that the head reads, (T, H).

        Args:
            taps: The backbone's states after the recipe's layers, (K, T, H).
            final: The state that the head would read without a plugin, (T, H).
            mask: Dropout, 0 or 1/(1-p), (M, T, R); None leaves nothing out.

        """


def uniform(shape: tuple[int, ...], fan_in: int, generator: torch.Generator) -> nn.Parameter:
    """Return weights drawn evenly from -1/sqrt(fan_in) to 1/sqrt(fan_in)."""
    bound = 1 / math.sqrt(fan_in)
    return nn.Parameter((2 * torch.rand(shape, generator=generator) - 1) * bound)


def zeros(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(shape))


def ones(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.ones(shape))
