"""One agent for each home: its lock, its token, and where it is.

daemon.lock    held by the agent for as long as it lives, however it dies
daemon.json    its process and its address, once it can be reached
api-token      what its API wants to be shown, readable by its owner alone
daemon.log     what it has to say when nobody sees its terminal
"""

import json
import os
import secrets
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from device_agent.atomic import write_whole
from device_agent.errors import DeviceError
from device_agent.file_lock import Held, hold, is_held

LOCK, RECORD, TOKEN, LOG = "daemon.lock", "daemon.json", "api-token", "daemon.log"

GRACE = 1.0
"""Seconds that the lock is waited for: who only looks whether it is held has it for a moment."""

STOP_SECONDS = 30.0
"""How long an agent that was asked to stop may take."""

POLL = 0.05


class AlreadyUp(DeviceError):
    """Another process is the agent of this home."""

    hint = "`sideplug status` shows where it is, `sideplug stop` ends it."

    def __init__(self, home: Path) -> None:
        super().__init__(f"an agent is up in {home} already")


class NotUp(DeviceError):
    """No process is the agent of this home."""

    hint = "`sideplug up` starts it."

    def __init__(self, home: Path) -> None:
        super().__init__(f"no agent is up in {home}")


class WillNotStop(DeviceError):
    """The agent was asked to stop and is still there."""

    hint = "Wait a little and look with `sideplug status`; it survives being killed."

    def __init__(self, pid: int) -> None:
        super().__init__(f"the agent (process {pid}) has not stopped after {STOP_SECONDS:.0f} s")


@dataclass(frozen=True, slots=True)
class Instance:
    """An agent that can be reached."""

    pid: int
    url: str
    started: float
    """Seconds since 1970."""


@contextmanager
def sole_instance(home: Path) -> Iterator[None]:
    """Be the agent of ``home``.

    Raises:
        AlreadyUp: Another process is.
    """
    record = home / RECORD
    try:
        with hold(home / LOCK, GRACE):
            record.unlink(missing_ok=True)  # of one that was killed
            try:
                yield
            finally:
                record.unlink(missing_ok=True)
    except Held as error:
        raise AlreadyUp(home) from error


def announce(home: Path, url: str) -> None:
    """Let others know where the agent is. Call it inside ``sole_instance``."""
    instance = Instance(os.getpid(), url, time.time())
    write_whole(home / RECORD, json.dumps(asdict(instance)).encode())


def find_instance(home: Path) -> Instance | None:
    """The agent of ``home``; None when there is none, or when it cannot be reached yet."""
    try:
        found = Instance(**json.loads((home / RECORD).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None
    return found if is_held(home / LOCK) else None


def stop_instance(home: Path) -> Instance:
    """Ask the agent of ``home`` to end, and wait until it has.

    Raises:
        NotUp: There is none.
        WillNotStop: It takes too long.
    """
    found = find_instance(home)
    if found is None:
        raise NotUp(home)
    os.kill(found.pid, signal.SIGTERM)
    until = time.monotonic() + STOP_SECONDS
    while is_held(home / LOCK):
        if time.monotonic() > until:
            raise WillNotStop(found.pid)
        time.sleep(POLL)
    return found


def token_of(home: Path) -> str:
    """What the API of ``home`` wants to be shown; made when it is first asked for."""
    path = home / TOKEN
    if not path.is_file():
        write_whole(path, secrets.token_urlsafe(32).encode() + b"\n")
    return path.read_text(encoding="ascii").strip()
