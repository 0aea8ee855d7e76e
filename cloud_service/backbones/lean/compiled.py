"""Compiled functions that are kept on disk, so that only the first start has to wait for them."""

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numba import njit

log = logging.getLogger("sideplug.cloud")


def compiled(function: Callable[..., None]) -> Any:
    """
    Return ``function`` compiled at its first call, or taken from numba's cache on disk.

    The function has to hold ``digest_of_sources()`` as a variable of a function around it.
    """
    try:
        return njit(nogil=True, cache=True)(function)
    except RuntimeError as error:  # no place where it may write
        log.warning("kernels are compiled anew at each start: %s", error)
        return njit(nogil=True)(function)


def digest_of_sources() -> str:
    """
    Return the sha256 of all files of this package.

    numba looks at the changes of one file only, not of those that it calls into: a function that
    holds this digest is compiled anew when any of them changes.
    """
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()
