"""What something costs in seconds by what it consists of, learned from one measurement after another."""

from collections.abc import Sequence

import numpy as np

WALK = 0.02
"""How far a cost may move between two measurements, as a share of what it was taken for at first."""

NOISE = 0.2
"""How far a measurement is off, as a share of what was expected."""

OUTLIER = 3.0
"""A measurement of more than so many times the expected seconds is taken for that: a wait for a cloud
that is away says nothing of the next request."""


class Costs:
    """Seconds as a sum of counts times costs that move slowly: a Kalman filter whose state walks at random.

    With counts x, costs c and covariance P, in units of the first measurement (Kalman 1960):
    P += W;  g = P x / (x P x + noise^2);  c += g (seconds - x c);  P -= g (x P).

    Args:
        shares: What each cost is taken for before anything is known, relative to the first.
    """

    def __init__(self, shares: Sequence[float]) -> None:
        self._shares = np.array(shares)
        self._walk = np.diag((WALK * self._shares) ** 2)
        self._spread = np.diag(self._shares**2)
        self._costs: np.ndarray[tuple[int], np.dtype[np.float64]] | None = None
        self._unit = 0.0

    def learn(self, counts: Sequence[float], seconds: float) -> None:
        """Something that consisted of ``counts`` took ``seconds``."""
        x = np.array(counts, np.float64)
        if self._costs is None:
            self._unit = max(seconds, 1e-9) / float(x @ self._shares)
            self._costs = self._shares.copy()
        expected = max(float(x @ self._costs), 1e-3)
        taken = min(seconds / self._unit, OUTLIER * expected)
        self._spread = self._spread + self._walk
        seen = self._spread @ x
        gain = seen / (float(x @ seen) + (NOISE * expected) ** 2)
        self._costs = self._costs + gain * (taken - float(x @ self._costs))
        self._spread = self._spread - np.outer(gain, seen)

    @property
    def each(self) -> list[float]:
        """Seconds of one of each, never below zero; the shares where nothing was measured."""
        if self._costs is None:
            return [float(share) for share in self._shares]
        return [float(cost) for cost in np.maximum(self._costs, 0.0) * self._unit]
