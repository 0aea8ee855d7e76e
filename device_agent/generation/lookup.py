"""What may come next because it came next before: in the text at hand, or in the person's own."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

TAIL = 3
"""Tokens that have to agree before the ones behind them are taken for a guess; two are met everywhere."""

Ids = NDArray[np.uint32]


class Lookup:
    """The text so far, and texts that it may repeat.

    Args:
        tokens: The text so far, (T,).
        room: Most tokens that it can have.
        known: Other texts, one behind another, (N,); None for none.
    """

    def __init__(self, tokens: Sequence[int], room: int, known: Ids | None = None) -> None:
        self._text = np.empty(max(room, len(tokens)), np.uint32)
        self._text[: len(tokens)] = tokens
        self._size = len(tokens)
        self._known = known

    def add(self, token: int) -> None:
        """The text goes on."""
        if self._size < len(self._text):
            self._text[self._size] = token
            self._size += 1

    def guess(self, most: int) -> list[int]:
        """At most ``most`` tokens that came behind the text's last ones where they stood before.

        The newest place counts, and the text itself before the others; empty where there is none.
        """
        text = self._text[: self._size]
        if most < 1 or len(text) < TAIL:
            return []
        tail = text[-TAIL:]
        for known in (text, self._known):
            if known is not None and (place := _behind_last(known[:-1], tail)):
                return [int(i) for i in known[place : place + most]]
        return []


def _behind_last(text: Ids, tail: Ids) -> int:
    """Place behind the last one where ``tail`` stands in ``text`` (T,); 0 where there is none."""
    ends = TAIL - 1 + np.flatnonzero(text[TAIL - 1 :] == tail[-1])
    for back in range(1, TAIL):
        ends = ends[text[ends - back] == tail[-1 - back]]
    return int(ends[-1]) + 1 if len(ends) else 0
