import pytest

from protocol import versions
from protocol.errors import BadMagic, FrameTooLarge, TruncatedFrame
from protocol.limits import Limits
from protocol.stream import FrameReader
from tests.protocol.samples import MESSAGES

FRAMES = [versions.encode(message) for message in MESSAGES]
STREAM = b"".join(FRAMES)


@pytest.mark.parametrize("size", [1, 7, 16, 17, 1000, len(STREAM)])
def test_frames_come_out_whole_however_they_were_cut(size):
    reader = FrameReader(Limits())
    chunks = [STREAM[start : start + size] for start in range(0, len(STREAM), size)]
    assert [frame for chunk in chunks for frame in reader.feed(chunk)] == FRAMES
    reader.close()


def test_a_frame_comes_out_with_its_last_byte():
    reader = FrameReader(Limits())
    assert list(reader.feed(FRAMES[0][:-1])) == []
    assert list(reader.feed(FRAMES[0][-1:])) == [FRAMES[0]]


def test_frames_that_nobody_took_are_not_lost():
    reader = FrameReader(Limits())
    reader.feed(FRAMES[0])
    assert next(reader.feed(FRAMES[1])) == FRAMES[0]
    assert list(reader.feed(b"")) == [FRAMES[1]]


def test_an_empty_stream_is_whole():
    FrameReader(Limits()).close()


@pytest.mark.parametrize(
    ("length", "needed"), [(3, 16), (16, len(FRAMES[0])), (30, len(FRAMES[0]))]
)
def test_a_stream_that_ends_inside_a_frame_is_truncated(length, needed):
    reader = FrameReader(Limits())
    assert list(reader.feed(FRAMES[0][:length])) == []
    with pytest.raises(TruncatedFrame) as caught:
        reader.close()
    assert caught.value.details == {"needed": needed, "got": length}


def test_good_frames_before_a_bad_one_come_out():
    reader = FrameReader(Limits())
    frames = reader.feed(FRAMES[0] + b"<html>" + bytes(10))
    assert next(frames) == FRAMES[0]
    with pytest.raises(BadMagic):
        next(frames)
    with pytest.raises(BadMagic):
        list(reader.feed(FRAMES[1]))


def test_a_frame_over_the_limit_is_refused_by_its_header():
    reader = FrameReader(Limits(frame_bytes=47))
    with pytest.raises(FrameTooLarge):
        list(reader.feed(FRAMES[0][:16]))
