"""
The body of COORDINATES, since minor version 1:

    offset  size  field
         0     4  position
         4     4  T, number of rows
         8     2  C, candidates at a row
        10     1  parts: 2 log Z, 4 candidates
        11     1  sections of the final state
        12     1  sections of the taps
        13     3  zero
        16   4*S  for each section: width (2), codec number (1), zero (1)
                  for each section: its coordinates (T, width) in its codec
                  log Z, candidates, drafted and spoken tokens as in STATES
"""

import struct
from collections.abc import Sequence

import numpy as np

from protocol.codecs import codec_named, codec_numbered
from protocol.codecs.base import Array
from protocol.encoding import MOST_SECTIONS, MOST_WIDTH, Encoding, Section, Sections, width_of
from protocol.errors import MalformedMessage, TensorMismatch
from protocol.limits import Limits
from protocol.messages import Coordinates
from protocol.v1.pieces import (
    CANDIDATES,
    LOG_Z,
    beside_bytes,
    cut,
    limited,
    long_enough,
    read_beside,
)

_FIXED = struct.Struct("<IIHBBB3s")
_SECTION = struct.Struct("<HBB")
_ZEROS = b"\0\0\0"


def whole_encoding(message: Coordinates, codec: str) -> Encoding:
    """Return the encoding in which every coordinate travels in one codec."""
    final, taps = (
        (Section(codec, part.shape[1]),) if part.shape[1] else ()
        for part in (message.final, message.taps)
    )
    return Encoding(final, taps)


def coordinates_parts(message: Coordinates, encoding: Encoding) -> list[bytes]:
    """
    Return the body in pieces.

    Raises:
        TensorMismatch: The encoding is of another width than the coordinates.
        NotFinite: A number is a NaN or an infinity.

    """
    pieces, tensors = [], []
    for part, array, sections in (
        ("final", message.final, encoding.final),
        ("taps", message.taps, encoding.taps),
    ):
        if width_of(sections) != array.shape[1]:
            expected, got = f"{width_of(sections)} coordinates", str(array.shape[1])
            raise TensorMismatch(part=part, expected=expected, got=got)
        start = 0
        for section in sections:
            codec, stop = codec_named(section.codec), start + section.width
            pieces.append(_SECTION.pack(section.width, codec.number, 0))
            tensors.append(codec.encode(array[:, start:stop], part))
            start = stop
    flags, count, beside = beside_bytes(
        message.log_z, message.candidates, message.drafted, message.spoken
    )
    counts = (len(encoding.final), len(encoding.taps))
    fixed = _FIXED.pack(message.position, len(message.final), count, flags, *counts, _ZEROS)
    return [fixed, *pieces, *tensors, *beside]


def read_coordinates(body: memoryview, follows: tuple[bool, bool], limits: Limits) -> Coordinates:
    """Read the body, or raise ``ProtocolError``; ``follows`` as ``read_beside`` has it."""
    long_enough(body, _FIXED.size)
    position, tokens, count, parts, final, taps, zeros = _FIXED.unpack_from(body)
    limited("tokens", tokens, limits.tokens)
    limited("candidates", count, limits.candidates)
    if parts & ~(LOG_Z | CANDIDATES) or zeros != _ZEROS or bool(parts & CANDIDATES) != bool(count):
        raise MalformedMessage(reason=f"parts {parts:#x} with {count} candidates, {zeros.hex()}")
    for sections in (final, taps):
        limited("sections", sections, MOST_SECTIONS)
    start = _FIXED.size + (final + taps) * _SECTION.size
    long_enough(body, start)
    every = [_read_section(body, _FIXED.size + n * _SECTION.size) for n in range(final + taps)]
    for some in (every[:final], every[final:]):
        limited("coordinates", width_of(some), min(MOST_WIDTH, limits.hidden))
    sizes = tuple(codec_named(one.codec).size((tokens, one.width)) for one in every)
    beside = read_beside(body, start + sum(sizes), tokens, parts, count, follows, limits)
    pieces = cut(body[start:], sizes)
    return Coordinates(
        position,
        _joined(pieces[:final], tuple(every[:final]), tokens, "final"),
        _joined(pieces[final:], tuple(every[final:]), tokens, "taps"),
        *beside,
    )


def _read_section(body: memoryview, offset: int) -> Section:
    width, number, zero = _SECTION.unpack_from(body, offset)
    if zero:
        raise MalformedMessage(reason=f"a section ends with {zero:#x}")
    return Section(codec_numbered(number).name, width)


def _joined(pieces: Sequence[memoryview], sections: Sections, tokens: int, part: str) -> Array:
    """Read neighbouring sections into one tensor."""
    found = np.empty((tokens, width_of(sections)), np.float32)
    start = 0
    for piece, section in zip(pieces, sections, strict=True):
        stop = start + section.width
        shape = (tokens, section.width)
        found[:, start:stop] = codec_named(section.codec).decode(piece, shape, part)
        start = stop
    return found
