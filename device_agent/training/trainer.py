"""Trains a kit's weights on cached features; the cloud is not needed.

A run is a function of its inputs: the order comes from seed and epoch, masks and negatives from seed
and step. So a run that was killed goes on from its checkpoint and ends as if nothing had happened.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.errors import DeviceError
from device_agent.runtime.head import Head
from device_agent.runtime.kits import Kit
from device_agent.runtime.plugin_kinds import plugin_of
from device_agent.runtime.tail_plugin import UNSEEN
from device_agent.training import checkpoint
from device_agent.training.batches import FeatureRows, Run, Shuffled
from device_agent.training.checkpoint import Checkpoint
from device_agent.training.course import Course, Ending, Named, Progress, Trained
from device_agent.training.evaluate import evaluate
from device_agent.training.options import TrainingOptions
from device_agent.training.packing import Packed
from device_agent.training.shortlist import Shortlist, choose_shortlist, share_of
from device_agent.training.start import Start, rate_at
from device_agent.training.step import TrainingStep
from device_agent.training.vocabulary import mean_probability

SAMPLED = 512
"""Positions at which the backbone's favourites are looked up."""

LEAST_REST = 1e-4
"""Smallest share of the rest of the vocabulary: rounding must not make its mass negative."""


class Diverged(DeviceError):
    """The loss is no number any more."""

    hint = "Choose a lower --rate."

    def __init__(self, step: int) -> None:
        super().__init__(f"training went astray at step {step}: the loss is no number any more")


class Trainer:
    """One training run.

    Args:
        kit: What is trained, and how.
        head: Of the same backbone.
        training: Rows to learn from.
        validation: Rows that are never learned from.
        options: How the run goes.
        run: Digest of everything that the run depends on; a checkpoint of another run is not used.
        path: Of the checkpoint.
        start: Where to begin; at the kit's own weights when None.
    """

    def __init__(
        self,
        kit: Kit,
        head: Head,
        training: FeatureRows,
        validation: FeatureRows,
        options: TrainingOptions,
        run: str,
        path: Path,
        start: Start | None = None,
    ) -> None:
        self._kit, self._head, self._options = kit, head, options
        self._start = start
        self._rows, self._validation = training, validation
        self._run, self._path = run, path
        self._order = _order(kit, training, options)
        self._batches, self._size = self._order.batches, self._order.size
        self._course = Course()
        self._best: Named = {}
        self._started = self._saved = time.monotonic()
        self._earlier = (0.0, 0.0)

    def train(
        self,
        on_progress: Callable[[Progress], None] = lambda _: None,
        stop: Callable[[], bool] = lambda: False,
    ) -> Trained:
        """Train to the end, or until ``stop`` says so; go on where an interrupted run was.

        Args:
            on_progress: Told after every step and every validation.
            stop: Asked before every step.

        Raises:
            DamagedCheckpoint: The checkpoint is not what was written.
            DamagedFeatures: Features that were fetched are not there any more.
            Diverged: The rate is too high for this text.
        """
        found = checkpoint.load(self._path)
        resumed = found is not None and found.run == self._run
        self._begin(found if resumed else None)
        del found
        if self._start is not None and self._start.rival and not resumed:
            self._rate_start()
        ending: Ending | None = None
        while ending is None:
            ending = self._epoch(on_progress, stop)
        self._save()
        if self._course.step:
            # Saved before: an epoch that is resumed must not remember a validation in its middle.
            self._step.end()
            self._validate(on_progress)
        done = self._course.epoch * self._batches + self._course.step
        weights = self._best or self._copy()
        return Trained(weights, self._course, ending, done, resumed, *self._earlier)

    # --- the beginning ---

    def _begin(self, found: Checkpoint | None) -> None:
        if found is None:
            self._shortlist = self._choose()
            if self._kit.manifest.loss == "shortlist":
                self._rows.fill_rest(
                    self._shortlist, self._kit.manifest.hidden, self._kit.manifest.softcap
                )
            self._step = self._compiled()
            self._step.load(self._kit.initial() if self._start is None else self._start.weights)
            return
        self._shortlist = Shortlist.of(self._head, found.arrays["shortlist"])
        self._rows.rest[:] = found.arrays["rest"]
        self._step = self._compiled()
        self._step.load(_under("now.", found.arrays), _under("now.", found.arrays))
        self._best = _under("best.", found.arrays)
        self._course = Course(**found.progress)
        self._earlier = (self._course.seconds, self._course.cpu_seconds)

    def _choose(self) -> Shortlist:
        manifest = self._kit.manifest
        if manifest.loss == "full":
            return Shortlist.of(self._head, np.arange(manifest.vocabulary))
        rng = np.random.default_rng(self._options.seed)
        sampled = np.sort(rng.choice(len(self._rows), min(SAMPLED, len(self._rows)), replace=False))
        finals = np.empty((len(sampled), manifest.hidden), np.float32)
        log_z = self._rows.read([Run(int(i), int(i) + 1) for i in sampled], None, finals)
        favourites = mean_probability(self._head, finals, log_z, manifest.softcap)
        counts = np.bincount(self._rows.tokens, minlength=manifest.vocabulary)
        return Shortlist.of(self._head, choose_shortlist(counts, favourites, manifest.shortlist))

    def _compiled(self) -> TrainingStep:
        options, total = self._options, self._batches * self._options.epochs
        schedule = {"rate": options.rate, "total": total, "warmup": options.warmup * total}
        self._sizes = self._shortlist.sizes(self._size, self._kit.manifest.negatives)
        step = TrainingStep(
            self._kit, self._shortlist, self._size, self._sizes, schedule, options.threads
        )
        # The step has its rows now: megabytes that need not be there twice.
        self._shortlist = replace(self._shortlist, rows=step.rows, bias=step.bias)
        return step

    # --- an epoch ---

    def _epoch(
        self, on_progress: Callable[[Progress], None], stop: Callable[[], bool]
    ) -> Ending | None:
        """Train to the end of the epoch that is going on; the reason when the run ends there."""
        course, options = self._course, self._options
        if course.epoch == options.epochs:
            return "finished"
        if options.patience and course.stale >= options.patience:
            return "patience"
        batches = self._order.epoch(course.epoch)
        while course.step < self._batches:
            if stop():
                return "stopped"
            if 0 < options.max_seconds <= self._seconds():
                return "time"
            loss = self._train_on(batches[course.step])
            course.loss_sum += loss
            course.step += 1
            on_progress(self._progress(loss, None))
            if time.monotonic() - self._saved >= options.checkpoint_seconds:
                self._save()
        self._validate(on_progress)
        course.epoch, course.step, course.loss_sum = course.epoch + 1, 0, 0.0
        return None

    def _train_on(self, runs: list[Run]) -> float:
        """One step; gives its loss."""
        inputs, rows = self._step.inputs, self._rows
        log_z = rows.read(runs, inputs["taps"], inputs["final"])
        places = np.concatenate([np.arange(run.start, run.stop) for run in runs])
        _fill(inputs["scored"], rows.scored[places])
        count = self._course.epoch * self._batches + self._course.step + 1
        rng = np.random.default_rng((self._options.seed, count))
        sample = self._shortlist.sample(rows.tokens[places], self._sizes, rng)
        _fill(inputs["targets"], sample.targets)
        if "reach" in inputs:
            fill_reach(inputs["reach"], inputs["positions"], [(rows.position(r), r) for r in runs])
        if "rest" in inputs:
            self._step.own_rows[:], self._step.own_bias[:] = self._head.rows(sample.own)
            inputs["outside"][:], inputs["outside_bias"][:] = self._head.rows(sample.negatives)
            _fill(inputs["rest"], self._rest(rows.rest[places], log_z))
        if "mask" in inputs:
            fill_mask(inputs["mask"], self._kit.manifest.dropout, rng)
        loss, _ = self._step.run(count, last=self._course.step + 1 == self._batches)
        if not math.isfinite(loss):
            raise Diverged(count)
        if self._start is not None and self._start.proximal:
            total = self._batches * self._options.epochs
            rate = rate_at(count, self._options.rate, total, self._options.warmup * total)
            self._start.pull(self._step.weights(), rate)
        return loss

    def _rest(
        self, outside: NDArray[np.float32], log_z: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Logarithm of the backbone's mass that the step does not score, (T,)."""
        step, cap = self._step, self._kit.manifest.softcap
        final = step.inputs["final"][: len(log_z)]
        own = share_of(final, log_z, step.own_rows, step.own_bias, cap)
        rest: NDArray[np.float32] = log_z + np.log(
            np.maximum(outside - own, np.float32(LEAST_REST))
        )
        return rest

    def _validate(self, on_progress: Callable[[Progress], None]) -> None:
        """Score the held-out tokens; keep the weights when they are the best so far."""
        course = self._course
        found = self._scored()
        course.seconds, course.cpu_seconds = self._seconds(), self._cpu_seconds()
        loss = course.loss_sum / course.step
        course.stale += 1
        if course.best is None or found < course.best:
            course.best, course.best_epoch, course.stale = found, course.epoch + 1, 0
            course.cpu_seconds_to_best = course.cpu_seconds
            self._best = self._copy()
        course.history.append(
            {
                "epoch": course.epoch + course.step / self._batches,
                "loss": loss,
                "validation": found,
                "seconds": course.seconds,
                "cpu_seconds": course.cpu_seconds,
            }
        )
        on_progress(self._progress(loss, found))

    def _rate_start(self) -> None:
        """Let the weights that training begins with count as the best so far."""
        self._course.best = self._scored()
        self._best = self._copy()

    def _scored(self) -> float:
        """Negative log-likelihood of the held-out tokens by the weights of now."""
        plugin = plugin_of(self._kit, self._step.weights(), self._options.threads)
        scored = evaluate(self._kit.manifest, self._head, plugin, self._validation)
        found = math.inf if scored.plugin is None else scored.plugin
        if not math.isfinite(found):
            raise Diverged(self._course.epoch * self._batches + self._course.step)
        return found

    # --- what is kept ---

    def _save(self) -> None:
        course = self._course
        course.seconds, course.cpu_seconds = self._seconds(), self._cpu_seconds()
        arrays: dict[str, NDArray[Any]] = {
            "shortlist": self._shortlist.ids,
            "rest": self._rows.rest,
        }
        arrays |= {f"now.{name}": array for name, array in self._step.state().items()}
        arrays |= {f"best.{name}": array for name, array in self._best.items()}
        checkpoint.save(self._path, Checkpoint(self._run, asdict(course), arrays))
        self._saved = time.monotonic()

    def _copy(self) -> Named:
        return {name: array.copy() for name, array in self._step.weights().items()}

    def _seconds(self) -> float:
        return self._earlier[0] + time.monotonic() - self._started

    def _cpu_seconds(self) -> float:
        return self._earlier[1] + time.process_time()

    def _progress(self, loss: float, validation: float | None) -> Progress:
        options, course = self._options, self._course
        done = course.epoch * self._batches + course.step
        steps = self._batches * options.epochs
        left = self._seconds() / done * (steps - done)
        return Progress(
            min(course.epoch + 1, options.epochs),
            options.epochs,
            done,
            steps,
            loss,
            validation,
            left,
        )


def _under(prefix: str, arrays: Any) -> Named:
    """The arrays whose names begin with ``prefix``, without it."""
    return {
        name.removeprefix(prefix): array
        for name, array in arrays.items()
        if name.startswith(prefix)
    }


def _order(kit: Kit, training: FeatureRows, options: TrainingOptions) -> Shuffled | Packed:
    once = training.documents | training.rehearsed
    repeats = np.where(once, 1, options.answers)  # (texts,)
    most, seed = options.batch_tokens, options.seed
    if kit.manifest.sequential:
        return Packed(training.starts, repeats, most, seed)
    return Shuffled(training.starts, repeats, options.segment, most, seed)


def _fill(buffer: NDArray[Any], values: NDArray[Any]) -> None:
    """Values, then zeros: rows without a weight are of no consequence."""
    buffer[: len(values)] = values
    buffer[len(values) :] = 0


def fill_reach(
    reach: NDArray[np.float32], positions: NDArray[np.float32], placed: Sequence[tuple[int, Run]]
) -> None:
    """Let each token of a batch see those before it in its own run, and itself.

    Args:
        reach: Filled, (T, T).
        positions: Filled, (T,).
        placed: The runs of the batch with the position of each one's first token.
    """
    reach[:], positions[:] = UNSEEN, 0
    at = 0
    for position, run in placed:
        count = run.stop - run.start
        part = slice(at, at + count)
        reach[part, part] = np.triu(np.full((count, count), UNSEEN), 1)
        positions[part] = np.arange(position, position + count)
        at += count


def fill_mask(mask: NDArray[np.float32], dropout: float, rng: np.random.Generator) -> None:
    """Zeros for a share of ``dropout``, to the next 256th, and what keeps the mean at one elsewhere."""
    dropped = round(dropout * 256)
    drawn = np.frombuffer(rng.bytes(mask.size), np.uint8).reshape(mask.shape)
    np.multiply(drawn >= dropped, np.float32(256 / (256 - dropped)), out=mask)
