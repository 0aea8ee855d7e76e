"""How a training run is told: while it goes on, in its checkpoint, and at its end."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Named = dict[str, NDArray[np.float32]]
Ending = Literal["finished", "patience", "stopped", "time"]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is."""

    epoch: int
    """Counted from 1."""
    epochs: int
    step: int
    """Of the whole run, counted from 1."""
    steps: int
    loss: float
    """Of the step; of the epoch when ``validation`` is set."""
    validation: float | None
    """Negative log-likelihood of the held-out tokens, after an epoch."""
    seconds_left: float


@dataclass(slots=True)
class Course:
    """What a run has to remember besides its arrays; JSON in the checkpoint."""

    epoch: int = 0
    """Epochs finished."""
    step: int = 0
    """Steps done in the epoch that is going on."""
    loss_sum: float = 0.0
    """Of these steps."""
    stale: int = 0
    """Epochs since the best."""
    best: float | None = None
    """Lowest validation so far."""
    best_epoch: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    """Of the process, from its start."""
    cpu_seconds_to_best: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Trained:
    """What a run gave."""

    weights: Named
    """The best of the run by validation."""
    course: Course
    ending: Ending
    steps: int
    resumed: bool
    earlier_seconds: float
    """Of the processes that were interrupted, until their last checkpoint."""
    earlier_cpu_seconds: float
