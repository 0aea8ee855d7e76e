"""The part of the vocabulary that training scores exactly, and the mass of the rest.

A side plugin is small; the head it is trained through is not. So a step scores the tokens of the
person's texts and the backbone's favourites there, and lets the rest of the vocabulary move as a few
random tokens of it move.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from device_agent.head import Head
from device_agent.vocabulary import soft_capped

LEAST_REST = -1e-4
"""Largest log share of the shortlist: rounding must not make the rest's mass negative."""

Floats = NDArray[np.float32]


def choose_shortlist(counts: NDArray[np.int64], favourites: Floats, size: int) -> NDArray[np.int64]:
    """Every token that training has to foresee, then the backbone's favourites.

    Args:
        counts: How often each token is to be foreseen, (V,).
        favourites: The backbone's mean probability of each, (V,).
        size: How many tokens; more when training needs more, and never more than V.

    Returns:
        Token ids, ascending, (S,).
    """
    needed = int(np.count_nonzero(counts))
    size = min(max(size, needed), len(counts))
    ranks = np.where(counts > 0, np.float32(np.inf), favourites)
    # Stable: equal favourites are chosen in the same way everywhere.
    return np.sort(np.argsort(-ranks, kind="stable")[:size])


@dataclass(frozen=True)
class Shortlist:
    """A shortlist with its rows of the head."""

    ids: NDArray[np.int64]
    """Ascending, (S,)."""

    rows: Floats
    """(S, H)"""

    bias: Floats
    """(S,)"""

    outside: NDArray[np.int64]
    """Every other token, ascending, (V - S,)."""

    @classmethod
    def of(cls, head: Head, ids: NDArray[np.int64]) -> "Shortlist":
        """Read the rows of ``ids`` (S,)."""
        rows, bias = head.rows(ids)
        outside = np.setdiff1d(np.arange(head.vocabulary), ids, assume_unique=True)
        return cls(ids, rows, bias, outside)

    def places(self, tokens: NDArray[np.uint32]) -> NDArray[np.int64]:
        """Where in the shortlist tokens stand that are all in it, same shape."""
        return np.searchsorted(self.ids, tokens)

    def negatives(self, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Tokens from outside, drawn uniformly and each once, (N,).

        When nothing is outside, a token from inside stands for the mass that rounding left there.
        """
        if len(self.outside) == 0:
            return self.ids[:1]
        if len(self.outside) <= count:
            return self.outside
        return self.outside[np.sort(rng.choice(len(self.outside), count, replace=False))]


def rest_mass(
    finals: Floats, log_z: Floats, rows: Floats, bias: Floats, cap: float | None = None
) -> Floats:
    """Logarithm of the sum of exponentials of the base logits outside the shortlist.

    Args:
        finals: The backbone's final states, (T, H).
        log_z: Log-sum-exp over the whole vocabulary, (T,).
        rows: The shortlist's, (S, H).
        bias: The shortlist's, (S,).
        cap: Soft cap of the logits.

    Returns:
        (T,)
    """
    base = finals @ rows.T  # (T, S)
    base += bias
    soft_capped(base, cap)
    # Logits may not pass log_z, so nothing overflows without subtracting their maximum.
    base -= log_z[:, None]
    np.exp(base, out=base)
    share = np.log(base.sum(axis=1))
    rest: Floats = log_z + np.log1p(-np.exp(np.minimum(share, np.float32(LEAST_REST))))
    return rest
