"""Where a training run begins when it is not at the kit's own weights, and how it is held there."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Named = Mapping[str, NDArray[np.float32]]

FLOOR = 0.1
"""Share of the peak rate at which the cosine inside every compiled step ends."""


@dataclass(frozen=True, slots=True)
class Start:
    """Refused by nobody: whoever makes it has checked names and shapes against the kit."""

    weights: Named
    rival: bool
    """Whether they stay when training finds none that foresee the held-out rows better."""
    proximal: float = 0.0
    """How strongly every step is pulled back to them, FedProx's mu; 0 for not at all."""

    def pull(self, weights: Named, rate: float) -> None:
        """Move ``weights`` towards these, in place, after a step at ``rate``.

        FedProx (arXiv 1812.06127) adds ``mu/2 |w - w0|^2`` to the loss. As AdamW does with weight decay,
        the term stays out of the moments: its own step is solved exactly, ``(w + a w0) / (1 + a)`` with
        ``a = rate mu``.
        """
        part = rate * self.proximal / (1 + rate * self.proximal)
        for name, array in weights.items():
            array += np.float32(part) * (self.weights[name] - array)


def rate_at(count: int, rate: float, total: int, warmup: float) -> float:
    """The learning rate of step ``count``, from 1: rising in a line, then half a cosine down to FLOOR.

    Args:
        count: The step.
        rate: The peak.
        total: Steps planned.
        warmup: Steps in which it rises.
    """
    rising = min(count / max(warmup, 1.0), 1.0)
    done = min(max((count - warmup) / max(total - warmup, 1.0), 0.0), 1.0)
    cosine = FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * done))
    return rate * min(rising, cosine)
