"""The process that trains for the agent: ``python -m device_agent.daemon.job_process``.

It is told what to do on stdin, in lines of JSON: first its order, then ``"hold"`` and ``"go"`` whenever that
changes. It tells in one line on stdout what came of it. When stdin ends, the agent wants it gone or has died, and it
leaves at once: checkpoint, store and files are such that nothing but some seconds of work is lost.

It holds between two steps, never by a signal: stopped in the middle of a write it would lock everybody out of the store.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterable
from threading import Event, Thread

from device_agent.cloud.client import CloudUnreachable
from device_agent.cloud.link import Link
from device_agent.daemon.order import FAILED, GONE, OK, Order
from device_agent.data.store import StoreUnavailable
from device_agent.egress.policy import BadPolicy, CapReached
from device_agent.errors import DeviceError
from device_agent.runtime.memory_release import share_one_arena
from device_agent.runtime.memory_use import peak_memory
from device_agent.training.course import Progress
from device_agent.training.learning import learn
from device_agent.training.lock import AlreadyTraining
from device_agent.training.watcher import Watcher
from protocol.errors import Fault

MB = 1_000_000

PASSING = (CloudUnreachable, AlreadyTraining, StoreUnavailable, CapReached, BadPolicy)
"""After these a job waits: for the cloud, for who is in the way, for midnight, for a person."""


class TooMuchMemory(DeviceError):
    """Training takes more memory than it may."""

    hint = "Raise train_memory, or train with a smaller batch_tokens."

    def __init__(self, used: int, limit: int) -> None:
        super().__init__(
            f"training takes {used / MB:.0f} MB of memory where {limit / MB:.0f} are allowed"
        )


class Obedient(Watcher):
    """Holds when it is told to, takes its share of the time, and keeps to its memory.

    Args:
        share: Of the time, in (0, 1].
        memory: Most bytes; 0 for no limit.
        clock: Seconds.
    """

    def __init__(
        self, share: float, memory: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._share, self._memory, self._clock = share, memory, clock
        self._may_go = Event()
        self._may_go.set()
        self._began: float | None = None
        """When the step that is under way began."""

    def obey(self, lines: Iterable[str]) -> None:
        """Do what the lines say until they end."""
        for line in lines:
            if json.loads(line) == "hold":
                self._may_go.clear()
            else:
                self._may_go.set()

    def training(self, progress: Progress) -> None:
        used = peak_memory()
        if 0 < self._memory < used:
            raise TooMuchMemory(used, self._memory)

    def stop(self) -> bool:
        """Never; but it is asked before every step, which is the place to wait."""
        if self._began is not None and self._share < 1:
            time.sleep((self._clock() - self._began) * (1 / self._share - 1))
        self._may_go.wait()
        self._began = self._clock()
        return False


def main() -> int:
    """Do what stdin says."""
    step_back()
    share_one_arena()
    order = Order(**json.loads(sys.stdin.readline()))
    settings = order.to_settings()
    watcher = Obedient(settings.train_cpu / 100, settings.train_memory * MB)

    def obey_to_the_end() -> None:
        try:
            watcher.obey(sys.stdin)
        finally:
            os._exit(GONE)

    Thread(target=obey_to_the_end, daemon=True).start()
    chosen = {**order.options, "threads": settings.threads}
    try:
        with Link(settings, "train") as link:
            lesson = learn(link, chosen, watcher, queued=order.job)
    except (DeviceError, Fault) as error:
        _tell({"message": f"{error}. {error.hint}".strip(), "passing": passes(error)})
        return FAILED
    _tell({"version": lesson.version and lesson.version.version, "promoted": lesson.promoted})
    return OK


def passes(error: DeviceError | Fault) -> bool:
    """Whether it may be better in a while, so that the job should wait and not be lost."""
    if isinstance(error, Fault):
        return error.status in (429, 503)
    return isinstance(error, PASSING)


def step_back() -> None:
    """Let everything else on this machine go first."""
    if hasattr(os, "sched_setscheduler"):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    elif hasattr(os, "nice"):
        os.nice(19)


def _tell(found: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(found) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
