"""Forgetting: examples, and everything that was made of them, as if they had never been there.

What goes: the examples and what was said about such answers; every version of the plugin that was trained
on one or judged by it, with its prefix; the rows of other versions' memories; the features of all that
the other examples do not need; an interrupted training run. What was exported before is out of reach,
and so are the disk's own leftovers and backups.

An example leaves the store last: what was killed half-way is done again by forgetting it again.
"""

import json
import shutil
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from device_agent.cloud.link import Link
from device_agent.cloud.wire import choose_encoding
from device_agent.data.examples import Example
from device_agent.data.prefix import NO_PREFIX
from device_agent.data.questions import source_of
from device_agent.data.store import Store, StoredExample
from device_agent.errors import DeviceError
from device_agent.federated.shared import forget_own
from device_agent.memory.file import forget as forget_rows
from device_agent.plugins import PluginStore
from device_agent.runtime.kits import KitStore
from device_agent.training.corpus import cache_of, needed
from device_agent.training.lock import GRACE, training_lock
from device_agent.training.rehearsal import rehearsal_here
from protocol.errors import Fault

STOP_SECONDS = 20.0
"""How long the agent's training may take to end."""

UNFINISHED = (".part", ".old")


class NoSuchExample(DeviceError):
    """The store has no example of that number."""

    hint = "`sideplug forget` lists the examples with their numbers."

    def __init__(self, number: int) -> None:
        super().__init__(f"there is no example {number}")


class NothingToForget(DeviceError):
    """Nothing fits what was asked for."""

    hint = "`sideplug forget` lists the examples with the files they came from."

    def __init__(self) -> None:
        super().__init__("no example fits that")


@dataclass(frozen=True, slots=True)
class Chosen:
    """What is to be forgotten."""

    examples: list[StoredExample]
    feedback: list[int]
    """Numbers of feedback on the same conversations."""


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What went."""

    examples: int
    feedback: int
    versions: list[str]
    """Of the plugin."""
    rows: int
    """Of memories that are left."""
    features: int
    """Files."""

    def to_json(self) -> dict[str, object]:
        """As ``--json`` and the API tell it."""
        return asdict(self)


def choose(
    store: Store, numbers: Sequence[int] = (), files: Collection[str] = (), matching: str = ""
) -> Chosen:
    """What numbers, files and words mean together: each adds to the others.

    Args:
        store: Of the home.
        numbers: Of examples.
        files: From which examples came.
        matching: Words that are in an example or in feedback, however they are capitalised.

    Raises:
        NoSuchExample: One of the numbers.
        NothingToForget: Nothing fits.
    """
    every = store.examples()
    known = {stored.id for stored in every}
    for number in numbers:
        if number not in known:
            raise NoSuchExample(number)
    chosen = [
        stored
        for stored in every
        if stored.id in numbers or stored.source in files or _holds(stored.example, matching)
    ]
    # What was made of a note tells what the note told.
    made = {source_of(stored.sha256) for stored in chosen}
    chosen += [one for one in every if one.source in made and one not in chosen]
    feedback = list(_feedback_on(store, [stored.example for stored in chosen], matching))
    if not chosen and not feedback:
        raise NothingToForget()
    return Chosen(chosen, feedback)


def forget(link: Link, chosen: Chosen) -> Forgotten:
    """Forget it. Nothing is asked of the cloud; the link is good for nothing else afterwards.

    A training job of the agent is ended, and begins anew on what is left.

    Raises:
        AlreadyTraining: Another process trains here, and is not the agent's.
        StoreUnavailable: Somebody reads the store for long, so that its log could not be emptied.
    """
    home = link.settings.home
    gone = {stored.sha256 for stored in chosen.examples}
    with _training_stopped(link):
        versions, rows, features = [], 0, 0
        if gone:
            plugins = PluginStore(home)
            versions = _versions_of(plugins, gone)
            plugins.remove(versions)
            rows = _drop_rows(plugins, gone)
            kept = [one for one in link.store.examples() if one.sha256 not in gone]
            features = _drop_features(link, kept)
            shutil.rmtree(home / "runs", ignore_errors=True)
            forget_own(home)
            _drop_unfinished(home / "plugins")
        link.store.forget([stored.id for stored in chosen.examples], chosen.feedback)
    return Forgotten(len(chosen.examples), len(chosen.feedback), versions, rows, features)


def drop(link: Link, chosen: Chosen) -> Forgotten:
    """Take it out of the store and out of every memory alone: what weights have learned of it stays.

    Raises:
        AlreadyTraining, StoreUnavailable: As above.
    """
    with _training_stopped(link):
        gone = {stored.sha256 for stored in chosen.examples}
        rows = _drop_rows(PluginStore(link.settings.home), gone)
        link.store.forget([stored.id for stored in chosen.examples], chosen.feedback)
    return Forgotten(len(chosen.examples), len(chosen.feedback), [], rows, 0)


@contextmanager
def _training_stopped(link: Link) -> Iterator[None]:
    """Nobody trains meanwhile."""
    store, why = link.store, "examples are being forgotten"
    held = [
        job.id
        for job in store.jobs()
        if job.options is not None and store.move_job(job.id, ("running",), "paused", why)
    ]
    try:
        with training_lock(link.settings.home, STOP_SECONDS if held else GRACE):
            yield
    finally:
        for number in held:
            store.move_job(number, ("paused",), "queued")


def _versions_of(plugins: PluginStore, examples: Collection[str]) -> list[str]:
    """Versions that were made with any of the examples; one that does not tell may have been."""
    return [
        version.version
        for version in plugins.versions()
        if version.examples is None or not version.examples.isdisjoint(examples)
    ]


def _drop_rows(plugins: PluginStore, examples: Collection[str]) -> int:
    """Rows that the memories of the versions that are left have lost."""
    return sum(
        forget_rows(version.memory_path, version.memory_source, examples)
        for version in plugins.versions()
        if version.memory_path.is_file()
    )


def _drop_features(link: Link, kept: Sequence[StoredExample]) -> int:
    """Delete the features of all that training on ``kept`` would not read; gives how many files.

    A file's name tells nothing of its text. So what may stay is worked out, and not what has to go.
    """
    folder = link.settings.home / "features"
    kit = KitStore(link.settings.home).find(link.settings.recipe)
    try:
        if kit is not None and kept and link.stay_here():
            current = PluginStore(link.settings.home).current()
            speaking = NO_PREFIX if current is None else current.prefix
            known, whole = rehearsal_here(link), kit.manifest.sequential
            texts = needed(link, kept, speaking, known, whole=whole).texts
            return cache_of(link, kit, choose_encoding(link, kit)).keep_only(
                (text.fed, text.first, text.source) for text in texts
            )
    except (DeviceError, Fault):
        pass  # what may stay cannot be told
    files = sum(path.is_file() for path in folder.rglob("*"))
    shutil.rmtree(folder, ignore_errors=True)
    return files


def _drop_unfinished(folder: Path) -> None:
    """Delete what killed processes have left: nobody writes here while training is stopped."""
    for path in folder.rglob(".*"):
        if path.name.endswith(UNFINISHED):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _feedback_on(store: Store, examples: Sequence[Example], matching: str) -> Iterator[int]:
    """Numbers of feedback that became one of the examples, is on the same question, or has the words."""
    questions = {example.messages[:-1] for example in examples if example.messages}
    query = "SELECT id, messages, answer, correction FROM feedback ORDER BY id"
    for number, messages, answer, correction in store.read(query):
        turns = tuple((turn["role"], turn["content"]) for turn in json.loads(messages))
        said = [*turns, ("assistant", answer), ("assistant", correction or "")]
        if turns in questions or _holds(Example(messages=tuple(said)), matching):
            yield number


def _holds(example: Example, words: str) -> bool:
    if not words:
        return False
    texts = [example.text, *(said for _, said in example.messages)]
    return any(words.casefold() in text.casefold() for text in texts)
