"""Runs a service on a socket until somebody stops it."""

import gc
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import uvicorn
from fastapi import FastAPI

from cloud_service.admission import Admission
from cloud_service.app import create_app
from cloud_service.errors import BadSetting, CloudError
from cloud_service.pace import PacedProtocol
from cloud_service.runner import State
from cloud_service.service import Service
from cloud_service.settings import Settings

Tell = Callable[[str, str, str], None]
"""Takes the name of an event, a sentence on it, and the service's address."""
BACKLOG = 1024
KEEP_ALIVE = 75
"""Seconds that a connection may be silent: a person reads and types between two answers."""
DRAIN_SECONDS = 20.0
"""Seconds that requests under way get when the service is stopped."""
PATIENCE = 5
"""Seconds more, until what is still under way is cut off."""


def serve(service: Service, tell: Tell) -> None:
    """
    Serve until SIGTERM or Ctrl-C, which raises ``KeyboardInterrupt`` at the end.

    Raises:
        BadSetting: The address cannot be listened on.
        CloudError: The backbone could not be loaded.

    """
    app = create_app(service)
    opened = listen(service.settings.host, service.settings.port)
    server = server_for(app, service.settings, service.admission)
    name, url = service.pulled.record.display_name, url_of(opened, bool(service.settings.tls_cert))

    def loaded() -> None:
        if service.runner.state is State.FAILED:
            server.should_exit = True
        elif service.runner.state is State.READY:
            spare_collector()
            tell("ready", f"{name} is ready", url)

    service.runner.on_loaded = loaded
    tell("serving", f"{name} is being loaded, to be served at {url}; Ctrl-C stops it", url)
    with opened, _sigterm_is_no_error():
        server.run(sockets=[opened])
    if service.runner.error is not None:
        raise CloudError(
            f"the backbone could not be loaded: {service.runner.error}",
            "Is there enough memory? --weights bf16 needs half.",
        )


def spare_collector() -> None:
    """Keep the garbage collector from what is loaded by now: looking through it takes a quarter of a
    second, in which no device is answered, every few seconds."""
    gc.collect()
    gc.freeze()


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket, or raise ``BadSetting``."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # TCP by name: asyncio lets small answers out at once only where a socket says that it is TCP,
    # and each step would wait 40 ms for an acknowledgement.
    opened = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":  # elsewhere it would let a second service take the same port
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind((host, port))
        opened.listen(BACKLOG)
        return opened
    except OSError as error:
        opened.close()
        raise BadSetting(
            f"port {port} of {host} cannot be listened on: {error.strerror}",
            "Is the service running already? Choose another port with --port.",
        ) from None


def url_of(opened: socket.socket, tls: bool = False) -> str:
    """Return the address that a browser would take."""
    host, port = opened.getsockname()[:2]
    scheme = "https" if tls else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


class DrainingServer(uvicorn.Server):
    """
    uvicorn, which closes the door first when it is asked to stop, and ends when nobody is inside.

    Asked a second time it does not wait.
    """

    def __init__(self, config: uvicorn.Config, admission: Admission) -> None:
        super().__init__(config)
        self._admission = admission
        self._until = 0.0

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Take a signal that asks to stop."""
        if self._admission.draining:
            super().handle_exit(sig, frame)
        else:
            self._captured_signals.append(sig)
            self._until = time.monotonic() + DRAIN_SECONDS
            self._admission.draining = True

    async def on_tick(self, counter: int) -> bool:
        """Say, ten times a second, whether it is time to end."""
        drained = self._admission.running == 0 or time.monotonic() >= self._until
        if self._admission.draining and drained:
            self.should_exit = True
        return await super().on_tick(counter)


def server_for(app: FastAPI, settings: Settings, admission: Admission) -> DrainingServer:
    """
    Return the server, which logs no request: paths hold the names of sessions.

    Raises:
        BadSetting: Certificate and private key cannot be read, or do not fit together.

    """
    config = uvicorn.Config(
        app,
        http=PacedProtocol,
        ws="none",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=PATIENCE,
        ssl_certfile=settings.tls_cert or None,
        ssl_keyfile=settings.tls_key or None,
    )
    try:
        config.load()
    except OSError as error:  # ssl.SSLError is one
        raise BadSetting(f"TLS cannot be set up: {error.strerror or error}") from None
    return DrainingServer(config, admission)


@contextmanager
def _sigterm_is_no_error() -> Iterator[None]:
    """Swallow the signal that uvicorn raises once more at its end: SIGTERM is how it is stopped."""
    # Only there can signals be listened to.
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
