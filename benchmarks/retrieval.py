"""Which notes resemble a question: Okapi BM25 over words."""

import math
import re
from collections import Counter
from collections.abc import Sequence

K1, B = 1.2, 0.75
"""Saturation of repeated words, and how much long notes are held back; the usual values."""

_WORD = re.compile(r"\w+")


class Bm25:
    """
    Ranks texts by a query (Robertson and Zaragoza, "The Probabilistic Relevance Framework", 2009).

    The weight of a word is ``log(1 + (N - n + 0.5) / (n + 0.5))`` for n of N texts that have it, which is never
    negative.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self._counts = [Counter(words_of(text)) for text in texts]
        self._lengths = [sum(counts.values()) for counts in self._counts]
        self._mean = sum(self._lengths) / len(texts) if texts else 0.0
        have = Counter(word for counts in self._counts for word in counts)
        self._weights = {
            word: math.log(1 + (len(texts) - n + 0.5) / (n + 0.5)) for word, n in have.items()
        }

    def scores(self, query: str) -> list[float]:
        """Of each text, in their order."""
        asked = set(words_of(query))
        return [
            self._score(asked, counts, length)
            for counts, length in zip(self._counts, self._lengths, strict=True)
        ]

    def best(self, query: str, count: int) -> list[int]:
        """Places of the ``count`` best texts, best first; of equals the later one, as it is newer."""
        scores = self.scores(query)
        order = sorted(range(len(scores)), key=lambda place: (scores[place], place), reverse=True)
        return order[:count]

    def _score(self, asked: set[str], counts: Counter[str], length: int) -> float:
        slow = K1 * (1 - B + B * length / self._mean) if length else 1.0
        return sum(
            self._weights[word] * counts[word] * (K1 + 1) / (counts[word] + slow)
            for word in asked & counts.keys()
        )


def words_of(text: str) -> list[str]:
    """Its words in lower case."""
    return _WORD.findall(text.lower())
