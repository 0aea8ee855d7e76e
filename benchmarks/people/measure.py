"""
Six personal tasks, each with known answers: what does a device make of a profile of so many examples?

Four arms: the frozen backbone; the same with the most similar notes of the profile in the prompt (BM25, as many
as validation likes best); the device as it speaks after `sideplug learn` and `train`, without its memory
(`plugin`); and everything the device has, with notes in the prompt where validation likes that (`all`).
A profile of size N is the newest N examples of each task; one device learns all six tasks together, from
notes and from conversations.

Where a task has options the likeliest is taken, given by the probability of the whole answer; else the answer
is written. `score` is between 0 and 1 for every task: accuracy, 1 - error / 4 for marks, ROUGE-L for messages, and
for facts whether the value is named. How many notes go in the prompt is chosen for each task, size and arm by the mean over
all people's validation questions. Intervals are of the mean over people, 95 %, by bootstrap.

With --lamp FOLDER people come from LaMP's own files instead (split --split). With --text the documents of that
file are learned beside each profile, as a device knows other text of its person as well. With --results FOLDER the
same command goes on where it was.
"""

import argparse
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks import texts
from benchmarks.cells import Cell, Cells, cells
from benchmarks.metrics import bootstrap
from benchmarks.people.asking import answers, words_in
from benchmarks.people.examples import Person
from benchmarks.people.lamp import lamp_people
from benchmarks.people.scoring import SCORINGS
from benchmarks.people.synthetic import synthetic_person
from benchmarks.people.teaching import write_profile
from benchmarks.picture import draw_panels
from benchmarks.report import Figure, Outcome, Rows, say
from benchmarks.services import FEATURES, Cloud, Device, cloud, pull
from benchmarks.voice import Voice, voice

NAME = "people"
HELP = "six personal tasks of synthetic people: retrieval in the prompt against the device"

PEOPLE = 3
SIZES = (5, 20, 100)
VALIDATION, TEST = 4, 8
"""Questions of each task and person."""

NOTES = (2, 8)
"""How many notes may go in a prompt."""

ARMS = {"retrieval": NOTES, "plugin": (0,), "all": (0, *NOTES)}
"""Arms that know a profile, and between how many notes each chooses."""

LOOK = 64
"""Tokens read to see how fast this machine is."""

TOKENS_A_WORD = 1.6
"""Of notes and conversations with their template; sizes the estimate, no result hangs on it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the benchmark's own arguments."""
    parser.add_argument("--people", type=int, default=PEOPLE, metavar="N", help="how many people")
    parser.add_argument(
        "--sizes",
        type=int,
        nargs="+",
        default=list(SIZES),
        help="examples of each task; 500 at most",
    )
    parser.add_argument("--lamp", type=Path, metavar="FOLDER", help="LaMP's files of one task")
    parser.add_argument("--split", default="dev", help="of LaMP: train or dev")
    parser.add_argument("--results", type=Path, metavar="FOLDER", help="keep results, and go on")


def run(args: argparse.Namespace) -> Outcome:
    """Teaches a device for each person and size, chooses on validation, asks the test."""
    if args.quick:
        args.people, args.sizes = 1, args.sizes[:1]
    other = texts.from_file(args.text) if args.text else []
    people = _people(args)
    backbone = pull(args.backbone)
    with (
        cells(args.results, _identity(args, backbone.name)) as kept,
        cloud(backbone, "auto", args.threads) as service,
    ):
        course = Course(kept, service, args.threads, other)
        course.announce(people, args.sizes)
        for person in people:
            for size in args.sizes:
                course.teach(person, size)
        chosen = {
            size: {arm: course.choose(people, size, arm) for arm in ARMS} for size in args.sizes
        }
        found = {
            person.name: {
                "base": course.test(person, 0, "base", dict.fromkeys(person.tasks, 0)),
                **{
                    str(size): {
                        arm: course.test(person, size, arm, ks) for arm, ks in by_arm.items()
                    }
                    for size, by_arm in chosen.items()
                },
            }
            for person in people
        }
        lessons = {
            person.name: {str(size): course.teach(person, size) for size in args.sizes}
            for person in people
        }
    results = _results(found, chosen, args.sizes)
    if args.json:
        results["picture"] = _draw(args.json.with_suffix(".png"), results["means"])
    return Outcome(
        figures=_figures(results, args.sizes),
        results={**results, "people": found, "lessons": lessons},
        seeds=[args.seed],
        settings={**_identity(args, backbone.name), "people": len(people), "sizes": args.sizes},
        tables=_tables(results["means"]),
    )


class Course:
    """What is done with each person, kept step by step."""

    def __init__(
        self, kept: Cells, service: Cloud, threads: int, other: Sequence[texts.Document]
    ) -> None:
        self._kept, self._service, self._threads, self._other = kept, service, threads, other

    def announce(self, people: Sequence[Person], sizes: Sequence[int]) -> None:
        """Says about how long it will take, from a short look at how fast this machine reads."""
        home = self._kept.workspace / "looking"
        with voice(home, self._service.url, self._threads, base=True) as speaker:
            words = " ".join(["word"] * LOOK)
            began = time.perf_counter()
            speaker.log_likelihoods(words, ["yes"])
            pace = (time.perf_counter() - began) / LOOK
            began = time.perf_counter()
            speaker.write("Count to ten.", 8)
            step = (time.perf_counter() - began) / 8
        seconds = sum(_seconds(person, sizes, pace, step) for person in people)
        say(f"{len(people)} people, sizes {sizes}: about {max(1, round(seconds / 60))} minutes")

    def teach(self, person: Person, size: int) -> Cell:
        """Learn and train in a home of its own, as two commands; what training said and cost."""
        return self._kept.get(f"{person.name}/{size}/lesson", lambda: self._teach(person, size))

    def choose(self, people: Sequence[Person], size: int, arm: str) -> dict[str, int]:
        """By task, how many notes in the prompt do best on all people's validation questions; fewest of equals."""
        tasks = dict.fromkeys(task for person in people for task in person.tasks)
        allowed = ARMS[arm]
        if len(allowed) == 1:
            return dict.fromkeys(tasks, allowed[0])
        asked = {k: [self._validate(person, size, arm, k) for person in people] for k in allowed}

        def mean(task: str, k: int) -> float:
            return fmean(found[task]["score"] for found in asked[k] if task in found)

        return {
            # Without questions to choose by (LaMP's people have none) the most.
            task: max(allowed, key=lambda k, task=task: (mean(task, k), -k))
            if any(task in found for found in asked[allowed[0]])
            else max(allowed)
            for task in tasks
        }

    def test(
        self, person: Person, size: int, arm: str, notes: Mapping[str, int]
    ) -> dict[str, Cell]:
        """Figures and answers by task, with so many notes in the prompt."""
        return self._ask(person, size, arm, "test", notes)

    def _validate(self, person: Person, size: int, arm: str, k: int) -> dict[str, Cell]:
        judged = {task: k for task, one in person.tasks.items() if one.validation}
        return self._ask(person, size, arm, "validation", judged)

    def _ask(
        self, person: Person, size: int, arm: str, part: str, notes: Mapping[str, int]
    ) -> dict[str, Cell]:
        """A part's questions of those tasks in ``notes`` that the person has."""
        names = {
            task: f"{person.name}/{size}/{part}/{arm}-{task}-{k}"
            for task, k in notes.items()
            if task in person.tasks
        }
        missing = [task for task, name in names.items() if not self._kept.has(name)]
        if missing:
            say(f"{person.name}, size {size}, {part}, {arm}: {', '.join(missing)}")
            with self._voice(person, size, arm) as speaker:
                for task in missing:
                    ask = partial(_answers, speaker, person, task, size, part, notes[task])
                    self._kept.get(names[task], ask)
        return {task: self._kept.get(name, dict) for task, name in names.items()}

    def _voice(self, person: Person, size: int, arm: str) -> AbstractContextManager[Voice]:
        known = arm in ("plugin", "all")
        home = self._home(person, size) if known else self._kept.workspace / "looking"
        return voice(home, self._service.url, self._threads, base=not known, remembers=arm == "all")

    def _teach(self, person: Person, size: int) -> Cell:
        say(f"{person.name}, size {size}: learn and train")
        home = self._home(person, size)
        shutil.rmtree(home.parent, ignore_errors=True)
        home.parent.mkdir(parents=True)
        files = write_profile(person, size, home.parent)
        if self._other:
            # Before the profile: it is older, and the prefix is made of what is newest.
            files.insert(0, home.parent / "other.jsonl")
            lines = [json.dumps({"text": one.text}) for one in self._other]
            files[0].write_text("\n".join(lines) + "\n", encoding="utf-8")
        device = Device(home, self._service.url, self._threads)
        device.run("learn", *map(str, files))
        before = self._service.cpu_seconds()
        training = device.run("train")
        shutil.rmtree(home / FEATURES, ignore_errors=True)
        said = training.answer
        kept = ("promoted", "reason", "validation", "features", "plugin_bytes", "steps")
        return {
            **{name: said[name] for name in kept if name in said},
            "cpu_seconds": training.cpu_seconds,
            "seconds": training.seconds,
            "peak_memory": training.peak_bytes,
            "cloud_seconds": self._service.cpu_seconds() - before,
        }

    def _home(self, person: Person, size: int) -> Path:
        return self._kept.workspace / person.name / str(size) / "home"


def _answers(speaker: Voice, person: Person, task: str, size: int, part: str, k: int) -> Cell:
    one = person.tasks[task]
    questions = one.test if part == "test" else one.validation
    return answers(speaker, SCORINGS[task], one, questions, size, k)


def _people(args: argparse.Namespace) -> list[Person]:
    if args.lamp:
        return lamp_people(args.lamp, args.split, args.people)
    return [
        synthetic_person(args.seed + number, validation=VALIDATION, test=TEST)
        for number in range(args.people)
    ]


def _identity(args: argparse.Namespace, backbone: str) -> dict[str, Any]:
    """What results in one folder must have in common."""
    return {
        "backbone": backbone,
        "text": str(args.text) if args.text else None,
        "lamp": str(args.lamp) if args.lamp else None,
        "split": args.split if args.lamp else None,
        "first_seed": args.seed,
        "threads": args.threads,
        "notes": list(NOTES),
        "questions": [VALIDATION, TEST],
    }


def _seconds(person: Person, sizes: Sequence[int], pace: float, step: float) -> float:
    """About what one person takes, at ``pace`` seconds a token read and ``step`` a token written."""
    read = sum(words_in(person.profile(size)) for size in sizes) * TOKENS_A_WORD
    asked = written = 0.0
    for name, task in person.tasks.items():
        note = words_in(task.profile(20)) / max(1, len(task.profile(20))) * TOKENS_A_WORD
        choices = [k for ks in ARMS.values() if len(ks) > 1 for k in ks]
        prompts = len(task.validation) * len(choices) + len(task.test) * len(ARMS)
        asked += len(sizes) * prompts * (note + 60 + note * fmean(choices))
        written += len(sizes) * prompts * SCORINGS[name].answer_tokens * 0.6
    # Training costs about as much as reading; starting the commands a few seconds each.
    return 2 * read * pace + asked * pace + written * step + 15 * len(sizes)


def _results(
    found: Mapping[str, Mapping[str, Any]],
    chosen: Mapping[int, Mapping[str, Mapping[str, int]]],
    sizes: Sequence[int],
) -> dict[str, Any]:
    """Means over people with their intervals, and what everything gains on retrieval."""
    means: dict[str, Any] = {}
    tasks = dict.fromkeys(task for one in found.values() for task in one["base"])
    for task in tasks:
        arms = {"base": [one["base"][task] for one in found.values() if task in one["base"]]}
        means[task] = {"base": _means(arms["base"])}
        for size in sizes:
            means[task][str(size)] = {
                arm: _means([o[str(size)][arm][task] for o in found.values() if task in o["base"]])
                for arm in ARMS
            }
    gains = {name: mean_gain(one, sizes) for name, one in found.items()}
    return {
        "means": means,
        "notes_in_prompt": {str(size): dict(by_arm) for size, by_arm in chosen.items()},
        "gain_over_retrieval": gains,
        "mean_gain_over_retrieval_interval": list(bootstrap(list(gains.values()))),
    }


def mean_gain(person: Mapping[str, Any], sizes: Sequence[int], arm: str = "all") -> float:
    """By how much an arm's score is above that of retrieval, over sizes and tasks, of one person."""
    return fmean(
        person[str(size)][arm][task]["score"] - person[str(size)]["retrieval"][task]["score"]
        for size in sizes
        for task in person["base"]
    )


def _means(rows: Sequence[Cell]) -> dict[str, Any]:
    names = [name for name, value in rows[0].items() if isinstance(value, float | int)]
    found: dict[str, Any] = {name: fmean(row[name] for row in rows) for name in names}
    return {**found, "interval": list(bootstrap([row["score"] for row in rows]))}


def _figures(results: Mapping[str, Any], sizes: Sequence[int]) -> list[Figure]:
    low, high = results["mean_gain_over_retrieval_interval"]
    gains = list(results["gain_over_retrieval"].values())
    figures = [
        Figure(
            "mean_gain_over_retrieval",
            fmean(gains),
            f"mean score of all - of retrieval; interval {low:.3f} to {high:.3f}",
        ),
        Figure("mean_gain_over_retrieval_low", low, "lower end of its interval", at_least=0.0),
    ]
    if "facts" in results["means"] and 100 in sizes:
        right = results["means"]["facts"]["100"]["all"]["score"]
        figures.append(Figure("facts_at_100", right, "facts named at 100 examples", at_least=0.9))
    return figures


def _tables(means: Mapping[str, Mapping[str, Any]]) -> list[Rows]:
    rows = [
        [
            task,
            int(size),
            by_size["base"]["score"],
            *(arms[arm]["score"] for arm in ARMS),
            _shown(arms),
        ]
        for task, by_size in means.items()
        for size, arms in by_size.items()
        if size != "base"
    ]
    columns = ("task", "size", "base", *ARMS, "all: interval and more")
    return [Rows("mean score over people", columns, rows)]


def _shown(arms: Mapping[str, Mapping[str, Any]]) -> str:
    found = arms["all"]
    low, high = found["interval"]
    more = [
        f"{name} {value:.2f}" for name, value in found.items() if name not in ("score", "interval")
    ]
    return ", ".join([f"{low:.2f} to {high:.2f}", *more])


def _draw(path: Path, means: Mapping[str, Mapping[str, Any]]) -> str:
    panels: dict[str, dict[str, dict[int, float]]] = {}
    for task, by_size in means.items():
        sizes = [int(size) for size in by_size if size != "base"]
        base = {size: by_size["base"]["score"] for size in sizes}
        panels[task] = {"base": base} | {
            arm: {size: by_size[str(size)][arm]["score"] for size in sizes} for arm in ARMS
        }
    return draw_panels(path, panels, "examples of each task", "score", log_x=True)
