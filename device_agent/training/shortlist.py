"""The part of the vocabulary that a training step scores exactly, and the mass of the rest.

A side plugin is small; the head it is trained through is not. So a step scores the tokens that are
likeliest anywhere, the tokens that it has to foresee itself, and some others drawn anew each time. The
rest of the vocabulary moves as a few more random tokens of it move.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from device_agent.runtime.head import Head
from device_agent.training.vocabulary import soft_capped

Floats = NDArray[np.float32]
Ids = NDArray[np.int64]


def choose_shortlist(counts: Ids, favourites: Floats, size: int) -> Ids:
    """The tokens that are likeliest by what the person writes and what the backbone expects together.

    Args:
        counts: How often each token is to be foreseen, (V,).
        favourites: The backbone's mean probability of each, (V,).
        size: How many tokens; never more than V.

    Returns:
        Token ids, ascending, (S,).
    """
    likely = favourites + counts / max(int(counts.sum()), 1)
    # Stable: equally likely ones are chosen in the same way everywhere.
    return np.sort(np.argsort(-likely, kind="stable")[:size])


class Sizes(NamedTuple):
    """How many tokens from outside the shortlist a step reads."""

    own: int
    """E, scored exactly: a place for every target, the others at random."""

    negatives: int
    """N, which show how the rest of the vocabulary moves."""


class Sample(NamedTuple):
    """What one step scores besides the shortlist."""

    own: Ids
    """Scored exactly, ascending, (E,)."""

    negatives: Ids
    """They show how all others move, ascending, (N,)."""

    targets: Ids
    """Where the tokens to foresee stand in the shortlist with ``own`` behind it, (T,)."""


@dataclass(frozen=True)
class Shortlist:
    """A shortlist with its rows of the head."""

    ids: Ids
    """Ascending, (S,)."""

    rows: Floats
    """(S, H)"""

    bias: Floats
    """(S,)"""

    outside: Ids
    """Every other token, ascending, (V - S,)."""

    @classmethod
    def of(cls, head: Head, ids: Ids) -> "Shortlist":
        """Read the rows of ``ids`` (S,)."""
        rows, bias = head.rows(ids)
        outside = np.setdiff1d(np.arange(head.vocabulary), ids, assume_unique=True)
        return cls(ids, rows, bias, outside)

    def sizes(self, tokens: int, negatives: int) -> Sizes:
        """For steps of ``tokens`` tokens, with ``negatives`` rows for the rest where there are so many."""
        own = min(tokens, len(self.outside))
        return Sizes(own, max(1, min(negatives, len(self.outside) - own)))

    def sample(self, tokens: NDArray[np.uint32], sizes: Sizes, rng: np.random.Generator) -> Sample:
        """Choose what a step scores besides the shortlist, uniformly, each token once.

        Args:
            tokens: To foresee, (T,).
            sizes: From ``sizes`` for so many tokens.
            rng: Of this step.
        """
        needed = np.setdiff1d(tokens, self.ids).astype(np.int64)
        wanted = min(sizes.own + sizes.negatives, len(self.outside))
        drawn = self.outside[rng.choice(len(self.outside), wanted, replace=False)]
        # At least as many are left as have a place: needed ones leave no more than they fill.
        drawn = drawn[~np.isin(drawn, needed)]
        free = sizes.own - len(needed)
        own = np.sort(np.concatenate([needed, drawn[:free]]))
        negatives = np.sort(drawn[free : free + sizes.negatives])
        # With nothing left outside, a token from inside stands for the mass that rounding leaves.
        return Sample(own, negatives if len(negatives) else self.ids[:1], self._places(tokens, own))

    def _places(self, tokens: NDArray[np.uint32], own: Ids) -> Ids:
        places = np.searchsorted(self.ids, tokens)
        inside = self.ids[np.minimum(places, len(self.ids) - 1)] == tokens
        return np.where(inside, places, len(self.ids) + np.searchsorted(own, tokens))


def share_of(
    finals: Floats, log_z: Floats, rows: Floats, bias: Floats, cap: float | None = None
) -> Floats:
    """How much of the backbone's probability falls on some rows of the head.

    Args:
        finals: The backbone's final states, (T, H).
        log_z: Log-sum-exp over the whole vocabulary, (T,).
        rows: Of some tokens, (S, H).
        bias: Theirs, (S,).
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
    share: Floats = base.sum(axis=1)
    return share
