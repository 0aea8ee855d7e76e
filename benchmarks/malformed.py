"""What no device would send: random bytes, broken frames, claims that nothing could hold."""

from random import Random

import numpy as np

from protocol import versions
from protocol.messages import Tokens

EXTREMES = (0, 1, 16, 255, 2**15, 2**16 - 1, 2**24, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1)
"""Values that sizes go wrong at."""
_WORDS = 16


def frame(rng: Random, vocabulary: int) -> bytes:
    """A frame of tokens that was harmed in one of the ways of ``HARMS``, or plain noise."""
    return rng.choice(HARMS)(rng, _sound(rng, vocabulary))


def _sound(rng: Random, vocabulary: int) -> bytes:
    count = rng.choice((1, 1, 2, 5, 20))
    ids = np.array([rng.randrange(vocabulary) for _ in range(count)], np.uint32)
    position = rng.choice((0, 0, 0, count, 2**20))
    return versions.encode(Tokens(rng.randrange(2**32), position, rng.randint(1, count), ids))


def _noise(rng: Random, _frame: bytes) -> bytes:
    return rng.randbytes(rng.randrange(64))


def _noise_behind_a_head(rng: Random, frame: bytes) -> bytes:
    return frame[: rng.choice((4, 5, 12, 16))] + rng.randbytes(rng.randrange(64))


def _flipped(rng: Random, frame: bytes) -> bytes:
    out = bytearray(frame)
    for _ in range(rng.randint(1, 4)):
        out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def _cut(rng: Random, frame: bytes) -> bytes:
    return frame[: rng.randrange(len(frame))]


def _longer(rng: Random, frame: bytes) -> bytes:
    return frame + rng.randbytes(rng.randint(1, 40))


def _claim(rng: Random, frame: bytes) -> bytes:
    """One of the first numbers becomes another that sizes go wrong at."""
    out, place = bytearray(frame), 4 * rng.randrange(min(_WORDS, len(frame) // 4))
    out[place : place + 4] = rng.choice(EXTREMES).to_bytes(4, "little")
    return bytes(out)


def _twice(_rng: Random, frame: bytes) -> bytes:
    return frame * 2


def _whole(_rng: Random, frame: bytes) -> bytes:
    return frame


HARMS = (
    _noise,
    _noise_behind_a_head,
    _flipped,
    _cut,
    _longer,
    _claim,
    _claim,
    _twice,
    _whole,
)
"""To add one: a function and a row."""
