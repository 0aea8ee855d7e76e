"""
LaMP's own questions (arXiv 2304.11406) from a local folder, as people of this package.

A folder holds a split of one task as LaMP publishes it: `*_questions.json`, a list of
`{"id", "input", "profile": [{...}, ...]}`, and beside it `*_outputs.json`,
`{"task": "LaMP_2", "golds": [{"id", "output"}, ...]}`. Each question comes with a profile of its
own, so each is a person with one question.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.errors import BenchmarkError
from benchmarks.people.examples import Past, Person, Question, TaskOfPerson

MOVIE_TAGS = (
    "sci-fi", "based on a book", "comedy", "action", "twist ending", "dystopia", "dark comedy",
    "classic", "psychology", "fantasy", "romance", "thought-provoking", "social commentary",
    "violence", "true story",
)  # fmt: skip

Entry = Mapping[str, Any]


class LampError(BenchmarkError):
    """The folder does not hold what LaMP publishes."""


@dataclass(frozen=True, slots=True)
class Form:
    """One of LaMP's tasks in the words of this package."""

    task: str
    """Name of the synthetic task that is scored alike."""

    past: Callable[[Entry], Past]
    """What an entry of a profile says."""

    options: tuple[str, ...] = ()


def _pair(question: str, asked: str, answer: str) -> Callable[[Entry], Past]:
    """Entries with a text (field ``asked``) and what the person made of it (field ``answer``)."""

    def past(entry: Entry) -> Past:
        text, made = str(entry[asked]), str(entry[answer])
        return Past(f"{text} {answer.capitalize()}: {made}", f"{question} {text}", made)

    return past


FORMS = {
    "LaMP_1": Form("choice", lambda e: Past(f"{e['title']}. {e['abstract']}"), ("[1]", "[2]")),
    "LaMP_2": Form("tag", _pair("Which tag does this movie relate to?", "description", "tag"), MOVIE_TAGS),
    "LaMP_3": Form(
        "rating",
        _pair("What is the score of the following review on a scale of 1 to 5?", "text", "score"),
        ("1", "2", "3", "4", "5"),
    ),
    "LaMP_4": Form("style", _pair("Generate a headline for the following article:", "text", "title")),
    "LaMP_5": Form(
        "style",
        _pair("Generate a title for the following abstract of a paper:", "abstract", "title"),
    ),
    "LaMP_6": Form("style", _pair("Generate a subject for the following email:", "text", "title")),
    "LaMP_7": Form("style", lambda e: Past(str(e["text"]))),
}  # fmt: skip


def lamp_people(folder: Path, split: str, limit: int | None = None) -> list[Person]:
    """
    The people of one split, in LaMP's order.

    Args:
        folder: Has ``<split>_questions.json`` and ``<split>_outputs.json``.
        split: train, dev or test; LaMP keeps the outputs of the last to itself.
        limit: Most people.

    Raises:
        LampError: A file is missing or not as LaMP writes it, or the task is unknown.

    """
    golds = _read(folder / f"{split}_outputs.json")
    questions = _read(folder / f"{split}_questions.json")
    try:
        form = FORMS[_plain(golds["task"])]
        outputs = {str(gold["id"]): str(gold["output"]) for gold in golds["golds"]}
        return [
            _person(form, f"{golds['task']}-{question['id']}", question, outputs)
            for question in questions[:limit]
        ]
    except (KeyError, TypeError) as error:
        raise LampError(f"{folder}, split {split}: not as LaMP writes it ({error!r})") from error


def _person(form: Form, name: str, question: Entry, outputs: Mapping[str, str]) -> Person:
    answer = outputs[str(question["id"])]
    history = tuple(form.past(entry) for entry in question["profile"])
    asked = Question(str(question["input"]), answer, form.options)
    return Person(name, {form.task: TaskOfPerson(history, (), (asked,))})


def _plain(task: str) -> str:
    """LaMP writes LaMP_2 and LaMP-2; newer files of the second task say LaMP_2N or LaMP_2M."""
    found = re.fullmatch(r"LaMP[-_ ]?([1-7])[A-Z]?", task)
    if found is None:
        raise KeyError(task)
    return f"LaMP_{found[1]}"


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise LampError(f"cannot read {path}: {error}") from error
