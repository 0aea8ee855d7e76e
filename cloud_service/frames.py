"""Answers on their way to the wire: small ones at once, large ones beside the server's thread."""

import asyncio

from protocol import versions
from protocol.messages import States

SMALL = 2**15
"""Numbers that are written faster than another thread is woken for them."""


async def frame_of(states: States, codec: str) -> bytes:
    """
    Write an answer as one frame.

    Raises:
        NotFinite: The model overflowed.

    """
    numbers = states.taps.size + (0 if states.final is None else states.final.size)
    if numbers <= SMALL:
        return versions.encode(states, codec)
    return await asyncio.to_thread(versions.encode, states, codec)
