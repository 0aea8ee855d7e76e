"""Threads that run one compiled function together."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any


class Crew:
    """The calling thread and some others."""

    def __init__(self, threads: int) -> None:
        """Hire ``threads`` - 1 others."""
        self._others = threads - 1
        self._pool = ThreadPoolExecutor(max(1, self._others), "lean")

    def run(self, work: Callable[..., None], *arguments: Any) -> None:
        """
        Run ``work`` in all threads at once; return when the calling one is through.

        Args:
            work: Shares what is to do by its last argument, as ``sharing`` describes, and leaves
                its arguments alone when all is done.
            arguments: Of ``work``.

        """
        called = [self._pool.submit(work, *arguments) for _ in range(self._others)]
        work(*arguments)
        for one in called:
            one.cancel()
