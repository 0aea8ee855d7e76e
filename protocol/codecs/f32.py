"""Lossless little-endian float32."""

import math

import numpy as np

from protocol.codecs.base import Array, Codec, Shape, aligned


class Float32(Codec):
    """Every number as it is."""

    number = 0
    name = "f32"

    def size(self, shape: Shape) -> int:
        """Return the exact bytes that a tensor takes."""
        return 4 * math.prod(shape)

    def _pack(self, array: Array) -> bytes:
        return array.astype("<f4", copy=False).tobytes()

    def _unpack(self, data: memoryview, shape: Shape) -> Array:
        array = np.frombuffer(data, "<f4").reshape(shape)
        return aligned(array.astype(np.float32, copy=False))
