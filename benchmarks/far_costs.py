"""What a step of each of FAR's arms costs: seconds, seconds in memory-bound work, bytes."""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from adapters.encoder.selection import drawn
from benchmarks.encoder_eager import EagerStep
from benchmarks.encoder_training import ARITHMETIC, EncoderStep, times_by_operator
from benchmarks.encoders import CLASSES, Batch, Encoder
from benchmarks.far_arms import plain, selections
from benchmarks.processes import measured
from benchmarks.report import say

EAGER = "full, torch eager"


def costs_of(
    encoder: Encoder,
    graphs: Mapping[str, Path],
    steps: Mapping[str, EncoderStep],
    todo: Sequence[Batch],
    threads: int,
) -> dict[str, Any]:
    """Seconds of a step by graph, whole and in memory-bound work, all graphs in turn."""
    say("measuring steps")
    acts = {name: lambda batch, s=step: s.run(batch, 1, 1e-5, 10) for name, step in steps.items()}
    seconds = _in_turn(acts, todo)
    # Apart: torch's threads go on waiting in a loop for a while, on the next one's time.
    seconds |= _in_turn({EAGER: EagerStep(encoder, threads).run}, todo)
    operators = _profile(encoder, graphs, list(steps), todo, threads)
    return {
        "seconds": seconds,
        "memory_seconds": {
            name: sum(s for kind, s in by.items() if kind not in ARITHMETIC)
            for name, by in operators.items()
        },
        "operators": operators,
        "sizes": {
            axis: int(statistics.median(batch.sizes[axis] for batch in todo)) for axis in "BNU"
        },
    }


def _in_turn(
    acts: Mapping[str, Callable[[Batch], object]], todo: Sequence[Batch]
) -> dict[str, float]:
    """Median seconds of each act on all batches, a batch by every act before the next one."""
    seconds: dict[str, list[float]] = {name: [] for name in acts}
    for act in acts.values():  # what is allocated once is no step's
        act(max(todo, key=lambda batch: batch.inputs["ids"].size))
    for batch in todo:
        for name, act in acts.items():
            began = time.perf_counter()
            act(batch)
            seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in seconds.items()}


def _profile(
    encoder: Encoder,
    graphs: Mapping[str, Path],
    names: Sequence[str],
    todo: Sequence[Batch],
    threads: int,
) -> dict[str, dict[str, float]]:
    """Seconds of a mean step by kind of operator, of each graph; taken in turn too."""
    say("profiling steps")
    weights = encoder.weights(0)
    with tempfile.TemporaryDirectory() as folder:
        watched = {}
        for name in names:
            (Path(folder) / name).mkdir()
            watched[name] = EncoderStep(graphs[name], threads, Path(folder) / name)
            rows = drawn(selections(encoder.shape)[name], encoder.shape, 0)
            watched[name].load(weights, plain(rows))
        for batch in todo:
            for step in watched.values():
                step.run(batch, 1, 1e-5, 10)
        return {
            name: {k: s / len(todo) for k, s in times_by_operator(step.profiled()).items()}
            for name, step in watched.items()
        }


def memory_of(
    graph: Path, step: EncoderStep, sizes: Mapping[str, int], folder: Path
) -> dict[str, int]:
    """Bytes: of weights and moments, by which a step grows, and of its whole process."""
    asked = folder / "asked.json"
    # S bounds every index: labels too.
    asked.write_text(json.dumps({"graph": str(graph), "sizes": {**sizes, "S": CLASSES}}))
    command = [sys.executable, "-m", "benchmarks.step_memory", str(asked)]
    # Every array a mapping of its own, which is gone when it is freed.
    found = measured(command, {"MALLOC_MMAP_THRESHOLD_": "65536"})
    grown = found.answer["activations"]
    return {"state": step.state_bytes, "grown": grown, "peak": found.peak_bytes}
