"""Who answers: a few voices, each a thread with a connection and a conversation of its own.

Blocking device code runs in a voice's thread, one request at a time, so no conversation can disturb another one's session.
Head, plugin and tokenizer are held once for all voices.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Event, Lock
from typing import TypeVar

from device_agent.api.metrics import Metrics
from device_agent.cloud.client import CloudUnreachable
from device_agent.cloud.link import Link
from device_agent.errors import DeviceError
from device_agent.generation.speaker import Speaker
from device_agent.plugins import PluginVersion
from device_agent.runtime.memory_release import release_memory
from device_agent.settings import Settings
from protocol.errors import Fault

T = TypeVar("T")

VOICES = 4
"""Requests that are answered at the same time; the next ones wait."""

PATIENCE = 5.0
"""Seconds of pauses for a cloud that is away, before the first word. Within an answer there is more."""

REST_SECONDS = 600.0
"""After so long without a question the voices let go of what they hold in memory and at the cloud."""

Work = Callable[[Link, Speaker], Iterator[T]]
"""What a voice does for a request; run in its thread, and not taken further when nobody listens any more."""


class Abandoned(DeviceError):
    """Nobody listens any more."""

    def __init__(self) -> None:
        super().__init__("whoever asked has gone")


class Voices:
    """Takes work, and gives what comes of it to the event loop.

    Args:
        settings: Which home and which cloud.
        metrics: Where it is counted.
        clock: Seconds, for measuring spans.
    """

    def __init__(
        self, settings: Settings, metrics: Metrics, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._metrics, self._clock = metrics, clock
        self._opening = Lock()
        self._all = [Voice(settings, metrics, self._speaker_beside) for _ in range(VOICES)]
        self._free = list(self._all)
        self._room = asyncio.Semaphore(VOICES)
        self._last = clock()

    @property
    def quiet_seconds(self) -> float:
        """Since the last answer ended; 0 while there is one. May be asked from any thread."""
        return 0.0 if len(self._free) < VOICES else self._clock() - self._last

    async def run(
        self, version: PluginVersion | None, beginning: str, work: Work[T]
    ) -> AsyncGenerator[T]:
        """Have a voice do ``work``; gives what it yields, as it comes.

        Args:
            version: The plugin that is needed; None when the frozen backbone will do.
            beginning: Of the conversation, as a text: a voice that knows it best answers soonest.
            work: Stops when this iterator is closed.
        """
        with self._metrics.waiting.track_inprogress():
            await self._room.acquire()
        voice = self._best(version, beginning)
        self._free.remove(voice)
        loop, gone = asyncio.get_running_loop(), Event()
        queue: asyncio.Queue[T | None] = asyncio.Queue()

        def put(item: T) -> None:
            loop.call_soon_threadsafe(queue.put_nowait, item)

        def ended(done: "asyncio.Future[None]") -> None:
            self._last = self._clock()
            self._free.append(voice)
            self._room.release()
            if not done.cancelled():
                done.exception()  # seen: nobody may be left who asks for it
            queue.put_nowait(None)

        self._metrics.running.inc()
        doing = loop.run_in_executor(voice.thread, voice.do, version, beginning, work, put, gone)
        doing.add_done_callback(ended)
        try:
            while (item := await queue.get()) is not None:
                yield item
            await doing
        finally:
            self._metrics.running.dec()
            gone.set()

    async def rest(self) -> None:
        """Let go of what the free voices hold."""
        for voice in self._all:
            await self._room.acquire()
            # While this waited, somebody may have asked something.
            if voice.speaker is None or voice not in self._free:
                self._room.release()
                continue
            self._free.remove(voice)
            try:
                await asyncio.get_running_loop().run_in_executor(voice.thread, voice.rest)
            finally:
                self._free.append(voice)
                self._room.release()

    def close(self) -> None:
        """End the sessions at the cloud, as far as it can be told, and the threads."""
        for voice in self._all:
            voice.close()

    def _best(self, version: PluginVersion | None, beginning: str) -> "Voice":
        """The free voice that had this conversation; else an unused one; else who knows most of its beginning."""
        wanted = _key(version)

        def known(voice: Voice) -> tuple[bool, bool, int]:
            same = voice.speaker is not None and wanted in (None, voice.key)
            shared = _shared(voice.heard, beginning) if same else 0
            goes_on = 0 < shared == len(voice.heard)
            return goes_on, voice.speaker is None, shared

        return max(self._free, key=known)  # the first of equals has been free for longest

    def _speaker_beside(self, link: Link, version: PluginVersion | None) -> Speaker:
        """A speaker over ``link`` with the parts that another voice has loaded already, if one has."""
        wanted = _key(version)
        with self._opening:
            lender = None
            for voice in self._all:
                speaker = voice.speaker
                if speaker is not None and voice.key == wanted:
                    return speaker.beside(link)
                lender = speaker or lender
            return Speaker(link, version, lender=lender)


def _key(version: PluginVersion | None) -> str | None:
    """Names a version as it is now: its memory may have learned or forgotten since it was loaded."""
    if version is None:
        return None
    path = version.memory_path
    return f"{version.version} {path.stat().st_mtime_ns if path.is_file() else 0}"


def _shared(one: str, other: str) -> int:
    """Characters with which both begin."""
    longest = min(len(one), len(other))
    return next((place for place in range(longest) if one[place] != other[place]), longest)


class Voice:
    """One thread, with one connection to the cloud, one to the store, and one conversation at a time."""

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        speaker_beside: Callable[[Link, PluginVersion | None], Speaker],
    ) -> None:
        self._settings, self._metrics, self._speaker_beside = settings, metrics, speaker_beside
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="voice")
        self.speaker: Speaker | None = None
        self.key: str | None = None
        """Of the plugin that the speaker has; see ``_key``."""
        self.heard = ""
        """The conversation that its session was about last."""
        self._link: Link | None = None
        self._gone = Event()
        self._paused: float | None = 0.0

    def do(
        self,
        version: PluginVersion | None,
        beginning: str,
        work: Work[T],
        put: Callable[[T], None],
        gone: Event,
    ) -> None:
        """Do ``work`` in this thread until it ends or ``gone`` is set."""
        self._gone, self._paused = gone, 0.0
        with suppress(Abandoned):
            link = self._opened()
            up, down = link.up, link.down
            try:
                speaker = self._speaking(link, version)
                self.heard = beginning
                for item in work(link, speaker):
                    self._paused = None
                    put(item)
                    if gone.is_set():
                        break
            finally:
                self._metrics.sent.inc(link.up - up)
                self._metrics.received.inc(link.down - down)
                link.egress.flush()

    def rest(self) -> None:
        """Let go of the session and of what is in memory."""
        if self.speaker is not None:
            with suppress(Abandoned):
                self.speaker.close()
        self.speaker, self.heard = None, ""
        release_memory()

    def close(self) -> None:
        """End the session and the thread."""
        self._gone.set()
        # One try, not many: the agent is about to end.
        self.thread.submit(self._end)
        self.thread.shutdown()

    def _end(self) -> None:
        with suppress(DeviceError, Fault, OSError):
            self.rest()
            if self._link is not None:
                self._link.close()

    def _opened(self) -> Link:
        if self._link is None:
            self._link = Link(self._settings, "api", sleep=self._pause)
        return self._link

    def _speaking(self, link: Link, version: PluginVersion | None) -> Speaker:
        wanted = _key(version)
        if self.speaker is None or wanted not in (None, self.key):
            if self.speaker is not None:
                self.speaker.close()
                self.speaker, self.heard = None, ""
            self.speaker = self._speaker_beside(link, version)
            self.key = wanted
        return self.speaker

    def _pause(self, seconds: float) -> None:
        """Wait between two tries, as long as somebody listens and has reason to hope.

        Raises:
            CloudUnreachable: It was waited for long enough.
            Abandoned: Nobody listens.
        """
        if self._gone.wait(seconds):
            raise Abandoned()
        if self._paused is None:
            return
        self._paused += seconds
        if self._paused > PATIENCE and self._link is not None:
            raise CloudUnreachable(self._link.cloud.url, "it is away, or not ready yet")
