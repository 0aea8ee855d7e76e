"""Which token comes next, out of the logits of the whole vocabulary."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from device_agent.runtime.highest import highest
from device_agent.settings import BadSetting

_FIRST_LOOK = 256
"""Tokens sorted at first when looking for the nucleus; it rarely needs more."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn. The steps apply in the order repetition, temperature, top_k, top_p."""

    temperature: float = 0.0
    """0 takes the likeliest token always; 1 draws as the model believes."""

    top_k: int = 0
    """Only the k likeliest tokens may be drawn; 0 for all."""

    top_p: float = 1.0
    """Only the likeliest tokens that together reach this share may be drawn."""

    repetition: float = 1.0
    """Tokens seen before have positive logits divided and negative ones multiplied by this."""

    seed: int = 0
    """Of the generator that draws."""

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise BadSetting("temperature", f"must be 0 or more, but is {self.temperature}")
        if self.top_k < 0:
            raise BadSetting("top_k", f"must be 0 or more, but is {self.top_k}")
        if not 0 < self.top_p <= 1:
            raise BadSetting("top_p", f"must be above 0 and at most 1, but is {self.top_p}")
        if not 0 < self.repetition < float("inf"):
            raise BadSetting("repetition", f"must be above 0, but is {self.repetition}")
        if self.seed < 0:
            raise BadSetting("seed", f"must be 0 or more, but is {self.seed}")

    def generator(self) -> np.random.Generator:
        """A fresh generator from the seed."""
        return np.random.default_rng(self.seed)


def choose(
    logits: NDArray[np.float32],
    past: Sequence[int] | NDArray[np.uint32],
    sampling: Sampling,
    rng: np.random.Generator,
) -> int:
    """Draw one token.

    Args:
        logits: Of every token, (V,); left as they are.
        past: Ids so far, for the repetition penalty.
        sampling: How to draw.
        rng: Where chance comes from; not asked when the temperature is 0.
    """
    if sampling.repetition != 1 and len(past):
        logits = _less_repetition(logits, past, sampling.repetition)
    if sampling.temperature == 0:
        return int(logits.argmax())
    ids, kept = _allowed(logits, sampling)
    mass = np.cumsum(np.exp((kept - kept.max()) / np.float64(sampling.temperature)))
    drawn = int(np.searchsorted(mass, rng.random() * mass[-1], side="right"))
    return int(ids[min(drawn, len(ids) - 1)])


def _less_repetition(
    logits: NDArray[np.float32], past: Sequence[int] | NDArray[np.uint32], penalty: float
) -> NDArray[np.float32]:
    seen = np.unique(np.asarray(past, dtype=np.int64))
    out = logits.copy()
    values = out[seen]
    out[seen] = np.where(values < 0, values * penalty, values / penalty)
    return out


def _allowed(
    logits: NDArray[np.float32], sampling: Sampling
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """The tokens that may be drawn, and their logits: ids (C,), logits (C,)."""
    ids = np.arange(len(logits))
    if sampling.top_k:
        ids = highest(logits, sampling.top_k)
        logits = logits[ids]
    if sampling.top_p < 1:
        nucleus = _nucleus(logits, sampling.temperature, sampling.top_p)
        ids, logits = ids[nucleus], logits[nucleus]
    return ids, logits


def _nucleus(logits: NDArray[np.float32], temperature: float, share: float) -> NDArray[np.intp]:
    """Places of the fewest likeliest tokens that reach ``share`` of the probability, likeliest first."""
    mass = np.exp((logits - logits.max()) / np.float64(temperature))  # (C,)
    goal = share * mass.sum()
    look = _FIRST_LOOK
    while True:
        # Sorting the whole vocabulary costs more than the head itself; the top is nearly always enough.
        top = highest(mass, look)
        top = top[np.argsort(-mass[top], kind="stable")]
        reached = int(np.searchsorted(np.cumsum(mass[top]), goal)) + 1
        if reached <= len(top) or look >= len(mass):
            return top[:reached]
        look *= 4
