"""
Products of rows of 8-bit activations with one panel of a ``BlockMatrix``.

Four rows are taken at a time, so that what is loaded of the matrix serves four times; what is left
over is taken singly. Of a block, the codes are multiplied as integers; with s, c and low for the
matrix and t, d for the activations, the block adds
sum (s c + low) (t d) = s t sum (c d) + low (t sum d).
"""

import numpy as np
from numba import njit

from cloud_service.backbones.lean.epilogue import finish
from cloud_service.backbones.lean.matrices import BLOCK, GROUP, PANEL
from cloud_service.backbones.lean.simd import (
    LANES,
    dot,
    fma,
    four,
    load,
    load_pair,
    mul,
    no_ints,
    splat,
    to_floats,
)

GROUPS = BLOCK // GROUP


@njit(nogil=True)
def multiply_by_blocks(matrix, layer, panel, x, start, count, after, out):
    """Multiply ``count`` rows of ``Codes`` (M, K) by one panel, write what ``after`` makes of it."""
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
    for block in range(blocks):
        i0 = i1 = no_ints()
        place = row * blocks + block
        for group in range(GROUPS):
            w0, w1 = load_pair(matrix.codes, (first + block) * GROUPS + group)
            xa = four(x.codes, place * BLOCK + group * GROUP)
            i0, i1 = dot(i0, w0, xa), dot(i1, w1, xa)
        at = (first + block) * PANEL
        scale, total = splat(x.scales[place]), splat(x.sums[place])
        a0 = _added(a0, i0, load(matrix.scales, at), load(matrix.lows, at), scale, total)
        at += LANES
        a1 = _added(a1, i1, load(matrix.scales, at), load(matrix.lows, at), scale, total)
    finish(matrix, layer, panel, row, after, out, a0, a1)


@njit(nogil=True)
def _four_rows(matrix, layer, panel, x, row, after, out):
    blocks = matrix.columns // BLOCK
    first = (layer * (matrix.rows // PANEL) + panel) * blocks
    a0 = a1 = b0 = b1 = c0 = c1 = d0 = d1 = splat(np.float32(0))
    for block in range(blocks):
        i0 = i1 = j0 = j1 = k0 = k1 = l0 = l1 = no_ints()
        pa = row * blocks + block
        pb, pc, pd = pa + blocks, pa + 2 * blocks, pa + 3 * blocks
        for group in range(GROUPS):
            w0, w1 = load_pair(matrix.codes, (first + block) * GROUPS + group)
            xa = four(x.codes, pa * BLOCK + group * GROUP)
            i0, i1 = dot(i0, w0, xa), dot(i1, w1, xa)
            xb = four(x.codes, pb * BLOCK + group * GROUP)
            j0, j1 = dot(j0, w0, xb), dot(j1, w1, xb)
            xc = four(x.codes, pc * BLOCK + group * GROUP)
            k0, k1 = dot(k0, w0, xc), dot(k1, w1, xc)
            xd = four(x.codes, pd * BLOCK + group * GROUP)
            l0, l1 = dot(l0, w0, xd), dot(l1, w1, xd)
        at = (first + block) * PANEL
        s0, s1 = load(matrix.scales, at), load(matrix.scales, at + LANES)
        m0, m1 = load(matrix.lows, at), load(matrix.lows, at + LANES)
        scale, total = splat(x.scales[pa]), splat(x.sums[pa])
        a0, a1 = _added(a0, i0, s0, m0, scale, total), _added(a1, i1, s1, m1, scale, total)
        scale, total = splat(x.scales[pb]), splat(x.sums[pb])
        b0, b1 = _added(b0, j0, s0, m0, scale, total), _added(b1, j1, s1, m1, scale, total)
        scale, total = splat(x.scales[pc]), splat(x.sums[pc])
        c0, c1 = _added(c0, k0, s0, m0, scale, total), _added(c1, k1, s1, m1, scale, total)
        scale, total = splat(x.scales[pd]), splat(x.sums[pd])
        d0, d1 = _added(d0, l0, s0, m0, scale, total), _added(d1, l1, s1, m1, scale, total)
    finish(matrix, layer, panel, row, after, out, a0, a1)
    finish(matrix, layer, panel, row + 1, after, out, b0, b1)
    finish(matrix, layer, panel, row + 2, after, out, c0, c1)
    finish(matrix, layer, panel, row + 3, after, out, d0, d1)


@njit(nogil=True)
def _added(sums, products, scale, low, x_scale, x_sum):
    return fma(mul(to_floats(products), x_scale), scale, fma(low, x_sum, sums))
