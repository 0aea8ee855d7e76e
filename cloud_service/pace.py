"""
HTTP connections that end when the other side is too slow: in its head, its body, or in reading.

A slow peer costs memory for as long as it likes, so none is waited for that moves less than
``PACE``. The rule, and a pace of the same order, are those of Kestrel's minimum data rates.
"""

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

LOOK_SECONDS = 10.0
"""How often a connection is looked at. A whole head has to come between two looks."""
PACE = 256
"""Bytes a second that a body has to come at, and an answer has to be read at."""


class PacedProtocol(H11Protocol):
    """uvicorn's connection, looked at while it is open."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to look."""
        super().connection_made(transport)
        self._received = 0
        self._heads = 0
        self._resumed = 0
        self._before = self._seen()
        self._look = self.loop.call_later(LOOK_SECONDS, self._look_again)

    def connection_lost(self, exc: Exception | None) -> None:
        """Look no more."""
        self._look.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count what comes."""
        self._received += len(data)
        before = self.cycle
        super().data_received(data)
        self._heads += self.cycle is not before

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
            "head": self.conn.their_state is h11.IDLE and (not self._heads or self._begun),
            "body": self.conn.their_state is h11.SEND_BODY and not self.flow.read_paused,
            "writing": writing and self.transport.get_write_buffer_size() > 0,
            "left": self.transport.get_write_buffer_size(),
            "received": self._received,
            "heads": self._heads,
            "resumed": self._resumed,
        }

    @property
    def _begun(self) -> bool:
        """Whether some bytes of the next head have come."""
        return bool(self.conn.trailing_data[0])

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
