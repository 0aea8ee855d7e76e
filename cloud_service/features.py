"""Texts in, a frame of states each out: several ahead of the one that is sent, so that a pass has enough."""

from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence

from cloud_service.backbones.pages import Cache
from cloud_service.frames import frame_of
from cloud_service.reading import Reading, Waiter
from cloud_service.runner import Runner
from protocol.basis import Basis
from protocol.errors import Fault
from protocol.messages import Tokens, Wants

AHEAD_TEXTS = 16
AHEAD_TOKENS = 4096
"""Of one request, so many texts or tokens wait for the model or for the other side to take them."""


async def features(
    runner: Runner,
    waiter: Waiter,
    place: Callable[[], Cache],
    texts: Sequence[Tokens],
    wants: Wants,
    basis: Basis | None = None,
) -> AsyncGenerator[bytes]:
    """
    Yield the frame of each text, in order.

    Args:
        runner: Reads them.
        waiter: Is gone when the generator is closed.
        place: Makes the cache behind which each text is read; it is released in the end.
        texts: At the position of that cache.
        wants: What the answers hold.
        basis: That they are written in, if one is wanted.

    Raises:
        Fault: A text cannot be read now; nothing more comes.

    """
    start = place()
    waiting, ahead = deque(texts), deque[Reading]()
    try:
        while waiting or ahead:
            while waiting and _more(ahead):
                text = waiting.popleft()
                cache = start.fork()
                reading = Reading(
                    waiter,
                    "features",
                    cache,
                    text.ids,
                    text.wanted,
                    wants,
                    source=text.source,
                )
                try:
                    runner.submit(reading)
                except Fault:
                    cache.release()
                    raise
                ahead.append(reading)
            yield await frame_of(await runner.answer(ahead[0]), wants, basis)
            ahead.popleft()
    finally:
        waiter.gone = True
        start.release()


def _more(ahead: Sequence[Reading]) -> bool:
    tokens = sum(len(reading.ids) for reading in ahead)
    return not ahead or (len(ahead) < AHEAD_TEXTS and tokens < AHEAD_TOKENS)
