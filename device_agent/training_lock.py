"""One training run at a time in a home folder."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from device_agent.atomic import make_folder
from device_agent.errors import DeviceError


class AlreadyTraining(DeviceError):
    """Another process trains in the same home folder."""

    hint = "Wait for it, or stop it; it keeps what it has learned."

    def __init__(self, home: Path) -> None:
        super().__init__(f"another training run is going on in {home}")


@contextmanager
def training_lock(home: Path) -> Iterator[None]:
    """Hold the right to train in ``home``.

    It is a lock on an SQLite file, because the system releases that one on every platform when its
    owner dies, however it dies.

    Raises:
        AlreadyTraining: Another process holds it.
    """
    db = sqlite3.connect(make_folder(home) / "training.lock", timeout=0, isolation_level=None)
    try:
        db.execute("BEGIN EXCLUSIVE")
    except sqlite3.OperationalError as error:
        db.close()
        raise AlreadyTraining(home) from error
    try:
        yield
    finally:
        db.close()
