"""Fine-tuning an encoder by its compiled step on onnxruntime, as a device would: nothing is copied."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from benchmarks.encoders import Batch, batch_of
from device_agent.runtime.side_plugin import onnx_session

Floats = NDArray[np.float32]
Rows = Sequence[tuple[list[int], int]]

WARMUP = 0.05
"""Share of the steps in which the rate rises."""

ARITHMETIC = frozenset({"MatMul", "FusedMatMul", "Gemm", "FusedGemm"})
"""Operators whose time goes by their arithmetic; that of all others goes by what they read and write."""

EVALUATED = 64
"""Texts that are scored at once."""


class EncoderStep:
    """One graph with its weights and moments, which a step overwrites."""

    def __init__(self, graph: Path, threads: int, profile: Path | None = None) -> None:
        """Load the graph; ``profile`` is a folder for the times of its nodes."""
        self._session = onnx_session(graph, threads, arena=True, profile=profile)
        self._held = {
            port.name: np.zeros(port.shape, np.int64 if "int64" in port.type else np.float32)
            for port in self._session.get_inputs()
            if not any(isinstance(axis, str) for axis in port.shape)
        }
        self._held |= {name: np.zeros((), np.float32) for name in ("loss", "norm")}
        self._values = {
            n: onnxruntime.OrtValue.ortvalue_from_numpy(a) for n, a in self._held.items()
        }

    def load(self, weights: Mapping[str, Floats], rows: Mapping[str, NDArray[np.int64]]) -> None:
        """Begin from ``weights`` with ``rows`` as learners, where the graph has any, and no moments."""
        for name, array in self._held.items():
            if name in weights:
                array[...] = weights[name]
            elif name.startswith("rows."):
                array[...] = rows[name.removeprefix("rows.")]
            else:
                array[...] = 0

    def weights(self) -> dict[str, Floats]:
        """The weights now: views, which the next step overwrites."""
        kinds = ("first.", "second.", "rows.")
        return {n: a for n, a in self._held.items() if a.shape and not n.startswith(kinds)}

    @property
    def state_bytes(self) -> int:
        """Bytes of weights and moments together."""
        return sum(array.nbytes for array in self._held.values())

    def run(self, batch: Batch, count: int, rate: float, total: int) -> float:
        """The loss before step ``count`` of ``total``, counted from 1."""
        clock = {"count": count, "rate": rate, "total": total, "warmup": WARMUP * total}
        for name, value in clock.items():
            self._held[name][...] = value
        # Taken anew each time: shapes differ from batch to batch.
        values = {**self._values, **_values(batch.inputs)}
        binding = self._session.io_binding()
        for port in self._session.get_inputs():
            binding.bind_ortvalue_input(port.name, values[port.name])
        for port in self._session.get_outputs():
            binding.bind_ortvalue_output(port.name, values[port.name.removeprefix("next.")])
        self._session.run_with_iobinding(binding)
        return float(self._held["loss"])

    def profiled(self) -> Path:
        """End the profile that was asked for; gives its file."""
        return Path(self._session.end_profiling())


@dataclass(frozen=True, slots=True)
class Judge:
    """Scores weights on held-out texts by the graph of inference."""

    graph: Path
    threads: int

    def judge(self, weights: Mapping[str, Floats], rows: Rows) -> dict[str, float]:
        """Accuracy, and Matthews' correlation, which is Pearson's of the two kinds of answers."""
        session = onnx_session(self.graph, self.threads, arena=True)
        said, true = [], []
        for start in range(0, len(rows), EVALUATED):
            inputs = dict(batch_of(rows[start : start + EVALUATED]).inputs)
            true.append(inputs.pop("labels"))
            (scores,) = session.run(["scores"], {**inputs, **weights})
            said.append(scores.argmax(1))
        answers, labels = np.concatenate(said), np.concatenate(true)
        constant = len(set(answers.tolist())) < 2 or len(set(labels.tolist())) < 2
        return {
            "accuracy": float((answers == labels).mean()),
            # With one kind of answer alone there is nothing to correlate: 0, as is usual.
            "mcc": 0.0 if constant else float(np.corrcoef(answers, labels)[0, 1]),
        }


def batches(rows: Rows, size: int, epochs: int, seed: int) -> list[Batch]:
    """Whole batches of each epoch, in an order drawn for each anew."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(epochs):
        order = rng.permutation(len(rows))
        for start in range(0, len(rows) - size + 1, size):
            found.append(batch_of([rows[place] for place in order[start : start + size]]))
    return found


def times_by_operator(profile: Path) -> dict[str, float]:
    """Seconds by kind of operator in all runs of a profile."""
    seconds: Counter[str] = Counter()
    for event in json.loads(profile.read_text(encoding="utf-8")):
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            seconds[event["args"]["op_name"]] += event["dur"] / 1e6
    return dict(seconds)


def _values(arrays: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    return {n: onnxruntime.OrtValue.ortvalue_from_numpy(a) for n, a in arrays.items()}
