"""Figures of answers against what would have been right."""

import random
import re
from collections.abc import Sequence
from statistics import fmean

_TOKEN = re.compile(r"[a-z0-9]+")

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


def rouge_l(answer: str, reference: str) -> float:
    """
    F1 of the longest common subsequence of words (Lin, "ROUGE", 2004), in [0, 1].

    Words are runs of a-z and 0-9 in lower case, without stemming, as the package rouge-score cuts them.
    """
    ours, theirs = _TOKEN.findall(answer.lower()), _TOKEN.findall(reference.lower())
    common = _longest_common(ours, theirs)
    return 2 * common / (len(ours) + len(theirs)) if common else 0.0


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


def _longest_common(ours: Sequence[str], theirs: Sequence[str]) -> int:
    """Length of the longest common subsequence, a row of the table at a time."""
    row = [0] * (len(theirs) + 1)
    for word in ours:
        diagonal = 0
        for place, other in enumerate(theirs, start=1):
            above = row[place]
            row[place] = diagonal + 1 if word == other else max(above, row[place - 1])
            diagonal = above
    return row[-1]
