"""How much the memory is believed: two numbers, chosen on text that neither it nor the plugin learned."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from device_agent.memory.basis import Floats

CERTAINTIES = np.linspace(-4, 4, 17)
SLOPES = np.array([0, 1, 2, 3, 4, 6, 8, 10, 12, 16, 20, 24, 32], np.float64)
"""What is tried: two numbers need no descent, and every one that can be found is a sane one."""

FOLDS = 4
"""Parts of the held-out text; each is foreseen by a gate that was chosen on the others."""

GENERAL = 0.5
"""What a nat on text that is nobody's own counts beside one on the person's. On three persons it halved
what the memory costs there, and the person's own later text was foreseen a little better as well."""

Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Gate:
    """The memory's weight: sigmoid(certainty - slope * (1 - cosine of the nearest state))."""

    certainty: float
    slope: float

    def weights(self, nearest: Floats | Numbers) -> Numbers:
        """Of the memory in the mixture, from the nearest neighbours' cosines (T,); (T,) in (0, 1)."""
        inner = self.certainty - self.slope * (1 - np.asarray(nearest, np.float64))
        weights: Numbers = 1 / (1 + np.exp(-inner))
        return weights

    def to_json(self) -> dict[str, float]:
        return asdict(self)

    @classmethod
    def from_json(cls, told: Mapping[str, object]) -> Self:
        """Raises ValueError."""
        values = [told.get("certainty"), told.get("slope")]
        if set(told) != {"certainty", "slope"} or not all(
            isinstance(value, int | float) and abs(value) < 1000 for value in values
        ):
            raise ValueError("a gate has a certainty and a slope")
        return cls(*(float(str(value)) for value in values))


class Gates(NamedTuple):
    """The memory beside the frozen backbone, and beside the plugin; None where it is of no help."""

    alone: Gate | None
    plugin: Gate | None

    def to_json(self) -> dict[str, object]:
        return {name: gate and gate.to_json() for name, gate in self._asdict().items()}

    @classmethod
    def from_json(cls, told: Mapping[str, object]) -> Self:
        """Raises ValueError."""
        found = [told.get(name) for name in cls._fields]
        if not all(gate is None or isinstance(gate, dict) for gate in found):
            raise ValueError("a gate is an object")
        return cls(*(Gate.from_json(gate) if isinstance(gate, dict) else None for gate in found))


NO_GATES = Gates(None, None)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of n tokens that were to be foreseen."""

    nll: Numbers
    """Negative log-likelihood without the memory, (n,)."""
    recalled: Numbers
    """Probability that the memory gives, (n,)."""
    nearest: Floats
    """Cosine of its nearest state, (n,)."""
    scored: Numbers
    """Weight of the token, (n,)."""

    def mixed(self, gate: Gate) -> Numbers:
        """Negative log-likelihood with the memory, (n,)."""
        weights = gate.weights(self.nearest)
        found: Numbers = -np.logaddexp(
            np.log1p(-weights) - self.nll, np.log(np.maximum(weights * self.recalled, 1e-300))
        )
        return found

    def at(self, rows: NDArray[np.bool_]) -> "Evidence":
        """Of some of the tokens."""
        return Evidence(self.nll[rows], self.recalled[rows], self.nearest[rows], self.scored[rows])


@dataclass(frozen=True, slots=True)
class Fitted:
    """What choosing a gate gave."""

    gate: Gate | None
    """None when the memory is of no help."""
    nll: Numbers
    """Negative log-likelihoods with the gate, each token by one that was chosen without it, (n,)."""
    mean: float
    """Their mean."""


def fit(evidence: Evidence, general: Evidence) -> Fitted:
    """Choose the gate that foresees best, and none where it did not help on what it was not chosen on.

    Args:
        evidence: Held-out text of the person.
        general: Text that is nobody's own, where the memory has little to say.
    """
    bare = _mean(evidence)
    folds = np.arange(len(evidence.nll)) * FOLDS // max(len(evidence.nll), 1)
    if len(evidence.nll) < FOLDS:
        return Fitted(None, evidence.nll, bare)
    crossed = np.empty_like(evidence.nll)
    for fold in range(FOLDS):
        inside = folds == fold
        crossed[inside] = evidence.at(inside).mixed(_best(evidence.at(~inside), general))
    mean = _mean(replace(evidence, nll=crossed))
    best = _best(evidence, general)
    # The second is all but certain after the first; it is what the name promises.
    helps = mean < bare and apply(evidence, best).mean < bare
    return Fitted(best, crossed, mean) if helps else Fitted(None, evidence.nll, bare)


def apply(evidence: Evidence, gate: Gate | None) -> Fitted:
    """The figures with a gate that was chosen elsewhere, or with none."""
    nll = evidence.nll if gate is None else evidence.mixed(gate)
    return Fitted(gate, nll, _mean(replace(evidence, nll=nll)))


def _best(evidence: Evidence, general: Evidence) -> Gate:
    gates = [Gate(float(c), float(s)) for c in CERTAINTIES for s in SLOPES]
    costs = [apply(evidence, gate).mean + GENERAL * apply(general, gate).mean for gate in gates]
    return gates[int(np.argmin(costs))]


def _mean(evidence: Evidence) -> float:
    # A fold may hold no token that counts.
    return float(evidence.scored @ evidence.nll / max(evidence.scored.sum(), 1e-9))
