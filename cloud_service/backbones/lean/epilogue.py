"""What is done with 32 finished products of a row before they leave the registers."""

import numpy as np
from numba import njit

from cloud_service.backbones.lean.matrices import PANEL
from cloud_service.backbones.lean.simd import LANES, add, div, exp, load, mul, splat, store, sub

WRITE = 0
"""out (M * N) becomes the products, with their bias."""
ADD = 1
"""The same is added to out."""
GATE = 2
"""out (M * N / 2) becomes silu(first half of the panel) * second half: gate and up interleaved."""


@njit(nogil=True)
def finish(matrix, layer, panel, row, after, out, left, right):
    """Write the products of one row with a panel: ``left`` with its first 16 rows, ``right``."""
    start = layer * matrix.rows + panel * PANEL
    left = add(left, load(matrix.bias, start))
    right = add(right, load(matrix.bias, start + LANES))
    if after == GATE:
        place = row * (matrix.rows // 2) + panel * LANES
        store(out, place, mul(_silu(left), right))
        return
    place = row * matrix.rows + panel * PANEL
    if after == ADD:
        left = add(left, load(out, place))
        right = add(right, load(out, place + LANES))
    store(out, place, left)
    store(out, place + LANES, right)


@njit(nogil=True)
def _silu(value):
    """x / (1 + exp(-x))."""
    shrunk = exp(sub(splat(np.float32(0)), value))
    return div(value, add(splat(np.float32(1)), shrunk))
