"""Runs the agent of a home until somebody stops it: Ctrl-C, SIGTERM, or ``sideplug stop``."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import fields

import uvicorn

from device_agent.api.agent import Agent
from device_agent.api.answers import Answers
from device_agent.api.app import create_app
from device_agent.api.metrics import Metrics
from device_agent.api.voices import Voices
from device_agent.atomic import make_private
from device_agent.daemon.instance import (
    LOG,
    POLL,
    Instance,
    announce,
    find_instance,
    sole_instance,
    token_of,
)
from device_agent.daemon.supervisor import Supervisor
from device_agent.errors import DeviceError
from device_agent.runtime.memory_release import release_memory, return_large_blocks, share_one_arena
from device_agent.settings import BadSetting, Settings, variable

BACKLOG = 128

LEAVING_SECONDS = 3
"""How long answers under way may take when the agent ends."""

START_SECONDS = 30.0
"""How long an agent in the background may take until it can be reached."""


class DidNotStart(DeviceError):
    """The agent in the background has ended, or cannot be reached."""

    hint = "Start it in the foreground with `sideplug up` to see what is wrong."

    def __init__(self, reason: str) -> None:
        super().__init__(f"the agent did not start: {reason}")


def serve(settings: Settings, on_ready: Callable[[str], None]) -> None:
    """Be the agent of the settings' home.

    Args:
        settings: The person's.
        on_ready: Told of the address, once there is somebody at it.

    Raises:
        AlreadyUp: There is an agent in this home.
        BadSetting: The address cannot be listened on.
        KeyboardInterrupt: At the end, when it was stopped with Ctrl-C.
    """
    share_one_arena()
    return_large_blocks()
    with sole_instance(settings.home), listening(settings) as opened:
        metrics = Metrics()
        voices = Voices(settings, metrics)
        agent = Agent(settings, token_of(settings.home), voices, metrics, Answers())
        agent.store().close()  # what is wrong with the store should be told now
        supervisor = Supervisor(settings, lambda: voices.quiet_seconds)
        url = url_of(opened)

        def ready() -> None:
            release_memory()
            announce(settings.home, url)
            on_ready(url)

        server = _Server(_config(create_app(agent)), ready)
        supervisor.start()
        with closing(voices), closing(supervisor), _sigterm_is_no_error():
            server.run(sockets=[opened])


def detach(settings: Settings) -> Instance:
    """Start an agent in the background; gives it as soon as it can be reached.

    Raises:
        DidNotStart: It ended at once, or takes too long.
    """
    environ = {
        **os.environ,
        **{variable(field.name): str(getattr(settings, field.name)) for field in fields(Settings)},
    }
    make_private(settings.home / LOG)
    with (settings.home / LOG).open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "device_agent", "up"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
            env=environ,
            start_new_session=True,
        )
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        found = find_instance(settings.home)
        if found is not None and found.pid == process.pid:
            process.returncode = 0  # it outlives us, on purpose
            return found
        if process.poll() is not None:
            said = (settings.home / LOG).read_text(encoding="utf-8", errors="replace").strip()
            raise DidNotStart(said.removeprefix("sideplug: ") or f"exit code {process.returncode}")
        time.sleep(POLL)
    process.terminate()
    raise DidNotStart(f"nobody can be reached after {START_SECONDS:.0f} s")


@contextmanager
def listening(settings: Settings) -> Iterator[socket.socket]:
    """A listening socket.

    Raises:
        BadSetting: The address cannot be listened on.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # TCP by name: asyncio lets small answers out at once only where a socket says that it is TCP.
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as opened:
        if os.name == "posix":  # elsewhere it would let a second one take the same port
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            opened.bind((settings.host, settings.port))
        except OSError as error:
            reason = f"{settings.port} of {settings.host} cannot be listened on: {error.strerror}"
            raise BadSetting("port", reason) from None
        opened.listen(BACKLOG)
        yield opened


def url_of(opened: socket.socket) -> str:
    """The address that a browser would take."""
    host, port = opened.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class _Server(uvicorn.Server):
    """uvicorn, which says when it is there."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if not self.should_exit:
            self._on_ready()


def _config(app: object) -> uvicorn.Config:
    return uvicorn.Config(
        app,  # type: ignore[arg-type]
        http="h11",
        ws="none",
        loop="asyncio",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=LEAVING_SECONDS,
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
