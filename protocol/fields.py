"""Reads JSON from outside: what is not of the type and range asked for is refused by name."""

import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TypeGuard, TypeVar

from protocol.errors import FrameTooLarge, MalformedMessage

U32 = 2**32 - 1
"""The largest count or position that the wire can carry."""
LONGEST_LABEL = 300

_FLOAT32 = 3.4028234663852886e38
"""The largest that there is."""
_SMALLEST, _LARGEST = sys.float_info.min, sys.float_info.max
_File = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")
_Digest = re.compile(r"[0-9a-f]{64}")
_Surrogate = re.compile("[\ud800-\udfff]")
# Windows opens a device under these names, whatever the ending.
_Devices = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?")

T = TypeVar("T")


def read_json(data: bytes | bytearray | memoryview, limit: int) -> object:
    """
    Parse UTF-8 JSON of at most ``limit`` bytes.

    Raises:
        FrameTooLarge: There are more bytes than that.
        MalformedMessage: They are not JSON, or hold NaN or an infinity.

    """
    if len(data) > limit:
        raise FrameTooLarge(size=len(data), limit=limit)
    try:
        parsed: object = json.loads(str(data, "utf-8"), parse_constant=_no_constant)
    except RecursionError:
        raise MalformedMessage(reason="the JSON is nested too deeply") from None
    except ValueError as error:
        raise MalformedMessage(reason=f"it is not JSON: {error}") from None
    return parsed


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is no number")


class Fields:
    """
    The fields of one JSON object, read by name and type.

    Unknown fields are left alone: a newer minor version may send them. Each method raises
    ``MalformedMessage`` when the field is missing, of another type, or out of range.
    """

    def __init__(self, data: object, what: str) -> None:
        if not isinstance(data, Mapping):
            raise MalformedMessage(reason=f"{what} must be an object, but is {_kind(data)}")
        self._data: Mapping[object, object] = data
        self._what = what

    def value(self, name: str) -> object:
        """Return the field as it came."""
        if name not in self._data:
            raise self._wrong(name, "is missing")
        return self._data[name]

    def integer(self, name: str, lowest: int = 0, highest: int = U32) -> int:
        """Return an integer of ``lowest`` to ``highest``."""
        value = self.value(name)
        if not _is_integer(value) or not lowest <= value <= highest:
            raise self._wrong(name, f"must be an integer from {lowest} to {highest}")
        return value

    def number(self, name: str, lowest: float, highest: float) -> float:
        """Return a finite number of ``lowest`` to ``highest``."""
        value = self.value(name)
        # A NaN and the infinities fail the comparison.
        if not _is_number(value) or not lowest <= value <= highest:
            raise self._wrong(name, f"must be a number from {lowest:g} to {highest:g}")
        return float(value)

    def positive(self, name: str) -> float:
        """Return a finite number above 0."""
        return self.number(name, _SMALLEST, _LARGEST)

    def float32(self, name: str) -> float:
        """Return a number that float32 can hold."""
        return self.number(name, -_FLOAT32, _FLOAT32)

    def float32s(self, name: str, most: int) -> tuple[float, ...]:
        """Return up to ``most`` numbers that float32 can hold."""
        values = self.values(name, most)
        good = tuple(
            float(value) for value in values if _is_number(value) and -_FLOAT32 <= value <= _FLOAT32
        )
        if len(good) != len(values):
            raise self._wrong(name, "must hold numbers that float32 can hold")
        return good

    def flag(self, name: str) -> bool:
        """Return true or false."""
        value = self.value(name)
        if not isinstance(value, bool):
            raise self._wrong(name, "must be true or false")
        return value

    def text(self, name: str) -> str:
        """Return a text of any length that UTF-8 can carry."""
        value = self.value(name)
        if not isinstance(value, str) or not _is_unicode(value):
            raise self._wrong(name, "must be a text")
        return value

    def label(self, name: str) -> str:
        """Return a short text that can be shown in a line."""
        value = self.value(name)
        if not isinstance(value, str) or not _is_label(value):
            raise self._wrong(name, f"must be a line of 1 to {LONGEST_LABEL} characters")
        return value

    def file_name(self, name: str) -> str:
        """Return a text that is safe as a file's name, see ``is_file_name``."""
        value = self.label(name)
        if not is_file_name(value):
            raise self._wrong(name, "must be a plain name of [a-z0-9._-]")
        return value

    def digest(self, name: str) -> str:
        """Return a sha256 of 64 hexadecimal digits in lower case."""
        value = self.label(name)
        if not _Digest.fullmatch(value):
            raise self._wrong(name, "must be a sha256 of 64 hexadecimal digits")
        return value

    def one_of(self, name: str, choices: Sequence[str]) -> str:
        """Return one of the texts ``choices``."""
        value = self.label(name)
        if value not in choices:
            raise self._wrong(name, f"must be one of {', '.join(choices)}")
        return value

    def integers(
        self, name: str, most: int, lowest: int = 0, highest: int = U32
    ) -> tuple[int, ...]:
        """Return up to ``most`` integers of ``lowest`` to ``highest``."""
        values = self.values(name, most)
        good = tuple(value for value in values if _is_integer(value) and lowest <= value <= highest)
        if len(good) != len(values):
            raise self._wrong(name, f"must hold integers from {lowest} to {highest}")
        return good

    def labels(self, name: str, most: int) -> tuple[str, ...]:
        """Return up to ``most`` short texts."""
        values = self.values(name, most)
        good = tuple(value for value in values if isinstance(value, str) and _is_label(value))
        if len(good) != len(values):
            raise self._wrong(name, f"must hold lines of 1 to {LONGEST_LABEL} characters")
        return good

    def values(self, name: str, most: int) -> Sequence[object]:
        """Return a list of up to ``most`` values of any type."""
        value = self.value(name)
        if not isinstance(value, list | tuple) or len(value) > most:
            raise self._wrong(name, f"must be a list of at most {most}")
        return value

    def mapping(self, name: str, most: int) -> Mapping[str, object]:
        """Return an object of up to ``most`` fields of any type."""
        value = self.value(name)
        if not isinstance(value, Mapping) or len(value) > most:
            raise self._wrong(name, f"must be an object of at most {most} fields")
        if not all(isinstance(key, str) and _is_unicode(key) for key in value):
            raise self._wrong(name, "must have texts as names")
        return value

    def maybe(self, name: str, read: Callable[[str], T]) -> T | None:
        """Return ``read(name)``, or None where the field is null."""
        return None if self.value(name) is None else read(name)

    def optional(self, name: str, read: Callable[[str], T]) -> T | None:
        """Return ``read(name)``, or None where the field is null or an older peer has left it out."""
        return None if self._data.get(name) is None else read(name)

    def _wrong(self, name: str, problem: str) -> MalformedMessage:
        return MalformedMessage(reason=f"{name!r} of {self._what} {problem}")


def is_file_name(text: str) -> bool:
    """Say whether a text may name a file on every platform: no path, no device, not hidden."""
    return (
        len(text) <= 100 and _File.fullmatch(text) is not None and _Devices.fullmatch(text) is None
    )


def _kind(value: object) -> str:
    return "null" if value is None else type(value).__name__


def _is_integer(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_unicode(text: str) -> bool:
    return _Surrogate.search(text) is None


def _is_label(text: str) -> bool:
    return 0 < len(text) <= LONGEST_LABEL and text.isprintable()
