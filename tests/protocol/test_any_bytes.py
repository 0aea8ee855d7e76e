"""Whatever arrives, the answer is a message or a ProtocolError."""

import json
import struct
from contextlib import suppress

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from protocol import versions
from protocol.codecs import CODEC_NAMES, CODECS
from protocol.errors import Fault, ProtocolError, fault_from_json
from protocol.fields import read_json
from protocol.limits import Limits
from protocol.messages import Candidates, Coordinates, States, Tokens
from protocol.stream import FrameReader
from tests.protocol.samples import COORDINATES, DOCUMENTS, ENCODING, MESSAGES, same

# No deadline: how long an example takes is the machine's matter.
SOME = settings(deadline=None, max_examples=100)
MANY = settings(deadline=None, max_examples=300)

GOOD = [versions.encode(message, codec) for message in MESSAGES for codec in CODEC_NAMES]
GOOD.append(versions.encode(COORDINATES, ENCODING))

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def read(data: bytes | bytearray) -> None:
    """Decode; what is accepted can be written and read again, and is the same."""
    with suppress(ProtocolError):
        message = versions.decode(data)
        assert isinstance(message, Tokens | States | Coordinates | Fault)
        assert same(versions.decode(versions.encode(message)), message)


@SOME
@given(st.binary(max_size=200))
def test_any_bytes(data):
    read(data)


@SOME
@given(kind=st.integers(0, 5), codec=st.integers(0, 6), body=st.binary(max_size=200))
def test_any_body(kind, codec, body):
    read(struct.pack("<4sBBBBII", b"SPLG", 1, 0, kind, codec, 0, len(body)) + body)


@MANY
@given(st.data())
def test_any_states_of_the_right_length(data):
    taps, tokens, hidden, parts = (data.draw(st.integers(0, top)) for top in (3, 3, 70, 7))
    count = data.draw(st.integers(1, 3)) if parts & 4 else 0
    codec = data.draw(st.sampled_from(list(CODECS.values())))
    layers = data.draw(st.lists(st.integers(0, 40), min_size=taps, max_size=taps))
    size = codec.size((taps, tokens, hidden)) + codec.size((tokens, hidden)) * (parts & 1)
    size += 4 * tokens * bool(parts & 2) + 8 * tokens * count
    fill = data.draw(st.binary(min_size=1, max_size=8))
    tensors = (fill * (size // len(fill) + 1))[:size]
    fixed = struct.pack("<IIIHHB3x", 0, tokens, hidden, taps, count, parts)
    body = fixed + struct.pack(f"<{taps}I", *sorted(layers)) + tensors
    read(struct.pack("<4sBBBBII", b"SPLG", 1, 0, 2, codec.number, 0, len(body)) + body)


SECTIONS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 6), st.sampled_from([0, 0, 1])))


@MANY
@given(st.data())
def test_any_coordinates_of_the_right_length(data):
    tokens, parts = data.draw(st.integers(0, 3)), data.draw(st.sampled_from([0, 2, 4, 6, 1]))
    count = data.draw(st.integers(1, 3)) if parts & 4 else 0
    final, taps = data.draw(SECTIONS), data.draw(SECTIONS)
    codecs = [(width, CODECS.get(number, CODECS[0])) for width, number, _ in (*final, *taps)]
    size = sum(codec.size((tokens, width)) for width, codec in codecs)
    size += 4 * tokens * bool(parts & 2) + 8 * tokens * count
    fill = data.draw(st.binary(min_size=1, max_size=8))
    tensors = (fill * (size // len(fill) + 1))[:size]
    body = struct.pack("<IIHBBB3x", 0, tokens, count, parts, len(final), len(taps))
    body += b"".join(struct.pack("<HBB", *section) for section in (*final, *taps)) + tensors
    read(struct.pack("<4sBBBBII", b"SPLG", 1, 1, 4, 0, 0, len(body)) + body)


@MANY
@given(
    frame=st.sampled_from(GOOD),
    start=st.integers(0, 600),
    length=st.integers(0, 12),
    new=st.binary(max_size=12),
)
def test_any_mutation_of_a_good_frame(frame, start, length, new):
    read(frame[:start] + new + frame[start + length :])


@MANY
@given(frame=st.sampled_from(GOOD), offset=st.integers(0, 60), value=st.integers(0, 255))
def test_any_byte_of_a_good_frame(frame, offset, value):
    changed = bytearray(frame)
    changed[min(offset, len(frame) - 1)] = value
    read(changed)


@SOME
@given(
    chunks=st.lists(st.binary(max_size=40) | st.sampled_from(GOOD), max_size=8),
    frame_bytes=st.integers(16, 4000),
)
def test_any_stream(chunks, frame_bytes):
    reader = FrameReader(Limits(frame_bytes=frame_bytes))
    with suppress(ProtocolError):
        for chunk in chunks:
            for frame in reader.feed(chunk):
                assert len(frame) <= frame_bytes
                read(frame)
        reader.close()


@SOME
@given(data=st.binary(max_size=100) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_json_bytes(data):
    with suppress(ProtocolError):
        read_json(data, 80)


@SOME
@given(document=st.sampled_from(DOCUMENTS), data=JSON)
def test_any_json_as_any_document(document, data):
    with suppress(ProtocolError):
        type(document).from_json(data)


@MANY
@given(st.data())
def test_a_good_document_with_any_field(data):
    document = data.draw(st.sampled_from(DOCUMENTS))
    fields = document.to_json()
    place, name = fields, data.draw(st.sampled_from(sorted(fields)))
    if isinstance(fields[name], dict) and fields[name] and data.draw(st.booleans()):
        place = fields[name] = dict(fields[name])
        name = data.draw(st.sampled_from(sorted(place)))
    place[name] = data.draw(JSON)
    with suppress(ProtocolError):
        back = type(document).from_json(read_json(json.dumps(fields).encode(), 2**20))
        assert type(document).from_json(json.loads(json.dumps(back.to_json()))) == back


@SOME
@given(JSON)
def test_any_json_as_a_fault(data):
    with suppress(ProtocolError):
        fault_from_json(data)


@SOME
@given(
    code=st.sampled_from(["session_not_found", "unsupported_feature", "unknown"]) | st.text(),
    message=JSON,
    details=st.dictionaries(st.sampled_from(["session", "bits", "self"]) | st.text(), JSON) | JSON,
)
def test_any_fault(code, message, details):
    with suppress(ProtocolError):
        fault = fault_from_json({"error": {"code": code, "message": message, "details": details}})
        assert same(versions.decode(versions.encode(fault)), fault)


FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


@SOME
@given(st.data())
def test_any_states_come_back(data):
    taps, tokens, count = (data.draw(st.integers(0, 3)) for _ in range(3))
    hidden, tokens = data.draw(st.integers(1, 70)), tokens + 1

    def floats(*shape):
        return data.draw(arrays(np.float32, shape, elements=FLOATS))

    candidates = Candidates(
        data.draw(arrays(np.uint32, (tokens, count + 1))), floats(tokens, count + 1)
    )
    states = States(
        position=data.draw(st.integers(0, 2**32 - 9)),
        layers=tuple(range(taps)),
        taps=floats(taps, tokens, hidden),
        final=data.draw(st.sampled_from([None, floats(tokens, hidden)])),
        log_z=data.draw(st.sampled_from([None, floats(tokens)])),
        candidates=data.draw(st.sampled_from([None, candidates])),
        drafted=data.draw(arrays(np.uint32, st.integers(0, tokens - 1))),
    )
    assert same(versions.decode(versions.encode(states)), states)
    for codec in CODEC_NAMES:
        assert isinstance(versions.decode(versions.encode(states, codec)), States)


@SOME
@given(
    spoken=arrays(np.uint32, st.integers(0, 64)),
    alone=st.integers(0, 64),
    final=arrays(np.float32, (1, 5), elements=FLOATS),
)
def test_what_goes_through_a_gate_comes_back(spoken, alone, final):
    states = States(70, (), np.zeros((0, 1, 5), np.float32), final, spoken=spoken)
    assert same(versions.decode(versions.encode(states)), states)
    tokens = Tokens(1, 3, 1, np.arange(4, dtype=np.uint32), alone=alone)
    assert same(versions.decode(versions.encode(tokens)), tokens)


@SOME
@given(
    ids=arrays(np.uint32, st.integers(1, 20)),
    step=st.integers(0, 2**64 - 1),
    drafts=st.integers(0, 64),
    source=st.integers(0, 19),
)
def test_any_tokens_come_back(ids, step, drafts, source):
    source = min(source, len(ids) - 1)
    tokens = Tokens(step, 0, len(ids) - source, ids=ids, drafts=drafts, source=source)
    assert same(versions.decode(versions.encode(tokens)), tokens)
