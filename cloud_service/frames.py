"""Answers on their way to the wire: small ones at once, large ones beside the server's thread."""

import asyncio

import numpy as np

from protocol import versions
from protocol.basis import Basis
from protocol.codecs import codec_named
from protocol.messages import Floats, States, Wants

SMALL = 2**15
"""Numbers that are written faster than another thread is woken for them."""


async def frame_of(states: States, wants: Wants, basis: Basis | None) -> bytes:
    """
    Write an answer as one frame, in the basis that is wanted, if one is.

    Raises:
        NotFinite: The model overflowed.

    """
    numbers = states.taps.size + (0 if states.final is None else states.final.size)
    if numbers <= SMALL:
        return _written(states, wants, basis)
    return await asyncio.to_thread(_written, states, wants, basis)


def arrived(final: Floats, wants: Wants, basis: Basis | None) -> Floats:
    """
    Return final states (T, H) as they are where such an answer is read.

    Raises:
        NotFinite: The model overflowed.

    """
    if basis is None or wants.encoding is None:
        return _carried(final, wants.codec)
    sections, start = [], 0
    coordinates = basis.final.coordinates(final, wants.encoding.widths[0])
    for section in wants.encoding.final:
        part = coordinates[:, start : start + section.width]
        sections.append(_carried(np.ascontiguousarray(part), section.codec))
        start += section.width
    return basis.final.states(np.concatenate(sections, axis=1)) if sections else final


def _carried(array: Floats, codec: str) -> Floats:
    carrier = codec_named(codec)
    return carrier.decode(carrier.encode(array), array.shape)


def _written(states: States, wants: Wants, basis: Basis | None) -> bytes:
    if basis is None or wants.encoding is None:
        return versions.encode(states, wants.codec)
    return versions.encode(basis.written(states, wants.encoding.widths), wants.encoding)
