"""
Wire version 1. Frozen: released bytes never change; a new need is a new kind or version.

Header, little-endian as everything here, 16 bytes:

    offset  size  field
         0     4  magic, b"SPLG"
         4     1  major version, 1
         5     1  minor version that the kind came with: 0, of COORDINATES 1
         6     1  kind: 1 TOKENS, 2 STATES, 3 FAULT, 4 COORDINATES (see ``coordinates``)
         7     1  codec number, 0 where no codec is used
         8     4  feature bits: 1 DRAFTS and 4 GATE, not in FAULT; 2 SOURCE, in TOKENS alone
        12     4  length of the body

TOKENS body:

    offset  size  field
         0     8  step
         8     4  position
        12     4  wanted
        16     4  T, number of tokens
        20   4*T  token ids
              4  drafts, 1 or more, if the bit DRAFTS is set
              4  source, 1 to T, if the bit SOURCE is set
              4  alone, 1 or more, if the bit GATE is set

STATES body:

    offset  size  field
         0     4  position
         4     4  T, number of rows
         8     4  H, width of a hidden state
        12     2  K, number of taps
        14     2  C, candidates at a row
        16     1  parts: 1 final, 2 log Z, 4 candidates
        17     3  zero
        20   4*K  layers
                  taps (K, T, H) in the codec
                  final (T, H) in the codec, if there
                  log Z (T,) float32, if there
                  candidate ids (T, C) uint32, then logits (T, C) float32, if there
              4  D, 1 to T - 1, then the drafted ids (D,) uint32, if the bit DRAFTS is set
              4  N, 1 or more, then the spoken ids (N,) uint32, if the bit GATE is set

FAULT body: UTF-8 JSON, as ``Fault.to_json``.
"""

import json
import struct
from dataclasses import dataclass

from protocol.codecs import codec_named, codec_numbered
from protocol.codecs.base import Codec, Data
from protocol.encoding import Encoding
from protocol.errors import (
    FrameTooLarge,
    MalformedMessage,
    TensorMismatch,
    TrailingBytes,
    TruncatedFrame,
    UnknownKind,
    UnsupportedFeature,
    fault_from_json,
)
from protocol.fields import U32, read_json
from protocol.limits import Limits
from protocol.messages import Coordinates, Message, States, Tokens
from protocol.v1.coordinates import coordinates_parts, read_coordinates, whole_encoding
from protocol.v1.pieces import (
    CANDIDATES,
    COUNT,
    LOG_Z,
    beside_bytes,
    cut,
    exactly,
    id_bytes,
    ids_of,
    limited,
    long_enough,
    read_beside,
    read_count,
)

MAGIC = b"SPLG"
MAJOR, MINOR = 1, 2
TOKENS, STATES, FAULT, COORDINATES = 1, 2, 3, 4
DRAFTS = 1
"""Feature bit: the device asks for drafts, the cloud answers with some."""
SOURCE = 2
"""Feature bit: the first tokens are for an encoder."""
GATE = 4
"""Feature bit: the device lets the cloud speak alone, the cloud answers with what it said."""
_ANSWERS = DRAFTS | GATE
_FEATURES = {TOKENS: _ANSWERS | SOURCE, STATES: _ANSWERS, FAULT: 0, COORDINATES: _ANSWERS}
_SINCE = {TOKENS: 0, STATES: 0, FAULT: 0, COORDINATES: 1}
"""The minor version that each kind came with, which its frames carry: they stay what they were."""

_HEADER = struct.Struct("<4sBBBBII")
_TOKENS = struct.Struct("<QIII")
_STATES = struct.Struct("<IIIHHB3s")
_FINAL = 1
_ALL_PARTS = _FINAL | LOG_Z | CANDIDATES
_ZEROS = b"\0\0\0"


@dataclass(frozen=True, slots=True)
class Header:
    """What the first 16 bytes say.

    Attributes:
        kind: Which message the body is.
        codec: The codec of the body's hidden states.
        drafts: Whether the bit DRAFTS is set.
        source: Whether the bit SOURCE is set.
        gate: Whether the bit GATE is set.
        size: Bytes of the whole frame, header included.
    """

    kind: int
    codec: Codec
    drafts: bool
    source: bool
    gate: bool
    size: int

    @property
    def follows(self) -> tuple[bool, bool]:
        """Whether drafted tokens stand at an answer's end, and whether spoken ones do."""
        return self.drafts, self.gate


def encode(message: Message, codec: str | Encoding = "f32") -> bytes:
    """
    Write one frame; ``codec`` names what hidden states travel in, or says it of coordinates.

    Raises:
        UnknownCodec: There is no such codec.
        TensorMismatch: An encoding is not of these coordinates.
        NotFinite: A number is a NaN or an infinity.
        FrameTooLarge: The body is longer than its length field can say.

    """
    if isinstance(message, Tokens):
        features = _bits(message.drafts, message.alone) | SOURCE * (message.source > 0)
        return _frame(TOKENS, 0, _tokens_parts(message), features)
    if isinstance(message, Coordinates):
        encoding = whole_encoding(message, codec) if isinstance(codec, str) else codec
        _fits(encoding.size(len(message.final)))
        parts = coordinates_parts(message, encoding)
        features = _bits(len(message.drafted), len(message.spoken))
        return _frame(COORDINATES, 0, parts, features)
    if isinstance(message, States):
        if isinstance(codec, Encoding):
            raise TensorMismatch(part="taps", expected="coordinates", got="states")
        chosen = codec_named(codec)
        parts = _states_parts(message, chosen)
        features = _bits(len(message.drafted), len(message.spoken))
        return _frame(STATES, chosen.number, parts, features)
    text = json.dumps(message.to_json(), ensure_ascii=False, separators=(",", ":"))
    return _frame(FAULT, 0, [text.encode()])


def frame_size(data: Data, limits: Limits) -> int:
    """
    Return the bytes of the whole frame that ``data`` begins, header included.

    Raises:
        ProtocolError: The header is not one of a frame that this side reads.

    """
    return _read_header(data, limits).size


def decode(data: Data, limits: Limits) -> Message:
    """
    Read one frame. Where the codec allows it, arrays are views of ``data``, not copies.

    Checks every length before it allocates, and leaves no byte unaccounted for.

    Raises:
        ProtocolError: The bytes are not one whole frame that this side reads.

    """
    header = _read_header(data, limits)
    if len(data) < header.size:
        raise TruncatedFrame(needed=header.size, got=len(data))
    if len(data) > header.size:
        raise TrailingBytes(extra=len(data) - header.size)
    body = memoryview(data)[_HEADER.size :]
    if header.kind == STATES:
        return _read_states(body, header, limits)
    if header.codec.number != 0:
        raise MalformedMessage(reason=f"kind {header.kind} has no codec, but names one")
    if header.kind == TOKENS:
        return _read_tokens(body, header, limits)
    if header.kind == COORDINATES:
        return read_coordinates(body, header.follows, limits)
    return fault_from_json(read_json(body, limits.json_bytes))


def _bits(drafts: int, alone: int) -> int:
    return DRAFTS * (drafts > 0) | GATE * (alone > 0)


def _frame(kind: int, codec: int, parts: list[bytes], features: int = 0) -> bytes:
    size = sum(map(len, parts))
    _fits(size)
    header = _HEADER.pack(MAGIC, MAJOR, _SINCE[kind], kind, codec, features, size)
    return b"".join([header, *parts])


def _tokens_parts(message: Tokens) -> list[bytes]:
    fixed = _TOKENS.pack(message.step, message.position, message.wanted, len(message.ids))
    drafts = [COUNT.pack(message.drafts)] if message.drafts else []
    source = [COUNT.pack(message.source)] if message.source else []
    alone = [COUNT.pack(message.alone)] if message.alone else []
    return [fixed, id_bytes(message.ids), *drafts, *source, *alone]


def _states_parts(message: States, codec: Codec) -> list[bytes]:
    taps, tokens, hidden = message.taps.shape
    # Before the codec takes memory, not after.
    _fits(codec.size((taps + (message.final is not None), tokens, hidden)))
    parts = [codec.encode(message.taps, "taps")]
    if message.final is not None:
        parts.append(codec.encode(message.final, "final"))
    flags, count, beside = beside_bytes(
        message.log_z, message.candidates, message.drafted, message.spoken
    )
    flags |= _FINAL if message.final is not None else 0
    fixed = _STATES.pack(message.position, tokens, hidden, taps, count, flags, _ZEROS)
    return [fixed, struct.pack(f"<{taps}I", *message.layers), *parts, *beside]


def _fits(size: int) -> None:
    if size > U32:
        raise FrameTooLarge(size=size, limit=U32)


def _read_header(data: Data, limits: Limits) -> Header:
    """Read the header of a frame whose magic and major version ``protocol.versions`` has checked."""
    if len(data) < _HEADER.size:
        raise TruncatedFrame(needed=_HEADER.size, got=len(data))
    _magic, _major, _minor, kind, codec, features, length = _HEADER.unpack_from(data)
    if kind not in _FEATURES:
        raise UnknownKind(kind=kind)
    if features & ~_FEATURES[kind]:
        raise UnsupportedFeature(bits=features)
    size = _HEADER.size + length
    if size > limits.frame_bytes:
        raise FrameTooLarge(size=size, limit=limits.frame_bytes)
    drafts, source, gate = (bool(features & bit) for bit in (DRAFTS, SOURCE, GATE))
    return Header(kind, codec_numbered(codec), drafts, source, gate, size)


def _read_tokens(body: memoryview, header: Header, limits: Limits) -> Tokens:
    long_enough(body, _TOKENS.size)
    step, position, wanted, tokens = _TOKENS.unpack_from(body)
    limited("tokens", tokens, limits.tokens)
    end = _TOKENS.size + 4 * tokens
    behind = end + COUNT.size * header.drafts
    last = behind + COUNT.size * header.source
    exactly(body, last + COUNT.size * header.gate)
    drafts = read_count(body, end, limits) if header.drafts else 0
    source = _read_source(body, behind) if header.source else 0
    alone = read_count(body, last, limits) if header.gate else 0
    ids = ids_of(body[_TOKENS.size : end])
    return Tokens(step, position, wanted, ids, drafts, source, alone)


def _read_source(body: memoryview, offset: int) -> int:
    (source,) = COUNT.unpack_from(body, offset)
    if not source:
        raise MalformedMessage(reason="the frame says that it has a source, and has none")
    return int(source)


def _read_states(body: memoryview, header: Header, limits: Limits) -> States:
    codec = header.codec
    long_enough(body, _STATES.size)
    position, tokens, hidden, taps, count, parts, zeros = _STATES.unpack_from(body)
    limited("tokens", tokens, limits.tokens)
    limited("hidden", hidden, limits.hidden)
    limited("taps", taps, limits.taps)
    limited("candidates", count, limits.candidates)
    if parts & ~_ALL_PARTS or zeros != _ZEROS or bool(parts & CANDIDATES) != bool(count):
        raise MalformedMessage(reason=f"parts {parts:#x} with {count} candidates, {zeros.hex()}")
    sizes = (
        4 * taps,
        codec.size((taps, tokens, hidden)),
        codec.size((tokens, hidden)) if parts & _FINAL else 0,
    )
    start = _STATES.size + sum(sizes)
    beside = read_beside(body, start, tokens, parts, count, header.follows, limits)
    layers, states, final = cut(body[_STATES.size :], sizes)
    return States(
        position,
        struct.unpack(f"<{taps}I", layers),
        codec.decode(states, (taps, tokens, hidden), "taps"),
        codec.decode(final, (tokens, hidden), "final") if parts & _FINAL else None,
        *beside,
    )
