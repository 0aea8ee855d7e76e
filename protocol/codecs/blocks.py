"""Rows cut into blocks, each of which has a scale of its own."""

import numpy as np

from protocol.codecs.base import Array, Shape


def scales_shape(shape: Shape, block: int) -> Shape:
    """Return (..., N): a scale for every block of a row, the last one perhaps not full."""
    return (*shape[:-1], -(-shape[-1] // block))


def in_blocks(array: Array, block: int) -> Array:
    """Return (..., N, block): a view where rows are whole blocks, else a copy filled with zeros."""
    *outer, blocks = scales_shape(array.shape, block)
    if array.shape[-1] % block:
        padded = np.zeros((*outer, blocks * block), np.float32)
        padded[..., : array.shape[-1]] = array
        array = padded
    return array.reshape(*outer, blocks, block)
