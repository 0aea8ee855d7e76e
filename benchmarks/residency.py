"""
Memory of a living process and of its children, looked at again and again.

Resident pages are counted for each process (RSS, what a limit in megabytes usually means), so pages that two
share count twice; PSS divides those by who shares them, USS leaves them out. Both can be read on Linux alone.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event, Thread

import psutil

MB = 1_000_000

EVERY = 0.05
"""Seconds between two looks."""


@dataclass(frozen=True, slots=True)
class Residency:
    """What a process and its children held at one moment, in bytes."""

    seconds: float
    """Since the looking began."""

    daemon: int
    """RSS of the process itself."""

    children: int
    """RSS of all its children."""

    pss: int | None
    uss: int | None
    """Of all together; None where the system does not tell them."""

    @property
    def rss(self) -> int:
        """Of all together; what is shared counts for each."""
        return self.daemon + self.children

    def to_json(self) -> dict[str, float | None]:
        """In megabytes."""
        parts = {
            "rss": self.rss,
            "daemon": self.daemon,
            "children": self.children,
            "pss": self.pss,
            "uss": self.uss,
        }
        told = {name: None if size is None else size / MB for name, size in parts.items()}
        return {"seconds": self.seconds, **told}


def residency(pid: int, began: float | None = None) -> Residency:
    """
    What a process and its children hold now.

    A child that has not begun yet is left out: until then it only borrows its parent's pages.

    Args:
        pid: The process.
        began: When looking began, as ``time.monotonic`` has it; now when None.

    Raises:
        psutil.NoSuchProcess: It has ended.

    """
    root = psutil.Process(pid)
    seconds = 0.0 if began is None else time.monotonic() - began
    daemon, words = root.memory_info().rss, root.cmdline()
    pss, uss = _parted(root)
    children = 0
    for child in root.children(recursive=True):
        try:
            if child.cmdline() == words:
                continue
            children += child.memory_info().rss
            more = _parted(child)
        except psutil.NoSuchProcess:
            continue
        pss = None if pss is None or more[0] is None else pss + more[0]
        uss = None if uss is None or more[1] is None else uss + more[1]
    return Residency(seconds, daemon, children, pss, uss)


@contextmanager
def watched(pid: int) -> Iterator[list[Residency]]:
    """A list that grows by a look at the process every 50 ms, until the block is left or it ends."""
    looks: list[Residency] = []
    leaving, began = Event(), time.monotonic()

    def watch() -> None:
        while not leaving.wait(EVERY):
            try:
                looks.append(residency(pid, began))
            except psutil.NoSuchProcess:
                return

    thread = Thread(target=watch, name="residency")
    thread.start()
    try:
        yield looks
    finally:
        leaving.set()
        thread.join()


def _parted(process: psutil.Process) -> tuple[int | None, int | None]:
    """PSS and USS, as far as this system tells them."""
    full = process.memory_full_info()
    return getattr(full, "pss", None), getattr(full, "uss", None)
