"""IEEE float16. Half the bytes; 11 significant bits between 6e-5 and 65504."""

import math

import numpy as np

from protocol.codecs.base import Array, Codec, Shape

LARGEST = 65504
"""What is larger becomes this, not an infinity."""


class Float16(Codec):
    """The nearest float16, saturated."""

    number = 1
    name = "f16"

    def size(self, shape: Shape) -> int:
        """Return the exact bytes that a tensor takes."""
        return 2 * math.prod(shape)

    def _pack(self, array: Array) -> bytes:
        within = np.minimum(array, np.float32(LARGEST))
        np.maximum(within, np.float32(-LARGEST), out=within)
        return within.astype("<f2").tobytes()

    def _unpack(self, data: memoryview, shape: Shape) -> Array:
        return np.frombuffer(data, "<f2").reshape(shape).astype(np.float32)
