"""What a training run lets be known while it goes on: noted in the store now and then, passed on at once."""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict

from device_agent.data.store import JobState
from device_agent.runtime.memory_use import current_memory, peak_memory
from device_agent.training.course import Progress
from device_agent.training.loss_curve import LossCurve
from device_agent.training.watcher import Watcher

NOTE_SECONDS = 2.0
"""How often the job's progress is noted."""

Write = Callable[[JobState, Mapping[str, object]], None]
"""Notes the state of a job and how far it is."""


class Journal:
    """The course of one run.

    What is noted has the fields of ``Progress``, ``memory`` and ``peak_memory`` in bytes, and ``curve`` and
    ``held_out``: the losses of the steps and of the held-out tokens, as ``LossCurve.to_json`` has them.

    Args:
        write: Where it is noted.
        watcher: Told of everything as well.
        earlier: What was noted of the same job before it was interrupted.
    """

    def __init__(self, write: Write, watcher: Watcher, earlier: Mapping[str, object]) -> None:
        self.watcher = watcher
        self._write = write
        self._curve = LossCurve.from_json(earlier.get("curve"))
        self._held_out = LossCurve.from_json(earlier.get("held_out"))
        self._last: Progress | None = None
        self._written = 0.0

    def training(self, progress: Progress) -> None:
        """A step or a validation is done."""
        self._last = progress
        if progress.validation is None:
            self._curve.note(progress.step, progress.loss)
        else:
            self._held_out.note(progress.step, progress.validation)
        now = time.monotonic()
        if now - self._written >= NOTE_SECONDS:
            self._written = now
            self._write("running", self._told())
        self.watcher.training(progress)

    def close(self, state: JobState) -> None:
        """The run has ended."""
        self._write(state, self._told())

    def _told(self) -> dict[str, object]:
        if self._last is None:
            return {}
        return {
            **asdict(self._last),
            "memory": current_memory(),
            "peak_memory": peak_memory(),
            "curve": self._curve.to_json(),
            "held_out": self._held_out.to_json(),
        }
