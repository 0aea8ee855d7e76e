"""Two outings, and the one the person takes: one quality decides, a second where the first is equal."""

import random
from typing import NamedTuple

from benchmarks.people.examples import Past, Question, TaskOfPerson
from benchmarks.people.wording import Words, balanced, words

OPTIONS = ("first", "second")

TIES = 0.25
"""Share of pairs that are equal in the quality that decides."""

QUALITIES = {
    "place": (
        words(
            "a walk in the woods", "rowing on the lake", "a picnic on the hill",
            "birdwatching in the marsh", "a swim in the river", "gardening",
            "a bicycle ride along the canal", "kite flying on the beach",
        ),
        words(
            "a film at the cinema", "an hour in the library", "a visit to the museum",
            "a board game at the kitchen table", "an evening at the theatre", "the sauna",
            "a puzzle on the sofa", "a lecture in the town hall",
        ),
    ),
    "company": (
        words(
            "alone", "on my own", "by myself", "with nobody else", "in my own company",
            "without anyone",
        ),
        words(
            "with friends", "with a large group", "with the whole family", "in good company",
            "with the neighbours", "with everyone from work",
        ),
    ),
    "time": (
        words(
            "at dawn", "early in the morning", "before breakfast", "at first light", "at sunrise",
            "at seven in the morning",
        ),
        words(
            "late at night", "after dark", "at midnight", "after ten in the evening",
            "in the small hours", "by moonlight",
        ),
    ),
}  # fmt: skip

WORDINGS = Words(
    (
        "Which would I choose? First: {}. Second: {}.",
        "What do I prefer, the first or the second? First: {}. Second: {}.",
        "Decide for me. First: {}. Second: {}.",
    ),
    (
        "First: {}. Second: {}. Which one is for me?",
        "I can have one of two. First: {}. Second: {}. Which do I take?",
    ),
)


class Pair(NamedTuple):
    """Two outings in words, and which of them is taken."""

    first: str
    second: str
    answer: str


def task(rng: random.Random, history: int, validation: int, test: int) -> TaskOfPerson:
    """Which outings one person prefers."""
    decisive, second = rng.sample(tuple(QUALITIES), 2)
    liked = {quality: rng.randrange(2) for quality in QUALITIES}
    taken: set[tuple[str, str]] = set()

    def outing(sides: dict[str, int], asked: bool) -> str:
        return " ".join(QUALITIES[name][side].draw(rng, asked) for name, side in sides.items())

    def pair(answer: str, asked: bool) -> Pair:
        taking = {name: rng.randrange(2) for name in QUALITIES}
        leaving = {name: rng.randrange(2) for name in QUALITIES}
        if rng.random() < TIES:
            leaving[decisive] = taking[decisive]
            taking[second], leaving[second] = liked[second], 1 - liked[second]
        else:
            taking[decisive], leaving[decisive] = liked[decisive], 1 - liked[decisive]
        chosen, other = outing(taking, asked), outing(leaving, asked)
        return Pair(chosen, other, answer) if answer == "first" else Pair(other, chosen, answer)

    def pairs(count: int, asked: bool) -> list[Pair]:
        found: list[Pair] = []
        for answer in balanced(rng, OPTIONS, count):
            while (made := pair(answer, asked))[:2] in taken or made.first == made.second:
                pass
            taken.add(made[:2])
            found.append(made)
        return found

    def past(made: Pair) -> Past:
        note = f"First: {made.first}. Second: {made.second}. I took the {made.answer}."
        return Past(note, WORDINGS.draw(rng, asked=False).format(*made[:2]), made.answer)

    told = [past(made) for made in pairs(history, asked=False)]
    questions = [
        Question(WORDINGS.draw(rng, asked=True).format(*made[:2]), made.answer, OPTIONS)
        for made in pairs(validation + test, asked=True)
    ]
    return TaskOfPerson(tuple(told), tuple(questions[:validation]), tuple(questions[validation:]))
