"""Who is let in, and how much each may use: keys, quotas, and the door that closes at the end."""

import math
import time
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cloud_service.keys import LOCAL, KeyLimits, KeyStore
from protocol.errors import Draining, KeyMissing, QuotaSpent

OPEN = frozenset({"/health", "/ready", "/version"})
"""Answered without a key, and until the end: who watches over the service asks there."""
_MINUTE, _DAY = 60.0, 86400.0


class Quota:
    """
    A bucket that is full of ``limit`` and refills evenly in ``period`` seconds.

    What something costs is often known only afterwards, and may be more than the bucket ever
    holds. So whoever comes while it is above zero is served and may leave it below; then it is
    waited for. Over time nobody uses more than the limit a period.
    """

    def __init__(
        self, limit: int | None, period: float, unit: str, clock: Callable[[], float]
    ) -> None:
        self._limit, self._period, self._unit, self._clock = limit, period, unit, clock
        self._left = float(limit or 0)
        self._filled = clock()

    def spend(self, amount: int) -> None:
        """Take ``amount`` out."""
        if self._limit is not None:
            self._refill(self._limit)
            self._left -= amount

    def require(self) -> None:
        """Refuse with ``QuotaSpent`` while the bucket is empty."""
        if self._limit is None:
            return
        self._refill(self._limit)
        if self._left <= 0:
            seconds = math.floor(-self._left / self._limit * self._period) + 1
            raise QuotaSpent(limit=self._limit, unit=self._unit, seconds=seconds)

    def _refill(self, limit: int) -> None:
        now = self._clock()
        self._left = min(limit, self._left + (now - self._filled) * limit / self._period)
        self._filled = now


class Caller:
    """Who sends a request, and what is left of their quotas."""

    def __init__(
        self, owner: str, key: str | None, limits: KeyLimits, clock: Callable[[], float]
    ) -> None:
        self.owner = owner
        """Name of the key: what it opens is seen by no other owner."""
        self.key = key
        """Id of the key, for the log; None without one."""
        self.sessions = limits.sessions
        """Sessions at a time, or None."""
        self.tokens = Quota(limits.tokens_per_minute, _MINUTE, "tokens a minute", clock)
        self.bytes = Quota(limits.bytes_per_day, _DAY, "bytes a day", clock)

    def require(self, method: str) -> None:
        """Refuse with ``QuotaSpent`` what is spent; whoever gives back is always served."""
        if method != "DELETE":
            self.bytes.require()
        if method == "POST":
            self.tokens.require()


class Admission:
    """The door. Quotas are counted from the service's start on."""

    def __init__(self, keys: KeyStore, clock: Callable[[], float] = time.monotonic) -> None:
        self._keys = keys
        self._clock = clock
        self._callers: dict[str, Caller] = {}
        self._local = Caller(LOCAL, None, KeyLimits(), clock)
        self.draining = False
        """Whether the door is closed: what is inside is finished, nothing more is begun."""
        self.running = 0
        """Requests that are inside."""

    def caller(self, authorization: bytes | None) -> Caller:
        """
        Return who sends that header; anybody is ``local`` while there are no keys.

        Raises:
            KeyMissing: There are keys, and the header has none.
            KeyUnknown, KeyRevoked: It is no good.

        """
        if not self._keys:
            return self._local
        scheme, _, sent = (authorization or b"").decode("latin-1").partition(" ")
        if scheme.lower() != "bearer":
            raise KeyMissing()
        key = self._keys.find(sent.strip())
        if key.id not in self._callers:
            self._callers[key.id] = Caller(key.name, key.id, key.limits, self._clock)
        return self._callers[key.id]


class Gate:
    """ASGI middleware: nobody gets past it who is not let in; ``scope`` then names the caller."""

    def __init__(self, app: ASGIApp, admission: Admission) -> None:
        self._app = app
        self._admission = admission

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or raise the fault that says why not."""
        if scope["type"] != "http" or scope["path"] in OPEN:
            await self._app(scope, receive, send)
            return
        if self._admission.draining and scope["path"].startswith("/v1/"):
            raise Draining()
        caller = self._admission.caller(dict(scope["headers"]).get(b"authorization"))
        caller.require(scope["method"])
        scope["caller"] = caller

        async def counted_receive() -> Message:
            message = await receive()
            caller.bytes.spend(len(message.get("body", b"")))
            return message

        async def counted_send(message: Message) -> None:
            caller.bytes.spend(len(message.get("body", b"")))
            await send(message)

        self._admission.running += 1
        try:
            await self._app(scope, counted_receive, counted_send)
        finally:
            self._admission.running -= 1
