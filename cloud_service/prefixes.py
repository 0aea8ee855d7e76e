"""Prefixes: tokens that are read once, and kept for the sessions and texts of their owner."""

import asyncio
import hashlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from cloud_service.backbones.pages import PAGE, Cache
from cloud_service.checks import check_ids, check_no_drafts
from cloud_service.metrics import Metrics
from cloud_service.reading import Reading, Waiter
from cloud_service.runner import Runner
from protocol.errors import (
    ContextExceeded,
    MalformedMessage,
    PositionMismatch,
    PrefixNotFound,
)
from protocol.facts import BackboneFacts
from protocol.messages import Ids, PrefixKept, Tokens, Wants

SHARE = 0.5
"""Of all pages, so many may be held by prefixes."""
_NOTHING = Wants(layers=(), final=False, log_z=False, candidates=0, codec="f32")


@dataclass(slots=True)
class Prefix:
    """A prefix that has been read. Its cache never changes; who goes on from it forks it."""

    owner: str
    cache: Cache
    seen: float
    """When it was last used."""

    @property
    def shared(self) -> bool:
        """Whether a session or a text still holds its pages: then to forget it frees none."""
        return any(self.cache.pool.shared(page) for page in self.cache.pages)


class Prefixes:
    """
    All prefixes, by owner and tokens, within a share of the memory. Any thread may use them.

    Whoever holds the most memory loses what they have not used for longest, when a new prefix
    needs place. What nobody uses also makes place for sessions.
    """

    def __init__(
        self,
        facts: BackboneFacts,
        runner: Runner,
        metrics: Metrics,
        *,
        idle: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            facts: Of the backbone.
            runner: Reads them.
            metrics: Is told how many there are and how often one was there already.
            idle: Seconds without use after which one is forgotten.
            clock: Seconds that only grow.

        """
        self._facts = facts
        self._runner = runner
        self._metrics = metrics
        self._idle = idle
        self._clock = clock
        self._kept: dict[str, Prefix] = {}
        self._reading: dict[str, asyncio.Future[None]] = {}
        """Those that are being read, for whoever asks for the same meanwhile."""
        self._lock = threading.RLock()
        metrics.prefixes.set_function(lambda: len(self._kept))

    async def keep(self, owner: str, tokens: Tokens) -> tuple[PrefixKept, int]:
        """
        Read a prefix, unless it is there; return what is kept, and how many tokens were read.

        Raises:
            MalformedMessage: It asks for drafts, or the backbone has an encoder.
            PositionMismatch: It does not begin at 0.
            ContextExceeded: It is longer than a session or the prefixes' share of the memory.
            TokenOutOfRange: A token does not exist.
            Loading, Overloaded: It cannot be read now.

        """
        check_no_drafts(tokens)
        if self._facts.encodes or tokens.source:
            raise MalformedMessage(
                reason="a source is read with the session that it begins, not as a prefix"
            )
        if tokens.position:
            raise PositionMismatch(expected=0, got=tokens.position)
        pool = self._runner.require_ready().pool
        # One position at least is left to go on from it.
        limit = min(self._facts.positions - 1, int(pool.pages * SHARE) * PAGE)
        if len(tokens.ids) > limit:
            raise ContextExceeded(limit=limit, asked=len(tokens.ids))
        check_ids(tokens.ids, self._facts)
        name = _name(owner, self._facts.fingerprint, tokens.ids)
        kept = PrefixKept(prefix=name, position=len(tokens.ids), idle_seconds=self._idle)
        while True:
            if self._touch(name):
                return kept, 0
            if name not in self._reading:
                break
            await asyncio.wait([self._reading[name]])
        await self._read(name, owner, tokens.ids)
        return kept, len(tokens.ids)

    def position(self, owner: str, name: str | None) -> int:
        """Return the tokens of a prefix, 0 when ``name`` is None; see ``place``."""
        return 0 if name is None else self._find(owner, name).cache.position

    def place(self, owner: str, name: str | None) -> Cache:
        """
        Return a cache that has read a prefix, or nothing when ``name`` is None; the caller releases it.

        Raises:
            Loading: There is no backbone yet.
            PrefixNotFound: It is not there, or it is another's.

        """
        if name is None:
            return Cache(self._runner.require_ready().pool)
        with self._lock:
            prefix = self._find(owner, name)
            prefix.seen = self._clock()
            self._metrics.prefix_hits.inc()
            return prefix.cache.fork()

    def _find(self, owner: str, name: str) -> Prefix:
        prefix = self._kept.get(name)
        if prefix is None or prefix.owner != owner:
            raise PrefixNotFound(prefix=name)
        return prefix

    def expire(self) -> None:
        """Forget those that were not used for too long."""
        with self._lock:
            before = self._clock() - self._idle
            for name in [name for name, prefix in self._kept.items() if prefix.seen <= before]:
                self._forget(name)

    async def _read(self, name: str, owner: str, ids: Ids) -> None:
        self._reading[name] = asyncio.get_running_loop().create_future()
        try:
            cache = Cache(self._runner.require_ready().pool)
            # Read to its end for whoever asks next, although the one who asked may go away.
            reading = Reading(Waiter(owner), "prefix", cache, ids, 0, _NOTHING)
            self._runner.submit(reading)
            await self._runner.finished(reading)
            with self._lock:
                self._make_place(cache)
                self._kept[name] = Prefix(owner, cache, self._clock())
        finally:
            self._reading.pop(name).set_result(None)

    def _touch(self, name: str) -> bool:
        with self._lock:
            prefix = self._kept.get(name)
            if prefix is not None:
                prefix.seen = self._clock()
            return prefix is not None

    def _make_place(self, cache: Cache) -> None:
        """Forget prefixes until one more is within the share."""
        most = int(cache.pool.pages * SHARE) - len(cache.pages)
        while (held := self._pages_held()) and sum(held.values()) > most:
            owner = max(held, key=lambda owner: held[owner])
            mine = [name for name, prefix in self._kept.items() if prefix.owner == owner]
            self._forget(min(mine, key=lambda name: self._kept[name].seen))

    def reclaim(self, missing: int) -> None:
        """Let pages go that nobody uses, the oldest first; for the pool, when pages are missing."""
        with self._lock:
            unused = [name for name, prefix in self._kept.items() if not prefix.shared]
            for name in sorted(unused, key=lambda name: self._kept[name].seen):
                if missing <= 0:
                    return
                missing -= len(self._kept[name].cache.pages)
                self._forget(name)

    def _pages_held(self) -> dict[str, int]:
        held: dict[str, int] = {}
        for prefix in self._kept.values():
            held[prefix.owner] = held.get(prefix.owner, 0) + len(prefix.cache.pages)
        return held

    def _forget(self, name: str) -> None:
        self._kept.pop(name).cache.release()


def _name(owner: str, fingerprint: str, ids: Ids) -> str:
    """Return the id of a prefix: nobody finds another's, and no other backbone's is taken for it."""
    digest = hashlib.sha256(f"{owner}\n{fingerprint}\n".encode())
    digest.update(ids.astype("<u4", copy=False).tobytes())
    return digest.hexdigest()
