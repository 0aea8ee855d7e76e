"""What a gate saves and loses, against sums by hand."""

import numpy as np
import pytest

from benchmarks.gate_curve import (
    MOST_SAID,
    Foreseen,
    Sizes,
    area_under_curve,
    kept,
    runs,
)

SIZES = Sizes(whole=600.0, final=500.0, taps=120.0)
TWO = Foreseen(
    base=np.array([4.0, 2.0, 6.0, 8.0, 1.0]),
    plugin=np.array([2.0, 3.0, 1.0, 2.0, 2.0]),
    need=np.array([0.9, 0.1, 0.7, 0.3, 0.2]),
    wrong=np.array([True, False, True, True, False]),
    starts=[0, 3, 5],
)


@pytest.mark.parametrize(
    ("opened", "said"),
    [
        ([], []),
        ([1, 1], [0, 0]),
        ([0, 0, 1, 0, 1], [2, 1]),
        ([0, 0], [2]),
        ([1, 0], [0, 1]),
        ([0] * MOST_SAID + [0, 1], [MOST_SAID, 0]),
        ([0] * (MOST_SAID + 3), [MOST_SAID, 2]),
    ],
)
def test_an_answer_says_everything_up_to_the_next_token_that_needs_the_device(opened, said):
    assert runs(np.array(opened, bool)) == said


def test_where_the_gate_is_open_the_plugin_foresees_and_elsewhere_the_backbone():
    assert TWO.nll(0.0) == pytest.approx(np.mean([2, 3, 1, 2, 2]))
    assert TWO.nll(2.0) == pytest.approx(np.mean([4, 2, 6, 8, 1]))
    assert TWO.nll(0.3) == pytest.approx(np.mean([2, 2, 1, 2, 1]))
    assert TWO.opened(0.3) == pytest.approx(0.6)


def test_bytes_are_those_of_the_answers():
    # One text: a row, then a row behind one token; the other: a row, then a token and the row behind it.
    assert TWO.cloud_bytes(0.3, SIZES) == pytest.approx((4 * 600 + 2 * 8) / 5)
    assert TWO.cloud_bytes(0.0, SIZES) == 600
    assert TWO.device_bytes(0.3, SIZES) == pytest.approx(500 + 0.6 * 120)


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.8, 1.0])
def test_a_threshold_opens_for_about_its_share(share):
    needs = np.random.default_rng(1).random(1000)
    many = Foreseen(needs, needs, needs, needs > 0.5, [0, 1000])
    assert many.opened(many.threshold(share)) == pytest.approx(share, abs=2e-3)


def test_the_area_under_the_curve_is_the_share_of_pairs_in_order():
    rng = np.random.default_rng(2)
    need, wrong = rng.integers(0, 6, 60).astype(float), rng.random(60) < 0.4
    pairs = [(a > b) + (a == b) / 2 for a in need[wrong] for b in need[~wrong]]
    assert area_under_curve(need, wrong) == pytest.approx(np.mean(pairs))
    assert area_under_curve(need, wrong | True) is None


def test_what_is_kept_is_a_share_of_a_gain():
    assert kept(3.0, 4.0, 2.0) == 0.5
    assert kept(3.0, 2.0, 2.0) is None
