"""What a stranger claims costs nothing until the bytes arrive."""

import struct
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest

from protocol import versions
from protocol.codecs import CODECS
from protocol.errors import FrameTooLarge, ProtocolError, TensorMismatch
from protocol.limits import Limits
from protocol.messages import States
from protocol.stream import FrameReader

SMALL = 64 * 1024
"""Far more than a refusal takes, far less than any claim here."""


def peak_of(run: Callable[[], object]) -> int:
    """Return the bytes that ``run`` took at most."""
    tracemalloc.start()
    try:
        run()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def refuse(data: bytes, limits: Limits) -> None:
    with pytest.raises(ProtocolError):
        versions.decode(data, limits)


def header(kind: int, codec: int, length: int) -> bytes:
    return struct.pack("<4sBBBBII", b"SPLG", 1, 0, kind, codec, 0, length)


WIDE = Limits(frame_bytes=2**32, tokens=2**32 - 1, taps=65535, hidden=2**32 - 1, candidates=65535)


@pytest.mark.parametrize("limits", [Limits(), WIDE], ids=["default", "wide"])
@pytest.mark.parametrize("kind", [1, 2, 3, 4])
def test_a_claim_of_two_gib_takes_nothing(kind, limits):
    data = header(kind, 0, 2**31) + bytes(100)
    refuse(data, limits)
    assert peak_of(lambda: refuse(data, limits)) < SMALL


@pytest.mark.parametrize("codec", CODECS)
def test_counts_that_multiply_to_terabytes_take_nothing(codec):
    body = struct.pack("<IIIHHB3s", 0, 2**32 - 1, 2**32 - 1, 65535, 65535, 7, bytes(3))
    data = header(2, codec, len(body)) + body
    refuse(data, WIDE)
    assert peak_of(lambda: refuse(data, WIDE)) < SMALL


def test_sections_that_multiply_to_terabytes_take_nothing():
    sections = struct.pack("<HBB", 65535, 0, 0) + struct.pack("<HBB", 65535, 4, 0)
    body = struct.pack("<IIHBBB3s", 0, 2**32 - 1, 65535, 6, 1, 1, bytes(3)) + sections
    data = header(4, 0, len(body)) + body
    refuse(data, WIDE)
    assert peak_of(lambda: refuse(data, WIDE)) < SMALL


def test_a_claim_of_all_tokens_takes_nothing():
    body = struct.pack("<QIII", 0, 0, 1, 2**32 - 1)
    data = header(1, 0, len(body)) + body
    refuse(data, WIDE)
    assert peak_of(lambda: refuse(data, WIDE)) < SMALL


def test_a_stream_holds_what_has_arrived_not_what_is_promised():
    def run() -> None:
        reader = FrameReader(Limits())
        assert list(reader.feed(header(2, 0, 60 * 2**20) + bytes(100))) == []

    run()
    assert peak_of(run) < SMALL


@pytest.mark.parametrize(("codec", "times"), [("f32", 0.5), ("f16", 3), ("bf16", 3), ("int8", 6)])
def test_reading_takes_a_small_multiple_of_what_arrived(codec, times):
    taps = np.ones((4, 64, 1024), np.float32)
    data = versions.encode(States(0, (0, 1, 2, 3), taps), codec)
    assert peak_of(lambda: versions.decode(data)) < times * len(data)


def test_a_body_that_no_length_can_say_is_refused_before_it_is_made():
    huge = np.broadcast_to(np.float32(0), (64, 4096, 65536))
    states = States(0, tuple(range(64)), huge)

    def run() -> None:
        with pytest.raises(FrameTooLarge):
            versions.encode(states)

    run()
    assert peak_of(run) < SMALL


def test_a_codec_refuses_a_shape_before_it_is_made():
    def run() -> None:
        for codec in CODECS.values():
            with pytest.raises(TensorMismatch):
                codec.decode(b"", (2**20, 2**20))

    run()
    assert peak_of(run) < SMALL
