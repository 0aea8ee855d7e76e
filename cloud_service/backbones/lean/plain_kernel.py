"""Products of rows of float32 activations with one panel of a ``PlainMatrix``; four rows at a time."""

import numpy as np
from numba import njit

from cloud_service.backbones.lean.epilogue import finish
from cloud_service.backbones.lean.matrices import PANEL
from cloud_service.backbones.lean.simd import LANES, add, fma, load, splat


@njit(nogil=True)
def multiply_by_numbers(matrix, layer, panel, x, start, count, after, out):
    """Multiply ``count`` rows of float32 (M * K) by one panel, write what ``after`` makes of it."""
    fours = start + count - count % 4
    for row in range(start, fours, 4):
        _four_rows(matrix, layer, panel, x, row, after, out)
    for row in range(fours, start + count):
        _one_row(matrix, layer, panel, x, row, after, out)


@njit(nogil=True)
def _one_row(matrix, layer, panel, x, row, after, out):
    columns = matrix.columns
    at = (layer * (matrix.rows // PANEL) + panel) * columns * PANEL
    # Even and odd columns apart: one sum would wait for itself.
    a0 = a1 = b0 = b1 = splat(np.float32(0))
    for column in range(0, columns, 2):
        xa, xb = splat(x[row * columns + column]), splat(x[row * columns + column + 1])
        a0 = fma(xa, load(matrix.weights, at), a0)
        a1 = fma(xa, load(matrix.weights, at + LANES), a1)
        b0 = fma(xb, load(matrix.weights, at + PANEL), b0)
        b1 = fma(xb, load(matrix.weights, at + PANEL + LANES), b1)
        at += 2 * PANEL
    finish(matrix, layer, panel, row, after, out, add(a0, b0), add(a1, b1))


@njit(nogil=True)
def _four_rows(matrix, layer, panel, x, row, after, out):
    columns = matrix.columns
    at = (layer * (matrix.rows // PANEL) + panel) * columns * PANEL
    pa = row * columns
    pb, pc, pd = pa + columns, pa + 2 * columns, pa + 3 * columns
    a0 = a1 = b0 = b1 = c0 = c1 = d0 = d1 = splat(np.float32(0))
    for column in range(columns):
        w0, w1 = load(matrix.weights, at), load(matrix.weights, at + LANES)
        at += PANEL
        value = splat(x[pa + column])
        a0, a1 = fma(value, w0, a0), fma(value, w1, a1)
        value = splat(x[pb + column])
        b0, b1 = fma(value, w0, b0), fma(value, w1, b1)
        value = splat(x[pc + column])
        c0, c1 = fma(value, w0, c0), fma(value, w1, c1)
        value = splat(x[pd + column])
        d0, d1 = fma(value, w0, d0), fma(value, w1, d1)
    finish(matrix, layer, panel, row, after, out, a0, a1)
    finish(matrix, layer, panel, row + 1, after, out, b0, b1)
    finish(matrix, layer, panel, row + 2, after, out, c0, c1)
    finish(matrix, layer, panel, row + 3, after, out, d0, d1)
