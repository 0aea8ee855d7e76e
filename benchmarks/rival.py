"""
The torch arms: which precision, which rate, then the chosen run's figures.

Every choice is made on validation; the test is scored once, by the chosen adapter. Each run is a
process of its own, so that its memory peak is the peak of one training and nothing else.
"""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.processes import Measured, measured
from benchmarks.report import say

PRECISIONS = {
    "lora": ("f32", "bf16", "bf16-autocast"),
    "blocks": ("f32", "bf16-autocast"),
}
RATES = (3e-4, 1e-3, 3e-3)
BLOCK_RATES = (3e-5, 1e-4, 3e-4)
"""Full weights bear smaller steps than adapters."""
TRIAL_STEPS = 10

HAIR = 0.02
"""Nats by which a faster precision's validation may be worse than the best after the trial."""

CALM = {"OMP_WAIT_POLICY": "PASSIVE"}
"""Threads that spin while they wait would be charged to LoRA as CPU seconds, up to fourfold."""


Finding = dict[str, Any]

Keep = Callable[[str, Callable[[], Finding]], Finding]
"""Gives the finding of that name, and has it made only where it is not kept yet."""


def keep_nothing(_name: str, make: Callable[[], Finding]) -> Finding:
    """For runs that are short enough to be done in one go."""
    return make()


@dataclass(frozen=True, slots=True)
class Rival:
    """What all runs of one torch arm share."""

    folder: Path
    """The backbone."""

    windows: Path
    """JSON file for benchmarks.lora."""

    workspace: Path
    threads: int
    epochs: int
    batch: int
    method: str = "lora"
    """One of benchmarks.lora.METHODS."""

    title: str = "LoRA"
    """Names the arm to the person who waits."""

    keep: Keep = keep_nothing

    def train(self, name: str, **choices: Any) -> Finding:
        """One training run; its findings, with what the process cost."""
        return self.keep(name, lambda: self._train(name, choices))

    def score(self, adapter: str, parts: Sequence[str]) -> Finding:
        """NLL of parts, in f32 whatever it was trained in; "" is the frozen backbone."""
        place = str(self.workspace / adapter) if adapter else ""
        plan = {"task": "score", "method": self.method, "adapter": place, "parts": list(parts)}
        name = f"score-{adapter or 'frozen'}"
        return self.keep(name, lambda: self._carry_out(name, plan).answer)

    def _train(self, name: str, choices: dict[str, Any]) -> Finding:
        say(f"{self.title}, {name}")
        plan = {
            "task": "train",
            "method": self.method,
            "adapter": str(self.workspace / name),
            "epochs": self.epochs,
            "batch": self.batch,
            **choices,
        }
        done = self._carry_out(name, plan)
        return {
            **done.answer,
            "peak_memory": done.peak_bytes,
            "process_cpu_seconds": done.cpu_seconds,
        }

    def _carry_out(self, name: str, plan: dict[str, Any]) -> Measured:
        file = self.workspace / f"{name}.json"
        shared = {
            "folder": str(self.folder),
            "windows": str(self.windows),
            "threads": self.threads,
        }
        file.write_text(json.dumps({**shared, **plan}), encoding="utf-8")
        return measured([sys.executable, "-m", "benchmarks.lora", str(file)], CALM)


def fastest_precision(rival: Rival, seed: int, steps: int) -> tuple[str, list[Finding]]:
    """The precision to train in, and the trials of ``steps`` steps that say so."""
    trials = [
        rival.train(f"trial-{precision}", precision=precision, steps=steps, seed=seed)
        for precision in PRECISIONS[rival.method]
    ]
    return fastest(trials), trials


def torch_arm(
    rival: Rival, precision: str, rates: Sequence[float], seeds: Sequence[int]
) -> dict[str, Any]:
    """
    Chooses a rate, trains, and scores.

    Args:
        rival: What the runs share.
        precision: Of the backbone's weights.
        rates: Peak learning rates to choose from.
        seeds: The first makes the choice; the chosen rate is trained again with the others.

    Returns:
        The chosen setting, a row of figures for each seed, and every run.

    """
    runs = {
        rate: rival.train(f"rate-{rate:g}", precision=precision, rate=rate, seed=seeds[0])
        for rate in rates
    }
    rate = min(runs, key=lambda one: runs[one]["best"]["validation_nll"])
    chosen = [_scored(rival, f"rate-{rate:g}", runs[rate], seeds[0])]
    for seed in seeds[1:]:
        name = f"seed-{seed}-rate-{rate:g}"
        run = rival.train(name, precision=precision, rate=rate, seed=seed)
        chosen.append(_scored(rival, name, run, seed))
    return {"precision": precision, "rate": rate, "seeds": chosen, "runs": list(runs.values())}


def fastest(trials: Sequence[Finding]) -> str:
    """The precision with the fewest CPU seconds whose validation is within a hair of the best."""
    best = min(trial["best"]["validation_nll"] for trial in trials)
    good = [trial for trial in trials if trial["best"]["validation_nll"] <= best + HAIR]
    quick = min(good, key=lambda trial: trial["best"]["cpu_seconds"] / trial["best"]["steps"])
    return str(quick["plan"]["precision"])


def _scored(rival: Rival, adapter: str, run: Finding, seed: int) -> Finding:
    test = rival.score(adapter, ["test"])["test"]
    return {
        "seed": seed,
        "test_nll": test["nll"],
        "tokens": test["tokens"],
        "validation_nll": run["best"]["validation_nll"],
        "best_epoch": run["best"]["epoch"],
        "cpu_seconds_to_best": run["best"]["cpu_seconds"],
        "process_cpu_seconds_to_best": run["best"]["process_cpu_seconds"],
        "seconds": run["seconds"],
        "peak_memory": run["peak_memory"],
        "trained_weights": run["trained_weights"],
        "history": run["history"],
    }
