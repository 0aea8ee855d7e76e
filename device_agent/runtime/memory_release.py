"""
Gives memory that was freed back to the system, where the allocator would keep it.

glibc alone hoards and can be told not to; the allocators of macOS and Windows return by themselves.
"""

import ctypes
import gc
import sys

LARGE = 1 << 20
"""Bytes from which on a block is returned the moment it is freed."""

_MMAP_THRESHOLD = -3
"""glibc's number of that setting, ``M_MMAP_THRESHOLD``."""


def return_large_blocks() -> None:
    """Fix the size from which on freed blocks are returned at once.

    Left alone, glibc raises it to 32 MB when the first such block is freed, and then keeps them.
    """
    _call("mallopt", _MMAP_THRESHOLD, LARGE)


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
