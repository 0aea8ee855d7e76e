"""What a device may send in a round. The server believes none of it before it has looked."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from numpy.typing import NDArray

from protocol.errors import MalformedMessage
from protocol.federation import ARRAYS, EXAMPLES, METRICS, MOST_EXAMPLES, unpacked, whole

Floats = NDArray[np.float32]

FIGURES, LAST_FIGURES = ("loss", "held-out"), ("frozen", "shared")
"""What else a device tells of a round, and of the last weights, where the federation is not private."""

LONGEST_REASON = 200


@dataclass(frozen=True, slots=True)
class Refused:
    """An answer that takes no part in the round."""

    device: int
    reason: str


def screen(
    replies: Iterable[Message], weights: Mapping[str, Floats], private: bool, kept: float = 0.0
) -> tuple[list[Message], list[Refused]]:
    """
    Turn updates into weights, and set apart what is none.

    Args:
        replies: Of one round.
        weights: That the devices were sent, exactly, by name.
        private: Whether every device weighs the same and tells nothing else.
        kept: Share of each update that was asked for; 0 for all of it.

    Returns:
        Messages as Flower's strategies take them, and what was refused.

    """
    good, refused, seen = [], [], set()
    for reply in replies:
        device = reply.metadata.src_node_id
        try:
            if device in seen:
                raise MalformedMessage(reason="it has answered already")
            content = _checked(reply, weights, private, kept)
        except MalformedMessage as error:
            refused.append(Refused(device, str(error)[:LONGEST_REASON]))
            continue
        seen.add(device)
        reply.content = content
        good.append(reply)
    return good, refused


def screen_figures(replies: Iterable[Message], private: bool) -> list[Message]:
    """Of the answers to the last weights, those that tell what was asked for."""
    good = []
    for reply in replies:
        try:
            if reply.has_error() or reply.content.keys() != {METRICS}:
                raise MalformedMessage(reason="no figures")
            record = reply.content[METRICS]
            if not isinstance(record, MetricRecord):
                raise MalformedMessage(reason="no figures")
            _told(record, () if private else LAST_FIGURES, 1 if private else MOST_EXAMPLES)
        except MalformedMessage:
            continue
        good.append(reply)
    return good


def _checked(
    reply: Message, weights: Mapping[str, Floats], private: bool, kept: float
) -> RecordDict:
    if reply.has_error():
        raise MalformedMessage(reason=f"the device gave none: {reply.error.reason}")
    records = reply.content
    if records.keys() != {ARRAYS, METRICS}:
        raise MalformedMessage(reason="it holds other records than asked for")
    arrays, metrics = records[ARRAYS], records[METRICS]
    if not isinstance(arrays, ArrayRecord) or not isinstance(metrics, MetricRecord):
        raise MalformedMessage(reason="it holds other records than asked for")
    told = _told(metrics, () if private else FIGURES, 1 if private else MOST_EXAMPLES)
    shapes = {name: array.shape for name, array in weights.items()}
    found = _read(arrays)
    added = whole(found, shapes, kept) if kept else unpacked(found, shapes)
    if private and not any(one.any() for one in added.values()):
        # Flower divides by an update's norm when it clips.
        raise MalformedMessage(reason="the update changes nothing")
    moved = {name: Array(np.asarray(weights[name] + one)) for name, one in added.items()}
    return RecordDict({ARRAYS: ArrayRecord(moved), METRICS: told})


def _read(arrays: ArrayRecord) -> dict[str, NDArray[Any]]:
    try:
        return {name: array.numpy() for name, array in arrays.items()}
    except (TypeError, ValueError, EOFError, MemoryError) as error:
        raise MalformedMessage(reason=f"an array cannot be read: {error}") from error


def _told(metrics: MetricRecord, names: tuple[str, ...], most: int) -> MetricRecord:
    """The figures of a device, all of them and no others: Flower wants the same of each."""
    if metrics.keys() != {EXAMPLES, *names}:
        raise MalformedMessage(reason="it tells other figures than asked for")
    examples = metrics[EXAMPLES]
    if not isinstance(examples, int) or not 1 <= examples <= most:
        raise MalformedMessage(reason=f"{EXAMPLES} cannot be {examples!r}")
    for name in names:
        value = metrics[name]
        if not isinstance(value, float) or not math.isfinite(value):
            raise MalformedMessage(reason=f"{name} cannot be {value!r}")
    return metrics
