"""Which page of memory holds which positions of which session. Counts only: knows no tensors."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from protocol.errors import Overloaded

PAGE = 64
"""Positions on a page: what a session holds and does not use is less than that."""


class PagePool:
    """
    A fixed number of pages, each of which some caches hold. Any thread may take and give back.

    A page stands for the keys and values of ``PAGE`` positions in every layer; the numbers
    themselves are in the store of the engine, at the page's index.
    """

    def __init__(self, pages: int, page_bytes: int, copy: Callable[[int, int], None]) -> None:
        """
        Args:
            pages: How many there are.
            page_bytes: Bytes of keys and values on one.
            copy: Writes what stands on the first page onto the second; from the store.

        """
        self.pages = pages
        self.page_bytes = page_bytes
        self.copy = copy
        self.reclaim: Callable[[int], None] = lambda _missing: None
        """Is asked to let so many pages go when they are missing; it may fail to."""
        self._lock = threading.Lock()
        # What was given back last is taken first: memory that was never touched stays so.
        self._free = list(reversed(range(pages)))
        self._holders = [0] * pages

    @property
    def free(self) -> int:
        """Pages that nobody holds."""
        return len(self._free)

    @property
    def used(self) -> int:
        """Pages that somebody holds."""
        return self.pages - self.free

    @property
    def positions(self) -> int:
        """Positions on all pages."""
        return self.pages * PAGE

    def take(self, count: int) -> list[int]:
        """
        Return ``count`` pages that nobody held.

        Raises:
            Overloaded: There are not so many; none has been taken.

        """
        missing = count - self.free
        if missing > 0:
            self.reclaim(missing)
        with self._lock:
            if count > len(self._free):
                raise Overloaded()
            taken = [self._free.pop() for _ in range(count)]
            for page in taken:
                self._holders[page] = 1
            return taken

    def share(self, pages: Sequence[int]) -> None:
        """Count one more holder of each page."""
        with self._lock:
            for page in pages:
                self._holders[page] += 1

    def give_back(self, pages: Sequence[int]) -> None:
        """Count one holder less of each page."""
        with self._lock:
            for page in pages:
                self._holders[page] -= 1
                if not self._holders[page]:
                    self._free.append(page)

    def shared(self, page: int) -> bool:
        """Say whether a page has more holders than one."""
        return self._holders[page] > 1


class Cache:
    """
    What a backbone remembers of one session: a table of pages. One thread at a time may change it.

    Attributes:
        pool: Where its pages come from.
        pages: Position p stands on page ``pages[p // PAGE]``, at place ``p % PAGE``.
        position: Positions that have been read.
        source: How many of them, from the first on, an encoder has read: kept together or not at all.

    """

    __slots__ = ("__weakref__", "pages", "pool", "position", "source")

    def __init__(self, pool: PagePool) -> None:
        self.pool = pool
        self.pages: list[int] = []
        self.position = 0
        self.source = 0

    @property
    def capacity(self) -> int:
        """Positions for which memory is held."""
        return len(self.pages) * PAGE

    @property
    def bytes(self) -> int:
        """Bytes of memory held, shared or not."""
        return len(self.pages) * self.pool.page_bytes

    def grow(self, count: int) -> None:
        """
        Hold pages for ``count`` positions more, which nobody else reads.

        A last page that is partly filled and shared is copied: its other holders never see what
        is written now.

        Raises:
            Overloaded: There are no pages for that; the cache is as it was.

        """
        torn = self.position % PAGE != 0 and self.pool.shared(self.pages[-1])
        fresh = self.pool.take(_pages(self.position + count) - len(self.pages) + torn)
        if torn:
            shared, own = self.pages.pop(), fresh.pop()
            self.pool.copy(shared, own)
            self.pool.give_back([shared])
            self.pages.append(own)
        self.pages += fresh

    def crop(self, position: int) -> None:
        """Forget all positions from ``position`` on, and give back the pages that held only them.

        Whoever loses a part of its source loses everything.
        """
        if position < self.source:
            position = self.source = 0
        self.position = min(self.position, position)
        kept = _pages(self.position)
        self.pool.give_back(self.pages[kept:])
        del self.pages[kept:]

    def fork(self) -> "Cache":
        """Return a cache that has read the same. They share pages until one of them writes."""
        self.pool.share(self.pages)
        forked = Cache(self.pool)
        forked.pages, forked.position = list(self.pages), self.position
        forked.source = self.source
        return forked

    def release(self) -> None:
        """Forget everything."""
        self.crop(0)


@contextmanager
def growing(caches: Sequence[Cache], counts: Sequence[int]) -> Iterator[None]:
    """
    Hold pages for what each cache is about to read; at the end of the block it has read it.

    When anything raises, within or at the start, every cache is as it was.

    Args:
        caches: Each of them once.
        counts: Positions that each will grow by.

    Raises:
        Overloaded: There are no pages for that.

    """
    try:
        for cache, count in zip(caches, counts, strict=True):
            cache.grow(count)
        yield
    except BaseException:
        for cache in caches:
            cache.crop(cache.position)
        raise
    for cache, count in zip(caches, counts, strict=True):
        cache.position += count


def _pages(positions: int) -> int:
    return -(-positions // PAGE)
