"""
What the server of a federation and its devices say to each other in one round. No engine, no sockets.

The shared weights go down and an update comes up, both in binary16 by the names of the kit's weights.
An update is what local training added to the weights that came: adding it to the exact weights on the
server loses less than sending rounded weights back would.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protocol.errors import MalformedMessage
from protocol.fields import Fields

Floats = NDArray[np.float32]
Shapes = Mapping[str, tuple[int, ...]]
Scalar = str | int | float | bool

ARRAYS, CONFIG, METRICS = "arrays", "config", "metrics"
"""Names of the records in a message."""

EXAMPLES = "num-examples"
"""Metric that says how much an update weighs: tokens that were learned from."""

MOST_EPOCHS = 100
MOST_ROUNDS = 2**31
MOST_EXAMPLES = 2**31


@dataclass(frozen=True, slots=True)
class Round:
    """
    What a device is asked to do.

    Attributes:
        kit: Id of the kit whose weights are shared.
        fingerprint: Of the backbone that it was compiled for.
        number: Of the round, counted from 1.
        rounds: How many there are.
        rate: Peak learning rate.
        epochs: Times the device reads its texts.
        private: Whether every device weighs the same and tells no figures but that.
        last: Whether these are the weights that the federation ends with; nothing is trained then.
        seed: Of the order in which devices read their texts.
        proximal: How strongly local training is pulled back to the weights that came, FedProx's mu.
    """

    kit: str
    fingerprint: str
    number: int
    rounds: int
    rate: float
    epochs: int
    private: bool
    last: bool
    seed: int = 0
    proximal: float = 0.0

    def to_config(self) -> dict[str, Scalar]:
        """As the message carries it; the server's engine adds the number and the proximal weight itself."""
        return {
            "kit": self.kit,
            "fingerprint": self.fingerprint,
            "server-round": self.number,
            "rounds": self.rounds,
            "rate": self.rate,
            "epochs": self.epochs,
            "private": self.private,
            "last": self.last,
            "seed": self.seed,
            "proximal-mu": self.proximal,
        }

    @classmethod
    def from_config(cls, data: object) -> "Round":
        """Read what ``to_config`` wrote, or raise ``MalformedMessage``."""
        read = Fields(data, "round")
        return cls(
            kit=read.file_name("kit"),
            fingerprint=read.label("fingerprint"),
            number=read.integer("server-round", 1, MOST_ROUNDS),
            rounds=read.integer("rounds", 1, MOST_ROUNDS),
            rate=read.positive("rate"),
            epochs=read.integer("epochs", 1, MOST_EPOCHS),
            private=read.flag("private"),
            last=read.flag("last"),
            seed=read.integer("seed"),
            proximal=read.number("proximal-mu", 0.0, 1e6),
        )


def packed(arrays: Mapping[str, Floats]) -> dict[str, NDArray[np.float16]]:
    """
    The arrays in binary16.

    Raises:
        MalformedMessage: A number is not finite, or too large for it.

    """
    with np.errstate(over="ignore"):
        halves = {name: np.asarray(array, np.float16) for name, array in arrays.items()}
    _require_finite(halves)
    return halves


def unpacked(found: Mapping[str, NDArray[Any]], shapes: Shapes) -> dict[str, Floats]:
    """
    The arrays that came, by name in the order of ``shapes``.

    Raises:
        MalformedMessage: They are not the kit's, are not in binary16, or are not finite.

    """
    if found.keys() != shapes.keys():
        raise MalformedMessage(reason="the arrays are not those of the kit")
    for name, shape in shapes.items():
        if found[name].dtype != np.float16 or found[name].shape != shape:
            raise MalformedMessage(reason=f"array {name} has another shape or type than the kit's")
    _require_finite(found)
    return {name: np.asarray(found[name], np.float32) for name in shapes}


def _require_finite(arrays: Mapping[str, NDArray[Any]]) -> None:
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise MalformedMessage(reason=f"array {name} holds numbers that are not finite")
