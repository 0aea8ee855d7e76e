"""The outermost layer: numbers and counts what passes, logs it, and lets no stack trace out."""

import logging
import secrets
import time

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cloud_service.faults import as_fault, fault_answer, framework_fault
from cloud_service.logs import request_id
from cloud_service.metrics import Metrics
from protocol.errors import Fault

log = logging.getLogger("sideplug.cloud")

GONE = 499
"""Counted as the status when the other side went away first, as proxies do."""


def guard(app: FastAPI, metrics: Metrics) -> None:
    """Make every answer of ``app`` pass the border."""

    async def refuse(request: Request, error: Exception) -> Response:
        fault = framework_fault(request, error)
        metrics.faults.labels(fault.code).inc()
        return fault_answer(fault)

    for kind in (Fault, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, refuse)
    app.add_middleware(Border, metrics=metrics)


class Border:
    """ASGI middleware. Not Starlette's base class for them, which costs every step a task."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on and count it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id.set(secrets.token_hex(8))
        passage = _Passage(self._metrics, receive, send)
        started = time.perf_counter()
        with self._metrics.running.track_inprogress():
            await self._answer(scope, passage)
        # The template of the route, never the path itself: it holds the names of sessions.
        route = getattr(scope.get("route"), "path", "unknown")
        self._metrics.requests.labels(route, str(passage.status)).inc()
        seconds = time.perf_counter() - started
        self._metrics.duration.labels(route).observe(seconds)
        _note(scope, route, passage, seconds)

    async def _answer(self, scope: Scope, passage: "_Passage") -> None:
        try:
            await self._app(scope, passage.receive, passage.send)
        except ClientDisconnect:
            passage.status = GONE
        except Exception as error:
            fault = as_fault(error)
            self._metrics.faults.labels(fault.code).inc()
            if passage.status:
                raise  # half an answer is out: the server cuts the connection
            await fault_answer(fault)(scope, passage.receive, passage.send)


def _note(scope: Scope, route: str, passage: "_Passage", seconds: float) -> None:
    """Write a request down for whoever looks closely: a flood of them must not flood the log."""
    if not log.isEnabledFor(logging.DEBUG):
        return
    caller = scope.get("caller")
    facts = {
        "route": route,
        "method": scope["method"],
        "status": passage.status,
        "seconds": round(seconds, 4),
        "received": passage.received,
        "sent": passage.sent,
        "key": None if caller is None else caller.key,
    }
    log.debug("request", extra={"facts": facts})


class _Passage:
    """Counts the bytes of one request in both directions, notes its status, numbers its answer."""

    def __init__(self, metrics: Metrics, receive: Receive, send: Send) -> None:
        self._metrics = metrics
        self._receive = receive
        self._send = send
        self.status = self.received = self.sent = 0

    async def receive(self) -> Message:
        message = await self._receive()
        size = len(message.get("body", b""))
        self.received += size
        self._metrics.received.inc(size)
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            number = (b"x-request-id", (request_id.get() or "").encode())
            message = {**message, "headers": [*message.get("headers", ()), number]}
        size = len(message.get("body", b""))
        self.sent += size
        self._metrics.sent.inc(size)
        await self._send(message)
