"""Root mean square norms (Zhang and Sennrich, 2019)."""

import numpy as np
from numba import njit

from cloud_service.backbones.lean.simd import LANES, fma, load, mul, splat, store, total


@njit(nogil=True)
def norm(x, start, width, weights, weight, epsilon, out):
    """
    Write v / sqrt(mean(v^2) + epsilon) * w to the place of v in ``out``.

    v are the ``width`` numbers of ``x`` from ``start`` on, w those of ``weights`` from ``weight``.
    """
    squares = splat(np.float32(0))
    for i in range(0, width, LANES):
        value = load(x, start + i)
        squares = fma(value, value, squares)
    mean = total(squares) / np.float32(width)
    factor = splat(np.float32(1) / np.sqrt(mean + epsilon))
    for i in range(0, width, LANES):
        place = start + i
        store(out, place, mul(mul(load(x, place), factor), load(weights, weight + i)))
