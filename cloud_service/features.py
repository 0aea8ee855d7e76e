"""Texts in, a frame of states each out: several ahead of the one that is sent, so that a pass has enough."""

from collections import deque
from collections.abc import AsyncGenerator, Sequence

from cloud_service.backbones.pages import Cache
from cloud_service.frames import frame_of
from cloud_service.reading import Reading, Waiter
from cloud_service.runner import Runner
from protocol.messages import Tokens, Wants

AHEAD_TEXTS = 16
AHEAD_TOKENS = 4096
"""Of one request, so many texts or tokens wait for the model or for the other side to take them."""


async def features(
    runner: Runner, waiter: Waiter, place: Cache, texts: Sequence[Tokens], wants: Wants
) -> AsyncGenerator[bytes]:
    """
    Yield the frame of each text, in order, as read behind ``place``, which stays as it is.

    Raises:
        Fault: A text cannot be read now; nothing more comes.

    """
    waiting, ahead = deque(texts), deque[Reading]()
    try:
        while waiting or ahead:
            while waiting and _more(ahead):
                text = waiting.popleft()
                ahead.append(
                    Reading(waiter, "features", place.fork(), text.ids, text.wanted, wants)
                )
                runner.submit(ahead[-1])
            yield await frame_of(await runner.answer(ahead[0]), wants.codec)
            ahead.popleft()
    finally:
        waiter.gone = True


def _more(ahead: Sequence[Reading]) -> bool:
    tokens = sum(len(reading.ids) for reading in ahead)
    return not ahead or (len(ahead) < AHEAD_TEXTS and tokens < AHEAD_TOKENS)
