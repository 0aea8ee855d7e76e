"""
What the server of a federation and its devices say to each other in one round. No engine, no sockets.

The shared weights, all of a kit's or those that it names, go down and an update comes up, both in binary16 by name.
An update is what local training added to the weights that came: adding it to the exact weights on the
server loses less than sending rounded weights back would.

A sparse update holds a share of its numbers, the largest in magnitude, in two arrays: ``values``,
binary16 (N,), and ``gaps``, uint16 (N,): how many weights lie between each and the one before, or the
first weight of all. Weights are counted through all arrays in the order of their names. A gap longer than
65,535 is broken by a number that would not have been sent.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protocol.errors import MalformedMessage
from protocol.fields import Fields

Floats = NDArray[np.float32]
Shapes = Mapping[str, tuple[int, ...]]
Sparse = Mapping[str, NDArray[np.generic]]
Scalar = str | int | float | bool

_FARTHEST = 2**16
"""Most places from one number of a sparse update to the next."""

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
        kept: Share of an update's numbers that is sent, above 0 to 1; 0: all of them, densely.
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
    kept: float = 0.0

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
            "kept": self.kept,
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
            kept=read.number("kept", 0.0, 1.0),
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


def sparse(arrays: Mapping[str, Floats], kept: float) -> Sparse:
    """
    The largest numbers of an update, a share ``kept`` of them, and where they are.

    Raises:
        MalformedMessage: A number is not finite, or too large for binary16.

    """
    halves = packed(arrays)
    flat = np.concatenate([halves[name].ravel() for name in sorted(halves)])
    count = _most(len(flat), kept)
    chosen = np.sort(np.argpartition(np.abs(flat), len(flat) - count)[len(flat) - count :])
    places = _bridged(chosen)
    gaps = np.diff(places, prepend=-1) - 1
    return {"gaps": gaps.astype(np.uint16), "values": flat[places]}


def whole(found: Mapping[str, NDArray[Any]], shapes: Shapes, kept: float) -> dict[str, Floats]:
    """
    A sparse update as arrays, zeros where nothing was sent.

    Raises:
        MalformedMessage: It is none, or not of this kit, or holds more than ``kept`` asks for, or numbers
            that are not finite.

    """
    if found.keys() != {"gaps", "values"}:
        raise MalformedMessage(reason="the update is not sparse, as the round asks for")
    gaps, values = found["gaps"], found["values"]
    if gaps.dtype != np.uint16 or values.dtype != np.float16 or gaps.ndim != 1:
        raise MalformedMessage(reason="gaps or values have another type than a sparse update's")
    total = sum(math.prod(shape) for shape in shapes.values())
    if gaps.shape != values.shape or not 0 < len(gaps) <= _most(total, kept) + total // _FARTHEST:
        raise MalformedMessage(reason=f"an update of {len(gaps)} gaps, {len(values)} values")
    _require_finite({"values": values})
    places = np.cumsum(gaps.astype(np.int64) + 1) - 1
    if places[-1] >= total:
        raise MalformedMessage(reason="the gaps lead beyond the kit's weights")
    flat = np.zeros(total, np.float32)
    flat[places] = values
    names = sorted(shapes)
    ends = np.cumsum([math.prod(shapes[name]) for name in names])
    parts = dict(zip(names, np.split(flat, ends[:-1]), strict=True))
    return {name: parts[name].reshape(shape) for name, shape in shapes.items()}


def _most(total: int, kept: float) -> int:
    return max(1, min(total, math.ceil(total * kept)))


def _bridged(places: NDArray[np.int64]) -> NDArray[np.int64]:
    """Ascending places, with others between those that are too far apart for a gap."""
    starts = np.concatenate([[-1], places[:-1]])
    far = np.flatnonzero(places - starts > _FARTHEST)
    more = [np.arange(starts[at] + _FARTHEST, places[at], _FARTHEST) for at in far]
    return np.sort(np.concatenate([places, *more]))


def _require_finite(arrays: Mapping[str, NDArray[Any]]) -> None:
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise MalformedMessage(reason=f"array {name} holds numbers that are not finite")
