"""The one thread that owns the model. Whoever needs it waits in a queue with two priorities."""

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import Any, TypeVar

import torch

from cloud_service.backbones.base import Backbone
from cloud_service.errors import CloudError
from cloud_service.metrics import Metrics
from protocol.errors import Loading, Overloaded

T = TypeVar("T")

log = logging.getLogger("sideplug.cloud")


class Priority(IntEnum):
    """Who goes first; within a priority, who came first."""

    STEP = 0
    FEATURES = 1


class State(Enum):
    """What the model is doing."""

    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass(order=True, slots=True)
class _Job:
    priority: Priority
    number: int
    run: Callable[[Backbone], Any] = field(compare=False)
    future: Future[Any] = field(compare=False)
    since: float = field(compare=False)


class Runner:
    """Loads the backbone in its own thread, then does one job after another."""

    def __init__(
        self, load: Callable[[], Backbone], metrics: Metrics, *, threads: int, queue: int
    ) -> None:
        """
        Args:
            load: Makes the backbone; called once, in the thread.
            metrics: Is told of waiting and of readiness.
            threads: Threads the model may use.
            queue: Jobs that may wait.

        """
        self._load = load
        self._metrics = metrics
        self._threads = threads
        self._limit = queue
        self._jobs: list[_Job] = []
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="model", daemon=True)
        self._backbone: Backbone | None = None
        self.state = State.LOADING
        self.error: Exception | None = None
        self.on_loaded: Callable[[], None] = lambda: None
        """Called in the thread when loading has ended, well or not."""

    def require_ready(self) -> Backbone:
        """Return the backbone, or raise ``Loading`` while there is none."""
        if self._backbone is None or self.state is not State.READY:
            raise Loading()
        return self._backbone

    @property
    def full(self) -> bool:
        """Whether the next job would be turned away."""
        return len(self._jobs) >= self._limit

    def start(self) -> None:
        """Begin to load."""
        self._thread.start()

    def stop(self, patience: float = 30.0) -> None:
        """Finish the job at hand, drop the others, and wait up to ``patience`` seconds."""
        with self._changed:
            self.state = State.STOPPED
            for job in self._jobs:
                if job.future.set_running_or_notify_cancel():
                    job.future.set_exception(Loading())
            self._jobs.clear()
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(patience)

    def submit(self, priority: Priority, run: Callable[[Backbone], T]) -> Future[T]:
        """
        Queue a job; the future has its result or what it raised.

        Raises:
            Loading: There is no backbone yet, or no more.
            Overloaded: Too many jobs wait already.

        """
        future: Future[T] = Future()
        with self._changed:
            if self.state is not State.READY:
                raise Loading()
            if self.full:
                raise Overloaded()
            number = next(self._numbers)
            heapq.heappush(self._jobs, _Job(priority, number, run, future, time.perf_counter()))
            self._metrics.waiting.set(len(self._jobs))
            self._changed.notify()
        return future

    def _work(self) -> None:
        # Each thread has its own count in OpenMP, so it is set where it is used.
        torch.set_num_threads(self._threads)
        try:
            self._backbone = self._load()
            with self._changed:
                if self.state is State.LOADING:
                    self.state = State.READY
            self._metrics.ready.set(1)
        except Exception as error:
            self.error, self.state = error, State.FAILED
            # A sentence for a person needs no stack.
            stack = None if isinstance(error, CloudError) else error
            log.error("the backbone could not be loaded: %s", error, exc_info=stack)
        self.on_loaded()
        if self._backbone is not None:
            self._run_all(self._backbone)

    def _run_all(self, backbone: Backbone) -> None:
        while (job := self._next()) is not None:
            self._metrics.queued.observe(time.perf_counter() - job.since)
            if not job.future.set_running_or_notify_cancel():
                continue
            try:
                job.future.set_result(job.run(backbone))
            except BaseException as error:
                job.future.set_exception(error)

    def _next(self) -> _Job | None:
        with self._changed:
            while not self._jobs and self.state is State.READY:
                self._changed.wait()
            if self.state is not State.READY:
                return None
            job = heapq.heappop(self._jobs)
            self._metrics.waiting.set(len(self._jobs))
            return job
