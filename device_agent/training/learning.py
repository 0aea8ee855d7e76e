"""From what a person gave to a plugin that speaks: every step of a training run, in order."""

import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

from device_agent.cloud.link import Link
from device_agent.data.examples import WINDOW
from device_agent.data.prefix import NO_PREFIX, Ids
from device_agent.errors import DeviceError
from device_agent.federated.shared import Shared, of_kit
from device_agent.memory.file import (
    DamagedMemory,
    ForeignMemory,
    MemoryFile,
    source_of,
    write_memory,
)
from device_agent.memory.gate import NO_GATES, Gates
from device_agent.memory.making import basis_of, parts_of
from device_agent.plugins import MEMORY, PluginStore, PluginVersion
from device_agent.runtime.arithmetic import one_thread
from device_agent.runtime.head import Head
from device_agent.runtime.kits import Kit
from device_agent.runtime.memory_release import release_memory, return_large_blocks
from device_agent.runtime.memory_use import peak_memory
from device_agent.runtime.plugin_kinds import Plugin, plugin_of
from device_agent.settings import Settings
from device_agent.training.checkpoint import run_of
from device_agent.training.corpus import Corpus, collect, digests, matching_kit
from device_agent.training.course import Trained
from device_agent.training.evaluate import Evaluation, Part, compare, weigh
from device_agent.training.journal import Journal
from device_agent.training.lock import training_lock
from device_agent.training.options import TrainingOptions
from device_agent.training.start import Start
from device_agent.training.trainer import Trainer
from device_agent.training.watcher import Watcher
from protocol.encoding import Encoding

CARD_TOKENS = 4096
"""About how many held-out tokens the final evaluation scores."""

KEPT_SECONDS = 7 * 24 * 3600.0
"""How long features are kept that nothing has used."""


class NothingToLearn(DeviceError):
    """No example has been given yet."""

    hint = "Give some first: `sideplug learn notes.md`."

    def __init__(self) -> None:
        super().__init__("there is nothing to learn from yet")


IN_WORDS = {
    "prefix": "your prefix, without plugin and memory,",
    "memory": "your memory, without the plugin,",
    "plugin": "your plugin, without the memory,",
    "whole": "your plugin with the memory",
}
"""The parts of a version that may speak."""


class Verdict(NamedTuple):
    """Whether a new version may speak, and why, in words."""

    speaks: Part
    """What of it would speak: a part that does not help rests."""
    after: float
    """Negative log-likelihood of the held-out tokens by that."""
    better: bool
    reason: str


def judge(evaluation: Evaluation, before: float | None) -> Verdict:
    """A new version may speak when its best part foresees the held-out tokens better than what speaks now.

    Args:
        evaluation: Of the new one, part by part.
        before: Negative log-likelihood by the version that speaks now, where it can be compared.
    """
    speaks = evaluation.best
    after = _nll(evaluation, speaks)
    rivals = {"the frozen backbone": evaluation.base, "the version that speaks now": before}
    known = {name: nll for name, nll in rivals.items() if nll is not None}
    rival = min(known, key=lambda name: known[name])
    better = after < known[rival]
    told = f"{IN_WORDS[speaks]} has {after:.4f} nats a token, {rival} {known[rival]:.4f}"
    return Verdict(speaks, after, better, told)


def harm(general: Evaluation, speaks: Part) -> float:
    """By how much more nats text costs that is nobody's own, as a share of the frozen backbone's."""
    return _nll(general, speaks) / general.base - 1


@dataclass(frozen=True, slots=True)
class Lesson:
    """What a training run gave."""

    version: PluginVersion | None
    """None when it was stopped before its first step."""
    verdict: Verdict
    evaluation: Evaluation
    """On the held-out tokens, part by part."""
    general: Evaluation
    """The same on text that is nobody's own."""
    requests: Evaluation | None
    """The same on the backbone's own answers to requests that are nobody's own; None where it does not chat."""
    before: float | None
    """Negative log-likelihood of the held-out tokens by the version that spoke until now, where it can be
    compared."""
    trained: Trained
    corpus: Corpus
    seconds: float

    @property
    def promoted(self) -> bool:
        """Whether the new version speaks."""
        return self.version is not None and self.verdict.better

    @property
    def after(self) -> float:
        """Negative log-likelihood of the held-out tokens by what was trained, as it would speak."""
        return self.verdict.after

    def to_json(self) -> dict[str, object]:
        """As ``sideplug train --json`` prints it; seconds and bytes."""
        course = self.trained.course
        fetched = self.corpus.fetched
        return {
            "version": self.version and self.version.version,
            "promoted": self.promoted,
            "speaks": self.verdict.speaks,
            "reason": self.verdict.reason,
            "ending": self.trained.ending,
            "resumed": self.trained.resumed,
            "validation": {
                "tokens": self.evaluation.tokens,
                "base": self.evaluation.base,
                "prefix": self.evaluation.prefix,
                "memory": self.evaluation.memory,
                "plugin": self.evaluation.plugin,
                "before": self.before,
                "after": self.after,
            },
            "harm": harm(self.general, self.verdict.speaks),
            "requests": self.requests
            and _nll(self.requests, self.verdict.speaks) - self.requests.base,
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
    link: Link,
    chosen: Mapping[str, object],
    watcher: Watcher,
    *,
    fresh: bool = False,
    queued: int | None = None,
) -> Lesson:
    """Train on everything in the store; keep the result as a version, and let it speak if it is better.

    Args:
        link: The cloud and the home folder.
        chosen: Training options by name; None and missing ones are the kit's.
        watcher: Sees what happens, and may end the training.
        fresh: Whether an interrupted run is forgotten instead of resumed.
        queued: The queued job that this is.

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
        # Tokens of another backbone would mean nothing to this one.
        ours = current is not None and current.fingerprint == kit.manifest.fingerprint
        sent = link.prefix > 0
        speaking = current.prefix if current is not None and ours and sent else NO_PREFIX
        corpus = collect(link, kit, examples, speaking, watcher)
        path = home / "runs" / "checkpoint.safetensors"
        if fresh:
            path.unlink(missing_ok=True)
        job = link.store.begin_job(kit.manifest.recipe, queued)
        earlier = link.store.job(job)
        journal = Journal(
            lambda state, told: link.store.update_job(job, state, told),
            watcher,
            {} if earlier is None else earlier.progress,
        )
        try:
            lesson = _train(link.settings, kit, corpus, options, path, journal)
        except BaseException:
            # Of a queued job the agent decides what becomes of it, and says why.
            if queued is None:
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
    settings: Settings,
    kit: Kit,
    corpus: Corpus,
    options: TrainingOptions,
    path: Path,
    journal: Journal,
) -> Lesson:
    head = Head(kit, options.threads)
    prefix = corpus.prefixed.prefix
    validation = corpus.held_out(options.validation_tokens, prefix)
    shared = of_kit(settings.home, kit.manifest)
    start = None if shared is None else Start(shared.weights, rival=True)
    run = _run_digest(kit, corpus, options, shared)
    journal.watcher.note(_plan_in_words(corpus, path, run))
    trainer = Trainer(kit, head, corpus.training(), validation, options, run, path, start)
    with journal.watcher.interruptible():
        trained = trainer.train(journal.training, journal.watcher.stop)
    del trainer
    release_memory()
    plugins = PluginStore(settings.home)
    with _memory(settings, kit, corpus) as memory_path:
        judged = _judged(plugins, kit, head, corpus, trained, memory_path, options.threads)
        version = None
        if trained.steps:
            about = {
                "codec": corpus.cache.wants.codec,
                "encoding": _told(corpus.cache.wants.encoding),
                "window": WINDOW,
                "options": asdict(options),
                "memory": judged.gates.to_json(),
                "speaks": judged.verdict.speaks,
                "examples": corpus.examples,
                "shared": shared and {"round": shared.round, "digest": shared.digest},
            }
            version = plugins.add(
                kit.manifest,
                trained.weights,
                about,
                prefix,
                _card(judged, trained, corpus),
                trained.course.history,
                memory_path,
            )
            if judged.verdict.better:
                plugins.use(version.version)
    return Lesson(
        version,
        judged.verdict,
        judged.evaluation,
        judged.general,
        judged.requests,
        judged.before,
        trained,
        corpus,
        0.0,
    )


@contextmanager
def _memory(settings: Settings, kit: Kit, corpus: Corpus) -> Iterator[Path | None]:
    """A file with everything that was trained on, for as long as it takes to keep it elsewhere."""
    if settings.memory == "off":
        yield None
        return
    path = settings.home / "runs" / MEMORY
    manifest = kit.manifest
    basis = basis_of(corpus.cache, corpus.general, manifest.hidden)
    parts = parts_of(corpus.cache, basis, corpus.prefixed.windows, corpus.split.owners)
    write_memory(path, source_of(manifest.fingerprint, corpus.prefixed.prefix), basis, parts)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


class _Judged(NamedTuple):
    """A new plugin's figures."""

    evaluation: Evaluation
    general: Evaluation
    requests: Evaluation | None
    gates: Gates
    before: float | None
    verdict: Verdict


def _judged(
    plugins: PluginStore,
    kit: Kit,
    head: Head,
    corpus: Corpus,
    trained: Trained,
    memory_path: Path | None,
    threads: int,
) -> _Judged:
    manifest, prefix = kit.manifest, corpus.prefixed.prefix
    plugin = plugin_of(kit, trained.weights, threads)
    source = source_of(manifest.fingerprint, prefix)
    memory = None if memory_path is None else MemoryFile.mapped(memory_path, source)
    after, gates = _weighed(kit, head, corpus, plugin, prefix, memory)
    bare, behind = (corpus.of_general_text(some) for some in (NO_PREFIX, prefix))
    general = compare(manifest, head, plugin, bare, behind, memory, gates)
    asked, asked_behind = (corpus.of_requests(some) for some in (NO_PREFIX, prefix))
    requests = None
    if asked is not None and asked_behind is not None:
        requests = compare(manifest, head, plugin, asked, asked_behind, memory, gates)
    before = _before(plugins.current(), kit, head, corpus, threads)
    return _Judged(after, general, requests, gates, before, judge(after, before))


def _before(
    current: PluginVersion | None,
    kit: Kit,
    head: Head,
    corpus: Corpus,
    threads: int,
) -> float | None:
    """How the plugin that speaks now does on the held-out tokens.

    None when it reads other features, may have learned from what is held out now, or has lost its memory.
    """
    if current is None or current.kit_id != kit.manifest.id:
        return None
    if current.encoding != corpus.cache.wants.encoding:
        return None
    known = current.card.get("held_out")
    if not isinstance(known, list) or not set(digests(corpus.split.validation)) <= set(known):
        return None
    plugin = plugin_of(kit, current.weights(), threads)
    # Its gates are chosen anew: chosen on this very text, its own would have an advantage.
    try:
        memory = current.memory()
    except (DamagedMemory, ForeignMemory):
        return None
    evaluation, _ = _weighed(kit, head, corpus, plugin, corpus.speaking, memory)
    return _nll(evaluation, current.speaks)


def _weighed(
    kit: Kit,
    head: Head,
    corpus: Corpus,
    plugin: Plugin,
    prefix: Ids,
    memory: MemoryFile | None,
) -> tuple[Evaluation, Gates]:
    """What each part gives on the held-out text behind a prefix, and the memory's gates."""
    bare, behind = (corpus.held_out(CARD_TOKENS, some) for some in (NO_PREFIX, prefix))
    if memory is None:
        return compare(kit.manifest, head, plugin, bare, behind), NO_GATES
    return weigh(kit.manifest, head, plugin, bare, behind, memory, corpus.foreign(prefix))


def _card(judged: _Judged, trained: Trained, corpus: Corpus) -> dict[str, object]:
    return {
        "evaluation": judged.evaluation.to_json(),
        "general": judged.general.to_json(),
        "requests": judged.requests and judged.requests.to_json(),
        "harm": harm(judged.general, judged.verdict.speaks),
        "before": judged.before,
        "better": judged.verdict.better,
        "speaks": judged.verdict.speaks,
        "reason": judged.verdict.reason,
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


def _run_digest(kit: Kit, corpus: Corpus, options: TrainingOptions, shared: Shared | None) -> str:
    """Names everything that decides the numbers of a run."""
    about = {
        "shared": shared and shared.digest,
        "kit": kit.manifest.id,
        "files": {name: file.sha256 for name, file in sorted(kit.manifest.files.items())},
        "codec": corpus.cache.wants.codec,
        "encoding": _told(corpus.cache.wants.encoding),
        "options": options.identity(),
        "training": digests([*corpus.prefixed.windows, *corpus.rehearsed]),
        "validation": digests(corpus.split.validation),
    }
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def _told(encoding: Encoding | None) -> dict[str, object] | None:
    return None if encoding is None else encoding.to_json()


def _nll(evaluation: Evaluation, speaks: Part) -> float:
    """Of what speaks; of the plugin alone where there is no memory any more."""
    found = [evaluation.of(speaks), evaluation.plugin]
    return next((nll for nll in found if nll is not None), float("inf"))


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
