"""
Six personal tasks, each with known answers: what does a device make of a profile of so many examples?

Four arms: the frozen backbone; the same with the most similar notes of the profile in the prompt (BM25, as many
as validation likes best); the device as it speaks after `sideplug learn` and `train`, its memory switched
off (`plugin`); and everything the device has, with notes in the prompt where validation likes that (`all`).
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
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks import texts
from benchmarks.cells import Cell, cells
from benchmarks.metrics import bootstrap
from benchmarks.people.course import ARMS, NOTES, Course
from benchmarks.people.examples import Person
from benchmarks.people.lamp import lamp_people
from benchmarks.people.synthetic import synthetic_person
from benchmarks.picture import draw_panels
from benchmarks.report import Figure, Outcome, Rows
from benchmarks.services import cloud, pull

NAME = "people"
HELP = "six personal tasks of synthetic people: retrieval in the prompt against the device"

PEOPLE = 3
SIZES = (5, 20, 100)
VALIDATION, TEST = 4, 8
"""Questions of each task and person."""


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
