"""What a codec has to be: a number, a name, and float32 into bytes and back."""

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from protocol.errors import NotFinite, TensorMismatch

Array = NDArray[np.float32]
"""Numbers on this side of the wire."""
Data = bytes | bytearray | memoryview
Shape = tuple[int, ...]


class Codec(ABC):
    """
    Turns float32 tensors with at least one axis into bytes and back.

    A subclass writes ``size``, ``_pack`` and ``_unpack``; the checks are here, once.
    """

    number: ClassVar[int]
    """Wire number. Never reused."""
    name: ClassVar[str]

    @abstractmethod
    def size(self, shape: Shape) -> int:
        """Return the exact bytes that a tensor takes, so that a reader can check first."""

    @abstractmethod
    def _pack(self, array: Array) -> bytes: ...

    @abstractmethod
    def _unpack(self, data: memoryview, shape: Shape) -> Array: ...

    def encode(self, array: Array, part: str = "tensor") -> bytes:
        """
        Return the bytes of a float32 tensor; ``part`` names it in errors.

        Raises:
            TensorMismatch: It is not float32.
            NotFinite: It holds a NaN or an infinity.

        """
        if array.dtype != np.float32:
            raise TensorMismatch(part=part, expected="float32", got=str(array.dtype))
        require_finite(array, part)
        return self._pack(array)

    def decode(self, data: Data, shape: Shape, part: str = "tensor") -> Array:
        """
        Return the float32 tensor; where the codec allows it, a view of ``data``.

        Raises:
            TensorMismatch: ``data`` is not ``size(shape)`` bytes long.
            NotFinite: A number that was written is a NaN or an infinity.

        """
        needed = self.size(shape)
        if len(data) != needed:
            raise TensorMismatch(part=part, expected=f"{needed} bytes", got=f"{len(data)} bytes")
        array = self._unpack(memoryview(data), shape)
        require_finite(array, part)
        return array


def require_finite(array: Array, part: str) -> None:
    """Refuse a NaN or an infinity with ``NotFinite``."""
    if not np.isfinite(array).all():
        raise NotFinite(part=part)


def aligned(array: Array) -> Array:
    """Return the array itself, or a copy where its bytes began at an odd place."""
    return array if array.flags.aligned else array.copy()
