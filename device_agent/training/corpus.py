"""What a person gave, ready for training: cut into windows, divided, with its features at hand."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from device_agent.cloud.features import Fetched, fetch
from device_agent.cloud.link import Link
from device_agent.cloud.wire import choose_encoding, wire_of
from device_agent.data.examples import WINDOW, Encoded, Example, encode, windows
from device_agent.data.pairs import pairs
from device_agent.data.prefix import NO_PREFIX, Ids, Prefixed, behind, crossed
from device_agent.data.questions import beside_their_notes
from device_agent.data.store import StoredExample
from device_agent.data.tap_cache import TapCache
from device_agent.runtime.kits import Kit, WrongBackbone
from device_agent.runtime.memory_release import release_memory
from device_agent.training.batches import FeatureRows
from device_agent.training.hold_out import Split, hold_out
from device_agent.training.rehearsal import Rehearsal, rehearsal
from device_agent.training.watcher import Watcher
from protocol.encoding import Encoding

GENERAL = Path(__file__).parent / "general.txt"


@dataclass(frozen=True, slots=True)
class Corpus:
    """Windows with features in the cache."""

    cache: TapCache
    examples: list[str]
    """sha256 of everything that the person gave: what decides any of its numbers."""

    split: Split
    """Bare windows."""

    prefixed: Prefixed
    """The prefix to speak behind, and the training windows behind theirs."""

    general: list[Encoded]
    """Bare windows of nobody's own text."""

    rehearsal: Rehearsal
    """Bare conversations that are nobody's own."""

    speaking: Ids
    """The prefix of the version that speaks now, empty when it is switched off."""

    fetched: Fetched
    bytes_up: int
    bytes_down: int

    def training(self) -> FeatureRows:
        """Rows to learn from, and those to rehearse besides."""
        return FeatureRows(self.cache, self.prefixed.windows, self.rehearsed)

    @property
    def rehearsed(self) -> list[Encoded]:
        """The conversations that are rehearsed, behind the prefix."""
        return [behind(one, self.prefixed.prefix) for one in self.rehearsal.practised]

    def of_general_text(self, prefix: Ids) -> FeatureRows:
        """All rows of the general text, behind a prefix."""
        return FeatureRows(self.cache, [behind(window, prefix) for window in self.general])

    def foreign(self, prefix: Ids) -> FeatureRows:
        """All rows of the general text and of what is rehearsed, behind a prefix."""
        foreign = [*self.general, *self.rehearsal.practised]
        return FeatureRows(self.cache, [behind(one, prefix) for one in foreign])

    def of_requests(self, prefix: Ids) -> FeatureRows | None:
        """All rows of the answers to general requests, behind a prefix; None where there are none."""
        probes = [behind(one, prefix) for one in self.rehearsal.probes]
        return FeatureRows(self.cache, probes) if probes else None

    def held_out(self, tokens: int, prefix: Ids) -> FeatureRows:
        """About ``tokens`` rows that are never learned from, behind a prefix; always the same first."""
        some = some_of(self.split.validation, tokens)
        return FeatureRows(self.cache, [behind(window, prefix) for window in some])


def matching_kit(link: Link, recipe: str, watcher: Watcher) -> Kit:
    """A kit for the backbone that the facts describe.

    Raises:
        WrongBackbone: The kit on this device is for another one, and the cloud is away.
    """
    facts = link.facts()
    kit = link.kit(recipe, watcher.kit)
    if kit.manifest.fingerprint != facts.fingerprint:
        raise WrongBackbone(expected=facts.fingerprint, got=kit.manifest.fingerprint)
    return kit


def tokens_of(
    link: Link, examples: Sequence[Example], *, whole: bool = False
) -> list[list[Encoded]]:
    """The windows or the pairs of each example, ``whole`` for kits whose tokens see one another.

    The tokenizer lives only as long as this takes: it is larger than everything that it reads.
    """
    facts, tokenizer = link.facts(), link.tokenizer()
    if facts.encodes:
        cut = [pairs(one, tokenizer, facts) for one in examples]
    else:
        length = min(WINDOW, facts.positions - prefix_budget(link))
        cut = [windows(encode(one, tokenizer, facts), length, whole=whole) for one in examples]
    del tokenizer
    release_memory()
    return cut


def prefix_budget(link: Link) -> int:
    """Most tokens of a prefix: what the settings say, and never more than half of the context.

    A backbone with an encoder reads none: its source is all that it is told.
    """
    if link.facts().encodes:
        return 0
    return min(link.prefix, link.facts().positions // 2)


def cache_of(link: Link, kit: Kit, encoding: Encoding | None) -> TapCache:
    """The features that a kit reads, as they come in an encoding; whole without one."""
    wants, basis = wire_of(link, kit, encoding, log_z=True)
    return TapCache(link.settings.home / "features", kit.manifest.fingerprint, wants, basis)


def some_of(texts: Sequence[Encoded], tokens: int) -> list[Encoded]:
    """Windows with about ``tokens`` scored tokens, chosen by their content alone."""
    some, found = [], 0
    for text in sorted(texts, key=_digest):
        if found >= tokens:
            break
        some.append(text)
        found += len(text.rows)
    return some


def collect(
    link: Link, kit: Kit, examples: Sequence[StoredExample], speaking: Ids, watcher: Watcher
) -> Corpus:
    """
    Cut examples into windows, hold some out, and bring the features of all into the cache.

    Args:
        link: The cloud and the home folder.
        kit: Whose features are read.
        examples: All that the person gave.
        speaking: Prefix of the plugin that speaks now, to compare with, (P,).
        watcher: Sees how far it is.
    """
    whole = kit.manifest.sequential
    speaking = NO_PREFIX if whole else speaking
    need = needed(link, examples, speaking, rehearsal(link), whole=whole)
    cache = cache_of(link, kit, choose_encoding(link, kit))
    up, down = link.up, link.down
    fetched = fetch(lambda: link.cloud, cache, need.texts, watcher.fetching)
    release_memory()
    return Corpus(
        cache,
        [stored.sha256 for stored in examples],
        need.split,
        need.prefixed,
        need.general,
        need.known,
        speaking,
        fetched,
        link.up - up,
        link.down - down,
    )


class Needed(NamedTuple):
    """What examples are cut into.

    Attributes:
        split: Bare windows.
        prefixed: The training windows behind their prefixes.
        general: Bare windows of nobody's own text.
        known: The backbone's own answers.
        texts: All whose features a training run reads.
    """

    split: Split
    prefixed: Prefixed
    general: list[Encoded]
    known: Rehearsal
    texts: list[Encoded]


def needed(
    link: Link,
    examples: Sequence[StoredExample],
    speaking: Ids,
    known: Rehearsal,
    *,
    whole: bool = False,
) -> Needed:
    """What a training run on examples reads; arguments as ``collect`` has.

    ``whole`` for kits whose tokens see one another.

    Raises:
        TooLittleText: There are fewer than two windows.
    """
    examples = beside_their_notes(examples)
    given = [*(stored.example for stored in examples), general_text()]
    *cut, general = tokens_of(link, given, whole=whole)
    split = hold_out([(stored.sha256, one) for stored, one in zip(examples, cut, strict=True)])
    budget = prefix_budget(link)
    if whole:
        # A prefix would have to pass through the resident blocks again and again.
        budget, known, speaking = 0, known.whole(), NO_PREFIX
    prefixed = crossed(split.training, budget)
    prefixes = [NO_PREFIX, prefixed.prefix, speaking]
    held_out = [behind(window, prefix) for prefix in prefixes for window in split.validation]
    probes = [behind(one, prefix) for prefix in prefixes for one in [*general, *known.probes]]
    practised = [behind(one, prefix) for prefix in prefixes[1:] for one in known.practised]
    texts = [*prefixed.windows, *held_out, *probes, *practised]
    return Needed(split, prefixed, general, known, texts)


def general_text() -> Example:
    """Some thousand tokens that are nobody's own: recipes, news, letters, code.

    They show what a plugin does to text that is not the person's, and give the memory's basis.
    """
    return Example(text=GENERAL.read_text(encoding="utf-8").strip())


def digests(texts: Sequence[Encoded]) -> list[str]:
    """Short names of windows, by content."""
    return [_digest(text)[:16] for text in texts]


def _digest(text: Encoded) -> str:
    # Where a source ends, scored shows: nothing before its target is.
    return hashlib.sha256(text.ids.tobytes() + text.scored.tobytes()).hexdigest()
