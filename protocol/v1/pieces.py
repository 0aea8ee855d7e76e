"""The pieces that frame bodies of version 1 are made of, each checked as it is read."""

import struct
from typing import NamedTuple

import numpy as np

from protocol.codecs.base import Array, aligned, require_finite
from protocol.errors import LimitExceeded, MalformedMessage, TensorMismatch
from protocol.limits import Limits
from protocol.messages import Candidates, Ids, no_tokens

COUNT = struct.Struct("<I")
LOG_Z, CANDIDATES = 2, 4
"""Bits of the parts that may stand beside the states."""


class Beside(NamedTuple):
    """What stands beside the states."""

    log_z: Array | None
    candidates: Candidates | None
    drafted: Ids
    spoken: Ids


def beside_bytes(
    log_z: Array | None, candidates: Candidates | None, drafted: Ids, spoken: Ids
) -> tuple[int, int, list[bytes]]:
    """Return the bits of the parts, the candidates a row, and the bytes."""
    flags, count, parts = 0, 0, list[bytes]()
    if log_z is not None:
        flags |= LOG_Z
        parts.append(float_bytes(log_z, "log_z"))
    if candidates is not None:
        flags |= CANDIDATES
        count = candidates.ids.shape[1]
        parts.append(id_bytes(candidates.ids))
        parts.append(float_bytes(candidates.logits, "candidate logits"))
    for tokens in (drafted, spoken):
        if len(tokens):
            parts += [COUNT.pack(len(tokens)), id_bytes(tokens)]
    return flags, count, parts


def read_beside(
    body: memoryview,
    start: int,
    tokens: int,
    flags: int,
    count: int,
    follows: tuple[bool, bool],
    limits: Limits,
) -> Beside:
    """
    Read from ``start`` to the end of the body, which must be the end of what is said.

    ``follows`` says whether drafted tokens are there, and whether spoken ones are.
    """
    sizes = (4 * tokens if flags & LOG_Z else 0, 4 * tokens * count, 4 * tokens * count)
    end = start + sum(sizes)
    lists = []
    for there in follows:
        found = no_tokens()
        if there:
            long_enough(body, end + COUNT.size)
            first = end + COUNT.size
            end = first + 4 * read_count(body, end, limits)
            long_enough(body, end)
            found = ids_of(body[first:end])
        lists.append(found)
    exactly(body, end)
    log_z, ids, logits = cut(body[start:], sizes)
    return Beside(
        floats(log_z, "log_z") if flags & LOG_Z else None,
        _candidates(ids, logits, (tokens, count)) if count else None,
        *lists,
    )


def read_count(body: memoryview, offset: int, limits: Limits) -> int:
    """Read how many tokens the cloud computes by itself; where the bit is set, it is one at least."""
    (count,) = COUNT.unpack_from(body, offset)
    limited("drafts", count, limits.drafts)
    if not count:
        raise MalformedMessage(reason="the frame says that the cloud goes on, and by no token")
    return int(count)


def cut(body: memoryview, sizes: tuple[int, ...]) -> list[memoryview]:
    """Cut ``body`` into consecutive pieces of the given sizes."""
    pieces, start = [], 0
    for size in sizes:
        pieces.append(body[start : start + size])
        start += size
    return pieces


def _candidates(ids: memoryview, logits: memoryview, shape: tuple[int, int]) -> Candidates:
    return Candidates(ids_of(ids).reshape(shape), floats(logits, "candidate logits").reshape(shape))


def ids_of(data: memoryview) -> Ids:
    ids: Ids = np.frombuffer(data, "<u4").astype(np.uint32, copy=False)
    return ids if ids.flags.aligned else ids.copy()


def floats(data: memoryview, part: str) -> Array:
    array = aligned(np.frombuffer(data, "<f4").astype(np.float32, copy=False))
    require_finite(array, part)
    return array


def limited(part: str, size: int, limit: int) -> None:
    if size > limit:
        raise LimitExceeded(part=part, size=size, limit=limit)


def long_enough(body: memoryview, size: int) -> None:
    if len(body) < size:
        raise TensorMismatch(
            part="body", expected=f"{size} bytes or more", got=f"{len(body)} bytes"
        )


def exactly(body: memoryview, size: int) -> None:
    if len(body) != size:
        raise TensorMismatch(part="body", expected=f"{size} bytes", got=f"{len(body)} bytes")


def id_bytes(ids: Ids) -> bytes:
    return ids.astype("<u4", copy=False).tobytes()


def float_bytes(array: Array, part: str) -> bytes:
    require_finite(array, part)
    return array.astype("<f4", copy=False).tobytes()
