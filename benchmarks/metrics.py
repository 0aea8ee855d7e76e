"""Figures of answers against what would have been right."""

import random
from collections.abc import Sequence
from functools import cache
from statistics import fmean
from typing import Any

ROUGE = ("rouge1", "rouge2", "rougeL")
"""One word, two words in a row, and the longest common subsequence of words (Lin, "ROUGE", 2004)."""

RESAMPLES = 2000
LEVEL = 0.95
"""Of intervals."""


def accuracy(answers: Sequence[str], right: Sequence[str]) -> float:
    """Share of answers that are the right ones."""
    return fmean(a == b for a, b in zip(answers, right, strict=True))


def macro_f1(answers: Sequence[str], right: Sequence[str]) -> float:
    """The mean over labels of F1, of every label that was right or given at least once."""
    pairs = list(zip(answers, right, strict=True))
    labels = sorted({*answers, *right})
    return fmean(_f1(pairs, label) for label in labels)


def mean_absolute_error(answers: Sequence[str], right: Sequence[str]) -> float:
    """Of numbers in words of digits."""
    return fmean(abs(float(a) - float(b)) for a, b in zip(answers, right, strict=True))


def rouge(answer: str, reference: str) -> dict[str, float]:
    """F1 of each of ``ROUGE``, in [0, 1], without stemming."""
    found = _rouge_scorer().score(reference, answer)
    return {name: float(found[name].fmeasure) for name in ROUGE}


def rouge_l(answer: str, reference: str) -> float:
    """The last of ``rouge``."""
    return rouge(answer, reference)["rougeL"]


def bootstrap(values: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """
    The interval of the mean, by percentiles over samples of ``values`` drawn with replacement.

    Of one value it is that value: nothing is known of how it varies.
    """
    rng = random.Random(seed)
    means = sorted(fmean(rng.choices(values, k=len(values))) for _ in range(RESAMPLES))
    outside = round(RESAMPLES * (1 - LEVEL) / 2)
    return means[outside], means[-1 - outside]


def _f1(pairs: Sequence[tuple[str, str]], label: str) -> float:
    hits = sum(a == b == label for a, b in pairs)
    named = sum((a == label) + (b == label) for a, b in pairs)
    return 2 * hits / named


@cache
def _rouge_scorer() -> Any:
    # Imported late: it brings a whole library along for a stemmer that is not used.
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(list(ROUGE))
