"""Metrics against sums done by hand."""

from statistics import fmean

import pytest

from benchmarks.metrics import accuracy, bootstrap, macro_f1, mean_absolute_error, rouge, rouge_l


def test_accuracy_and_error_by_hand():
    assert accuracy(["a", "b", "b"], ["a", "a", "b"]) == pytest.approx(2 / 3)
    assert mean_absolute_error(["1", "5", "3"], ["2", "2", "3"]) == pytest.approx(4 / 3)


def test_macro_f1_by_hand():
    # a: 1 hit of 1 named and 2 right; b: 1 of 2 and 1; c: named once, never right.
    answers, right = ["a", "b", "b", "c"], ["a", "a", "b", "b"]
    assert macro_f1(answers, right) == pytest.approx(fmean([2 / 3, 2 / 4, 0]))
    assert macro_f1(right, right) == 1


@pytest.mark.parametrize(
    ("answer", "reference", "expected"),
    [
        ("police kill the gunman", "police killed the gunman", 0.75),
        ("the gunman kill police", "police killed the gunman", 0.5),
        ("The quick, brown fox!", "the quick brown fox", 1.0),
        ("a b c d e", "a c e", 0.75),
        ("", "anything", 0.0),
        ("!!", "??", 0.0),
        ("testing one two", "testing", 0.5),
    ],
)
def test_rouge_l_is_that_of_its_definition(answer, reference, expected):
    assert rouge_l(answer, reference) == pytest.approx(expected)
    assert rouge_l(reference, answer) == pytest.approx(expected)


def test_rouge_counts_words_pairs_and_the_longest_subsequence():
    # Of 4 and 4 words: 3 are common, 1 pair of 3 and 3 is, and 3 stand in the same order.
    found = rouge("a library for shells", "a library of shells")
    assert found == pytest.approx({"rouge1": 3 / 4, "rouge2": 1 / 3, "rougeL": 3 / 4})
    swapped = rouge("shells library a for", "a library of shells")
    assert swapped == pytest.approx({"rouge1": 3 / 4, "rouge2": 0, "rougeL": 1 / 4})


def test_an_interval_holds_the_mean_and_narrows_with_more_values():
    few, many = [0.1, 0.3, 0.2, 0.6], [0.1, 0.3, 0.2, 0.6] * 16
    low, high = bootstrap(few)
    assert low < fmean(few) < high
    narrow = bootstrap(many)
    assert narrow[1] - narrow[0] < (high - low) / 2
    assert bootstrap(few) == bootstrap(few)
    assert bootstrap([0.25]) == (0.25, 0.25)


def test_an_interval_is_near_the_normal_one_where_that_holds():
    values = [n % 7 for n in range(350)]
    low, high = bootstrap(values)
    half = 1.96 * 2 / 350**0.5  # the standard deviation of 0 to 6 is 2
    assert (low, high) == pytest.approx((3 - half, 3 + half), abs=0.03)
