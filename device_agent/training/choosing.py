"""Which recipe to train by, within a person's bounds, from what training costs on this device.

A recipe that moves along the exact gradient goes before one that learns by forward passes alone; then
one that can read the texts more often in the time, up to its own epochs; then the faster one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from device_agent.errors import DeviceError
from device_agent.hardware.training_cost import TrainingCost
from device_agent.training.bounds import Bounds, seconds_in_words, size_in_words

EXACT = ("backprop", "recompute")
"""Rules by which every weight moves along the gradient of the loss."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A recipe with so many tokens a step on so many threads, and what it costs here."""

    recipe: str
    rule: str
    tokens: int
    """Most of a step."""

    threads: int
    """For one operator."""

    steps: int
    """Of an epoch over everything that is to be learned."""

    epochs: int
    """Times the texts are to be read."""

    cost: TrainingCost

    @property
    def exact(self) -> bool:
        """Whether its weights move along the gradient of the loss."""
        return self.rule in EXACT

    def within(self, seconds: float | None) -> int:
        """Epochs for which there is time, at most its own."""
        if seconds is None:
            return self.epochs
        return min(self.epochs, int(seconds / self.cost.seconds(self.steps, 1)))


@dataclass(frozen=True, slots=True)
class Choice:
    """What is trained by, and why."""

    recipe: str
    tokens: int
    """Most of a step."""

    threads: int
    """For one operator."""

    epochs: int
    """One at least: where there is no time for it, it is cut short."""

    reason: str
    """One sentence."""


class NothingFits(DeviceError):
    """No recipe on offer keeps within the bound of memory."""

    hint = "Give more with --memory, or have the cloud offer smaller ones."

    def __init__(self, bound: int, least: Candidate | None = None) -> None:
        told = ""
        if least is not None:
            told = f": the smallest, {least.recipe}, takes {size_in_words(least.cost.peak)}"
        super().__init__(f"no recipe on offer trains in {size_in_words(bound)}{told}")


def choose(candidates: Sequence[Candidate], bounds: Bounds) -> Choice:
    """The best of some candidates, at least one.

    Raises:
        NothingFits: Each takes more memory than there may be.
    """
    most = bounds.memory
    small = [it for it in candidates if most is None or it.cost.peak <= most]
    if most is not None and not small:
        raise NothingFits(most, min(candidates, key=lambda it: it.cost.peak))
    best, *others = sorted(small, key=lambda it: _rank(it, bounds))
    epochs = max(1, best.within(bounds.seconds))
    large = [it for it in candidates if it not in small]
    why = [_plan(best, epochs, bounds), *_against(best, others, large)]
    return Choice(best.recipe, best.tokens, best.threads, epochs, "; ".join(why))


def _rank(it: Candidate, bounds: Bounds) -> tuple[bool, float, float]:
    share = it.within(bounds.seconds) / it.epochs
    return not it.exact, -share, it.cost.seconds(it.steps, it.epochs)


def _plan(best: Candidate, epochs: int, bounds: Bounds) -> str:
    times = "1 epoch" if epochs == 1 else f"{epochs} epochs"
    seconds = best.cost.seconds(best.steps, epochs)
    told = (
        f"training by {best.recipe}, {best.tokens} tokens a step on {_threads(best)}: about"
        f" {size_in_words(best.cost.peak)} and {seconds_in_words(seconds)} for {times} on this device"
    )
    if bounds.seconds is not None and seconds > bounds.seconds:
        told += f", of which there is time for {seconds_in_words(bounds.seconds)}"
    return told


def _threads(best: Candidate) -> str:
    return "1 thread" if best.threads == 1 else f"{best.threads} threads"


def _against(best: Candidate, others: Sequence[Candidate], large: Sequence[Candidate]) -> list[str]:
    """Why not the others."""
    slower = [it.recipe for it in others if it.exact == best.exact]
    less = [it.recipe for it in others if it.exact != best.exact]
    found = {
        "would take longer": slower,
        "would learn less, by forward passes alone": less,
        "would take more memory": [it.recipe for it in large],
    }
    return [f"{', '.join(names)} {what}" for what, names in found.items() if names]
