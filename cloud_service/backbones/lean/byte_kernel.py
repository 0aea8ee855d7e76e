"""
Products of rows of float32 activations with one panel of a ``ByteMatrix``; four rows at a time.

A block's products are summed before they are multiplied by its scale, which they have in common.
"""

import numpy as np
from numba import njit

from cloud_service.backbones.lean.epilogue import finish
from cloud_service.backbones.lean.matrices import BLOCK, PANEL
from cloud_service.backbones.lean.simd import LANES, add, fma, load, splat


@njit(nogil=True)
def multiply_by_bytes(matrix, layer, panel, x, start, count, after, out):
    """Multiply ``count`` rows of float32 (M * K) by one panel, write what ``after`` makes of it."""
    fours = start + count - count % 4
    for row in range(start, fours, 4):
        _four_rows(matrix, layer, panel, x, row, after, out)
    for row in range(fours, start + count):
        _one_row(matrix, layer, panel, x, row, after, out)


@njit(nogil=True)
def _one_row(matrix, layer, panel, x, row, after, out):
    blocks = matrix.columns // BLOCK
    first = (layer * (matrix.rows // PANEL) + panel) * blocks
    a0 = a1 = splat(np.float32(0))
    for block in range(first, first + blocks):
        # Even and odd columns apart: one sum would wait for itself.
        even0 = even1 = odd0 = odd1 = splat(np.float32(0))
        at, place = block * BLOCK * PANEL, row * matrix.columns + (block - first) * BLOCK
        for column in range(0, BLOCK, 2):
            value = splat(x[place + column])
            even0 = fma(value, load(matrix.codes, at), even0)
            even1 = fma(value, load(matrix.codes, at + LANES), even1)
            value = splat(x[place + column + 1])
            odd0 = fma(value, load(matrix.codes, at + PANEL), odd0)
            odd1 = fma(value, load(matrix.codes, at + PANEL + LANES), odd1)
            at += 2 * PANEL
        a0 = fma(add(even0, odd0), load(matrix.scales, block * PANEL), a0)
        a1 = fma(add(even1, odd1), load(matrix.scales, block * PANEL + LANES), a1)
    finish(matrix, layer, panel, row, after, out, a0, a1)


@njit(nogil=True)
def _four_rows(matrix, layer, panel, x, row, after, out):
    columns, blocks = matrix.columns, matrix.columns // BLOCK
    first = (layer * (matrix.rows // PANEL) + panel) * blocks
    a0 = a1 = b0 = b1 = c0 = c1 = d0 = d1 = splat(np.float32(0))
    for block in range(first, first + blocks):
        i0 = i1 = j0 = j1 = k0 = k1 = l0 = l1 = splat(np.float32(0))
        at, pa = block * BLOCK * PANEL, row * columns + (block - first) * BLOCK
        pb, pc, pd = pa + columns, pa + 2 * columns, pa + 3 * columns
        for column in range(BLOCK):
            w0, w1 = load(matrix.codes, at), load(matrix.codes, at + LANES)
            at += PANEL
            value = splat(x[pa + column])
            i0, i1 = fma(value, w0, i0), fma(value, w1, i1)
            value = splat(x[pb + column])
            j0, j1 = fma(value, w0, j0), fma(value, w1, j1)
            value = splat(x[pc + column])
            k0, k1 = fma(value, w0, k0), fma(value, w1, k1)
            value = splat(x[pd + column])
            l0, l1 = fma(value, w0, l0), fma(value, w1, l1)
        s0, s1 = load(matrix.scales, block * PANEL), load(matrix.scales, block * PANEL + LANES)
        a0, a1 = fma(i0, s0, a0), fma(i1, s1, a1)
        b0, b1 = fma(j0, s0, b0), fma(j1, s1, b1)
        c0, c1 = fma(k0, s0, c0), fma(k1, s1, c1)
        d0, d1 = fma(l0, s0, d0), fma(l1, s1, d1)
    finish(matrix, layer, panel, row, after, out, a0, a1)
    finish(matrix, layer, panel, row + 1, after, out, b0, b1)
    finish(matrix, layer, panel, row + 2, after, out, c0, c1)
    finish(matrix, layer, panel, row + 3, after, out, d0, d1)
