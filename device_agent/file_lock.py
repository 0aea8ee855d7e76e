"""A lock on a file that only one process can hold."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from device_agent.atomic import make_private


class Held(Exception):
    """Another process holds the lock."""


@contextmanager
def hold(path: Path, seconds: float = 0.0) -> Iterator[None]:
    """Hold the lock on ``path``.

    It is a lock on an SQLite file, because the system releases that one on every platform when its
    owner dies, however it dies.

    Args:
        path: A file of its own; made when missing.
        seconds: How long it is waited for.

    Raises:
        Held: Another process has it.
    """
    make_private(path)
    db = sqlite3.connect(path, timeout=seconds, isolation_level=None, check_same_thread=False)
    try:
        db.execute("BEGIN EXCLUSIVE")
    except sqlite3.OperationalError as error:
        db.close()
        raise Held(path) from error
    try:
        yield
    finally:
        db.close()


def is_held(path: Path) -> bool:
    """Whether another process holds the lock on ``path``."""
    if not path.is_file():
        return False
    try:
        with hold(path):
            return False
    except Held:
        return True
