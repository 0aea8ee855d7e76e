"""Answers on their way to the wire: small ones at once, large ones beside the server's thread."""

import asyncio

from protocol import versions
from protocol.basis import Basis
from protocol.messages import States, Wants

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


def _written(states: States, wants: Wants, basis: Basis | None) -> bytes:
    if basis is None or wants.encoding is None:
        return versions.encode(states, wants.codec)
    return versions.encode(basis.written(states, wants.encoding.widths), wants.encoding)
