"""A seed makes a person, the same on every machine."""

import random

from benchmarks.people import choice, drift, facts, rating, style, tag
from benchmarks.people.examples import Person

HISTORY = 500
"""Examples of each task; the largest profile."""

VALIDATION, TEST = 6, 12
"""Questions of each task; of `facts` there are ten at most."""

TASKS = {
    "choice": choice.task,
    "tag": tag.task,
    "rating": rating.task,
    "style": style.task,
    "facts": facts.task,
    "drift": drift.task,
}
"""How each task's history and questions are made. To add one: a module and a row here."""


def synthetic_person(
    seed: int, history: int = HISTORY, validation: int = VALIDATION, test: int = TEST
) -> Person:
    """
    The person of a seed.

    Args:
        seed: Of everything.
        history: Examples of each task.
        validation: Questions of each task to choose by.
        test: Questions of each task, others than those.
    """
    tasks = {
        # Each task draws for itself: a word more in one list leaves the other tasks as they were.
        name: make(random.Random(f"{seed} {name}"), history, validation, test)
        for name, make in TASKS.items()
    }
    return Person(f"synthetic-{seed}", tasks)
