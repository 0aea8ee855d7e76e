"""
Wire version 1. Frozen: released bytes never change; a new need is a new version.

Header, little-endian as everything here, 16 bytes:

    offset  size  field
         0     4  magic, b"SPLG"
         4     1  major version, 1
         5     1  minor version, 0
         6     1  kind: 1 TOKENS, 2 STATES, 3 FAULT
         7     1  codec number, 0 where no codec is used
         8     4  feature bits: 1 DRAFTS, in TOKENS and STATES
        12     4  length of the body

TOKENS body:

    offset  size  field
         0     8  step
         8     4  position
        12     4  wanted
        16     4  T, number of tokens
        20   4*T  token ids
              4  drafts, 1 or more, if the bit DRAFTS is set

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

FAULT body: UTF-8 JSON, as ``Fault.to_json``.
"""

import json
import struct
from dataclasses import dataclass

import numpy as np

from protocol.codecs import codec_named, codec_numbered
from protocol.codecs.base import Array, Codec, Data, aligned, require_finite
from protocol.errors import (
    FrameTooLarge,
    LimitExceeded,
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
from protocol.messages import Candidates, Ids, Message, States, Tokens, no_drafts

MAGIC = b"SPLG"
MAJOR, MINOR = 1, 0
TOKENS, STATES, FAULT = 1, 2, 3
DRAFTS = 1
"""Feature bit: the device asks for drafts, the cloud answers with some."""
_FEATURES = {TOKENS: DRAFTS, STATES: DRAFTS, FAULT: 0}

_HEADER = struct.Struct("<4sBBBBII")
_TOKENS = struct.Struct("<QIII")
_STATES = struct.Struct("<IIIHHB3s")
_COUNT = struct.Struct("<I")
_FINAL, _LOG_Z, _CANDIDATES = 1, 2, 4
_ALL_PARTS = _FINAL | _LOG_Z | _CANDIDATES
_ZEROS = b"\0\0\0"


@dataclass(frozen=True, slots=True)
class Header:
    """What the first 16 bytes say.

    Attributes:
        kind: Which message the body is.
        codec: The codec of the body's hidden states.
        drafts: Whether the bit DRAFTS is set.
        size: Bytes of the whole frame, header included.
    """

    kind: int
    codec: Codec
    drafts: bool
    size: int


def encode(message: Message, codec: str = "f32") -> bytes:
    """
    Write one frame; ``codec`` names what hidden states travel in.

    Raises:
        UnknownCodec: There is no such codec.
        NotFinite: A number is a NaN or an infinity.
        FrameTooLarge: The body is longer than its length field can say.

    """
    if isinstance(message, Tokens):
        return _frame(TOKENS, 0, _tokens_parts(message), drafts=message.drafts > 0)
    if isinstance(message, States):
        chosen = codec_named(codec)
        parts = _states_parts(message, chosen)
        return _frame(STATES, chosen.number, parts, drafts=len(message.drafted) > 0)
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
    return fault_from_json(read_json(body, limits.json_bytes))


def _frame(kind: int, codec: int, parts: list[bytes], drafts: bool = False) -> bytes:
    size = sum(map(len, parts))
    _fits(size)
    features = DRAFTS if drafts else 0
    return b"".join([_HEADER.pack(MAGIC, MAJOR, MINOR, kind, codec, features, size), *parts])


def _tokens_parts(message: Tokens) -> list[bytes]:
    fixed = _TOKENS.pack(message.step, message.position, message.wanted, len(message.ids))
    drafts = [_COUNT.pack(message.drafts)] if message.drafts else []
    return [fixed, _id_bytes(message.ids), *drafts]


def _states_parts(message: States, codec: Codec) -> list[bytes]:
    taps, tokens, hidden = message.taps.shape
    # Before the codec takes memory, not after.
    _fits(codec.size((taps + (message.final is not None), tokens, hidden)))
    flags, count, parts = 0, 0, [codec.encode(message.taps, "taps")]
    if message.final is not None:
        flags |= _FINAL
        parts.append(codec.encode(message.final, "final"))
    if message.log_z is not None:
        flags |= _LOG_Z
        parts.append(_float_bytes(message.log_z, "log_z"))
    if message.candidates is not None:
        flags |= _CANDIDATES
        count = message.candidates.ids.shape[1]
        parts.append(_id_bytes(message.candidates.ids))
        parts.append(_float_bytes(message.candidates.logits, "candidate logits"))
    if len(message.drafted):
        parts += [_COUNT.pack(len(message.drafted)), _id_bytes(message.drafted)]
    fixed = _STATES.pack(message.position, tokens, hidden, taps, count, flags, _ZEROS)
    return [fixed, struct.pack(f"<{taps}I", *message.layers), *parts]


def _id_bytes(ids: Ids) -> bytes:
    return ids.astype("<u4", copy=False).tobytes()


def _float_bytes(array: Array, part: str) -> bytes:
    require_finite(array, part)
    return array.astype("<f4", copy=False).tobytes()


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
    return Header(kind, codec_numbered(codec), bool(features & DRAFTS), size)


def _read_tokens(body: memoryview, header: Header, limits: Limits) -> Tokens:
    _long_enough(body, _TOKENS.size)
    step, position, wanted, tokens = _TOKENS.unpack_from(body)
    _limited("tokens", tokens, limits.tokens)
    end = _TOKENS.size + 4 * tokens
    _exactly(body, end + (_COUNT.size if header.drafts else 0))
    drafts = _read_count(body, end, limits) if header.drafts else 0
    return Tokens(step, position, wanted, _ids(body[_TOKENS.size : end]), drafts)


def _read_states(body: memoryview, header: Header, limits: Limits) -> States:
    codec = header.codec
    _long_enough(body, _STATES.size)
    position, tokens, hidden, taps, count, parts, zeros = _STATES.unpack_from(body)
    _limited("tokens", tokens, limits.tokens)
    _limited("hidden", hidden, limits.hidden)
    _limited("taps", taps, limits.taps)
    _limited("candidates", count, limits.candidates)
    if parts & ~_ALL_PARTS or zeros != _ZEROS or bool(parts & _CANDIDATES) != bool(count):
        raise MalformedMessage(reason=f"parts {parts:#x} with {count} candidates, {zeros.hex()}")
    sizes = (
        4 * taps,
        codec.size((taps, tokens, hidden)),
        codec.size((tokens, hidden)) if parts & _FINAL else 0,
        4 * tokens if parts & _LOG_Z else 0,
        4 * tokens * count,
        4 * tokens * count,
    )
    end = _STATES.size + sum(sizes)
    drafted = no_drafts()
    if header.drafts:
        _long_enough(body, end + _COUNT.size)
        number = _read_count(body, end, limits)
        _exactly(body, end + _COUNT.size + 4 * number)
        drafted = _ids(body[end + _COUNT.size :])
    else:
        _exactly(body, end)
    layers, states, final, log_z, ids, logits = _cut(body[_STATES.size :], sizes)
    return States(
        position,
        struct.unpack(f"<{taps}I", layers),
        codec.decode(states, (taps, tokens, hidden), "taps"),
        codec.decode(final, (tokens, hidden), "final") if parts & _FINAL else None,
        _floats(log_z, "log_z") if parts & _LOG_Z else None,
        _candidates(ids, logits, (tokens, count)) if count else None,
        drafted,
    )


def _read_count(body: memoryview, offset: int, limits: Limits) -> int:
    """Read how many drafts there are; where the bit is set, there is one at least."""
    (count,) = _COUNT.unpack_from(body, offset)
    _limited("drafts", count, limits.drafts)
    if not count:
        raise MalformedMessage(reason="the frame says that it has drafts, and has none")
    return int(count)


def _cut(body: memoryview, sizes: tuple[int, ...]) -> list[memoryview]:
    """Cut ``body`` into consecutive pieces of the given sizes."""
    pieces, start = [], 0
    for size in sizes:
        pieces.append(body[start : start + size])
        start += size
    return pieces


def _candidates(ids: memoryview, logits: memoryview, shape: tuple[int, int]) -> Candidates:
    return Candidates(_ids(ids).reshape(shape), _floats(logits, "candidate logits").reshape(shape))


def _ids(data: memoryview) -> Ids:
    ids: Ids = np.frombuffer(data, "<u4").astype(np.uint32, copy=False)
    return ids if ids.flags.aligned else ids.copy()


def _floats(data: memoryview, part: str) -> Array:
    array = aligned(np.frombuffer(data, "<f4").astype(np.float32, copy=False))
    require_finite(array, part)
    return array


def _limited(part: str, size: int, limit: int) -> None:
    if size > limit:
        raise LimitExceeded(part=part, size=size, limit=limit)


def _long_enough(body: memoryview, size: int) -> None:
    if len(body) < size:
        raise TensorMismatch(
            part="body", expected=f"{size} bytes or more", got=f"{len(body)} bytes"
        )


def _exactly(body: memoryview, size: int) -> None:
    if len(body) != size:
        raise TensorMismatch(part="body", expected=f"{size} bytes", got=f"{len(body)} bytes")
