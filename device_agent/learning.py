"""From what a person gave to a plugin that speaks: every step of a training run, in order."""

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from device_agent.arithmetic import one_thread
from device_agent.checkpoint import run_of
from device_agent.corpus import Corpus, collect, digests, matching_kit
from device_agent.course import Progress, Trained
from device_agent.errors import DeviceError
from device_agent.evaluate import Evaluation, compare, evaluate
from device_agent.examples import WINDOW
from device_agent.head import Head
from device_agent.kits import Kit
from device_agent.link import Link
from device_agent.memory_release import release_memory, return_large_blocks
from device_agent.memory_use import peak_memory
from device_agent.plugins import PluginStore, PluginVersion
from device_agent.prefix import NO_PREFIX
from device_agent.side_plugin import SidePlugin
from device_agent.store import JobState
from device_agent.trainer import Trainer
from device_agent.training_lock import training_lock
from device_agent.training_options import TrainingOptions
from device_agent.watcher import Watcher

CARD_TOKENS = 4096
"""About how many held-out tokens the final evaluation scores."""

KEPT_SECONDS = 7 * 24 * 3600.0
"""How long features are kept that nothing has used."""

JOB_SECONDS = 2.0
"""How often the job's progress is noted."""


class NothingToLearn(DeviceError):
    """No example has been given yet."""

    hint = "Give some first: `sideplug learn notes.md`."

    def __init__(self) -> None:
        super().__init__("there is nothing to learn from yet")


@dataclass(frozen=True, slots=True)
class Lesson:
    """What a training run gave."""

    version: PluginVersion | None
    """None when it was stopped before its first step."""
    promoted: bool
    base: float
    """Negative log-likelihoods of the held-out tokens: of the frozen backbone,"""
    prefix: float | None
    """of the frozen backbone behind the personal prefix, where there is one,"""
    before: float | None
    """of the plugin that spoke until now, where it can be compared,"""
    after: float
    """and of what was trained."""
    held_out: int
    trained: Trained
    corpus: Corpus
    seconds: float

    def to_json(self) -> dict[str, object]:
        """As ``sideplug train --json`` prints it; seconds and bytes."""
        course = self.trained.course
        fetched = self.corpus.fetched
        return {
            "version": self.version and self.version.version,
            "promoted": self.promoted,
            "ending": self.trained.ending,
            "resumed": self.trained.resumed,
            "validation": {
                "tokens": self.held_out,
                "base": self.base,
                "prefix": self.prefix,
                "before": self.before,
                "after": self.after,
            },
            "epochs": course.epoch,
            "best_epoch": course.best_epoch,
            "steps": self.trained.steps,
            "seconds": self.seconds,
            "cpu_seconds": self.trained.earlier_cpu_seconds + time.process_time(),
            "cpu_seconds_to_best": course.cpu_seconds_to_best,
            "features": {
                "texts": fetched.texts,
                "tokens": fetched.tokens,
                "sent_tokens": fetched.sent_tokens,
                "seconds": fetched.seconds,
                "bytes_up": self.corpus.bytes_up,
                "bytes_down": self.corpus.bytes_down,
            },
            "peak_memory": peak_memory(),
            "plugin_bytes": self.version and self.version.size,
            "history": course.history,
        }


def learn(
    link: Link, chosen: Mapping[str, object], watcher: Watcher, *, fresh: bool = False
) -> Lesson:
    """Train on everything in the store; keep the result as a version, and let it speak if it is better.

    Args:
        link: The cloud and the home folder.
        chosen: Training options by name; None and missing ones are the kit's.
        watcher: Sees what happens, and may end the training.
        fresh: Whether an interrupted run is forgotten instead of resumed.

    Raises:
        NothingToLearn, TooLittleText: There are not enough examples.
        AlreadyTraining: Another process trains here.
        CloudUnreachable, Fault: Something has to be fetched and cannot be.
    """
    home = link.settings.home
    return_large_blocks()
    with training_lock(home), one_thread():
        started = time.monotonic()
        examples = link.store.examples()
        if not examples:
            raise NothingToLearn()
        kit = matching_kit(link, link.settings.recipe, watcher)
        options = TrainingOptions.of(kit.manifest.schedule, chosen)
        current = PluginStore(home).current()
        speaking = NO_PREFIX if current is None else current.prefix
        corpus = collect(link, kit, examples, speaking, watcher)
        path = home / "runs" / "checkpoint.safetensors"
        if fresh:
            path.unlink(missing_ok=True)
        job = link.store.begin_job(kit.manifest.recipe)
        journal = _Journal(lambda state, told: link.store.update_job(job, state, told), watcher)
        try:
            lesson = _train(home, kit, corpus, options, path, journal)
        except BaseException:
            journal.close("failed")
            raise
        corpus.cache.sweep(time.time() - KEPT_SECONDS)
        stopped = lesson.trained.ending in ("stopped", "time")
        if not stopped:
            path.unlink(missing_ok=True)
        journal.close("stopped" if stopped else "done")
        seconds = lesson.trained.earlier_seconds + time.monotonic() - started
        return replace(lesson, seconds=seconds)


def _train(
    home: Path,
    kit: Kit,
    corpus: Corpus,
    options: TrainingOptions,
    path: Path,
    journal: "_Journal",
) -> Lesson:
    head = Head(kit, options.threads)
    prefix = corpus.prefixed.prefix
    validation = corpus.held_out(options.validation_tokens, prefix)
    run = _run_digest(kit, corpus, options)
    journal.watcher.note(_plan_in_words(corpus, path, run))
    trainer = Trainer(kit, head, corpus.training(), validation, options, run, path)
    with journal.watcher.interruptible():
        trained = trainer.train(journal.training, journal.watcher.stop)
    del trainer
    release_memory()
    plugins = PluginStore(home)
    plugin = SidePlugin(kit, trained.weights, options.threads)
    bare, behind = (corpus.held_out(CARD_TOKENS, some) for some in (NO_PREFIX, prefix))
    after = compare(kit.manifest, head, plugin, bare, behind)
    before = _before(plugins.current(), kit, head, corpus, options.threads)
    version, promoted = None, False
    if trained.steps:
        card = _card(after, before, trained, corpus)
        about = {"codec": corpus.cache.wants.codec, "window": WINDOW, "options": asdict(options)}
        history = trained.course.history
        version = plugins.add(kit.manifest, trained.weights, about, prefix, card, history)
        promoted = _plugin_nll(after) < min(
            after.base, before if before is not None else after.base
        )
        if promoted:
            plugins.use(version.version)
    return Lesson(
        version,
        promoted,
        after.base,
        after.prefix,
        before,
        _plugin_nll(after),
        after.tokens,
        trained,
        corpus,
        0.0,
    )


def _before(
    current: PluginVersion | None,
    kit: Kit,
    head: Head,
    corpus: Corpus,
    threads: int,
) -> float | None:
    """How the plugin that speaks now does on the held-out tokens.

    None when it reads other features, or may have learned from what is held out now.
    """
    if current is None or current.kit_id != kit.manifest.id:
        return None
    known = current.card.get("held_out")
    if not isinstance(known, list) or not set(digests(corpus.split.validation)) <= set(known):
        return None
    rows = corpus.held_out(CARD_TOKENS, current.prefix)
    return evaluate(kit.manifest, head, SidePlugin(kit, current.weights(), threads), rows).plugin


def _card(
    after: Evaluation, before: float | None, trained: Trained, corpus: Corpus
) -> dict[str, object]:
    return {
        "evaluation": after.to_json(),
        "before": before,
        "training": {
            "windows": len(corpus.split.training),
            "tokens": sum(len(text.rows) for text in corpus.split.training),
            "epochs": trained.course.epoch,
            "best_epoch": trained.course.best_epoch,
            "steps": trained.steps,
            "ending": trained.ending,
            "seconds": trained.course.seconds,
            "cpu_seconds": trained.course.cpu_seconds,
        },
        "held_out": digests(corpus.split.validation),
    }


def _run_digest(kit: Kit, corpus: Corpus, options: TrainingOptions) -> str:
    """Names everything that decides the numbers of a run."""
    about = {
        "kit": kit.manifest.id,
        "files": {name: file.sha256 for name, file in sorted(kit.manifest.files.items())},
        "codec": corpus.cache.wants.codec,
        "options": options.identity(),
        "training": digests(corpus.prefixed.windows),
        "validation": digests(corpus.split.validation),
    }
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def _plugin_nll(evaluation: Evaluation) -> float:
    return float("inf") if evaluation.plugin is None else evaluation.plugin


def _plan_in_words(corpus: Corpus, path: Path, run: str) -> str:
    tokens = sum(len(text.rows) for text in corpus.split.training)
    plan = f"learning from {tokens} tokens"
    found = run_of(path)
    if found is None:
        return plan
    if found == run:
        return f"{plan}, going on where the last run was interrupted"
    return (
        f"{plan}, from the beginning: examples, kit or options are not those of the interrupted run"
    )


class _Journal:
    """Notes a run's progress in the store now and then, and passes it on."""

    def __init__(
        self, write: Callable[[JobState, Mapping[str, object]], None], watcher: Watcher
    ) -> None:
        self.watcher = watcher
        self._write = write
        self._last: dict[str, object] = {}
        self._written = 0.0

    def training(self, progress: Progress) -> None:
        """A step or a validation is done."""
        self._last = asdict(progress)
        now = time.monotonic()
        if now - self._written >= JOB_SECONDS:
            self._written = now
            self._write("running", self._last)
        self.watcher.training(progress)

    def close(self, state: JobState) -> None:
        """The run has ended."""
        self._write(state, self._last)
