"""What makes two of the backbone's states comparable: a public frame, made of nobody's own text."""

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
    def of(cls, states: Floats) -> "Basis":
        """The principal directions of some states (N, H), each channel scaled to a deviation of one.

        A few channels of a state are a hundred times as large as the rest and say little.
        """
        shift = states.mean(axis=0, dtype=np.float64)
        spread = states.std(axis=0, dtype=np.float64)
        inverse = np.divide(1, spread, out=np.zeros_like(spread), where=spread > 0)
        _, sizes, axes = np.linalg.svd((states - shift) * inverse, full_matrices=False)
        # What rounding alone makes differ is no direction.
        kept = int(np.count_nonzero(sizes[:WIDTH] > max(1e-6 * sizes[0], 1e-12)))
        weights = (sizes[:kept] / sizes[0]) ** -WHITENING
        directions = inverse[:, None] * axes[:kept].T * weights
        return cls(shift.astype(np.float32), directions.astype(np.float32))

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
