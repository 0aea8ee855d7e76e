"""
Headword to definition, by two people who define very differently: Bierce and the Jargon File.

Each person's entries are split by word; one device learns each person (as notes and as conversations), and
each device is asked for both people's test words, as is the frozen backbone: a plugin should help its own
person, and must not help the other as much. `perplexity` is of the true definition's tokens; ROUGE-L is of what the
device writes, greedily, against it.

With --text the documents of that file, `headword: definition` each, take Bierce's place.
"""

import argparse
import math
import random
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks import texts
from benchmarks.cells import Cell, Cells, cells
from benchmarks.dictionaries import SOURCES, Entry, entries_of
from benchmarks.errors import TextError
from benchmarks.metrics import bootstrap, rouge_l
from benchmarks.people.examples import Past, Person, TaskOfPerson
from benchmarks.people.teaching import write_profile
from benchmarks.picture import draw_panels
from benchmarks.report import Figure, Outcome, Rows, say
from benchmarks.services import FEATURES, Cloud, Device, cloud, pull, share_features
from benchmarks.voice import voice

NAME = "definitions"
HELP = "headword to definition by two people, each plugin on both people's words"

TRAINING, TEST = 200, 30
"""Entries of each person."""

ANSWER_TOKENS = 60
FROZEN = "frozen"


@dataclass(frozen=True, slots=True)
class Definer:
    """One person's entries, none in two parts."""

    name: str
    training: tuple[Entry, ...]
    test: tuple[Entry, ...]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the benchmark's own arguments."""
    parser.add_argument("--entries", type=int, default=TRAINING, help="learned from each person")
    parser.add_argument("--test-entries", type=int, default=TEST, help="asked of each person")
    parser.add_argument("--seeds", type=int, default=3, help="how often each device is trained")
    parser.add_argument("--results", type=Path, metavar="FOLDER", help="keep results, and go on")


def run(args: argparse.Namespace) -> Outcome:
    """Teaches both, then asks everybody for everybody's words."""
    if args.quick:
        args.entries, args.test_entries, args.seeds = 12, 2, 1
    definers = _definers(args)
    backbone = pull(args.backbone)
    seeds = [args.seed + number for number in range(args.seeds)]
    identity = {
        "backbone": backbone.name,
        "text": str(args.text) if args.text else None,
        "first_seed": args.seed,
        "entries": args.entries,
        "test_entries": args.test_entries,
        "threads": args.threads,
    }
    with (
        cells(args.results, identity) as kept,
        cloud(backbone, "auto", args.threads) as service,
    ):
        desk = Desk(kept, service, args.threads, definers)
        lessons = {one.name: [desk.teach(one, seed) for seed in seeds] for one in definers}
        speakers: dict[str, list[int | None]] = {FROZEN: [None]}
        speakers |= {one.name: list(seeds) for one in definers}
        crossed = {
            who: {one.name: [desk.ask(who, seed, one) for seed in tried] for one in definers}
            for who, tried in speakers.items()
        }
    means = {
        who: {whose: _mean(rows) for whose, rows in by_person.items()}
        for who, by_person in crossed.items()
    }
    results = {"crossed": means, "runs": crossed, "lessons": lessons}
    if args.json:
        results["picture"] = _draw(args.json.with_suffix(".png"), means)
    return Outcome(
        figures=figures_of(means, [one.name for one in definers]),
        results=results,
        seeds=seeds,
        settings={**identity, "people": [one.name for one in definers]},
        tables=[_table(means)],
    )


class Desk:
    """Where devices are taught and asked, step by step."""

    def __init__(
        self, kept: Cells, service: Cloud, threads: int, definers: Sequence[Definer]
    ) -> None:
        self._kept, self._service, self._threads = kept, service, threads
        self._definers = definers

    def teach(self, definer: Definer, seed: int) -> Cell:
        """Learn and train in a home of its own; what training said and cost."""
        return self._kept.get(f"{definer.name}/lesson-{seed}", lambda: self._teach(definer, seed))

    def ask(self, who: str, seed: int | None, whose: Definer) -> Cell:
        """Perplexity and ROUGE-L of one speaker on one person's test words."""
        name = f"{who}/{'frozen' if seed is None else seed}-asked-{whose.name}"
        return self._kept.get(name, lambda: self._ask(who, seed, whose))

    def _teach(self, definer: Definer, seed: int) -> Cell:
        say(f"{definer.name}, seed {seed}: learn and train")
        home = self._home(definer.name, seed)
        shutil.rmtree(home, ignore_errors=True)
        person = as_person(definer)
        files = write_profile(person, len(definer.training), self._folder(definer.name))
        share_features(home, self._folder(definer.name) / FEATURES)
        device = Device(home, self._service.url, self._threads)
        device.run("learn", *map(str, files))
        training = device.run("train", "--seed", str(seed))
        said = training.answer
        return {
            "seed": seed,
            "promoted": said["promoted"],
            "validation": said["validation"],
            "features": said["features"],
            "cpu_seconds": training.cpu_seconds,
            "seconds": training.seconds,
            "peak_memory": training.peak_bytes,
        }

    def _ask(self, who: str, seed: int | None, whose: Definer) -> Cell:
        say(f"{who} is asked for the words of {whose.name}")
        home = self._kept.workspace / FROZEN if seed is None else self._home(who, seed)
        nll, tokens, rouges, answers = 0.0, 0, [], []
        with voice(home, self._service.url, self._threads, base=seed is None) as speaker:
            for entry in whose.test:
                prompt = question(entry.word)
                (likelihood,) = speaker.log_likelihoods(prompt, [entry.definition])
                nll -= likelihood
                tokens += len(speaker.answer_ids(prompt, entry.definition))
                answers.append(speaker.write(prompt, ANSWER_TOKENS))
                rouges.append(rouge_l(answers[-1], entry.definition))
        return {
            "nll": nll / tokens,
            "tokens": tokens,
            "rouge_l": fmean(rouges),
            "rouge_l_interval": list(bootstrap(rouges)),
            "answers": answers,
        }

    def _home(self, name: str, seed: int | None) -> Path:
        return self._folder(name) / f"home-{seed}"

    def _folder(self, name: str) -> Path:
        folder = self._kept.workspace / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder


def question(word: str) -> str:
    """How a word is asked for, in training and in the test."""
    return f"Define: {word}"


def as_person(definer: Definer) -> Person:
    """The entries that are learned, as a history of notes and conversations."""
    history = tuple(
        Past(f"{one.word}: {one.definition}", question(one.word), one.definition)
        for one in definer.training
    )
    return Person(definer.name, {"definitions": TaskOfPerson(history, (), ())})


def split_entries(name: str, entries: Sequence[Entry], training: int, test: int) -> Definer:
    """
    A part to learn and a part to ask, drawn by chance that is always the same.

    Raises:
        TextError: There are too few entries.

    """
    if len(entries) < test + 2:
        raise TextError(f"{name} has {len(entries)} definitions; {test + 2} are needed at least")
    drawn = random.Random(name).sample(list(entries), min(len(entries), training + test))
    return Definer(name, tuple(drawn[test:]), tuple(drawn[:test]))


def _definers(args: argparse.Namespace) -> list[Definer]:
    own = {args.text.stem: from_documents(texts.from_file(args.text))} if args.text else {}
    sources = list(SOURCES)[len(own) :]
    every = own | {name: entries_of(name) for name in sources}
    return [
        split_entries(name, entries, args.entries, args.test_entries)
        for name, entries in every.items()
    ]


def from_documents(documents: Sequence[texts.Document]) -> list[Entry]:
    """
    Entries of documents that say `headword: definition`.

    Raises:
        TextError: One does not; names it.

    """
    entries = []
    for document in documents:
        word, colon, definition = document.text.partition(": ")
        if not (colon and word.strip() and definition.strip()):
            raise TextError(f"{document.name}: expected a text like `headword: definition`")
        entries.append(Entry(word.strip(), definition.strip()))
    return entries


def _mean(rows: Sequence[Cell]) -> dict[str, float]:
    """Over seeds."""
    nll = fmean(row["nll"] for row in rows)
    spread = max(row["nll"] for row in rows) - min(row["nll"] for row in rows)
    return {
        "nll": nll,
        "nll_range": spread,
        "perplexity": math.exp(nll),
        "rouge_l": fmean(row["rouge_l"] for row in rows),
    }


def figures_of(
    means: Mapping[str, Mapping[str, Mapping[str, float]]], people: Sequence[str]
) -> list[Figure]:
    """What each plugin gains on its own person, and on the other, in nats a token and ROUGE-L."""

    def gain(who: str, whose: str) -> float:
        return means[FROZEN][whose]["nll"] - means[who][whose]["nll"]

    own = {name: gain(name, name) for name in people}
    other = {(a, b): gain(a, b) for a in people for b in people if a != b}
    rouge = {name: means[name][name]["rouge_l"] - means[FROZEN][name]["rouge_l"] for name in people}
    lead = min(own[b] - other[a, b] for a, b in other)
    return [
        Figure(
            "own_gain_min",
            min(own.values()),
            "least gain on the own person's words, nats",
            at_least=0.0,
        ),
        Figure("other_gain_max", max(other.values()), "largest gain on the other's words, nats"),
        Figure(
            "lead_min", lead, "least lead of the own plugin over the other's, nats", at_least=0.0
        ),
        Figure(
            "rouge_l_gain_min",
            min(rouge.values()),
            "least gain of ROUGE-L, own words",
            at_least=0.0,
        ),
    ]


def _table(means: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Rows:
    rows: list[list[Any]] = [
        [who, whose, one["perplexity"], one["nll"], one["nll_range"], one["rouge_l"]]
        for who, by_person in means.items()
        for whose, one in by_person.items()
    ]
    columns = ("who speaks", "whose words", "perplexity", "NLL", "range over seeds", "ROUGE-L")
    return Rows("crossed", columns, rows)


def _draw(path: Path, means: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """A panel a person whose words are asked; the points are those who speak."""
    people = [name for name in means if name != FROZEN]
    panels = {
        f"words of {whose}": {"perplexity": {who: means[who][whose]["perplexity"] for who in means}}
        for whose in people
    }
    return draw_panels(path, panels, "who speaks", "perplexity")
