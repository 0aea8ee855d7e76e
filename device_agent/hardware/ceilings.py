"""The most this machine gives: arithmetic and memory traffic, as measured, not as its maker says."""

import platform
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

SIDE = 1024
"""Of the square matrices that are multiplied."""

COPIED = 64 * 2**20
"""Bytes of the array that is copied: more than caches hold, and what a small device can spare."""

TRIES = 5
"""The best counts: nothing makes a machine faster than it is."""


@dataclass(frozen=True, slots=True)
class Ceilings:
    """Both with the same number of threads."""

    flops: float
    """Of a product of matrices in 32 bits, a second."""
    bandwidth: float
    """Bytes read and written by a copy, a second."""


def ceilings(threads: int) -> Ceilings:
    """Measure both; takes a second or two."""
    return Ceilings(peak_flops(threads), bandwidth(threads))


def peak_flops(threads: int, side: int = SIDE) -> float:
    """Operations a second of numpy's product of two square matrices: ``2 side^3`` each."""
    from threadpoolctl import threadpool_limits

    rng = np.random.default_rng(0)
    left, right = (rng.random((side, side), np.float32) for _ in range(2))
    out = np.empty_like(left)
    with threadpool_limits(threads, user_api="blas"):
        return 2 * side**3 / _best(lambda: np.matmul(left, right, out=out))


def bandwidth(threads: int, size: int = COPIED) -> float:
    """Bytes a second that a copy of ``size`` bytes reads and writes, each thread its own part."""
    source, target = (np.ones(size // 4, np.float32) for _ in range(2))
    parts = [
        partial(np.copyto, ours, theirs)
        for ours, theirs in zip(
            np.array_split(target, threads), np.array_split(source, threads), strict=True
        )
    ]
    with ThreadPoolExecutor(threads) as pool:
        return 2 * source.nbytes / _best(lambda: [None for _ in pool.map(_call, parts)])


def processor() -> str:
    """Its name, as far as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _call(act: Callable[[], None]) -> None:
    act()


def _best(act: Callable[[], object]) -> float:
    act()
    seconds = []
    for _ in range(TRIES):
        began = time.perf_counter()
        act()
        seconds.append(time.perf_counter() - began)
    return min(seconds)
