from pathlib import Path

import numpy as np
import pytest

from protocol import versions
from protocol.codecs import CODEC_NAMES, codec_named
from protocol.encoding import Encoding, Section
from protocol.errors import (
    BadMagic,
    FrameTooLarge,
    LimitExceeded,
    MalformedMessage,
    NotFinite,
    ProtocolError,
    TensorMismatch,
    TrailingBytes,
    TruncatedFrame,
    UnknownCodec,
    UnknownFault,
    UnknownKind,
    UnsupportedFeature,
    UnsupportedVersion,
)
from protocol.limits import Limits
from protocol.messages import Candidates, Coordinates, States, Tokens
from tests.protocol.samples import (
    BARE_COORDINATES,
    BARE_STATES,
    COORDINATES,
    DRAFTED_STATES,
    DRAFTING_TOKENS,
    ENCODING,
    FAULT,
    GATED_TOKENS,
    MESSAGES,
    SOURCE_TOKENS,
    SPOKEN_STATES,
    STATES,
    TOKENS,
    same,
)

GOLDEN = Path(__file__).parent / "golden" / "v1"
GOLDEN_FRAMES = {
    "tokens": (TOKENS, "f32"),
    "tokens-drafts": (DRAFTING_TOKENS, "f32"),
    "tokens-source": (SOURCE_TOKENS, "f32"),
    "tokens-gate": (GATED_TOKENS, "f32"),
    "states-gate": (SPOKEN_STATES, "int8"),
    "states-drafts": (DRAFTED_STATES, "int8"),
    "fault": (FAULT, "f32"),
    "bare-states": (BARE_STATES, "f32"),
    "coordinates": (COORDINATES, ENCODING),
    "bare-coordinates": (BARE_COORDINATES, "f32"),
    **{f"states-{name}": (STATES, name) for name in CODEC_NAMES},
}

TOKENS_FRAME = (
    b"SPLG\x01\x00\x01\x00"
    b"\x00\x00\x00\x00"
    b"\x20\x00\x00\x00"  # header, 32 bytes of body
    b"\x08\x07\x06\x05\x04\x03\x02\x01"  # step
    b"\x03\x00\x00\x00\x01\x00\x00\x00\x03\x00\x00\x00"  # position, wanted, T
    b"\x01\x00\x00\x00\x02\x01\x00\x00\x03\x00\x01\x00"  # ids
)
SMALL_STATES = States(
    position=9,
    layers=(0, 4),
    taps=np.array([[[1, -2]], [[0.5, 0.25]]], np.float32),
    final=np.array([[4, 8]], np.float32),
    log_z=np.array([2], np.float32),
    candidates=Candidates(np.array([[7]], np.uint32), np.array([[1.5]], np.float32)),
)
STATES_FRAME = (
    b"SPLG\x01\x00\x02\x01"
    b"\x00\x00\x00\x00"
    b"\x34\x00\x00\x00"  # header, f16, 52 bytes of body
    b"\x09\x00\x00\x00\x01\x00\x00\x00\x02\x00\x00\x00"  # position, T, H
    b"\x02\x00\x01\x00\x07\x00\x00\x00"  # K, C, all parts
    b"\x00\x00\x00\x00\x04\x00\x00\x00"  # layers
    b"\x00\x3c\x00\xc0\x00\x38\x00\x34"  # 1 -2, 0.5 0.25
    b"\x00\x44\x00\x48"  # 4 8
    b"\x00\x00\x00\x40"  # 2
    b"\x07\x00\x00\x00\x00\x00\xc0\x3f"  # 7, 1.5
)
DRAFTING_FRAME = (
    b"SPLG\x01\x00\x01\x00"
    b"\x01\x00\x00\x00"  # drafts
    b"\x24\x00\x00\x00"
    b"\x08\x07\x06\x05\x04\x03\x02\x01"
    b"\x03\x00\x00\x00\x01\x00\x00\x00\x03\x00\x00\x00"
    b"\x01\x00\x00\x00\x02\x01\x00\x00\x03\x00\x01\x00"
    b"\x05\x00\x00\x00"  # five of them
)
SOURCE_FRAME = (
    b"SPLG\x01\x00\x01\x00"
    b"\x03\x00\x00\x00"  # drafts and a source
    b"\x28\x00\x00\x00"
    b"\x08\x07\x06\x05\x04\x03\x02\x01"
    b"\x00\x00\x00\x00\x01\x00\x00\x00\x03\x00\x00\x00"
    b"\x01\x00\x00\x00\x02\x01\x00\x00\x03\x00\x01\x00"
    b"\x05\x00\x00\x00"
    b"\x02\x00\x00\x00"  # the first two are the source
)
SMALL_DRAFTED = States(
    position=9,
    layers=(),
    taps=np.zeros((0, 3, 1), np.float32),
    log_z=np.array([1, 2, 4], np.float32),
    drafted=np.array([5, 257], np.uint32),
)
DRAFTED_FRAME = (
    b"SPLG\x01\x00\x02\x00"
    b"\x01\x00\x00\x00"  # drafts
    b"\x2c\x00\x00\x00"
    b"\x09\x00\x00\x00\x03\x00\x00\x00\x01\x00\x00\x00"  # position, T, H
    b"\x00\x00\x00\x00\x02\x00\x00\x00"  # K, C, log Z
    b"\x00\x00\x80\x3f\x00\x00\x00\x40\x00\x00\x80\x40"  # 1, 2, 4
    b"\x02\x00\x00\x00\x05\x00\x00\x00\x01\x01\x00\x00"  # D, ids
)
GATED_FRAME = (
    b"SPLG\x01\x00\x01\x00"
    b"\x04\x00\x00\x00"  # gate
    b"\x24\x00\x00\x00"
    b"\x08\x07\x06\x05\x04\x03\x02\x01"
    b"\x03\x00\x00\x00\x01\x00\x00\x00\x03\x00\x00\x00"
    b"\x01\x00\x00\x00\x02\x01\x00\x00\x03\x00\x01\x00"
    b"\x06\x00\x00\x00"  # six by itself
)
SMALL_SPOKEN = States(
    position=9,
    layers=(),
    taps=np.zeros((0, 1, 1), np.float32),
    log_z=np.array([1], np.float32),
    spoken=np.array([5, 257], np.uint32),
)
SPOKEN_FRAME = (
    b"SPLG\x01\x00\x02\x00"
    b"\x04\x00\x00\x00"  # gate
    b"\x24\x00\x00\x00"
    b"\x09\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00"  # position, T, H
    b"\x00\x00\x00\x00\x02\x00\x00\x00"  # K, C, log Z
    b"\x00\x00\x80\x3f"  # 1
    b"\x02\x00\x00\x00\x05\x00\x00\x00\x01\x01\x00\x00"  # N, ids
)
SMALL_COORDINATES = Coordinates(
    position=9,
    final=np.array([[7, -1]], np.float32),
    taps=np.array([[31, -31]], np.float32),
    log_z=np.array([2], np.float32),
)
SMALL_ENCODING = Encoding((Section("int4", 2),), (Section("int6", 2),))
COORDINATES_FRAME = (
    b"SPLG\x01\x01\x04\x00"
    b"\x00\x00\x00\x00"
    b"\x23\x00\x00\x00"  # header, 35 bytes of body
    b"\x09\x00\x00\x00\x01\x00\x00\x00\x00\x00"  # position, T, C
    b"\x02\x01\x01\x00\x00\x00"  # log Z, a section each
    b"\x02\x00\x04\x00\x02\x00\x05\x00"  # two in int4, two in int6
    b"\x80\x3f\xf7"  # scale 1, 7 + 8 and 8 - 1
    b"\x80\x3f\xfc\x10"  # scale 1, 31 + 32 and 32 - 31 in six bits each
    b"\x00\x00\x00\x40"  # 2
)
FAULT_TEXT = (
    '{"error":{"code":"session_not_found","number":200,"message":"there is no session früh",'
    '"hint":"Open a new session and send its tokens again.","details":{"session":"früh"}}}'
).encode()
FAULT_FRAME = b"SPLG\x01\x00\x03\x00\x00\x00\x00\x00\xae\x00\x00\x00" + FAULT_TEXT


def frame(kind: int, body: bytes, codec: int = 0) -> bytes:
    return (
        b"SPLG\x01\x00" + bytes([kind, codec]) + bytes(4) + len(body).to_bytes(4, "little") + body
    )


def changed(data: bytes, offset: int, new: bytes) -> bytes:
    return data[:offset] + new + data[offset + len(new) :]


@pytest.mark.parametrize(
    ("message", "codec", "data"),
    [
        (TOKENS, "f32", TOKENS_FRAME),
        (SMALL_STATES, "f16", STATES_FRAME),
        (FAULT, "f32", FAULT_FRAME),
        (DRAFTING_TOKENS, "f32", DRAFTING_FRAME),
        (SOURCE_TOKENS, "f32", SOURCE_FRAME),
        (SMALL_DRAFTED, "f32", DRAFTED_FRAME),
        (SMALL_COORDINATES, SMALL_ENCODING, COORDINATES_FRAME),
        (GATED_TOKENS, "f32", GATED_FRAME),
        (SMALL_SPOKEN, "f32", SPOKEN_FRAME),
    ],
    ids=[
        "tokens",
        "states",
        "fault",
        "tokens with drafts",
        "tokens with a source",
        "states with drafts",
        "coordinates",
        "tokens through a gate",
        "states behind spoken tokens",
    ],
)
def test_a_message_and_its_literal_bytes(message, codec, data):
    assert versions.encode(message, codec) == data
    assert same(versions.decode(data), message)


@pytest.mark.parametrize("name", GOLDEN_FRAMES)
def test_released_bytes_never_change(name):
    message, codec = GOLDEN_FRAMES[name]
    assert versions.encode(message, codec) == (GOLDEN / f"{name}.bin").read_bytes()


def test_every_golden_file_is_compared():
    assert {path.stem for path in GOLDEN.glob("*.bin")} == set(GOLDEN_FRAMES)


@pytest.mark.parametrize("form", [bytes, bytearray, memoryview])
@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_message_comes_back(message, form):
    assert same(versions.decode(form(versions.encode(message))), message)


@pytest.mark.parametrize("codec", CODEC_NAMES)
def test_states_come_back_as_their_codec_gives_them(codec):
    back = versions.decode(versions.encode(STATES, codec))
    one = codec_named(codec)
    taps = one.decode(one.encode(STATES.taps), STATES.taps.shape)
    final = one.decode(one.encode(STATES.final), STATES.final.shape)
    lossy = States(41, STATES.layers, taps, final, STATES.log_z, STATES.candidates)
    assert same(back, lossy)


@pytest.mark.parametrize("part", ["final", "log_z", "candidates"])
def test_each_part_may_be_there_alone(part):
    alone = States(41, STATES.layers, STATES.taps, **{part: getattr(STATES, part)})
    assert same(versions.decode(versions.encode(alone)), alone)


def test_arrays_are_views_of_the_frame():
    data = versions.encode(STATES)
    back = versions.decode(data)
    arrays = [back.taps, back.final, back.log_z, back.candidates.ids, back.candidates.logits]
    arrays.append(versions.decode(TOKENS_FRAME).ids)
    assert not any(array.flags.owndata or array.flags.writeable for array in arrays)


def test_arrays_of_a_frame_at_an_odd_place_are_aligned():
    shifted = memoryview(b"\0" + versions.encode(STATES))[1:]
    back = versions.decode(shifted)
    assert back.taps.flags.aligned
    assert back.candidates.ids.flags.aligned
    assert same(back, STATES)


def test_a_newer_minor_version_is_read():
    assert same(versions.decode(changed(TOKENS_FRAME, 5, b"\x07")), TOKENS)


STATES_HEAD = STATES_FRAME[:16]
NAN, INFINITY = b"\x00\x00\xc0\x7f", b"\x00\x00\x80\x7f"

BAD_FRAMES = {
    "nothing": (b"", TruncatedFrame),
    "half a magic": (b"SP", TruncatedFrame),
    "no version": (b"SPLG", TruncatedFrame),
    "half a header": (TOKENS_FRAME[:15], TruncatedFrame),
    "half a body": (TOKENS_FRAME[:-1], TruncatedFrame),
    "a byte over": (TOKENS_FRAME + b"\0", TrailingBytes),
    "another magic": (b"HTTP" + TOKENS_FRAME[4:], BadMagic),
    "a short other magic": (b"H", BadMagic),
    "an older version": (changed(TOKENS_FRAME, 4, b"\0"), UnsupportedVersion),
    "a newer version": (changed(TOKENS_FRAME, 4, b"\2"), UnsupportedVersion),
    "a feature": (changed(TOKENS_FRAME, 11, b"\x80"), UnsupportedFeature),
    "kind 0": (changed(TOKENS_FRAME, 6, b"\0"), UnknownKind),
    "kind 5": (changed(TOKENS_FRAME, 6, b"\5"), UnknownKind),
    "codec 200": (changed(STATES_FRAME, 7, b"\xc8"), UnknownCodec),
    "tokens in a codec": (changed(TOKENS_FRAME, 7, b"\1"), MalformedMessage),
    "a fault in a codec": (changed(FAULT_FRAME, 7, b"\1"), MalformedMessage),
    "2 GiB": (changed(TOKENS_FRAME, 12, b"\0\0\0\x80"), FrameTooLarge),
    "4 GiB": (changed(TOKENS_FRAME, 12, b"\xff\xff\xff\xff"), FrameTooLarge),
    "tokens without counts": (frame(1, bytes(19)), TensorMismatch),
    "tokens with another T": (changed(TOKENS_FRAME, 32, b"\4"), TensorMismatch),
    "no tokens": (frame(1, bytes(20)), MalformedMessage),
    "too many tokens": (changed(TOKENS_FRAME, 32, b"\1\x20"), LimitExceeded),
    "none wanted": (changed(TOKENS_FRAME, 28, b"\0"), MalformedMessage),
    "more wanted than sent": (changed(TOKENS_FRAME, 28, b"\4"), MalformedMessage),
    "tokens beyond all positions": (changed(TOKENS_FRAME, 24, b"\xff" * 4), MalformedMessage),
    "states without counts": (frame(2, bytes(19)), TensorMismatch),
    "states with no rows": (frame(2, bytes(20)), MalformedMessage),
    "states of no width": (frame(2, bytes(4) + b"\1" + bytes(15)), MalformedMessage),
    "states with another T": (changed(STATES_FRAME, 20, b"\2"), TensorMismatch),
    "states with another H": (changed(STATES_FRAME, 24, b"\1"), TensorMismatch),
    "states with another K": (changed(STATES_FRAME, 28, b"\1"), TensorMismatch),
    "states with another C": (changed(STATES_FRAME, 30, b"\2"), TensorMismatch),
    "states with another codec": (changed(STATES_FRAME, 7, b"\0"), TensorMismatch),
    "states with a part less": (changed(STATES_FRAME, 32, b"\6"), TensorMismatch),
    "too many rows": (changed(STATES_FRAME, 20, b"\1\x20"), LimitExceeded),
    "too wide": (changed(STATES_FRAME, 24, b"\1\0\1"), LimitExceeded),
    "too many taps": (changed(STATES_FRAME, 28, b"\1\1"), LimitExceeded),
    "too many candidates": (changed(STATES_FRAME, 30, b"\1\4"), LimitExceeded),
    "an unknown part": (changed(STATES_FRAME, 32, b"\x0f"), MalformedMessage),
    "bytes that must be zero": (changed(STATES_FRAME, 35, b"\1"), MalformedMessage),
    "candidates of no column": (changed(STATES_FRAME, 30, b"\0"), MalformedMessage),
    "a column of no candidates": (changed(STATES_FRAME, 32, b"\3"), MalformedMessage),
    "layers that descend": (changed(STATES_FRAME, 36, b"\5"), MalformedMessage),
    "layers twice": (changed(STATES_FRAME, 36, b"\4"), MalformedMessage),
    "states beyond all positions": (changed(STATES_FRAME, 16, b"\xff" * 4), MalformedMessage),
    "a tap that is infinite": (changed(STATES_FRAME, 44, b"\x00\x7c"), NotFinite),
    "a final that is NaN": (changed(STATES_FRAME, 52, b"\x01\x7e"), NotFinite),
    "a log Z that is NaN": (changed(STATES_FRAME, 56, NAN), NotFinite),
    "a logit that is infinite": (changed(STATES_FRAME, 64, INFINITY), NotFinite),
    "a feature of states": (changed(STATES_FRAME, 8, b"\2"), UnsupportedFeature),
    "a fault with drafts": (changed(FAULT_FRAME, 8, b"\1"), UnsupportedFeature),
    "drafts announced and not asked for": (changed(TOKENS_FRAME, 8, b"\1"), TensorMismatch),
    "drafts asked for and not announced": (changed(DRAFTING_FRAME, 8, b"\0"), TensorMismatch),
    "drafts that are none": (changed(DRAFTING_FRAME, 48, b"\0"), MalformedMessage),
    "too many drafts": (changed(DRAFTING_FRAME, 48, b"\x41"), LimitExceeded),
    "drafts beyond all positions": (
        changed(DRAFTING_FRAME, 24, b"\xf9\xff\xff\xff"),
        MalformedMessage,
    ),
    "states with a source": (changed(DRAFTED_FRAME, 8, b"\3"), UnsupportedFeature),
    "a source announced and not there": (changed(TOKENS_FRAME, 8, b"\2"), TensorMismatch),
    "a source that is not announced": (changed(SOURCE_FRAME, 8, b"\1"), TensorMismatch),
    "a source that is none": (changed(SOURCE_FRAME, 52, b"\0"), MalformedMessage),
    "a source longer than the tokens": (changed(SOURCE_FRAME, 52, b"\4"), MalformedMessage),
    "a source that is all, with drafts": (changed(SOURCE_FRAME, 52, b"\3"), MalformedMessage),
    "a source in the middle": (changed(SOURCE_FRAME, 24, b"\1"), MalformedMessage),
    "states of a source and of a target": (changed(SOURCE_FRAME, 28, b"\2"), MalformedMessage),
    "drafted and not announced": (changed(DRAFTED_FRAME, 8, b"\0"), TensorMismatch),
    "announced and not drafted": (changed(STATES_FRAME, 8, b"\1"), TensorMismatch),
    "drafted tokens that are none": (
        changed(changed(DRAFTED_FRAME, 48, b"\0")[:-8], 12, b"\x24"),
        MalformedMessage,
    ),
    "another number of drafted tokens": (changed(DRAFTED_FRAME, 48, b"\1"), TensorMismatch),
    "too many drafted tokens": (changed(DRAFTED_FRAME, 48, b"\x41"), LimitExceeded),
    "as many drafted tokens as rows": (
        changed(changed(DRAFTED_FRAME, 48, b"\3") + bytes(4), 12, b"\x30"),
        MalformedMessage,
    ),
    "a fault with a gate": (changed(FAULT_FRAME, 8, b"\4"), UnsupportedFeature),
    "tokens to be said, not announced": (changed(GATED_FRAME, 8, b"\0"), TensorMismatch),
    "no tokens to be said": (changed(GATED_FRAME, 48, b"\0"), MalformedMessage),
    "too many tokens to be said": (changed(GATED_FRAME, 48, b"\x41"), LimitExceeded),
    "two rows through a gate": (changed(GATED_FRAME, 28, b"\2"), MalformedMessage),
    "spoken and not announced": (changed(SPOKEN_FRAME, 8, b"\0"), TensorMismatch),
    "spoken and drafted, of one list": (changed(SPOKEN_FRAME, 8, b"\5"), TensorMismatch),
    "another number of spoken tokens": (changed(SPOKEN_FRAME, 40, b"\3"), TensorMismatch),
    "too many spoken tokens": (changed(SPOKEN_FRAME, 40, b"\x41"), LimitExceeded),
    "more spoken tokens than positions": (changed(SPOKEN_FRAME, 16, b"\1"), MalformedMessage),
    "coordinates without counts": (frame(4, bytes(15)), TensorMismatch),
    "coordinates with no rows": (frame(4, bytes(16)), MalformedMessage),
    "coordinates in a codec": (changed(COORDINATES_FRAME, 7, b"\1"), MalformedMessage),
    "coordinates with another T": (changed(COORDINATES_FRAME, 20, b"\2"), TensorMismatch),
    "too many rows of coordinates": (changed(COORDINATES_FRAME, 20, b"\1\x20"), LimitExceeded),
    "too many candidates beside them": (changed(COORDINATES_FRAME, 24, b"\1\4"), LimitExceeded),
    "coordinates with the part final": (changed(COORDINATES_FRAME, 26, b"\3"), MalformedMessage),
    "coordinates with a part less": (changed(COORDINATES_FRAME, 26, b"\0"), TensorMismatch),
    "a section more": (changed(COORDINATES_FRAME, 27, b"\2"), MalformedMessage),
    "too many sections": (changed(COORDINATES_FRAME, 28, b"\x41"), LimitExceeded),
    "sections that are not there": (changed(COORDINATES_FRAME, 28, b"\x20"), TensorMismatch),
    "zeros of coordinates": (changed(COORDINATES_FRAME, 31, b"\1"), MalformedMessage),
    "a section of no width": (changed(COORDINATES_FRAME, 32, b"\0"), MalformedMessage),
    "a wider section": (changed(COORDINATES_FRAME, 32, b"\3"), TensorMismatch),
    "a section in another codec": (changed(COORDINATES_FRAME, 34, b"\0"), TensorMismatch),
    "a section in codec 200": (changed(COORDINATES_FRAME, 34, b"\xc8"), UnknownCodec),
    "a section's zero": (changed(COORDINATES_FRAME, 35, b"\1"), MalformedMessage),
    "a scale that is infinite": (changed(COORDINATES_FRAME, 41, b"\x7f"), NotFinite),
    "a feature of coordinates": (changed(COORDINATES_FRAME, 8, b"\2"), UnsupportedFeature),
    "a fault that is not JSON": (frame(3, b"{"), MalformedMessage),
    "a fault that is not UTF-8": (frame(3, b'"\xff"'), MalformedMessage),
    "a fault of nothing": (frame(3, b""), MalformedMessage),
    "a fault without an error": (frame(3, b"{}"), MalformedMessage),
    "a fault too long": (frame(3, b" " * (2**20 + 1)), FrameTooLarge),
}


@pytest.mark.parametrize("name", BAD_FRAMES)
def test_a_bad_frame_has_its_fault(name):
    data, error = BAD_FRAMES[name]
    with pytest.raises(ProtocolError) as caught:
        versions.decode(data)
    assert type(caught.value) is error


@pytest.mark.parametrize(
    "data",
    [TOKENS_FRAME, STATES_FRAME, FAULT_FRAME, DRAFTING_FRAME, DRAFTED_FRAME, COORDINATES_FRAME],
)
def test_every_cut_is_refused(data):
    for cut in range(len(data)):
        with pytest.raises(TruncatedFrame):
            versions.decode(data[:cut])


def test_a_fault_says_how_much_is_missing():
    with pytest.raises(TruncatedFrame) as caught:
        versions.decode(TOKENS_FRAME[:20])
    assert caught.value.details == {"needed": 48, "got": 20}


def test_a_newer_fault_is_a_message_not_an_error():
    data = frame(3, b'{"error":{"code":"out_of_tea","message":"no tea is left"}}')
    assert isinstance(versions.decode(data), UnknownFault)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (Limits(frame_bytes=47), TOKENS),
        (Limits(tokens=2), TOKENS),
        (Limits(tokens=1), STATES),
        (Limits(taps=2), STATES),
        (Limits(hidden=69), STATES),
        (Limits(candidates=1), STATES),
        (Limits(tokens=1), COORDINATES),
        (Limits(hidden=69), COORDINATES),
        (Limits(candidates=1), COORDINATES),
        (Limits(drafts=4), DRAFTING_TOKENS),
        (Limits(drafts=1), SMALL_DRAFTED),
        (Limits(drafts=5), GATED_TOKENS),
        (Limits(drafts=1), SMALL_SPOKEN),
        (Limits(json_bytes=100), FAULT),
    ],
)
def test_each_limit_is_kept(limits, message):
    versions.decode(versions.encode(message))
    with pytest.raises(FrameTooLarge):
        versions.decode(versions.encode(message), limits)


def test_a_frame_of_exactly_the_limit_is_read():
    assert same(versions.decode(TOKENS_FRAME, Limits(frame_bytes=48, tokens=3)), TOKENS)


def test_coordinates_come_back_as_their_sections_give_them():
    back = versions.decode(versions.encode(COORDINATES, ENCODING))
    start = 0
    for section in ENCODING.final:
        part = np.ascontiguousarray(COORDINATES.final[:, start : start + section.width])
        codec = codec_named(section.codec)
        expected = codec.decode(codec.encode(part), part.shape)
        assert np.array_equal(back.final[:, start : start + section.width], expected)
        start += section.width
    assert start == 70
    assert np.abs(back.taps - COORDINATES.taps).max() < 0.6


@pytest.mark.parametrize(
    "encoding",
    [
        Encoding(ENCODING.final[:1], ENCODING.taps),
        Encoding(ENCODING.final, (*ENCODING.taps, Section("f32", 1))),
    ],
)
def test_an_encoding_of_another_width_writes_nothing(encoding):
    with pytest.raises(TensorMismatch):
        versions.encode(COORDINATES, encoding)


def test_whole_states_are_not_written_as_coordinates():
    with pytest.raises(TensorMismatch, match="coordinates"):
        versions.encode(STATES, ENCODING)


def test_an_unknown_codec_is_not_written():
    with pytest.raises(UnknownCodec, match="zip"):
        versions.encode(STATES, "zip")


@pytest.mark.parametrize("codec", CODEC_NAMES)
@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"taps": np.full((3, 2, 70), np.nan, np.float32)}, "taps"),
        ({"final": np.full((2, 70), np.inf, np.float32)}, "final"),
        ({"log_z": np.array([0, -np.inf], np.float32)}, "log_z"),
        (
            {
                "candidates": Candidates(
                    np.zeros((2, 1), np.uint32), np.full((2, 1), np.nan, np.float32)
                )
            },
            "candidate logits",
        ),
    ],
    ids=["taps", "final", "log_z", "logits"],
)
def test_what_is_not_finite_is_not_written(codec, change, part):
    fields = {name: getattr(STATES, name) for name in States.__slots__}
    with pytest.raises(NotFinite, match=f"{part} holds"):
        versions.encode(States(**(fields | change)), codec)


def test_the_largest_step_and_position_are_carried():
    tokens = Tokens(2**64 - 1, 2**32 - 2, 1, np.array([2**32 - 1], np.uint32))
    assert same(versions.decode(versions.encode(tokens)), tokens)
