"""The one thread that owns the model: pass after pass, each of what waits from many sessions."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from enum import Enum

import torch

from cloud_service.backbones.base import Backbone, Span
from cloud_service.errors import CloudError
from cloud_service.metrics import Metrics
from cloud_service.reading import Dropped, Reading
from cloud_service.scheduler import Portion, Scheduler
from protocol.errors import Loading, Overloaded
from protocol.messages import States

log = logging.getLogger("sideplug.cloud")


class State(Enum):
    """What the model is doing."""

    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"
    STOPPED = "stopped"


class Runner:
    """Loads the backbone in its own thread, then reads what is submitted."""

    def __init__(
        self, load: Callable[[], Backbone], metrics: Metrics, *, threads: int, queue: int
    ) -> None:
        """
        Args:
            load: Makes the backbone; called once, in the thread.
            metrics: Is told of waiting, of passes and of readiness.
            threads: Threads the model may use.
            queue: Readings that may wait.

        """
        self._load = load
        self._metrics = metrics
        self._threads = threads
        self._limit = queue
        self._scheduler = Scheduler()
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
        """Whether the next reading would be turned away."""
        return len(self._scheduler) >= self._limit

    def start(self) -> None:
        """Begin to load."""
        self._thread.start()

    def stop(self, patience: float = 30.0) -> None:
        """Finish the pass at hand, drop what else waits, and wait up to ``patience`` seconds."""
        with self._changed:
            self.state = State.STOPPED
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(patience)

    def submit(self, reading: Reading) -> None:
        """
        Let a reading wait for the model; its future has the answer. Any thread may call this.

        Raises:
            Loading: There is no backbone yet, or no more.
            Overloaded: Too many wait already.

        """
        reading.since = time.perf_counter()
        with self._changed:
            if self.state is not State.READY:
                raise Loading()
            if self.full:
                raise Overloaded()
            self._scheduler.add(reading)
            self._metrics.waiting.set(len(self._scheduler))
            self._changed.notify()

    async def answer(self, reading: Reading) -> States:
        """Return the answer to a reading that wants something; see ``finished``."""
        states = await self.finished(reading)
        if states is None:
            raise ValueError("nothing is wanted of this reading")
        return states

    async def finished(self, reading: Reading) -> States | None:
        """
        Wait for a reading that has been submitted, and return its answer, if one is wanted.

        Raises:
            Dropped: Its waiter was gone before it was read.
            Fault, Exception: It could not be read.

        """
        # Only the thread may end a reading: whoever is cancelled while it is under way lets it go on.
        return await asyncio.shield(asyncio.wrap_future(reading.future))

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
            self._read_all(self._backbone)

    def _read_all(self, backbone: Backbone) -> None:
        while portions := self._next():
            begun = time.perf_counter()
            waited = [begun - p.reading.since for p in portions if not p.reading.done]
            spans = [portion.reading.span(portion.count) for portion in portions]
            outcomes = _outcomes(backbone, spans)
            seconds = time.perf_counter() - begun
            # Answers first: who waits for them shares one interpreter with all that follows.
            self._settle(portions, outcomes, seconds)
            self._count(portions, waited, seconds)

    def _next(self) -> list[Portion]:
        """Wait for something to read, and return the next pass; empty at the end."""
        with self._changed:
            while self.state is State.READY:
                for reading in [each for each in self._scheduler if each.waiter.gone]:
                    self._end(reading, Dropped())
                if portions := self._scheduler.plan():
                    return portions
                self._changed.wait()
            for reading in list(self._scheduler):
                self._end(reading, Loading())
            return []

    def _settle(
        self,
        portions: Sequence[Portion],
        outcomes: Sequence[States | Exception | None],
        seconds: float,
    ) -> None:
        """Give the answers that are whole, and take what has ended out of what waits."""
        with self._changed:
            self._scheduler.learn(list(portions), seconds)
            for portion, outcome in zip(portions, outcomes, strict=True):
                if isinstance(outcome, Exception):
                    self._end(portion.reading, None if portion.reading.shorten() else outcome)
                    continue
                portion.reading.take(portion.count, outcome)
                if not portion.reading.left:
                    self._end(portion.reading, None)

    def _end(self, reading: Reading, error: Exception | None) -> None:
        self._scheduler.remove(reading)
        self._metrics.waiting.set(len(self._scheduler))
        if error is None:
            reading.finish()
        else:
            reading.fail(error)

    def _count(self, portions: Sequence[Portion], waited: Sequence[float], seconds: float) -> None:
        self._metrics.pass_seconds.observe(seconds)
        self._metrics.pass_sessions.observe(len(portions))
        self._metrics.pass_tokens.observe(sum(portion.count for portion in portions))
        for wait in waited:
            self._metrics.queued.observe(wait)
        for portion in portions:
            self._metrics.tokens.labels(portion.reading.purpose).inc(portion.count)


def _outcomes(backbone: Backbone, spans: Sequence[Span]) -> list[States | Exception | None]:
    """Read spans in one pass; when that fails, each by itself, so that a bad one fails alone."""
    try:
        return list(backbone.read(spans))
    except Exception as error:
        if len(spans) == 1:
            return [error]
        return [outcome for span in spans for outcome in _outcomes(backbone, [span])]
