"""
HTTP connections that end when the other side is too slow: in its head, its body, or in reading.

A slow peer costs memory for as long as it likes, so none is waited for that moves less than
``PACE``. The rule, and a pace of the same order, are those of Kestrel's minimum data rates. The
parser itself would also take heads of any length, which are held to ``MOST_HEAD`` here.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

LOOK_SECONDS = 10.0
"""How often a connection is looked at. A whole head has to come between two looks."""
PACE = 256
"""Bytes a second that a body has to come at, and an answer has to be read at."""
MOST_HEAD = 2**19
"""Bytes of one request beside its body: more than a system hands over at once, so that one
request's are never taken for another's."""


class PacedProtocol(HttpToolsProtocol):
    """uvicorn's connection, looked at while it is open."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to look."""
        super().connection_made(transport)
        self._received = 0
        self._heads = 0
        self._resumed = 0
        self._beside_body = 0
        self._reading = "head"
        self._before = self._seen()
        self._look = self.loop.call_later(LOOK_SECONDS, self._look_again)

    def connection_lost(self, exc: Exception | None) -> None:
        """Look no more."""
        self._look.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count what comes."""
        self._received += len(data)
        self._beside_body += len(data)
        super().data_received(data)
        if self._beside_body > MOST_HEAD and not self.transport.is_closing():
            self.send_400_response("The request's head is too long.")

    def on_message_begin(self) -> None:
        """Note that a head begins."""
        self._reading, self._beside_body = "head", 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Note that a body begins, if one comes."""
        self._heads += 1
        self._reading = "body"
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Tell the body from what is beside it."""
        self._beside_body -= len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Note that nothing more has to come."""
        self._reading = "nothing"
        super().on_message_complete()

    def resume_writing(self) -> None:
        """Note that the other side has read nearly all there was."""
        self._resumed += 1
        super().resume_writing()

    def _look_again(self) -> None:
        now = self._seen()
        if self._too_slow(self._before, now):
            self.transport.abort()
            return
        self._before = now
        self._look = self.loop.call_later(LOOK_SECONDS, self._look_again)

    def _seen(self) -> dict[str, Any]:
        writing = self.flow.write_paused or self.transport.is_closing()
        return {
            "head": self._reading == "head",
            "body": self._reading == "body" and not self.flow.read_paused,
            "writing": writing and self.transport.get_write_buffer_size() > 0,
            "left": self.transport.get_write_buffer_size(),
            "received": self._received,
            "heads": self._heads,
            "resumed": self._resumed,
        }

    @staticmethod
    def _too_slow(before: dict[str, Any], now: dict[str, Any]) -> bool:
        least = PACE * LOOK_SECONDS
        same_request = before["heads"] == now["heads"]
        head = before["head"] and now["head"] and same_request
        body = before["body"] and now["body"] and same_request
        # While it is paused nothing is added to what has to be read.
        writing = before["writing"] and now["writing"] and before["resumed"] == now["resumed"]
        return bool(
            head
            or (body and now["received"] - before["received"] < least)
            or (writing and before["left"] - now["left"] < least)
        )
