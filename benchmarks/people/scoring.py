"""How the answers of each task are judged."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from benchmarks.metrics import accuracy, macro_f1, mean_absolute_error, rouge_l
from benchmarks.people.examples import Question

Metric = Callable[[Sequence[str], Sequence[str]], float]

SPAN = 4
"""From the worst mark to the best."""


@dataclass(frozen=True, slots=True)
class Scoring:
    """Of one task."""

    score: Metric
    """The one figure that is compared over tasks: 0 to 1, more is better. Takes answers and right ones."""

    details: tuple[tuple[str, Metric], ...] = ()
    """Further figures for the report, by name."""

    answer_tokens: int = 0
    """Most tokens of an answer, where it is written freely."""

    def figures(self, answers: Sequence[str], questions: Sequence[Question]) -> dict[str, float]:
        """All figures of some answers, ``score`` among them."""
        right = [question.answer for question in questions]
        every = (("score", self.score), *self.details)
        return {name: metric(answers, right) for name, metric in every}


def named(answers: Sequence[str], right: Sequence[str]) -> float:
    """Share of answers that name what is right, among whatever words and in whatever case."""
    pairs = zip(answers, right, strict=True)
    return fmean(value.lower() in answer.lower() for answer, value in pairs)


def closeness(answers: Sequence[str], right: Sequence[str]) -> float:
    """1 for the right mark, 0 for the opposite end of the scale."""
    return 1 - mean_absolute_error(answers, right) / SPAN


def mean_rouge_l(answers: Sequence[str], right: Sequence[str]) -> float:
    """The mean of ROUGE-L."""
    return fmean(rouge_l(a, b) for a, b in zip(answers, right, strict=True))


SCORINGS = {
    "choice": Scoring(accuracy),
    "tag": Scoring(accuracy, (("macro_f1", macro_f1),)),
    "rating": Scoring(closeness, (("mae", mean_absolute_error), ("accuracy", accuracy))),
    "style": Scoring(mean_rouge_l, answer_tokens=64),
    "facts": Scoring(named, answer_tokens=24),
    "drift": Scoring(accuracy, (("macro_f1", macro_f1),)),
}
"""By task."""
