"""Activations on their way into a matrix: as they are, or as codes of 8 bits in blocks of 32."""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from cloud_service.backbones.lean.matrices import BLOCK
from cloud_service.backbones.lean.simd import (
    LANES,
    larger,
    largest,
    load,
    magnitude,
    mul,
    rounded,
    splat,
    store_codes,
    total_ints,
)

LARGEST = np.float32(127)


class Codes(NamedTuple):
    """Rows (M, K) as scale * code."""

    codes: NDArray[np.int8]  # (M * K)
    scales: NDArray[np.float32]  # (M * K / 32)
    sums: NDArray[np.float32]  # (M * K / 32), scale * the sum of a block's codes


def room_for_codes(numbers: int) -> Codes:
    """Return space for so many activations."""
    blocks = numbers // BLOCK
    return Codes(
        np.empty(numbers, np.int8), np.empty(blocks, np.float32), np.empty(blocks, np.float32)
    )


@njit(nogil=True)
def quantise(values, width, row, target):
    """Write row ``row`` of ``values`` (M * width) as the same row of ``target``."""
    blocks = width // BLOCK
    for block in range(blocks):
        place = row * blocks + block
        left, right = load(values, place * BLOCK), load(values, place * BLOCK + LANES)
        top = largest(larger(magnitude(left), magnitude(right)))
        factor = splat(LARGEST / top if top > 0 else np.float32(0))
        first, second = rounded(mul(left, factor)), rounded(mul(right, factor))
        store_codes(target.codes, place * BLOCK, first)
        store_codes(target.codes, place * BLOCK + LANES, second)
        scale = top / LARGEST
        target.scales[place] = scale
        target.sums[place] = scale * np.float32(total_ints(first) + total_ints(second))
