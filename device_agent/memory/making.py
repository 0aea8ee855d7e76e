"""A person's memory made of features that were bought already."""

from collections.abc import Iterator, Sequence

import numpy as np

from device_agent.data.examples import Encoded
from device_agent.data.tap_cache import TapCache
from device_agent.memory.basis import Basis, Codes, Floats
from device_agent.memory.file import Part
from device_agent.training.batches import FeatureRows

ROWS = 256
"""Rows of features at a time."""


def finals_of(rows: FeatureRows, hidden: int) -> Iterator[Floats]:
    """The backbone's final states of all rows in order, (n, H) at a time; overwritten by the next."""
    space = np.empty((ROWS, hidden), np.float32)
    for start in range(0, len(rows), ROWS):
        stop = min(start + ROWS, len(rows))
        rows.read([*rows.cut(start, stop)], None, space)
        yield space[: stop - start]


def basis_of(cache: TapCache, texts: Sequence[Encoded], hidden: int) -> Basis:
    """The basis that public texts give, whose features are in the cache."""
    rows = FeatureRows(cache, texts)
    return Basis.of(finals_of(rows, hidden))


def parts_of(
    cache: TapCache, basis: Basis, windows: Sequence[Encoded], owners: Sequence[str]
) -> dict[str, Part]:
    """What is to be remembered of each example.

    Args:
        cache: Holds the features of the windows.
        basis: For the keys.
        windows: Each behind a prefix that does not contain it.
        owners: sha256 of the example that each is of.
    """
    cut: dict[str, list[Encoded]] = {}
    for window, owner in zip(windows, owners, strict=True):
        cut.setdefault(owner, []).append(window)
    found = {}
    for owner, some in cut.items():
        rows = FeatureRows(cache, some)
        found[owner] = Part(rows.tokens[rows.scored > 0], _codes(rows, basis))
    return found


def _codes(rows: FeatureRows, basis: Basis) -> Iterator[Codes]:
    start = 0
    for states in finals_of(rows, len(basis.shift)):
        scored = rows.scored[start : start + len(states)] > 0
        start += len(states)
        yield basis.codes(states[scored])
