"""Symmetric int8 in blocks of 64, one float32 scale a block. Little more than a quarter of the bytes."""

import math

import numpy as np

from protocol.codecs.base import Array, Codec, Shape
from protocol.codecs.blocks import in_blocks, scales_shape

BLOCK = 64
"""Numbers that share a scale: in a whole row the few huge channels would drown the others."""
# 127 of them are still finite.
_LARGEST_SCALE: np.float32 = np.finfo(np.float32).max / np.float32(128)


class Int8Blocks(Codec):
    """
    The scales of the whole tensor, then its codes.

    Blocks run along the last axis and begin anew with each row; the last of a row may be short.
    A number is its code times its block's scale, off by half a scale at most.
    """

    number = 3
    name = "int8"

    def size(self, shape: Shape) -> int:
        """Return the exact bytes that a tensor takes."""
        return 4 * math.prod(scales_shape(shape, BLOCK)) + math.prod(shape)

    def _pack(self, array: Array) -> bytes:
        blocks = in_blocks(array, BLOCK)  # (..., N, 64)
        peak = np.maximum(blocks.max(-1), -blocks.min(-1))  # (..., N)
        scales: Array = np.minimum(peak / np.float32(127), _LARGEST_SCALE)  # (..., N)
        # An all-zero block would divide by zero; any divisor maps it to zero.
        scaled = blocks / np.where(scales > 0, scales, np.float32(1))[..., None]
        np.rint(scaled, out=scaled)
        # The smallest and the largest scales are rounded so far that a code could leave its byte.
        np.minimum(scaled, np.float32(127), out=scaled)
        np.maximum(scaled, np.float32(-127), out=scaled)
        rows = scaled.astype(np.int8).reshape(*array.shape[:-1], blocks.shape[-2] * BLOCK)
        codes = rows[..., : array.shape[-1]].tobytes()
        return scales.astype("<f4", copy=False).tobytes() + codes

    def _unpack(self, data: memoryview, shape: Shape) -> Array:
        scaled = scales_shape(shape, BLOCK)
        count = math.prod(scaled)
        scales = np.frombuffer(data, "<f4", count).astype(np.float32, copy=False)
        codes = np.frombuffer(data, np.int8, offset=4 * count)
        # A stranger's scale may be a NaN or overflow: the caller looks for that in the result.
        with np.errstate(over="ignore", invalid="ignore"):
            if shape[-1] % BLOCK == 0:
                blocks = codes.reshape(count, BLOCK).astype(np.float32)  # one array, no temporary
                blocks *= scales[:, None]
                return blocks.reshape(shape)
            spread = np.repeat(scales.reshape(scaled), BLOCK, axis=-1)[..., : shape[-1]]
            return codes.reshape(shape) * spread
