"""What a gate saves and what it loses, from each token's need: no models, no network."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
Flags = NDArray[np.bool_]

MOST_SAID = 64
"""Tokens that a cloud says in one answer, by the default limits."""

_ID = 4
"""Bytes of a token in a frame, and of their count."""

SHARES = (0.0, 0.02, 0.05, *(k / 20 for k in range(2, 20)), 0.98, 1.0)
"""Of the tokens that the device is asked for, where thresholds are tried."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes of one row's frame, by what it holds."""

    whole: float
    """Final state and taps."""
    final: float
    taps: float


@dataclass(frozen=True, slots=True)
class Foreseen:
    """Tokens of some texts as both foresaw them, n together."""

    base: Numbers
    """Negative log-likelihoods by the backbone, (n,)."""
    plugin: Numbers
    """By the plugin, (n,)."""
    need: Numbers
    """Of the device, (n,)."""
    wrong: Flags
    """Whether the backbone's likeliest token was another one, (n,)."""
    starts: Sequence[int]
    """Where each text begins, and where the last one ends."""

    def nll(self, threshold: float) -> float:
        """Mean, with the plugin where the gate is open."""
        return float(np.where(self.need >= threshold, self.plugin, self.base).mean())

    def opened(self, threshold: float) -> float:
        """Share of the tokens that the device is asked for."""
        return float((self.need >= threshold).mean())

    def threshold(self, share: float) -> float:
        """The one at which about this share of the tokens needs the device; beyond 1 for none."""
        if share <= 0:
            return float(np.nextafter(1.0, 2.0))
        return 0.0 if share >= 1 else float(np.quantile(self.need, 1 - share))

    def cloud_bytes(self, threshold: float, sizes: Sizes) -> float:
        """Bytes down a token where the cloud decides: a row an answer, and the ids of what it said."""
        opened, total = self.need >= threshold, 0.0
        for start, stop in pairwise(self.starts):
            for said in runs(opened[start:stop]):
                total += sizes.whole + (_ID * (1 + said) if said else 0)
        return total / len(opened)

    def device_bytes(self, threshold: float, sizes: Sizes) -> float:
        """The same where the device decides: every final state comes, and taps where it asks for them."""
        return sizes.final + self.opened(threshold) * sizes.taps


def runs(opened: Flags) -> list[int]:
    """
    Return how many tokens each answer says, for the tokens of one text.

    Args:
        opened: Whether each needs the device, (n,).

    """
    found, said = [], 0
    for needs in opened:
        # Where the answer is full the device says the next token itself.
        if needs or said == MOST_SAID:
            found.append(said)
            said = 0
            continue
        said += 1
    return [*found, said] if said else found


def area_under_curve(need: Numbers, wrong: Flags) -> float | None:
    """
    Return how likely a token that the backbone gets wrong has a larger need than one that it gets right.

    The statistic of Mann and Whitney, ties counted half; None where it is always or never right.
    """
    many, few = int(wrong.sum()), int((~wrong).sum())
    if not many or not few:
        return None
    _, places, counts = np.unique(need, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[places]
    return float((ranks[wrong].sum() - many * (many + 1) / 2) / (many * few))


def kept(nll: float, base: float, best: float) -> float | None:
    """Return what is left of the gain from ``base`` to ``best``; None where there is none."""
    return (base - nll) / (base - best) if best < base else None
