"""Whole products: rows of activations by a matrix of either kind, shared by all threads."""

from numba import njit
from numba.extending import overload

from cloud_service.backbones.lean.activations import quantise
from cloud_service.backbones.lean.block_kernel import multiply_by_blocks
from cloud_service.backbones.lean.byte_kernel import multiply_by_bytes
from cloud_service.backbones.lean.matrices import PANEL, BlockMatrix, ByteMatrix
from cloud_service.backbones.lean.plain_kernel import multiply_by_numbers
from cloud_service.backbones.lean.sharing import done, take, wait

ROWS = 128
"""Rows that pass a panel together: as many as stay in a core's cache."""
_PIECES = 12
"""Pieces that the panels are cut into: enough for threads of unequal speed."""


@njit(nogil=True)
def multiply(matrix, layer, x, codes, rows, after, out, ledger, phase):
    """
    Multiply rows by matrix ``layer`` and write what ``after`` makes of it.

    Args:
        matrix: Of N rows and K columns.
        layer: Which of its layers.
        x: Rows (M * K), float32.
        codes: The same rows, see ``prepare``.
        rows: M.
        after: One of the words of ``epilogue``.
        out: float32.
        ledger: See ``sharing``.
        phase: Number of this phase.

    """
    panels = matrix.rows // PANEL
    group = max(1, panels // _PIECES)
    groups = -(-panels // group)
    pieces = -(-rows // ROWS) * groups
    piece = take(ledger, phase)
    while piece < pieces:
        start, first = piece // groups * ROWS, piece % groups * group
        count = min(ROWS, rows - start)
        for panel in range(first, min(first + group, panels)):
            _multiply(matrix, layer, panel, x, codes, start, count, after, out)
        done(ledger, phase)
        piece = take(ledger, phase)
    wait(ledger, phase, pieces)


def prepare(matrix, x, row, codes):
    """Write row ``row`` of ``x`` as codes, if it is by codes that the matrix is multiplied."""


@overload(prepare)
def _choose_prepare(matrix, x, row, codes):
    if matrix.instance_class is BlockMatrix:
        return lambda matrix, x, row, codes: quantise(x, matrix.columns, row, codes)
    return lambda matrix, x, row, codes: None


def _multiply(matrix, layer, panel, x, codes, start, count, after, out):
    """Multiply ``count`` rows from ``start`` on by one panel."""


@overload(_multiply)
def _choose_multiply(matrix, layer, panel, x, codes, start, count, after, out):
    if matrix.instance_class is BlockMatrix:
        return lambda matrix, layer, panel, x, codes, start, count, after, out: multiply_by_blocks(
            matrix, layer, panel, codes, start, count, after, out
        )
    if matrix.instance_class is ByteMatrix:
        return lambda matrix, layer, panel, x, codes, start, count, after, out: multiply_by_bytes(
            matrix, layer, panel, x, start, count, after, out
        )
    return lambda matrix, layer, panel, x, codes, start, count, after, out: multiply_by_numbers(
        matrix, layer, panel, x, start, count, after, out
    )
