"""
Gives memory back to the system that nothing needs: what was freed, and code that ran once.

glibc alone hoards what is freed and can be told not to; the allocators of macOS and Windows return by themselves.
"""

import ctypes
import gc
import mmap
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress

LARGE = 1 << 20
"""Bytes from which on a block is returned the moment it is freed."""

_MMAP_THRESHOLD, _ARENA_MAX = -3, -8
"""glibc's numbers of those settings, ``M_MMAP_THRESHOLD`` and ``M_ARENA_MAX``."""

_MAPPED = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (?:(r-xp) \S+ \S+ [1-9]\d* +/)?")
"""Begins a mapping in ``smaps``: where it is, and if it is code of a file, its rights."""


def return_large_blocks() -> None:
    """Fix the size from which on freed blocks are returned at once.

    Left alone, glibc raises it to 32 MB when the first such block is freed, and then keeps them.
    """
    _call("mallopt", _MMAP_THRESHOLD, LARGE)


def share_one_arena() -> None:
    """Have all threads allocate from one place. Call it before there are any.

    Left alone, glibc gives each thread a place of its own, up to eight a core, and what one frees no other
    takes: with a few chats going on that was 20 MB.
    """
    _call("mallopt", _ARENA_MAX, 1)


def release_memory() -> None:
    """Collect garbage, and return the pages that are free now or were only needed to load something."""
    gc.collect()
    return_pages()


def return_pages() -> None:
    """The same without the collection; it takes some milliseconds."""
    _call("malloc_trim", 0)
    if sys.platform == "linux":
        _return_code()


def _return_code() -> None:
    """Return the pages of code.

    Loading runs much of a library once. Its pages stay in the system's cache, which all processes share and
    which gives way first; what is used again comes from there within milliseconds. Constants are left: while
    another thread loads a library, all of it looks like them, what the loader is about to fill in as well.
    """
    advise = ctypes.CDLL(None).madvise
    advise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    # A system without this file keeps them.
    with (
        suppress(OSError),
        open("/proc/self/smaps", encoding="utf-8", errors="surrogateescape") as file,
    ):
        for start, end in unchanged_code(file):
            advise(start, end - start, mmap.MADV_DONTNEED)


def unchanged_code(smaps: Iterable[str]) -> Iterator[tuple[int, int]]:
    """Where code of files is mapped, start and end, of which no page was written, swapped out since or not."""
    place = None
    for line in smaps:
        if found := _MAPPED.match(line):
            place = (int(found[1], 16), int(found[2], 16)) if found[3] else None
        elif place is not None and line.startswith(("Anonymous:", "Swap:")):
            if int(line.split()[1]):
                place = None
            elif line.startswith("Swap:"):  # stands behind the other
                yield place
                place = None


def _call(name: str, *numbers: int) -> None:
    """Call a function of the C library, if this one has it."""
    if sys.platform == "linux":
        function = getattr(ctypes.CDLL(None), name, None)
        if function is not None:
            function(*numbers)
