"""The newest answers, so that a person can say what was wrong with one. In memory only: nobody asked to keep them."""

from collections import OrderedDict
from dataclasses import dataclass

from device_agent.api.errors import NoSuchAnswer

MOST = 256
"""Answers that are remembered."""

Turns = tuple[tuple[str, str], ...]
"""(role, content) of each turn."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What was said to what."""

    model: str
    """Which version spoke, as feedback names it."""
    turns: Turns
    text: str


class Answers:
    """By the name that the answer went out with; the oldest goes first."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Answer] = OrderedDict()

    def keep(self, name: str, answer: Answer) -> None:
        """Remember one."""
        self._kept[name] = answer
        while len(self._kept) > MOST:
            self._kept.popitem(last=False)

    def get(self, name: str) -> Answer:
        """The one of that name.

        Raises:
            NoSuchAnswer: It is not remembered.
        """
        if name not in self._kept:
            raise NoSuchAnswer(name)
        return self._kept[name]
