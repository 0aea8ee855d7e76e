"""
Rotary embedding, and attention of many sessions over their pages of keys and values.

The store is one flat array of float32. A page holds, for each layer, 64 positions:
keys (kv_heads, width, 64), transposed so that the scores of neighbouring positions are neighbours,
then values (kv_heads, 64, width).
"""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from cloud_service.backbones.lean.simd import (
    LANES,
    add,
    exp,
    fma,
    larger,
    largest,
    load,
    mul,
    splat,
    store,
    sub,
    total,
)
from cloud_service.backbones.pages import PAGE

ROWS = 16
"""Tokens of one session whose queries are one piece of work."""
_TILE = 4
"""Queries that share what is loaded of a page."""
_HIDDEN = np.float32(-1e30)


class Heads(NamedTuple):
    """The shape of attention."""

    queries: int
    kv: int
    width: int
    layers: int


class Batch(NamedTuple):
    """The tokens of one pass: those of S sessions behind one another."""

    positions: NDArray[np.int64]  # (M), of each token in its session
    spans: NDArray[np.int64]  # (M), the session of each token
    tables: NDArray[np.int64]  # (S), where the pages of each session begin in ``pages``
    pages: NDArray[np.int64]
    pieces: NDArray[np.int64]  # (P, 2), first token and end of each piece of work
    cosines: NDArray[np.float32]  # (M, width / 2)
    sines: NDArray[np.float32]


@njit(nogil=True)
def page_start(heads, batch, span, position, layer):
    """Return where the keys of a layer begin in the page that holds a position."""
    page = batch.pages[batch.tables[span] + position // PAGE]
    return (page * heads.layers + layer) * 2 * heads.kv * heads.width * PAGE


@njit(nogil=True)
def rotate_and_append(heads, batch, layer, token, qkv, store_):
    """Turn queries and keys of a token in ``qkv`` (M * (queries + 2 kv) * width), keep k and v."""
    width, half = heads.width, heads.width // 2
    scale = np.float32(1 / np.sqrt(width))
    start = token * (heads.queries + 2 * heads.kv) * width
    for head in range(heads.queries + heads.kv):
        factor = scale if head < heads.queries else np.float32(1)
        at = start + head * width
        for i in range(half):
            cosine, sine = batch.cosines[token, i] * factor, batch.sines[token, i] * factor
            left, right = qkv[at + i], qkv[at + half + i]
            qkv[at + i] = left * cosine - right * sine
            qkv[at + half + i] = right * cosine + left * sine
    position = batch.positions[token]
    place = position % PAGE
    keys = page_start(heads, batch, batch.spans[token], position, layer)
    values = keys + heads.kv * width * PAGE
    for head in range(heads.kv):
        key = start + (heads.queries + head) * width
        value = key + heads.kv * width
        for i in range(width):
            store_[keys + (head * width + i) * PAGE + place] = qkv[key + i]
            store_[values + (head * PAGE + place) * width + i] = qkv[value + i]


@njit(nogil=True)
def attend(heads, batch, layer, window, piece, head, qkv, store_, out):
    """
    Answer the queries of one piece that read one head of keys and values.

    Softmax in one sweep over the pages, as published by Milakov and Gimelshein (2018): what was
    summed before is scaled down whenever a larger score is met.
    """
    width, group = heads.width, heads.queries // heads.kv
    row_width = (heads.queries + 2 * heads.kv) * width
    first, end = batch.pieces[piece, 0], batch.pieces[piece, 1]
    span = batch.spans[first]
    items = (end - first) * group
    scores = np.empty(_TILE * PAGE, np.float32)
    sums = np.empty(_TILE * width, np.float32)
    at = np.empty(_TILE, np.int64)
    tops, masses = np.empty(_TILE, np.float32), np.empty(_TILE, np.float32)
    for tile in range(0, items, _TILE):
        # The last tile repeats its last query where it has fewer.
        for i in range(_TILE):
            item = min(tile + i, items - 1)
            at[i] = (first + item // group) * row_width + (head * group + item % group) * width
        low = batch.positions[first + tile // group]
        high = batch.positions[first + min(tile + _TILE - 1, items - 1) // group]
        begin = 0 if window == 0 else max(0, low - window + 1)
        tops[:], masses[:], sums[:] = _HIDDEN, 0, 0
        for page in range(begin // PAGE, high // PAGE + 1):
            keys = page_start(heads, batch, span, page * PAGE, layer) + head * width * PAGE
            values = keys + heads.kv * width * PAGE
            _score(qkv, at, store_, keys, width, scores)
            for i in range(_TILE):
                position = batch.positions[first + min(tile + i, items - 1) // group]
                _hide(scores, i * PAGE, page * PAGE, position, window)
                _soften(scores, i, tops, masses, sums, width)
            count = min(PAGE, high + 1 - page * PAGE)
            _gather(scores, store_, values, count, width, sums)
        for i in range(min(_TILE, items - tile)):
            item = tile + i
            target = ((first + item // group) * heads.queries + head * group + item % group) * width
            for j in range(0, width, LANES):
                share = splat(np.float32(1) / masses[i])
                store(out, target + j, mul(load(sums, i * width + j), share))


@njit(nogil=True)
def _score(qkv, at, store_, keys, width, scores):
    """Write the products of four queries with the keys of a page, (4, 64)."""
    a, b, c, d = at[0], at[1], at[2], at[3]
    for lane in range(0, PAGE, 2 * LANES):
        a0 = a1 = b0 = b1 = c0 = c1 = d0 = d1 = splat(np.float32(0))
        for i in range(width):
            key = keys + i * PAGE + lane
            k0, k1 = load(store_, key), load(store_, key + LANES)
            q = splat(qkv[a + i])
            a0, a1 = fma(q, k0, a0), fma(q, k1, a1)
            q = splat(qkv[b + i])
            b0, b1 = fma(q, k0, b0), fma(q, k1, b1)
            q = splat(qkv[c + i])
            c0, c1 = fma(q, k0, c0), fma(q, k1, c1)
            q = splat(qkv[d + i])
            d0, d1 = fma(q, k0, d0), fma(q, k1, d1)
        store(scores, lane, a0)
        store(scores, lane + LANES, a1)
        store(scores, PAGE + lane, b0)
        store(scores, PAGE + lane + LANES, b1)
        store(scores, 2 * PAGE + lane, c0)
        store(scores, 2 * PAGE + lane + LANES, c1)
        store(scores, 3 * PAGE + lane, d0)
        store(scores, 3 * PAGE + lane + LANES, d1)


@njit(nogil=True)
def _hide(scores, row, start, position, window):
    """Mask what a query at ``position`` may not see of the page that begins at ``start``."""
    for place in range(max(0, position + 1 - start), PAGE):
        scores[row + place] = _HIDDEN
    if window:
        for place in range(min(PAGE, max(0, position - window + 1 - start))):
            scores[row + place] = _HIDDEN


@njit(nogil=True)
def _soften(scores, i, tops, masses, sums, width):
    """Turn a row of scores into weights; scale what was summed so far to the same measure."""
    row = i * PAGE
    s0, s1 = load(scores, row), load(scores, row + LANES)
    s2, s3 = load(scores, row + 2 * LANES), load(scores, row + 3 * LANES)
    top = max(tops[i], largest(larger(larger(s0, s1), larger(s2, s3))))
    level = splat(top)
    s0, s1 = exp(sub(s0, level)), exp(sub(s1, level))
    s2, s3 = exp(sub(s2, level)), exp(sub(s3, level))
    store(scores, row, s0)
    store(scores, row + LANES, s1)
    store(scores, row + 2 * LANES, s2)
    store(scores, row + 3 * LANES, s3)
    shrink = exp(sub(splat(tops[i]), level))
    for j in range(i * width, (i + 1) * width, LANES):
        store(sums, j, mul(load(sums, j), shrink))
    kept = total(shrink) / np.float32(LANES)
    masses[i] = masses[i] * kept + total(add(add(s0, s1), add(s2, s3)))
    tops[i] = top


@njit(nogil=True)
def _gather(scores, store_, values, count, width, sums):
    """Add the values of a page's first ``count`` positions, weighted, to four sums."""
    for lane in range(0, width, LANES):
        a, b = load(sums, lane), load(sums, width + lane)
        c, d = load(sums, 2 * width + lane), load(sums, 3 * width + lane)
        for place in range(count):
            value = load(store_, values + place * width + lane)
            a = fma(splat(scores[place]), value, a)
            b = fma(splat(scores[PAGE + place]), value, b)
            c = fma(splat(scores[2 * PAGE + place]), value, c)
            d = fma(splat(scores[3 * PAGE + place]), value, d)
        store(sums, lane, a)
        store(sums, width + lane, b)
        store(sums, 2 * width + lane, c)
        store(sums, 3 * width + lane, d)
