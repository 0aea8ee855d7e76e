"""What is said, apart from how it is written down. A message that makes no sense is never born."""

import re
from dataclasses import asdict, dataclass, field

import numpy as np
from numpy.typing import NDArray

from protocol.codecs import codec_named
from protocol.encoding import MOST_WIDTH, Encoding
from protocol.errors import Fault, MalformedMessage, TensorMismatch
from protocol.fields import U32, Fields
from protocol.gate import Gate

MOST_TAPS = 2**16 - 1
MOST_CANDIDATES = 2**16 - 1
MOST_DRAFTS = 2**16 - 1
"""Tokens that the cloud computes by itself at one request: drafted ones, or those it says alone."""
_U64 = 2**64 - 1
_LONGEST_IDLE = 366.0 * 24 * 3600
_Name = re.compile(r"[A-Za-z0-9_-]{1,128}")
_Version = re.compile(r"[0-9]{1,3}\.[0-9]{1,3}")

Ids = NDArray[np.uint32]
Floats = NDArray[np.float32]


def no_tokens() -> Ids:
    """Return the drafted tokens, or the spoken ones, of an answer without any, uint32 (0,)."""
    return np.empty(0, np.uint32)


@dataclass(frozen=True, slots=True, eq=False)
class Tokens:
    """New tokens of a session, or one text whose features are wanted.

    Attributes:
        step: The step's id, 0 to 2^64-1; the same id again asks for the same answer again.
        position: Tokens already in the session before these.
        wanted: States come back for the last ``wanted`` tokens, 1 to T.
        ids: Token ids, uint32 (T,).
        drafts: How many tokens the cloud may continue them with by itself.
        source: How many of them, from the first on, the encoder reads; only at position 0. States
            come back of what the decoder reads, or, where that is nothing, of the encoder.
        alone: How many tokens the cloud may say by itself behind them, up to the first that needs
            the device by the session's gate; one row is wanted then, and nothing is drafted.
    """

    step: int
    position: int
    wanted: int
    ids: Ids
    drafts: int = 0
    source: int = 0
    alone: int = 0

    def __post_init__(self) -> None:
        _check(self.ids, "ids", np.uint32, 1)
        tokens = len(self.ids)
        _within("tokens", tokens, 1, U32)
        _within("step", self.step, 0, _U64)
        _within("drafts", self.drafts, 0, MOST_DRAFTS)
        _within("alone", self.alone, 0, MOST_DRAFTS)
        _within("position", self.position, 0, U32 - tokens - self.drafts - self.alone)
        _within("source", self.source, 0, tokens)
        _within("wanted", self.wanted, 1, tokens - self.source or tokens)
        if self.source and self.position:
            raise MalformedMessage(reason=f"a source begins at 0, not at {self.position}")
        if self.source == tokens and (self.drafts or self.alone):
            raise MalformedMessage(reason="nothing can be said behind a source alone")
        if self.alone and (self.drafts or self.wanted != 1):
            raise MalformedMessage(reason="through a gate one row comes, and no drafts")


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """The tokens the backbone finds likeliest at each position, highest first.

    Attributes:
        ids: Token ids, uint32 (T, C).
        logits: Base logits, float32 (T, C).
    """

    ids: Ids
    logits: Floats

    def __post_init__(self) -> None:
        _check(self.ids, "candidate ids", np.uint32, 2)
        _check(self.logits, "candidate logits", np.float32, 2, self.ids.shape)
        _within("candidates", self.ids.shape[1], 1, MOST_CANDIDATES)


@dataclass(frozen=True, slots=True, eq=False)
class States:
    """What the backbone made of the tokens, a row for each that was wanted and each it drafted.

    Attributes:
        position: Position of the first row.
        layers: The layer each tap was read after, ascending; 0 is what enters the first layer.
        taps: Hidden states, float32 (K, T, H); K may be 0.
        final: What the LM head reads, already normed, float32 (T, H).
        log_z: Log-sum-exp of the base logits, natural logarithm, float32 (T,).
        candidates: The likeliest tokens.
        drafted: Tokens that the cloud continued with, each the likeliest of the row before it,
            uint32 (D,), fewer than T; the last D rows are theirs.
        spoken: Tokens that the cloud said by itself, uint32 (N,); the one row is of the last of them.
    """

    position: int
    layers: tuple[int, ...]
    taps: Floats
    final: Floats | None = None
    log_z: Floats | None = None
    candidates: Candidates | None = None
    drafted: Ids = field(default_factory=no_tokens)
    spoken: Ids = field(default_factory=no_tokens)

    def __post_init__(self) -> None:
        _check(self.taps, "taps", np.float32, 3)
        taps, tokens, hidden = self.taps.shape
        _check_layers(self.layers)
        if taps != len(self.layers):
            raise _mismatch("taps", f"one of {len(self.layers)} layers each", self.taps)
        _within("tokens", tokens, 1, U32)
        _within("position", self.position, 0, U32 - tokens)
        _within("hidden", hidden, 1, U32)
        if self.final is not None:
            _check(self.final, "final", np.float32, 2, (tokens, hidden))
        _check_beside(tokens, self.position, self.log_z, self.candidates, self.drafted, self.spoken)


@dataclass(frozen=True, slots=True, eq=False)
class Coordinates:
    """What the backbone made of the tokens, in the public basis of a kit.

    Attributes:
        position: Position of the first row.
        final: Coordinates of what the LM head reads, float32 (T, F); F may be 0.
        taps: Coordinates of all taps together, float32 (T, G); G may be 0.
        log_z: As in ``States``.
        candidates: The same.
        drafted: The same.
        spoken: The same.
    """

    position: int
    final: Floats
    taps: Floats
    log_z: Floats | None = None
    candidates: Candidates | None = None
    drafted: Ids = field(default_factory=no_tokens)
    spoken: Ids = field(default_factory=no_tokens)

    def __post_init__(self) -> None:
        _check(self.final, "final", np.float32, 2)
        tokens = len(self.final)
        _check(self.taps, "taps", np.float32, 2, (tokens, self.taps.shape[-1]))
        _within("tokens", tokens, 1, U32)
        _within("position", self.position, 0, U32 - tokens)
        for part in (self.final, self.taps):
            _within("coordinates", part.shape[1], 0, MOST_WIDTH)
        _check_beside(tokens, self.position, self.log_z, self.candidates, self.drafted, self.spoken)


Message = Tokens | States | Coordinates | Fault
"""What a frame can carry."""


@dataclass(frozen=True, slots=True)
class Wants:
    """What a session, or a request for features, asks back for each token.

    Attributes:
        layers: Taps to read, ascending.
        final: Whether the final state is wanted.
        log_z: Whether log Z is wanted.
        candidates: How many of the likeliest tokens are wanted.
        codec: Name of the codec that hidden states travel in.
        basis: Id of the kit in whose basis they travel instead, or None.
        encoding: In what, with a basis.
    """

    layers: tuple[int, ...]
    final: bool
    log_z: bool
    candidates: int
    codec: str
    basis: str | None = None
    encoding: Encoding | None = None

    def __post_init__(self) -> None:
        _check_layers(self.layers)
        _within("candidates", self.candidates, 0, MOST_CANDIDATES)
        codec_named(self.codec)
        if (self.basis is None) != (self.encoding is None):
            raise MalformedMessage(reason="a basis and an encoding come together")
        if self.encoding is not None:
            found = (bool(self.layers), self.final)
            if found != (bool(self.encoding.taps), bool(self.encoding.final)):
                raise MalformedMessage(reason="the encoding has other parts than are wanted")

    @property
    def depth(self) -> int | None:
        """The layer behind which none of this is read; None where the whole backbone is needed."""
        # Who wants nothing, as a prefix, may be gone on from by somebody who wants anything.
        if self.final or self.log_z or self.candidates or not self.layers:
            return None
        return self.layers[-1]

    def to_json(self) -> dict[str, object]:
        """Return the fields by name."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: object) -> "Wants":
        """Read what ``to_json`` wrote, or raise ``MalformedMessage`` or ``UnknownCodec``."""
        read = Fields(data, "wants")
        return cls(
            layers=read.integers("layers", MOST_TAPS),
            final=read.flag("final"),
            log_z=read.flag("log_z"),
            candidates=read.integer("candidates"),
            codec=read.label("codec"),
            basis=read.optional("basis", read.file_name),
            encoding=read.optional("encoding", lambda name: Encoding.from_json(read.value(name))),
        )


@dataclass(frozen=True, slots=True)
class SessionRequest:
    """Asks for a session.

    Attributes:
        wants: What every step is to answer with.
        protocol: The version the device speaks, "major.minor".
        prefix: Id of the prefix that it begins behind, or None.
        gate: Which tokens need the device, where the steps ask for that; or None.
    """

    wants: Wants
    protocol: str = "1.2"
    prefix: str | None = None
    gate: Gate | None = None

    def __post_init__(self) -> None:
        if not _Version.fullmatch(self.protocol):
            raise MalformedMessage(reason=f"protocol must be major.minor, but is {self.protocol}")
        if self.prefix is not None:
            _check_name("prefix", self.prefix)

    def to_json(self) -> dict[str, object]:
        """Return the fields by name."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: object) -> "SessionRequest":
        """Read what ``to_json`` wrote, or raise ``MalformedMessage`` or ``UnknownCodec``."""
        read = Fields(data, "session request")
        return cls(
            wants=Wants.from_json(read.value("wants")),
            protocol=read.label("protocol"),
            prefix=read.maybe("prefix", read.label),
            gate=read.optional("gate", lambda name: Gate.from_json(read.value(name))),
        )


@dataclass(frozen=True, slots=True)
class SessionOpened:
    """A session is there.

    Attributes:
        session: Its id, which is part of its address.
        position: Tokens already in it: those of its prefix.
        limit: Positions it can hold.
        idle_seconds: Seconds without a step after which it ends.
    """

    session: str
    position: int
    limit: int
    idle_seconds: float

    def __post_init__(self) -> None:
        _check_name("session", self.session)
        _within("position", self.position, 0, self.limit)

    def to_json(self) -> dict[str, object]:
        """Return the fields by name."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: object) -> "SessionOpened":
        """Read what ``to_json`` wrote, or raise ``MalformedMessage``."""
        read = Fields(data, "session")
        return cls(
            session=read.label("session"),
            position=read.integer("position"),
            limit=read.integer("limit", 1),
            idle_seconds=read.number("idle_seconds", 0.0, _LONGEST_IDLE),
        )


@dataclass(frozen=True, slots=True)
class PrefixKept:
    """A prefix has been read and is kept.

    Attributes:
        prefix: Its id: the same tokens of the same owner have the same.
        position: Its tokens.
        idle_seconds: Seconds without use after which it is forgotten; it may be so earlier.
    """

    prefix: str
    position: int
    idle_seconds: float

    def __post_init__(self) -> None:
        _check_name("prefix", self.prefix)
        _within("position", self.position, 1, U32)

    def to_json(self) -> dict[str, object]:
        """Return the fields by name."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: object) -> "PrefixKept":
        """Read what ``to_json`` wrote, or raise ``MalformedMessage``."""
        read = Fields(data, "prefix")
        return cls(
            prefix=read.label("prefix"),
            position=read.integer("position", 1),
            idle_seconds=read.number("idle_seconds", 0.0, _LONGEST_IDLE),
        )


def _check_name(kind: str, name: str) -> None:
    if not _Name.fullmatch(name):
        raise MalformedMessage(reason=f"a {kind}'s id must be 1 to 128 of [A-Za-z0-9_-]")


def _check(
    array: NDArray[np.generic],
    part: str,
    dtype: type[np.generic],
    axes: int,
    shape: tuple[int, ...] | None = None,
) -> None:
    """Refuse an array of another dtype, another number of axes, or another shape."""
    if array.dtype != dtype or array.ndim != axes:
        raise _mismatch(part, f"{dtype.__name__} with {axes} axes", array)
    if shape is not None and array.shape != shape:
        raise _mismatch(part, str(shape), array)


def _check_beside(
    tokens: int,
    position: int,
    log_z: Floats | None,
    candidates: Candidates | None,
    drafted: Ids,
    spoken: Ids,
) -> None:
    """Refuse what stands beside the states of T tokens and does not fit them."""
    if log_z is not None:
        _check(log_z, "log_z", np.float32, 1, (tokens,))
    if candidates is not None and len(candidates.ids) != tokens:
        raise _mismatch("candidates", f"of {tokens} tokens", candidates.ids)
    _check(drafted, "drafted", np.uint32, 1)
    _within("drafted", len(drafted), 0, min(tokens - 1, MOST_DRAFTS))
    _check(spoken, "spoken", np.uint32, 1)
    _within("spoken", len(spoken), 0, min(position, MOST_DRAFTS))
    if len(spoken) and tokens != 1:
        raise MalformedMessage(reason=f"spoken tokens come with one row, not with {tokens}")


def _check_layers(layers: tuple[int, ...]) -> None:
    if not layers:
        return
    _within("taps", len(layers), 1, MOST_TAPS)
    if sorted(set(layers)) != list(layers) or layers[0] < 0 or layers[-1] > U32:
        raise MalformedMessage(reason=f"layers must ascend from 0, but are {layers}")


def _within(name: str, value: int, lowest: int, highest: int) -> None:
    if not lowest <= value <= highest:
        raise MalformedMessage(reason=f"{name} must be {lowest} to {highest}, but is {value}")


def _mismatch(part: str, expected: str, array: NDArray[np.generic]) -> TensorMismatch:
    return TensorMismatch(part=part, expected=expected, got=f"{array.dtype} {array.shape}")
