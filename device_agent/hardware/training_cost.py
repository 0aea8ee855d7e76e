"""
What training by a kit costs on this device: a short run, alone in a process of its own.

`python -m device_agent.hardware.training_cost FOLDER TOKENS THREADS` trains by the kit in FOLDER for
some steps of TOKENS tokens on made-up features, scores some held-out ones, and prints the cost as
one JSON object. What the features say changes nothing in it.
"""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

from device_agent.errors import DeviceError
from device_agent.runtime.kits import MANIFEST, Kit
from protocol.errors import MalformedMessage
from protocol.fields import Fields
from protocol.kit import KitManifest

STEPS = 4
"""Of the run; the first one arranges, and is not counted."""

WHOLE = 1.1
"""Times the memory of this run that `sideplug train` takes, which judges what was trained part by part."""


class NotMeasured(DeviceError):
    """A kit could not be trained with, not even on made-up features."""

    hint = "Name another recipe with --recipe, or run `sideplug doctor`."

    def __init__(self, recipe: str, reason: str) -> None:
        super().__init__(f"recipe {recipe} could not be measured: {reason}")


@dataclass(frozen=True, slots=True)
class TrainingCost:
    """Of one kit with so many tokens a step on this device."""

    step: float
    """Seconds of a step, the median."""

    scoring: float
    """Seconds of scoring held-out text once, after an epoch."""

    peak: int
    """Most resident memory of `sideplug train`, bytes."""

    def seconds(self, steps: int, epochs: int) -> float:
        """Of a run with so many steps an epoch."""
        return epochs * (steps * self.step + self.scoring)

    def to_json(self) -> dict[str, object]:
        """Plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: object) -> Self:
        """Read what ``to_json`` wrote.

        Raises:
            MalformedMessage: It is something else.
        """
        read = Fields(data, "training cost")
        return cls(read.positive("step"), read.positive("scoring"), read.integer("peak", 1, 2**62))


def measured_apart(kit: Kit, tokens: int, threads: int) -> TrainingCost:
    """Measure in a process of its own, whose memory is that of training alone.

    Args:
        kit: With ``train.onnx``.
        tokens: Most of a step.
        threads: For one operator.

    Raises:
        NotMeasured: The process failed.
    """
    command = [sys.executable, "-m", __name__, str(kit.folder), str(tokens), str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        return TrainingCost.from_json(json.loads(done.stdout))
    except (ValueError, MalformedMessage):
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise NotMeasured(kit.manifest.recipe, lines[-1]) from None


def measure(kit: Kit, tokens: int, threads: int, folder: Path) -> TrainingCost:
    """Measure here; ``folder`` is for features and the checkpoint, which are read and written as in training."""
    # Imported late: whoever only reads costs does not pay for it. The first two are what `sideplug
    # train` has in memory besides, from reading texts and fetching their features.
    import tokenizers  # noqa: F401

    import device_agent.training.learning  # noqa: F401
    from device_agent.hardware.steps import made_up
    from device_agent.runtime.arithmetic import one_thread
    from device_agent.runtime.head import Head
    from device_agent.runtime.memory_release import return_large_blocks
    from device_agent.runtime.memory_use import peak_memory
    from device_agent.training.options import TrainingOptions
    from device_agent.training.trainer import Trainer

    return_large_blocks()
    chosen = {"epochs": 1, "batch_tokens": tokens, "threads": threads}
    options = TrainingOptions.of(replace(kit.manifest.schedule, answers=1), chosen)
    moments: list[tuple[bool, float]] = []
    with one_thread():
        trainer = Trainer(
            kit,
            Head(kit, threads),
            made_up(kit, folder / "training", STEPS * tokens),
            made_up(kit, folder / "held-out", options.validation_tokens),
            options,
            "",
            folder / "checkpoint.safetensors",
        )
        trainer.train(lambda it: moments.append((it.validation is not None, time.perf_counter())))
    spans = [(scored, end - start) for (_, start), (scored, end) in pairwise(moments)]
    steps = [span for scored, span in spans if not scored]
    (scoring, *_) = [span for scored, span in spans if scored]
    return TrainingCost(statistics.median(steps), scoring, int(WHOLE * peak_memory()))


def main(arguments: Sequence[str]) -> int:
    """Measure what the words name, and print it."""
    folder, tokens, threads = arguments
    manifest = KitManifest.from_json(json.loads(Path(folder, MANIFEST).read_bytes()))
    with TemporaryDirectory() as scratch:
        cost = measure(Kit(manifest, Path(folder)), int(tokens), int(threads), Path(scratch))
    sys.stdout.write(json.dumps(cost.to_json()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
