"""How a token's states are written as coordinates in a public basis, and what that was measured to cost."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from protocol.codecs import codec_named
from protocol.errors import MalformedMessage
from protocol.fields import Fields

MOST_SECTIONS = 64
"""Of one tensor."""
MOST_WIDTH = 2**16 - 1
_LARGEST = 1e9


@dataclass(frozen=True, slots=True)
class Section:
    """
    Neighbouring coordinates that travel in one codec.

    Attributes:
        codec: Its name.
        width: How many coordinates.
    """

    codec: str
    width: int

    def __post_init__(self) -> None:
        codec_named(self.codec)
        if not 1 <= self.width <= MOST_WIDTH:
            raise MalformedMessage(reason=f"a section of {self.width} coordinates")

    @classmethod
    def from_json(cls, data: object) -> "Section":
        """Read what ``to_json`` of an encoding wrote, or raise ``MalformedMessage`` or ``UnknownCodec``."""
        read = Fields(data, "section")
        return cls(read.label("codec"), read.integer("width", 1, MOST_WIDTH))


Sections = tuple[Section, ...]


@dataclass(frozen=True, slots=True)
class Encoding:
    """
    Which coordinates travel, and in what.

    Attributes:
        final: Of the final state, the first of its basis first.
        taps: Of all taps together, the same.
    """

    final: Sections
    taps: Sections

    def __post_init__(self) -> None:
        for sections in (self.final, self.taps):
            if len(sections) > MOST_SECTIONS or width_of(sections) > MOST_WIDTH:
                raise MalformedMessage(reason=f"{len(sections)} sections are too many or too wide")

    @property
    def widths(self) -> tuple[int, int]:
        """How many coordinates of the final state and of the taps, (F, G)."""
        return width_of(self.final), width_of(self.taps)

    def size(self, rows: int) -> int:
        """Return the bytes of the coordinates of so many tokens."""
        return sum(
            codec_named(section.codec).size((rows, section.width))
            for section in (*self.final, *self.taps)
        )

    def to_json(self) -> dict[str, object]:
        """Return the fields by name."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: object) -> "Encoding":
        """Read what ``to_json`` wrote, or raise ``MalformedMessage`` or ``UnknownCodec``."""
        read = Fields(data, "encoding")
        final, taps = (
            tuple(map(Section.from_json, read.values(name, MOST_SECTIONS)))
            for name in ("final", "taps")
        )
        return cls(final, taps)


@dataclass(frozen=True, slots=True)
class Measured:
    """
    An encoding with its cost on public text.

    Attributes:
        encoding: The encoding.
        kl: Divergence of the next token from what exact coordinates give, nats: the mean on public
            text, at the upper end of what was measured.
        bytes: Of the answer to a step of one token, its frame included.
    """

    encoding: Encoding
    kl: float
    bytes: int

    @classmethod
    def from_json(cls, data: object) -> "Measured":
        """Read what ``KitManifest.to_json`` wrote, or raise ``MalformedMessage`` or ``UnknownCodec``."""
        read = Fields(data, "measured encoding")
        return cls(
            Encoding.from_json(read.value("encoding")),
            read.number("kl", 0.0, _LARGEST),
            read.integer("bytes", 1),
        )


def width_of(sections: Sequence[Section]) -> int:
    """Return how many coordinates some sections hold."""
    return sum(section.width for section in sections)


def smallest(encodings: Sequence[Measured], bound: float) -> Measured | None:
    """Return the encoding of fewest bytes that was measured to stay within ``bound`` nats, if any."""
    within = [measured for measured in encodings if measured.kl <= bound]
    return min(within, key=lambda measured: measured.bytes, default=None)
