"""
How threads share the work of a pass: no barrier, and nobody waits for one who has not come.

All threads run the same function over the same numbered phases. A phase has a number of pieces;
whoever is there takes the next one, and goes on to the next phase when all are done. A thread that
comes late, or not at all, costs its share of the work and nothing else: it finds phases with no
piece left, and leaves the data alone.
"""

import sys
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit
from numba.core import types
from numba.extending import intrinsic
from numpy.typing import NDArray

_LINE = 8
"""Counters that two threads write at once stand this far apart: on cache lines of their own."""
_PATIENCE = 2000
"""Looks at a counter before the processor is offered to others."""

_yield_processor = types.ExternalFunction(
    "SwitchToThread" if sys.platform == "win32" else "sched_yield", types.int32()
)


def ledger_of(phases: int) -> NDArray[np.int64]:
    """Return the counters of a pass: a new one each, so that a late thread writes in no other's."""
    return np.zeros(phases * 2 * _LINE, np.int64)


@intrinsic
def _count(_typing: Any, array: Any, place: Any) -> Any:
    """Add one to a counter and return what it was, at once for all threads."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        one = ir.Constant(ir.IntType(64), 1)
        return builder.atomic_rmw("add", builder.gep(data, [arguments[1]]), one, "seq_cst")

    return types.int64(array, types.intp), generate


@intrinsic
def _look(_typing: Any, array: Any, place: Any) -> Any:
    """Return a counter as other threads have left it."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        return builder.load_atomic(builder.gep(data, [arguments[1]]), "seq_cst", 8)

    return types.int64(array, types.intp), generate


@njit(nogil=True)
def take(ledger, phase):
    """Return the number of a piece that nobody has, or one that is no piece of this phase."""
    return _count(ledger, 2 * _LINE * phase)


@njit(nogil=True)
def done(ledger, phase):
    """Say that a piece is finished."""
    _count(ledger, 2 * _LINE * phase + _LINE)


@njit(nogil=True)
def wait(ledger, phase, pieces):
    """Return when all pieces of a phase are finished."""
    looks = 0
    while _look(ledger, 2 * _LINE * phase + _LINE) < pieces:
        looks += 1
        if looks > _PATIENCE:
            _yield_processor()
