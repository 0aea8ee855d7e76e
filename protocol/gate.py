"""Which tokens need the device: the backbone says the others by itself, and their states stay in the cloud."""

import math
from dataclasses import asdict, dataclass
from functools import cached_property

import numpy as np

from protocol.codecs.base import Array
from protocol.errors import MalformedMessage
from protocol.facts import MOST_HIDDEN
from protocol.fields import Fields

SINCE = 2
"""The minor version that brought gates."""


@dataclass(frozen=True)
class Gate:
    """
    How a session tells them apart.

    Attributes:
        threshold: From 0, where every token needs the device, to 1. A token needs it where its
            ``need`` is no less.
        row: Of a classifier, (H,); None has the need be what the backbone leaves to other tokens
            than its likeliest.
        bias: Of the classifier.
    """

    threshold: float
    row: tuple[float, ...] | None = None
    bias: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise MalformedMessage(reason=f"a threshold is from 0 to 1, but is {self.threshold}")
        if self.row is not None and not self.row:
            raise MalformedMessage(reason="a classifier has a number for each of a state's")

    def opens(self, final: Array | None, likeliest: float) -> bool:
        """Say whether the token behind a row needs the device; arguments as of ``need``."""
        # Written so that a number beyond all measure asks the device.
        return not self.need(final, likeliest) < self.threshold

    def need(self, final: Array | None, likeliest: float) -> float:
        """
        Return how much a token needs the device, 0 to 1.

        Args:
            final: What the head reads, (H,); only looked at by a classifier.
            likeliest: Logarithm of the largest probability that the backbone gives a token.

        """
        if self.row is None:
            return -math.expm1(min(likeliest, 0.0))
        if final is None:
            raise ValueError("a classifier reads the final state")
        score = float(final.astype(np.float64) @ self._row) + self.bias
        # In this order what is no number stays none.
        return 1 / (1 + math.exp(-min(max(score, -700.0), 700.0)))

    @cached_property
    def _row(self) -> Array:
        return np.array(self.row)

    def to_json(self) -> dict[str, object]:
        """Return the fields by name."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: object) -> "Gate":
        """Read what ``to_json`` wrote, or raise ``MalformedMessage``."""
        read = Fields(data, "gate")
        return cls(
            threshold=read.number("threshold", 0.0, 1.0),
            row=read.maybe("row", lambda name: read.float32s(name, MOST_HIDDEN)),
            bias=read.float32("bias"),
        )
