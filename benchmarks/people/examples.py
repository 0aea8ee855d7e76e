"""What a person's history and their questions are made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest


@dataclass(frozen=True, slots=True)
class Past:
    """Something the person did, as they keep it."""

    note: str
    """As a line of their notes; holds all that the question and the answer tell."""

    question: str = ""
    """As a question to an assistant; empty where the history holds no questions."""

    answer: str = ""


@dataclass(frozen=True, slots=True)
class Question:
    """Something to be answered as the person would."""

    text: str
    answer: str
    options: tuple[str, ...] = ()
    """All answers that are possible; none where the answer is to be written freely."""


@dataclass(frozen=True, slots=True)
class TaskOfPerson:
    """One person's history and questions in one task."""

    history: tuple[Past, ...]
    """Oldest first."""

    validation: tuple[Question, ...]
    test: tuple[Question, ...]

    def profile(self, size: int) -> tuple[Past, ...]:
        """The newest ``size`` of the history, oldest first."""
        return self.history[-size:] if size else ()


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody of whom nothing is known but what they did."""

    name: str
    tasks: Mapping[str, TaskOfPerson]
    """By name of the task."""

    def profile(self, size: int) -> list[Past]:
        """The newest ``size`` of each task in order of time, the tasks in turn."""
        return in_turn([task.profile(size) for task in self.tasks.values()])


def in_turn(profiles: Sequence[Sequence[Past]]) -> list[Past]:
    """One of each profile, then the next of each; short ones end earlier."""
    return [one for turn in zip_longest(*profiles) for one in turn if one is not None]
