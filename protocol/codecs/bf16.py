"""bfloat16: the upper half of a float32. Half the bytes, the whole range, 8 significant bits."""

import math

import numpy as np

from protocol.codecs.base import Array, Codec, Shape

_MAGNITUDE = np.uint32(0x7FFF)
_INFINITY = np.uint32(0x7F80)


class BFloat16(Codec):
    """The nearest bfloat16, ties to even; what would round to an infinity stays below it."""

    number = 2
    name = "bf16"

    def size(self, shape: Shape) -> int:
        """Return the exact bytes that a tensor takes."""
        return 2 * math.prod(shape)

    def _pack(self, array: Array) -> bytes:
        bits = np.ascontiguousarray(array).view(np.uint32)
        upper = bits >> 16
        odd = upper & 1
        odd += np.uint32(0x7FFF)
        odd += bits  # a finite float32 never carries out of its 32 bits
        np.right_shift(odd, 16, out=upper)
        upper -= (upper & _MAGNITUDE) == _INFINITY
        return upper.astype("<u2").tobytes()

    def _unpack(self, data: memoryview, shape: Shape) -> Array:
        bits = np.frombuffer(data, "<u2").astype(np.uint32)
        bits <<= np.uint32(16)
        return bits.view(np.float32).reshape(shape)
