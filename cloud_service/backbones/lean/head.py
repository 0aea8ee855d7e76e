"""Log Z and the likeliest tokens of final states: float32 throughout, and only when asked."""

from typing import Any

import numpy as np
import torch
from numba import njit

from cloud_service.backbones.lean.activations import room_for_codes
from cloud_service.backbones.lean.compiled import compiled, digest_of_sources
from cloud_service.backbones.lean.crew import Crew
from cloud_service.backbones.lean.epilogue import WRITE
from cloud_service.backbones.lean.matrices import ByteMatrix, PlainMatrix
from cloud_service.backbones.lean.products import multiply
from cloud_service.backbones.lean.sharing import done, ledger_of, take, wait
from cloud_service.backbones.lean.simd import (
    LANES,
    add,
    exp,
    larger,
    largest,
    load,
    splat,
    sub,
    total,
)
from protocol.messages import Candidates, Floats

ROWS = 64
"""Rows whose logits are held at a time."""


class LeanHead:
    """Reads final states (T, H)."""

    def __init__(self, matrix: PlainMatrix | ByteMatrix, crew: Crew) -> None:
        self._matrix = matrix
        self._crew = crew
        # Held: taking it anew each time costs as much as filling it.
        self._logits = np.empty(ROWS * matrix.rows, np.float32)
        self._no_codes = room_for_codes(0)

    def read(
        self, final: Floats, log_z: bool, count: int
    ) -> tuple[Floats | None, Candidates | None]:
        """Return log Z (T,) and the ``count`` likeliest tokens (T, C), each if asked for."""
        if not log_z and not count:
            return None, None
        sums = np.empty(len(final), np.float32)
        best = [self._block(final, sums, start, count) for start in range(0, len(final), ROWS)]
        if not count:
            return sums, None
        ids, logits = (np.concatenate(parts) for parts in zip(*best, strict=True))
        return (sums if log_z else None), Candidates(ids, logits)

    def _block(
        self, final: Floats, sums: Floats, start: int, count: int
    ) -> tuple[np.ndarray[tuple[int, int], np.dtype[np.uint32]], Floats]:
        """Write the log Z of some rows; return their likeliest tokens' ids and logits."""
        states = np.ascontiguousarray(final[start : start + ROWS])
        part, width = sums[start : start + ROWS], self._matrix.rows
        arguments = (states.ravel(), self._no_codes, self._logits, part, ledger_of(2))
        self._crew.run(_logits_and_sums, self._matrix, *arguments)
        logits = self._logits[: len(states) * width].reshape(-1, width)
        if (
            count == 1
        ):  # drafts want no more; a vocabulary's peak is found in a twentieth of the time
            likeliest = logits.argmax(axis=1, keepdims=True)
            return likeliest.astype(np.uint32), np.take_along_axis(logits, likeliest, axis=1)
        best = torch.topk(torch.from_numpy(logits), count, dim=-1)
        return best.indices.numpy().astype(np.uint32), best.values.numpy()


@njit(nogil=True)
def _read(matrix, states, codes, logits, sums, ledger):
    rows, width = len(sums), matrix.rows
    multiply(matrix, 0, states, codes, rows, WRITE, logits, ledger, 0)
    row = take(ledger, 1)
    while row < rows:
        sums[row] = _log_sum_exp(logits, row * width, width)
        done(ledger, 1)
        row = take(ledger, 1)
    wait(ledger, 1, rows)


@njit(nogil=True)
def _log_sum_exp(values, start, width):
    top = splat(np.float32(-np.inf))
    for i in range(start, start + width, LANES):
        top = larger(top, load(values, i))
    level = largest(top)
    sums = splat(np.float32(0))
    for i in range(start, start + width, LANES):
        sums = add(sums, exp(sub(load(values, i), splat(level))))
    return level + np.float32(np.log(total(sums)))


def _compiled(sources: str) -> Any:
    @compiled
    def logits_and_sums(matrix, states, codes, logits, sums, ledger):
        """Write the logits (T * V) of states (T * H), and the logarithm of their sums (T)."""
        if sources:
            _read(matrix, states, codes, logits, sums, ledger)

    return logits_and_sums


_logits_and_sums = _compiled(digest_of_sources())
