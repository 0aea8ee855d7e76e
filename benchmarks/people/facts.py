"""What is known of a person: ten facts, told again and again in other words."""

import random

from benchmarks.people.examples import Past, Question, TaskOfPerson
from benchmarks.people.known_facts import FACTS

KNOWN = 10
"""Facts about one person."""

LEADS = (
    "", "Monday: ", "Note to self: ", "Dear diary, ", "A long day. ", "Rain again. ", "By the way: ",
    "Before I forget: ", "At breakfast I thought of it. ", "Sunny at last. ", "In short: ", "PS: ",
)  # fmt: skip


def task(rng: random.Random, history: int, validation: int, test: int) -> TaskOfPerson:
    """
    The facts of one person.

    Each fact has two wordings that are never told: one is asked for validation, the other in the test,
    so there are at most ``KNOWN`` questions in each.
    """
    facts = rng.sample(FACTS, KNOWN)
    values = [rng.choice(fact.values) for fact in facts]
    told = []
    while len(told) < history:
        # Every fact once, then every fact again: the newest ten examples tell all.
        for place in rng.sample(range(KNOWN), KNOWN):
            fact, value = facts[place], values[place]
            note = f"{rng.choice(LEADS)}{fact.note.format(value)}"
            told.append(Past(note, rng.choice(fact.asked), fact.answer.format(value)))
    pairs = list(zip(facts, values, strict=True))
    return TaskOfPerson(
        tuple(told[-history:]),
        tuple(Question(fact.held_out[0], value) for fact, value in pairs[:validation]),
        tuple(Question(fact.held_out[1], value) for fact, value in pairs[:test]),
    )
