"""Wire versions. To add one: a ``vN`` package, a row, a golden folder."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from protocol.codecs.base import Data
from protocol.encoding import Encoding
from protocol.errors import BadMagic, TruncatedFrame, UnsupportedVersion
from protocol.limits import Limits
from protocol.messages import Message
from protocol.v1 import frames as v1

MAGIC = b"SPLG"
HEADER_SIZE = 16
"""Bytes after which every version can say how long its frame is."""
_PREFIX = len(MAGIC) + 1
_DEFAULT_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Wire:
    """One major version: how it is written, read, and measured by its header."""

    major: int
    minor: int
    encode: Callable[[Message, str | Encoding], bytes]
    decode: Callable[[Data, Limits], Message]
    frame_size: Callable[[Data, Limits], int]


_ALL = (Wire(v1.MAJOR, v1.MINOR, v1.encode, v1.decode, v1.frame_size),)

WIRES: dict[int, Wire] = {wire.major: wire for wire in _ALL}
LATEST = max(WIRES)
SPOKEN: tuple[str, ...] = tuple(f"{wire.major}.{wire.minor}" for wire in _ALL)
"""The versions of this side, as facts and session requests name them."""


def encode(message: Message, codec: str | Encoding = "f32") -> bytes:
    """
    Write one frame of the latest version.

    Args:
        message: What is said.
        codec: Name of what hidden states travel in; of coordinates an encoding, or one for all.

    """
    return WIRES[LATEST].encode(message, codec)


def decode(data: Data, limits: Limits = _DEFAULT_LIMITS) -> Message:
    """
    Read one frame of any version this side speaks.

    Raises:
        ProtocolError: The bytes are not one whole frame that this side reads.

    """
    return _wire_of(data).decode(data, limits)


def frame_size(header: Data, limits: Limits) -> int:
    """
    Return the bytes of the whole frame that begins with these ``HEADER_SIZE`` bytes.

    Raises:
        ProtocolError: The header is not one of a frame that this side reads.

    """
    return _wire_of(header).frame_size(header, limits)


def check_spoken(protocol: str) -> None:
    """Refuse a "major.minor" with ``UnsupportedVersion`` when its major version is not spoken."""
    major = protocol.split(".", 1)[0]
    if major not in map(str, WIRES):
        raise UnsupportedVersion(major=major, spoken=", ".join(SPOKEN))


def speaks(protocol: Sequence[str], minor: int) -> bool:
    """Say whether versions "major.minor" hold the latest major one with that minor version or a later one."""
    found = (version.split(".", 1) for version in protocol)
    return any(
        len(parts) == 2
        and parts[0] == str(LATEST)
        and parts[1].isdigit()
        and int(parts[1]) >= minor
        for parts in found
    )


def _wire_of(data: Data) -> Wire:
    start = bytes(data[:_PREFIX])
    if start[:4] != MAGIC[: len(start)]:
        raise BadMagic()
    if len(start) < _PREFIX:
        raise TruncatedFrame(needed=HEADER_SIZE, got=len(start))
    wire = WIRES.get(start[4])
    if wire is None:
        raise UnsupportedVersion(major=start[4], spoken=", ".join(SPOKEN))
    return wire
