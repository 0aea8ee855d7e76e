"""
Gives memory that was freed back to the system, where the allocator would keep it.

glibc alone hoards and can be told not to; the allocators of macOS and Windows return by themselves.
"""

import ctypes
import gc
import sys

LARGE = 1 << 20
"""Bytes from which on a block is returned the moment it is freed."""

_MMAP_THRESHOLD, _ARENA_MAX = -3, -8
"""glibc's numbers of those settings, ``M_MMAP_THRESHOLD`` and ``M_ARENA_MAX``."""


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
    """Collect garbage, and return the pages that are free now."""
    gc.collect()
    return_free_pages()


def return_free_pages() -> None:
    """Return the pages that are free now. Without the collection it takes a millisecond or two."""
    _call("malloc_trim", 0)


def _call(name: str, *numbers: int) -> None:
    """Call a function of the C library, if this one has it."""
    if sys.platform == "linux":
        function = getattr(ctypes.CDLL(None), name, None)
        if function is not None:
            function(*numbers)
