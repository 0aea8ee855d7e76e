"""What a person lets training take, as they write it and as it is told to them."""

import re
from dataclasses import dataclass

from device_agent.settings import BadSetting

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(k|m|g)b", re.IGNORECASE)
_TIME = re.compile(r"(\d+(?:\.\d+)?)\s*(s|min|h)", re.IGNORECASE)
_BYTES = {"k": 1e3, "m": 1e6, "g": 1e9}
_SECONDS = {"s": 1, "min": 60, "h": 3600}


@dataclass(frozen=True, slots=True)
class Bounds:
    """What training may take; None for no bound."""

    memory: int | None = None
    """Bytes, resident, of the process."""

    seconds: float | None = None
    """Of training itself: features that are not here yet are fetched before."""


def size_of(text: str) -> int:
    """Bytes of a size such as ``128MB``.

    Raises:
        BadSetting: It is none.
    """
    found = _SIZE.fullmatch(text.strip())
    value = 0 if found is None else int(float(found[1]) * _BYTES[found[2].lower()])
    if value < 1:
        raise BadSetting("memory", f"must be a size such as 128MB, or on or off, but is {text!r}")
    return value


def seconds_of(text: str) -> float:
    """Seconds of a time such as ``10min``.

    Raises:
        BadSetting: It is none.
    """
    found = _TIME.fullmatch(text.strip())
    value = 0.0 if found is None else float(found[1]) * _SECONDS[found[2].lower()]
    if value <= 0:
        raise BadSetting("time", f"must be such as 90s, 10min or 1h, but is {text!r}")
    return value


def size_in_words(size: float) -> str:
    """Megabytes, rounded up: what is said to be enough has to be."""
    return f"{-int(-size // 1e6)} MB"


def seconds_in_words(seconds: float) -> str:
    """A time as a person reads it."""
    if seconds < 100:
        return f"{seconds:.0f} s" if seconds >= 1 else "a second"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
