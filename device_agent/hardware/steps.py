"""What a kit's training step costs here: its time part by part, its arithmetic, its memory, its energy.

The step is one compiled graph. Its time is taken as it is in training; how it divides is taken from further
runs, in which the runtime times each node.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from device_agent.data.examples import WINDOW, Encoded
from device_agent.data.tap_cache import TapCache
from device_agent.hardware.energy import Gauge
from device_agent.hardware.parts import Part, shares
from device_agent.runtime.head import Head
from device_agent.runtime.kits import DamagedKit, Kit
from device_agent.runtime.memory_use import current_memory
from device_agent.training.batches import FeatureRows
from device_agent.training.shortlist import Shortlist
from device_agent.training.step import TrainingStep
from device_agent.training.trainer import fill_mask, fill_reach
from protocol.kit import KitManifest
from protocol.messages import States, Wants

RATE = 1e-4


@dataclass(frozen=True, slots=True)
class StepCost:
    """One batch size. Seconds are medians."""

    arm: str
    tokens: int
    load: float
    """Features from disk, rows of the head, the mask."""
    forward: float
    backward: float
    optimizer: float
    flops: float
    """Of the model in a step: what recomputation repeats is not counted."""
    resident: int
    """Bytes of the process after the steps."""
    joules: float | None
    """A step's, of the whole machine; None where no gauge can be read."""

    @property
    def seconds(self) -> float:
        """All parts."""
        return self.load + self.forward + self.backward + self.optimizer

    def to_json(self) -> dict[str, object]:
        """As the report has it."""
        return asdict(self)


def measure(
    kit: Kit, threads: int, sizes: Sequence[int], repeats: int, folder: Path, gauge: Gauge | None
) -> list[StepCost]:
    """Time the steps of a kit on made-up features: what they say changes nothing in the cost.

    Args:
        kit: With ``train.onnx``.
        threads: For one operator.
        sizes: Tokens of a step.
        repeats: Of each.
        folder: For features, which are read from disk as in training.
        gauge: Of energy.

    Raises:
        DamagedKit: The nodes of its graph have no names by which they are timed.
    """
    head = Head(kit, threads)
    rows = made_up(kit, folder, max(sizes))
    return [_measure(kit, head, rows, threads, size, repeats, gauge) for size in sizes]


def _measure(
    kit: Kit,
    head: Head,
    rows: FeatureRows,
    threads: int,
    tokens: int,
    repeats: int,
    gauge: Gauge | None,
) -> StepCost:
    bench = TimedStep(kit, head, rows, threads, tokens)
    bench.whole()
    loads, runs = [], []
    for _ in range(repeats):
        began = time.perf_counter()
        bench.load()
        loaded = time.perf_counter()
        bench.step.run(1)
        loads.append(loaded - began)
        runs.append(time.perf_counter() - loaded)
    step = statistics.median(runs)
    parts = _parts(kit, head, rows, threads, tokens, repeats)
    return StepCost(
        arm=kit.manifest.recipe,
        tokens=tokens,
        load=statistics.median(loads),
        **{part: step * share for part, share in parts.items()},
        flops=model_flops(kit.manifest, tokens, bench.scored),
        resident=current_memory(),
        joules=_joules(bench.whole, repeats, gauge),
    )


def _parts(
    kit: Kit, head: Head, rows: FeatureRows, threads: int, tokens: int, repeats: int
) -> dict[Part, float]:
    """Shares of a step's time, from steps that are timed node by node."""
    with tempfile.TemporaryDirectory() as folder:
        bench = TimedStep(kit, head, rows, threads, tokens, Path(folder))
        for _ in range(repeats):
            bench.whole()
        try:
            return shares(Path(folder, "graph.onnx"), bench.step.profiled())
        except ValueError as error:
            raise DamagedKit("train.onnx", f"cannot be timed part by part: {error}") from error


class TimedStep:
    """A training step with everything that it reads.

    Attributes:
        step: As in training.
        scored: Rows of the head that it reads.
    """

    def __init__(
        self,
        kit: Kit,
        head: Head,
        rows: FeatureRows,
        threads: int,
        tokens: int,
        profile: Path | None = None,
    ) -> None:
        manifest = kit.manifest
        self._rng = np.random.default_rng(0)
        count = manifest.vocabulary if manifest.loss == "full" else manifest.shortlist
        ids = np.sort(self._rng.choice(manifest.vocabulary, count, replace=False))
        self._manifest, self._head, self._rows, self._tokens = manifest, head, rows, tokens
        self._shortlist = Shortlist.of(head, ids)
        self._sizes = self._shortlist.sizes(tokens, manifest.negatives)
        self.scored = count + self._sizes.own + self._sizes.negatives
        schedule = {"rate": RATE, "total": 1000.0, "warmup": 1.0}
        self.step = TrainingStep(
            kit, self._shortlist, tokens, self._sizes, schedule, threads, profile
        )
        self.step.load(kit.initial())

    def load(self) -> None:
        """Fill the buffers as training does."""
        inputs, rows = self.step.inputs, self._rows
        runs = [*rows.cut(0, self._tokens)]
        log_z = rows.read(runs, inputs["taps"], inputs["final"])
        tokens = rows.tokens[: self._tokens]
        sample = self._shortlist.sample(tokens, self._sizes, self._rng)
        inputs["targets"][:] = sample.targets
        inputs["scored"][:] = 1
        if "rest" in inputs:
            self.step.own_rows[:], self.step.own_bias[:] = self._head.rows(sample.own)
            inputs["outside"][:], inputs["outside_bias"][:] = self._head.rows(sample.negatives)
            inputs["rest"][:] = log_z
        if "reach" in inputs:
            fill_reach(inputs["reach"], inputs["positions"], [(rows.position(r), r) for r in runs])
        if "mask" in inputs:
            fill_mask(inputs["mask"], self._manifest.dropout, self._rng)

    def whole(self) -> None:
        """Load and train once."""
        self.load()
        self.step.run(1)


def model_flops(manifest: KitManifest, tokens: int, scored: int) -> float:
    """Operations of a step by backprop.

    A trained matrix takes 2 a weight and token forward and 4 backward; a row of the frozen head 2 a
    number and token each way, as no gradient of its own is wanted.
    """
    trained = sum(
        int(np.prod(weight.shape)) for weight in manifest.weights if len(weight.shape) > 1
    )
    return float(tokens) * (6 * trained + 4 * scored * manifest.hidden)


def made_up(kit: Kit, folder: Path, tokens: int) -> FeatureRows:
    """Features of random texts in a cache, at least ``tokens`` rows."""
    manifest, rng = kit.manifest, np.random.default_rng(1)
    wants = Wants(layers=manifest.taps, final=True, log_z=True, candidates=0, codec="f16")
    cache = TapCache(folder, manifest.fingerprint, wants)
    texts = []
    for _ in range(-(-tokens // WINDOW)):
        ids = rng.integers(0, manifest.vocabulary, WINDOW + 1).astype(np.uint32)
        text = Encoded(ids, np.ones(WINDOW, np.float32))
        shape = (len(manifest.taps), len(text.fed), manifest.hidden)
        final = _normal(rng, shape[1:])
        log_z = np.full(shape[1], np.log(manifest.vocabulary), np.float32)
        states = States(0, manifest.taps, _normal(rng, shape), final, log_z)
        cache.put(text.fed, states, text.first)
        texts.append(text)
    return FeatureRows(cache, texts)


def _normal(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float32]:
    return rng.standard_normal(shape, np.float32)


def _joules(act: Callable[[], object], repeats: int, gauge: Gauge | None) -> float | None:
    """Joules each time, over as many times as the gauge needs to move."""
    if gauge is None:
        return None
    try:
        before, done, end = gauge.read(), 0, time.monotonic() + 1.0
        while done < repeats or time.monotonic() < end:
            act()
            done += 1
        return gauge.used(before, gauge.read()) / done
    except (OSError, ValueError):
        return None
