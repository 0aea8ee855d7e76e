"""
Weight matrices in the order in which the kernels read them.

A matrix (N, K) maps K numbers to N. Its rows are cut into panels of 32; within a panel, what a
kernel takes at a time lies together. The matrices of all layers stand behind one another.

    kind    one panel
    plain   (K, 32) float32, or bfloat16 kept as uint16
    byte    codes (K, 32) int8, scales (K / 32, 32) float16 kept as int16: a weight is scale * code
    block   codes (K / 32, 8, 64) bytes for 4 bits: byte 4 r + i of group g of a block holds the
            code of its number 4 g + i, of row r in the lower half and of row 16 + r in the upper;
            (K / 32, 8, 2, 64) for 8 bits. scales and lows (K / 32, 32), float16 kept as int16:
            a weight is scale * code + low.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

PANEL = 32
"""Rows of a matrix that are multiplied at a time."""
BLOCK = 32
"""Neighbouring weights of a row that share a scale and a low."""
GROUP = 4
"""Neighbouring weights that one instruction multiplies."""


class PlainMatrix(NamedTuple):
    """Matrices (L, N, K) of numbers."""

    rows: int
    columns: int
    weights: NDArray[np.float32] | NDArray[np.uint16]
    bias: NDArray[np.float32]  # (L * N)


class ByteMatrix(NamedTuple):
    """Matrices (L, N, K) of scale * code, one scale for 32 neighbours of a row."""

    rows: int
    columns: int
    codes: NDArray[np.int8]
    scales: NDArray[np.int16]
    bias: NDArray[np.float32]  # (L * N)


class BlockMatrix(NamedTuple):
    """Matrices (L, N, K) of codes: of 4 bits, two in a uint8, or of 8 bits, kept as int8."""

    rows: int
    columns: int
    codes: NDArray[np.uint8] | NDArray[np.int8]
    scales: NDArray[np.int16]
    lows: NDArray[np.int16]
    bias: NDArray[np.float32]  # (L * N)


Matrix = PlainMatrix | ByteMatrix | BlockMatrix


def panels(rows: NDArray[np.generic]) -> NDArray[np.generic]:
    """Return matrices (L, N, K) as a ``PlainMatrix`` has them, flat."""
    layers, count, columns = rows.shape
    cut = rows.reshape(layers, count // PANEL, PANEL, columns)
    return np.ascontiguousarray(cut.transpose(0, 1, 3, 2)).ravel()


def block_panels(values: NDArray[np.generic]) -> NDArray[np.generic]:
    """Return what blocks have in common (L, N, K / 32) as a ``BlockMatrix`` has it, flat."""
    return panels(values)


def code_panels(codes: NDArray[np.uint8], bits: int) -> NDArray[np.uint8] | NDArray[np.int8]:
    """Return codes (L, N, K) as a ``BlockMatrix`` has them, flat."""
    layers, count, columns = codes.shape
    blocks, groups = columns // BLOCK, BLOCK // GROUP
    # L, panel, half, row, block, group, number within
    cut = codes.reshape(layers, count // PANEL, 2, PANEL // 2, blocks, groups, GROUP)
    ordered = cut.transpose(0, 1, 4, 5, 2, 3, 6)
    if bits == 8:
        return np.ascontiguousarray(ordered).ravel().view(np.int8)
    return np.ascontiguousarray(ordered[:, :, :, :, 0] | ordered[:, :, :, :, 1] << 4).ravel()
