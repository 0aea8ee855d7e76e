"""What makes two of the backbone's states comparable: a public frame, made of nobody's own text."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

WIDTH = 256
"""Numbers of a key. On one person's addresses 128, 256 and all 576 brought 0.040, 0.044 and 0.045 nats."""

WHITENING = 0.25
"""How far strong directions are evened out: 0 leaves them, 0.5 makes all alike."""

SCALE = 127
"""Codes of a key as long as this are one."""

Floats = NDArray[np.float32]
Codes = NDArray[np.int8]


@dataclass(frozen=True, slots=True)
class Basis:
    """A few directions in which states differ, around the usual state."""

    shift: Floats
    """The mean state, (H,)."""

    directions: Floats
    """(H, D)"""

    @classmethod
    def of(cls, blocks: Iterable[Floats]) -> "Basis":
        """The principal directions of some states, each channel scaled to a deviation of one.

        A few channels of a state are a hundred times as large as the rest and say little. The states are
        only summed up: all of them together, in double precision, would be most of this process.

        Args:
            blocks: The states (n, H), some at a time.
        """
        first: NDArray[np.float64] | None = None
        total, sums, products = 0, np.zeros(1), np.zeros((1, 1))
        for block in blocks:
            # Around the first state, so that a channel that never changes sums to nothing at all.
            first = block[0].astype(np.float64) if first is None else first
            apart = block - first  # (n, H)
            total, sums = total + len(block), sums + apart.sum(axis=0)
            products = products + apart.T @ apart
        if first is None:
            raise ValueError("a basis needs states")
        centre = sums / total  # (H,)
        products -= np.outer(sums, centre)  # (H, H)
        spread = np.sqrt(products.diagonal().clip(0) / total)
        inverse = np.divide(1, spread, out=np.zeros_like(spread), where=spread > 0)
        products *= inverse[:, None] * inverse
        squares, axes = np.linalg.eigh(products)  # ascending
        sizes, axes = np.sqrt(squares[::-1].clip(0)), axes[:, ::-1]
        # What rounding alone makes differ is no direction.
        kept = int(np.count_nonzero(sizes[:WIDTH] > max(1e-6 * sizes[0], 1e-12)))
        weights = (sizes[:kept] / sizes[0]) ** -WHITENING
        directions = inverse[:, None] * axes[:, :kept] * weights
        return cls((first + centre).astype(np.float32), directions.astype(np.float32))

    @property
    def width(self) -> int:
        """D"""
        return int(self.directions.shape[1])

    def keys(self, states: Floats) -> Floats:
        """States (T, H) as unit vectors (T, D); their products are cosines."""
        keys = (states - self.shift) @ self.directions
        lengths = np.sqrt((keys * keys).sum(axis=1, keepdims=True))
        unit: Floats = keys / np.maximum(lengths, np.finfo(np.float32).tiny)
        return unit

    def codes(self, states: Floats) -> Codes:
        """Keys in 8 bits, (T, D): a product with another key is off by some thousandths."""
        return np.rint(self.keys(states) * SCALE).astype(np.int8)
