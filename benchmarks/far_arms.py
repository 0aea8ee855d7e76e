"""The arms that are compared with FAR, and how an encoder is trained by one."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from adapters.encoder.network import EncoderShape
from adapters.encoder.selection import (
    PRIMING,
    Selection,
    biases,
    chosen,
    drawn,
    everything,
    far,
    node_scores,
)
from benchmarks.encoder_training import EncoderStep, Judge, Rows, batches
from benchmarks.encoders import Batch, Encoder

BATCH = 8
"""Texts a step, as a small device takes them."""

POINTS = 4
"""Times in a training that the picture's curve is judged."""

_RATES = (1e-4, 3e-4)


@dataclass(frozen=True, slots=True)
class Arm:
    """A way to fine-tune."""

    graph: str
    nodes: str = ""
    """How learner nodes are found: "scored", "drawn", or there are none."""

    rates: tuple[float, ...] = _RATES
    """To choose from."""

    def priming(self, steps: int) -> int:
        """How many of so many steps are full ones, to find the learners."""
        return max(1, round(PRIMING * steps)) if self.nodes == "scored" else 0


ARMS: Mapping[str, Arm] = {
    "full": Arm("full"),
    "FAR 10 %": Arm("far-10", "scored"),
    "FAR 40 %": Arm("far-40", "scored"),
    "random 10 %": Arm("far-10", "drawn"),
    "BitFit": Arm("biases", rates=(1e-3, 3e-3)),
}


def selections(shape: EncoderShape) -> dict[str, Selection]:
    """What learns, by graph."""
    return {
        "full": everything(shape),
        "far-10": far(shape, 0.1),
        "far-40": far(shape, 0.4),
        "biases": biases(shape),
    }


class School:
    """Trains the encoder by any arm from the same beginning."""

    def __init__(
        self,
        encoder: Encoder,
        steps: Mapping[str, EncoderStep],
        judge: Judge,
        parts: Mapping[str, Rows],
        args: argparse.Namespace,
    ) -> None:
        self.parts, self.judge = parts, judge
        self._encoder, self._steps, self._epochs = encoder, steps, args.epochs

    def batches(self, seed: int, size: int = BATCH) -> list[Batch]:
        """All batches of one training."""
        return batches(self.parts["training"], size, self._epochs, seed)

    def train(self, arm: Arm, rate: float, seed: int) -> tuple[EncoderStep, dict[int, float]]:
        """The step with its trained weights, and the accuracy on validation after some steps."""
        todo, weights = self.batches(seed), self._encoder.weights(seed)
        rows, primed = self._learners(arm, todo, weights, rate, seed)
        step = self._steps[arm.graph]
        step.load(weights, rows)
        total, curve = len(todo) - primed, {}
        points = {total * point // POINTS for point in range(1, POINTS + 1)}
        for count, batch in enumerate(todo[primed:], 1):
            step.run(batch, count, rate, total)
            if count in points:
                judged = self.judge.judge(step.weights(), self.parts["validation"])
                curve[primed + count] = judged["accuracy"]
        return step, curve

    def _learners(
        self,
        arm: Arm,
        todo: Sequence[Batch],
        weights: dict[str, NDArray[np.float32]],
        rate: float,
        seed: int,
    ) -> tuple[dict[str, NDArray[np.int64]], int]:
        """The learners' rows, and how many steps were spent on finding them; those move ``weights``."""
        shape = self._encoder.shape
        selection = selections(shape)[arm.graph]
        if arm.nodes != "scored":
            return plain(drawn(selection, shape, seed)), 0
        primed = arm.priming(len(todo))
        step = self._steps["full"]
        step.load(weights, {})
        for count, batch in enumerate(todo[:primed], 1):
            step.run(batch, count, rate, len(todo))
        before = {name: torch.from_numpy(weight) for name, weight in weights.items()}
        after = {name: torch.from_numpy(weight) for name, weight in step.weights().items()}
        rows = plain(chosen(selection, node_scores(shape, before, after)))
        # What the priming has learned is kept; the moments of all weights are not.
        weights |= {name: weight.copy() for name, weight in step.weights().items()}
        return rows, primed


def plain(rows: Mapping[str, torch.Tensor]) -> dict[str, NDArray[np.int64]]:
    """The same rows for a step."""
    return {name: one.numpy() for name, one in rows.items()}
