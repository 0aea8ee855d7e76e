"""Trains what is queued in the store, one job at a time, in a process of its own, when the policy allows it.

The store alone says which state a job should be in; each look compares that with the process and acts on the
difference. So it does not matter who changed a state, nor whether this process was killed meanwhile.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from threading import Event, Thread

from device_agent.cloud.link import STORE
from device_agent.daemon.order import FAILED, OK, Order
from device_agent.daemon.policy import Leave, leave
from device_agent.data.store import Job, Store
from device_agent.errors import DeviceError
from device_agent.settings import Settings
from device_agent.training.lock import AlreadyTraining, training_lock

POLL = 0.25
"""Seconds between two looks."""

AGAIN_SECONDS = 20.0
"""After so long something that may pass is tried again."""

MOST_DEATHS = 3
"""As often a process may die without a word before its job has failed."""

END_SECONDS = 10.0
"""How long a process that was told to end may take."""


class Supervisor:
    """A thread that looks after training.

    Args:
        settings: The home, and the policy.
        quiet_seconds: Gives the seconds since the last answer ended.
        clock: Seconds, for measuring spans.
        now: The time of day.
    """

    def __init__(
        self,
        settings: Settings,
        quiet_seconds: Callable[[], float],
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = datetime.now,
    ) -> None:
        self._settings, self._quiet_seconds = settings, quiet_seconds
        self._clock, self._now = clock, now
        self._ending = Event()
        self._thread = Thread(target=self._look_on, name="supervisor")
        self._running: _Running | None = None
        self._deaths: dict[int, int] = {}
        self._not_before = 0.0

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def close(self) -> None:
        """End the process, whose job goes on when there is an agent again."""
        self._ending.set()
        self._thread.join()

    def _look_on(self) -> None:
        # A store that cannot be opened now, on a full disk perhaps, is tried again.
        while not self._ending.is_set():
            with suppress(DeviceError), Store(self._settings.home / STORE) as store:
                while not self._ending.wait(POLL):
                    self._look(store)
            self._ending.wait(POLL)
        if self._running is not None:
            self._running.end()
            with suppress(DeviceError), Store(self._settings.home / STORE) as store:
                store.move_job(self._running.job, ("running",), "queued")

    def _look(self, store: Store) -> None:
        may = leave(self._settings, self._quiet_seconds(), self._now().time())
        if self._running is None:
            if may is Leave.GO and self._clock() >= self._not_before:
                self._begin(store)
            return
        if self._running.process.poll() is not None:
            self._finish(store, self._running)
            return
        job = store.job(self._running.job)
        if job is None or job.state != "running":
            self._drop(job)
        elif may is Leave.END:
            self._drop(job)
            store.move_job(job.id, ("running",), "queued", "it is not the hour to train")
        else:
            self._running.tell(may)

    def _begin(self, store: Store) -> None:
        if not store.has_open_jobs():
            return
        try:
            with training_lock(self._settings.home):
                # Nobody trains, so what counts as running is dead.
                store.bury_jobs()
        except AlreadyTraining:
            return
        job = store.next_job()
        if job is not None and store.move_job(job.id, ("queued",), "running"):
            self._running = _Running(job, self._settings)

    def _drop(self, job: Job | None) -> None:
        """End the process of a job that was paused, cancelled or put off."""
        running, self._running = self._running, None
        if running is not None:
            running.end()
        if job is None or job.state == "cancelled":
            (self._settings.home / "runs" / "checkpoint.safetensors").unlink(missing_ok=True)

    def _finish(self, store: Store, running: "_Running") -> None:
        """The process has ended by itself."""
        self._running = None
        code, said = running.outcome()
        if code == OK:
            store.move_job(running.job, ("running",), "done")
            return
        if code == FAILED and said:
            problem, passing = str(said["message"]), said["passing"] is True
        else:
            problem = f"the training process ended with {code}"
            self._deaths[running.job] = self._deaths.get(running.job, 0) + 1
            passing = self._deaths[running.job] < MOST_DEATHS
        if passing:
            self._not_before = self._clock() + AGAIN_SECONDS
        store.move_job(running.job, ("running",), "queued" if passing else "failed", problem)


class _Running:
    """The process of a job."""

    def __init__(self, job: Job, settings: Settings) -> None:
        self.job = job.id
        self._told = Leave.GO
        self.process = subprocess.Popen(
            [sys.executable, "-m", "device_agent.daemon.job_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            # A group of its own: Ctrl-C in our terminal is ours to answer.
            process_group=None if sys.platform == "win32" else 0,
        )
        told = {**asdict(settings), "home": os.fspath(settings.home)}
        self._write(asdict(Order(job.id, job.options or {}, told)))

    def tell(self, may: Leave) -> None:
        """Have it hold or go on."""
        if may is not self._told:
            self._told = may
            self._write(may.value)

    def end(self) -> None:
        """Have it end, and wait for that."""
        with suppress(OSError):
            self.process.stdin.close()  # type: ignore[union-attr]
        try:
            self.process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._close()

    def outcome(self) -> tuple[int, dict[str, object]]:
        """Exit code of a process that has ended, and what it said; nothing when it died without a word."""
        with suppress(OSError):
            said = self.process.stdout.read()  # type: ignore[union-attr]
            self._close()
            with suppress(ValueError):
                return self.process.returncode, json.loads(said)
        return self.process.returncode, {}

    def _close(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            with suppress(OSError):
                if pipe is not None:
                    pipe.close()

    def _write(self, line: object) -> None:
        # One that has died is noticed at the next look.
        with suppress(OSError):
            self.process.stdin.write(json.dumps(line) + "\n")  # type: ignore[union-attr]
            self.process.stdin.flush()  # type: ignore[union-attr]
