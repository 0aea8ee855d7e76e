import math

import pytest

from benchmarks.retrieval import Bm25

TEXTS = ["the cat sat", "the dog sat on the mat", "a bird"]


def test_scores_are_those_of_the_formula():
    weight = math.log(1 + (3 - 1 + 0.5) / 1.5)  # one of three texts has the word
    mean = (3 + 6 + 2) / 3
    expected = weight * 1 * 2.2 / (1 + 1.2 * (0.25 + 0.75 * 3 / mean))
    assert Bm25(TEXTS).scores("CAT?") == pytest.approx([expected, 0, 0])
    both = math.log(1 + (3 - 2 + 0.5) / 2.5)
    twice = both * 2 * 2.2 / (2 + 1.2 * (0.25 + 0.75 * 6 / mean))
    assert Bm25(TEXTS).scores("the the")[1] == pytest.approx(twice)


def test_the_best_come_first_and_newer_ones_before_their_equals():
    found = Bm25(["one apple", "two pears", "one apple", "three"])
    assert found.best("apple", 3) == [2, 0, 3]
    assert found.best("apple", 9) == [2, 0, 3, 1]


def test_nothing_is_found_among_nothing():
    assert Bm25([]).best("anything", 4) == []
    assert Bm25(["", "word"]).scores("word")[0] == 0
