"""Runs a service on a socket until somebody stops it."""

import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from cloud_service.app import create_app
from cloud_service.errors import BadSetting, CloudError
from cloud_service.runner import State
from cloud_service.service import Service

Tell = Callable[[str, str, str], None]
"""Takes the name of an event, a sentence on it, and the service's address."""
BACKLOG = 1024
KEEP_ALIVE = 75
"""Seconds that a connection may be silent: a person reads and types between two answers."""
PATIENCE = 5
"""Seconds that answers under way get when the service is stopped."""


def serve(service: Service, tell: Tell) -> None:
    """
    Serve until SIGTERM or Ctrl-C, which raises ``KeyboardInterrupt`` at the end.

    Raises:
        BadSetting: The address cannot be listened on.
        CloudError: The backbone could not be loaded.

    """
    app = create_app(service)
    opened = listen(service.settings.host, service.settings.port)
    server = server_for(app)
    name, url = service.pulled.record.display_name, url_of(opened)

    def loaded() -> None:
        if service.runner.state is State.FAILED:
            server.should_exit = True
        elif service.runner.state is State.READY:
            tell("ready", f"{name} is ready", url)

    service.runner.on_loaded = loaded
    tell("serving", f"{name} is being loaded, to be served at {url}; Ctrl-C stops it", url)
    with opened, _sigterm_is_no_error():
        server.run(sockets=[opened])
    if service.runner.error is not None:
        raise CloudError(
            f"the backbone could not be loaded: {service.runner.error}",
            "Is there enough memory? --dtype bf16 needs half.",
        )


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


def url_of(opened: socket.socket) -> str:
    """Return the address that a browser would take."""
    host, port = opened.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def server_for(app: FastAPI) -> uvicorn.Server:
    """Return the server, which logs no request: paths hold the names of sessions."""
    return uvicorn.Server(
        uvicorn.Config(
            app,
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=PATIENCE,
        )
    )


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


def log_to_stderr() -> None:
    """Let the service's own log and the server's warnings be seen."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.WARNING)
    logging.getLogger("sideplug.cloud").setLevel(logging.INFO)
