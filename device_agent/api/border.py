"""The outermost layer: who may come in, what is counted, and no stack trace gets out."""

import logging
import secrets
import time
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from device_agent.api import page
from device_agent.api.errors import WrongHost, WrongToken, status_of, told
from device_agent.api.metrics import Metrics

log = logging.getLogger("sideplug.agent")

OPEN_PATHS = frozenset(("/health", "/", *page.ASSETS))
"""What is told to whoever asks: that the agent lives, and the page, which knows nothing of the person by itself."""

LOOPBACK = ("127.0.0.1", "localhost", "::1")
GONE = 499
"""Counted as the status when the other side went away first, as proxies do."""


class Border:
    """ASGI middleware.

    There are no CORS headers: no page of another origin may read an answer. The host is checked too, because a page
    can give its own name the address of this machine.

    Args:
        app: What lies behind.
        token: Whoever does not send it is not let in.
        host: The name or address that is listened on.
        metrics: Where requests are counted.
        paths: The path of each function that answers, as a template. Requests are counted under it, for there are as
            many paths as somebody invents; not every Starlette we run on says which route was taken.
    """

    def __init__(
        self,
        app: ASGIApp,
        token: str,
        host: str,
        metrics: Metrics,
        paths: Mapping[Callable[..., object], str],
    ) -> None:
        self._app, self._metrics, self._paths = app, metrics, paths
        self._token = f"Bearer {token}".encode()
        self._hosts = LOOPBACK if host in LOOPBACK else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, if it may pass, and count it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, started = 0, time.perf_counter()

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            self._check(scope)
            await self._app(scope, receive, noting)
        except ClientDisconnect:
            status = status or GONE
        except Exception as error:
            if status_of(error) == 500:
                log.exception("a request has failed")
            if status:
                raise  # half an answer is out: the server cuts the connection
            answer = JSONResponse(told(error), status_of(error))
            await answer(scope, receive, noting)
        endpoint = scope.get("endpoint")
        route = self._paths.get(endpoint, "unknown") if endpoint else "unknown"
        self._metrics.requests.labels(route, str(status)).inc()
        self._metrics.duration.labels(route).observe(time.perf_counter() - started)

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        named = urlsplit(f"//{headers.get('host', '')}").hostname or ""
        if self._hosts is not None and named not in self._hosts:
            raise WrongHost(named)
        given = headers.get("authorization", "").encode()
        if scope["path"] not in OPEN_PATHS and not secrets.compare_digest(given, self._token):
            raise WrongToken()
