"""Cafés in words and the person's marks, one to five: two of four aspects count, each in its own way."""

import random

from benchmarks.people.examples import Past, Question, TaskOfPerson
from benchmarks.people.wording import Words, balanced, distinct, words

OPTIONS = ("1", "2", "3", "4", "5")

MARKS = {5: (True, True), 4: (True, False), 2: (False, True), 1: (False, False)}
"""What the first and the second aspect that count must be like for a mark; nothing is said of either for a 3."""

ASPECTS = {
    "food": (
        words(
            "the soup was rich", "the cake was fresh", "the pie was crisp", "the bread was warm",
            "the salad was bright", "the pancakes were light",
        ),
        words(
            "the soup was cold", "the cake was dry", "the pie was soggy", "the bread was stale",
            "the salad was limp", "the pancakes were burnt",
        ),
    ),
    "service": (
        words(
            "the waiter smiled", "they brought water at once", "everyone was polite",
            "we were served quickly", "they remembered my name", "the staff were kind",
        ),
        words(
            "the waiter sulked", "nobody brought water", "everyone was rude",
            "we waited for an hour", "they mixed up the order", "the staff ignored us",
        ),
    ),
    "noise": (
        words(
            "the room was silent", "one could hear a clock tick", "nobody raised a voice",
            "there was no music", "it was hushed", "it was peaceful",
        ),
        words(
            "the room was loud", "a band was playing", "children were shouting",
            "the music was turned up", "it was roaring", "it was full of chatter",
        ),
    ),
    "price": (
        words(
            "it cost next to nothing", "the prices were low", "I paid only a few coins",
            "the bill was small", "it was a bargain", "the menu was cheap",
        ),
        words(
            "it cost a fortune", "the prices were steep", "I paid far too much",
            "the bill was huge", "it was a rip-off", "the menu was expensive",
        ),
    ),
}  # fmt: skip

CAFES = words(
    "Hollyhock", "Stonebridge", "Fairweather", "Larkspur", "Old Mill", "Blue Door", "Corner House",
    "Magnolia", "Station", "Pelican", "Lighthouse", "Orchard", "Violet", "Anchor",
)  # fmt: skip

WORDINGS = Words(
    (
        "How many points do I give, one to five? {}",
        "What is my mark from 1 to 5? {}",
        "Rate this for me, 1 to 5. {}",
    ),
    ("{} What would I score it, between 1 and 5?", "{} Between 1 and 5, which is my verdict?"),
)


def task(rng: random.Random, history: int, validation: int, test: int) -> TaskOfPerson:
    """What one person thinks of cafés."""
    names = tuple(ASPECTS)
    first, second, *idle = rng.sample(names, len(names))
    # Some like it loud, or dear.
    good = {name: rng.randrange(2) for name in names}
    taken: set[str] = set()

    def make(mark: int, asked: bool) -> str:
        sides = {name: rng.randrange(2) for name in idle}
        if mark in MARKS:
            del sides[rng.choice(idle)]
            for name, liked in zip((first, second), MARKS[mark], strict=True):
                sides[name] = good[name] if liked else 1 - good[name]
        told = [ASPECTS[name][side].draw(rng, asked) for name, side in sides.items()]
        rng.shuffle(told)
        return f"At the {CAFES.draw(rng, asked)} {', '.join(told[:-1])}, and {told[-1]}."

    def visits(count: int, asked: bool) -> list[tuple[str, str]]:
        marks = balanced(rng, range(1, 6), count)
        texts = distinct(lambda mark: make(mark, asked), marks, taken)
        return [(text, str(mark)) for text, mark in zip(texts, marks, strict=True)]

    told = [
        Past(f"{text} My mark: {mark}", WORDINGS.draw(rng, asked=False).format(text), mark)
        for text, mark in visits(history, asked=False)
    ]
    questions = [
        Question(WORDINGS.draw(rng, asked=True).format(text), mark, OPTIONS)
        for text, mark in visits(validation + test, asked=True)
    ]
    return TaskOfPerson(tuple(told), tuple(questions[:validation]), tuple(questions[validation:]))
