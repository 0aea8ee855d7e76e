"""How much one side will read before it refuses."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType

from protocol.fields import U32, Fields

# What the widths of the wire's counts can carry, and a header at least.
_RANGES: Mapping[str, tuple[int, int]] = MappingProxyType(
    {
        "frame_bytes": (16, 16 + U32),
        "tokens": (1, U32),
        "taps": (1, 2**16 - 1),
        "hidden": (1, U32),
        "candidates": (1, 2**16 - 1),
        "drafts": (1, 2**16 - 1),
        "json_bytes": (2, U32),
    }
)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one side reads at most. ``ValueError`` when a limit could never be kept."""

    frame_bytes: int = 64 * 2**20
    """A whole frame, with its header."""
    tokens: int = 8192
    """Tokens in one frame."""
    taps: int = 256
    """Taps in one frame."""
    hidden: int = 65536
    """Width of a hidden state."""
    candidates: int = 1024
    """Candidates at a position."""
    drafts: int = 64
    """Tokens that the cloud continues one step with."""
    json_bytes: int = 2**20
    """A JSON document, also inside a frame."""

    def __post_init__(self) -> None:
        for name, (lowest, highest) in _RANGES.items():
            value = getattr(self, name)
            if not lowest <= value <= highest:
                raise ValueError(f"{name} must be {lowest} to {highest}, but is {value}")

    def to_json(self) -> dict[str, object]:
        """Return the limits by name."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: object) -> "Limits":
        """
        Read what ``to_json`` wrote.

        Raises:
            MalformedMessage: A limit is missing, of another type, or could never be kept.

        """
        read = Fields(data, "limits")
        return cls(**{name: read.integer(name, *bounds) for name, bounds in _RANGES.items()})


def smaller_of(first: Limits, second: Limits) -> Limits:
    """Return the limits that both sides keep."""
    return Limits(**{name: min(getattr(first, name), getattr(second, name)) for name in _RANGES})
