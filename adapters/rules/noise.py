"""
Random numbers that a graph makes again whenever it needs them: a hash of seed and place.

A runtime's own random operators begin where its last run ended, and nobody else can repeat them.
This is arithmetic on whole numbers, the same in torch and in every runtime.
"""

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

PRIME = 2**31 - 1
"""x -> x^5 maps the numbers below it one to one, and squares of them fit into 64 bits."""

_ADDED = (1013904223, 1640531527, 362437069)
"""One a round, without meaning."""

_STRIDE = 69621
"""Keeps the places of neighbouring seeds apart; a primitive root of the prime."""


def hashed(seed: Tensor | int, shape: Sequence[int]) -> Tensor:
    """Return whole numbers from 0 to ``PRIME`` - 1 for a seed, () or a number, int64 ``shape``."""
    mixed = torch.arange(prod(shape), dtype=torch.int64)
    mixed = _mix(mixed + _STRIDE * _mix(torch.as_tensor(seed, dtype=torch.int64) % PRIME))
    return mixed.reshape(tuple(shape))


def signs(seed: Tensor | int, shape: Sequence[int]) -> Tensor:
    """Return plus and minus ones, evenly, float32 ``shape``."""
    return 1.0 - 2.0 * (hashed(seed, shape) > PRIME // 2).float()


def even(seed: Tensor | int, shape: Sequence[int], bound: float) -> Tensor:
    """Return numbers spread evenly from ``-bound`` to ``bound``, float32 ``shape``."""
    return (hashed(seed, shape).float() * (2 / PRIME) - 1.0) * bound


def _mix(numbers: Tensor) -> Tensor:
    for added in _ADDED:
        numbers = (numbers + added) % PRIME
        square = numbers * numbers % PRIME
        numbers = square * square % PRIME * numbers % PRIME
    return numbers
