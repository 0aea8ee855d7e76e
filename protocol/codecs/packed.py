"""Symmetric codes of a few bits in blocks of 32, one bfloat16 scale a block."""

import math
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from protocol.codecs.base import Array, Codec, Shape
from protocol.codecs.blocks import in_blocks, scales_shape

BLOCK = 32
"""Numbers that share a scale: the fewer bits a code has, the more a large neighbour costs it."""

Bytes = NDArray[np.uint8]


class PackedBlocks(Codec):
    """
    The scales of the whole tensor, then its codes.

    Blocks run along the last axis and begin anew with each row; the last of a row may be short.
    A code is stored as a number from 0 on, half of its range added, the highest bit first; a row
    ends with a whole byte, filled up with zeros. A number is its code times its block's scale.
    """

    bits: ClassVar[int]
    """Of a code, 2 to 7."""

    def size(self, shape: Shape) -> int:
        """Return the exact bytes that a tensor takes."""
        return 2 * math.prod(scales_shape(shape, BLOCK)) + math.prod(self._rows_shape(shape))

    def _pack(self, array: Array) -> bytes:
        half = 1 << (self.bits - 1)
        top = np.float32(half - 1)
        blocks = in_blocks(array, BLOCK)  # (..., N, 32)
        peak = np.maximum(blocks.max(-1), -blocks.min(-1))  # (..., N)
        upper = _rounded_up(peak / top, half)  # (..., N)
        scales = (upper << np.uint32(16)).view(np.float32)
        # An all-zero block would divide by zero; any divisor maps it to zero.
        scaled = blocks / np.where(scales > 0, scales, np.float32(1))[..., None]
        np.rint(scaled, out=scaled)
        np.minimum(scaled, top, out=scaled)
        np.maximum(scaled, -top, out=scaled)
        codes = (scaled + np.float32(half)).astype(np.uint8)
        rows = codes.reshape(*array.shape[:-1], blocks.shape[-2] * BLOCK)
        return upper.astype("<u2").tobytes() + self._packed(rows[..., : array.shape[-1]]).tobytes()

    def _unpack(self, data: memoryview, shape: Shape) -> Array:
        scaled = scales_shape(shape, BLOCK)
        count = math.prod(scaled)
        upper = np.frombuffer(data, "<u2", count).astype(np.uint32)
        scales = (upper << np.uint32(16)).view(np.float32).reshape(scaled)
        rows = np.frombuffer(data, np.uint8, offset=2 * count).reshape(self._rows_shape(shape))
        numbers: Array = self._unpacked(rows, shape[-1]).astype(np.float32)
        numbers -= np.float32(1 << (self.bits - 1))
        # A stranger's scale may be a NaN or overflow: the caller looks for that in the result.
        with np.errstate(over="ignore", invalid="ignore"):
            numbers *= np.repeat(scales, BLOCK, axis=-1)[..., : shape[-1]]
        return numbers

    def _rows_shape(self, shape: Shape) -> Shape:
        return (*shape[:-1], -(-shape[-1] * self.bits // 8))

    def _packed(self, codes: Bytes) -> Bytes:
        """Codes (..., H) as rows of bytes."""
        bits = np.unpackbits(codes[..., None], axis=-1)[..., 8 - self.bits :]  # (..., H, bits)
        width = codes.shape[-1] * self.bits
        return np.packbits(bits.reshape(*codes.shape[:-1], width), axis=-1)

    def _unpacked(self, rows: Bytes, width: int) -> Bytes:
        """Rows of bytes as codes (..., H)."""
        bits = np.unpackbits(rows, axis=-1, count=width * self.bits)
        grouped = bits.reshape(*rows.shape[:-1], width, self.bits)
        codes: Bytes = np.packbits(grouped, axis=-1)[..., 0] >> np.uint8(8 - self.bits)
        return codes


class Int4Blocks(PackedBlocks):
    """Codes within ±7. A seventh of float32."""

    number = 4
    name = "int4"
    bits = 4


class Int6Blocks(PackedBlocks):
    """Codes within ±31. A fifth of float32."""

    number = 5
    name = "int6"
    bits = 6


def _rounded_up(scales: Array, codes: int) -> NDArray[np.uint32]:
    """Return the upper halves of the next bfloat16 from each scale on: no code leaves its range."""
    # So many of the largest are still finite.
    largest = (np.finfo(np.float32).max / np.float32(codes)).view(np.uint32) & np.uint32(0xFFFF0000)
    bits = np.minimum(np.ascontiguousarray(scales).view(np.uint32), largest)
    upper: NDArray[np.uint32] = (bits + np.uint32(0xFFFF)) >> np.uint32(16)
    return upper
