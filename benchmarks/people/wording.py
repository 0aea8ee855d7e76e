"""Words and wordings in two halves, so that what is asked never repeats what was told."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

TRIES = 200
"""Draws in a row that may repeat earlier ones before a generator counts as exhausted."""


@dataclass(frozen=True, slots=True)
class Words:
    """One list, cut in two."""

    told: tuple[str, ...]
    """For histories."""

    asked: tuple[str, ...]
    """For questions."""

    def draw(self, rng: random.Random, asked: bool) -> str:
        return rng.choice(self.asked if asked else self.told)


def words(*all_of_them: str) -> Words:
    """Every other word is for questions."""
    return Words(all_of_them[::2], all_of_them[1::2])


def balanced(rng: random.Random, values: Sequence[T], count: int) -> list[T]:
    """``count`` values in an order of chance; any two appear equally often, but for one."""
    drawn: list[T] = []
    while len(drawn) < count:
        drawn += rng.sample(list(values), len(values))
    return drawn[:count]


def distinct(make: Callable[[T], str], wanted: Sequence[T], taken: set[str]) -> list[str]:
    """A text for each of ``wanted``, none of them alike and none in ``taken``, which grows."""
    texts = []
    for value in wanted:
        text = next((one for one in (make(value) for _ in range(TRIES)) if one not in taken), None)
        if text is None:
            raise ValueError(f"no new text can be made for {value!r}")
        taken.add(text)
        texts.append(text)
    return texts


def sentence(text: str) -> str:
    """With a capital at the start and a full stop."""
    return f"{text[0].upper()}{text[1:]}."
