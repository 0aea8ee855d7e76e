"""One training run at a time in a home folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from device_agent.errors import DeviceError
from device_agent.file_lock import Held, hold, is_held

LOCK = "training.lock"

GRACE = 1.0
"""Seconds that it is waited for: who only looks whether somebody trains has it for a moment."""


class AlreadyTraining(DeviceError):
    """Another process trains in the same home folder."""

    hint = "Wait for it, or stop it; it keeps what it has learned."

    def __init__(self, home: Path) -> None:
        super().__init__(f"another training run is going on in {home}")


@contextmanager
def training_lock(home: Path, seconds: float = GRACE) -> Iterator[None]:
    """Hold the right to train in ``home``.

    Args:
        home: The folder.
        seconds: How long it is waited for.

    Raises:
        AlreadyTraining: Another process holds it.
    """
    try:
        with hold(home / LOCK, seconds):
            yield
    except Held as error:
        raise AlreadyTraining(home) from error


def is_training(home: Path) -> bool:
    """Whether another process trains in ``home``."""
    return is_held(home / LOCK)
