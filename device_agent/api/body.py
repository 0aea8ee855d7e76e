"""The JSON of a request, read field by field: what is missing or null has its default, what is wrong is named."""

import json
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request

from device_agent.api.errors import BadRequest, BodyTooLarge

MOST_BYTES = 16_000_000
"""Of a body."""


class Body:
    """One JSON object. Each method raises BadRequest when the field is of another type or out of range."""

    def __init__(self, data: object) -> None:
        if not isinstance(data, Mapping):
            raise BadRequest("the body must be a JSON object")
        self._data: Mapping[str, Any] = data

    @classmethod
    async def of(cls, request: Request) -> "Body":
        """Read it from a request; see ``bytes_of``."""
        data = await bytes_of(request)
        try:
            return cls(json.loads(data or b"{}", parse_constant=_no_constant))
        except (ValueError, RecursionError) as error:
            raise BadRequest(f"the body is not JSON: {error}") from None

    @property
    def record(self) -> dict[str, Any]:
        """All of it, as it came."""
        return dict(self._data)

    def value(self, name: str, default: object = None) -> Any:
        """As it came."""
        found = self._data.get(name)
        return default if found is None else found

    def text(self, name: str, default: str | None = None) -> str:
        """A text that is not empty; required without a default."""
        found = self.value(name, default)
        if not isinstance(found, str) or not (found or default == ""):
            raise BadRequest(f"{name} must be a text", name)
        return whole(found, name)

    def flag(self, name: str) -> bool:
        """True or false; false by default."""
        found = self.value(name, False)
        if not isinstance(found, bool):
            raise BadRequest(f"{name} must be true or false", name)
        return found

    def integer(self, name: str, lowest: int, highest: int) -> int | None:
        """An integer of ``lowest`` to ``highest``; None by default."""
        found = self.value(name)
        good = isinstance(found, int) and not isinstance(found, bool)
        if found is None or (good and lowest <= found <= highest):
            return found  # type: ignore[no-any-return]
        raise BadRequest(f"{name} must be an integer from {lowest} to {highest}", name)

    def number(self, name: str, lowest: float, highest: float, default: float) -> float:
        """A number of ``lowest`` to ``highest``."""
        found = self.value(name, default)
        good = isinstance(found, int | float) and not isinstance(found, bool)
        if good and lowest <= found <= highest:
            return float(found)
        raise BadRequest(f"{name} must be a number from {lowest:g} to {highest:g}", name)

    def texts(self, name: str, most: int) -> list[str]:
        """A text or a list of at most ``most``; none by default. Empty ones are left out."""
        found = self.value(name, [])
        listed = [found] if isinstance(found, str) else found
        if not isinstance(listed, list) or not all(isinstance(one, str) for one in listed):
            raise BadRequest(f"{name} must be a text or a list of texts", name)
        if len(listed) > most:
            raise BadRequest(f"{name} must be {most} texts at most", name)
        return [whole(one, name) for one in listed if one]

    def only(self, allowed: Mapping[str, tuple[object, ...]]) -> None:
        """Refuse what would change the answer and is not supported.

        Args:
            allowed: Values that change nothing, by field.
        """
        for name, values in allowed.items():
            found = self.value(name)
            if found is not None and found not in values:
                raise BadRequest(f"{name} is not supported by this agent", name)


async def bytes_of(request: Request) -> bytes:
    """The body of a request.

    Raises:
        BodyTooLarge: It has more than ``MOST_BYTES``.
    """
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > MOST_BYTES:
            raise BodyTooLarge(MOST_BYTES)
    return bytes(data)


def whole(text: str, name: str) -> str:
    """``text``, unless it holds half a character, which JSON can write and nothing else can."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadRequest(f"{name} holds half a character", name) from None
    return text


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is no number")
