"""Which tokens need the device."""

import math

import numpy as np
import pytest

from protocol.errors import MalformedMessage
from protocol.gate import Gate
from tests.protocol.samples import GATED_REQUEST

ROW = np.array([1, -2, 3], np.float32)


@pytest.mark.parametrize("share", [1.0, 0.9, 0.5, 1e-6])
def test_without_a_classifier_the_need_is_what_is_left_to_other_tokens(share):
    assert Gate(0.5).need(None, math.log(share)) == pytest.approx(1 - share)
    assert Gate(0.5).opens(None, math.log(share)) is (1 - share >= 0.5)


def test_a_largest_probability_that_rounding_puts_above_one_leaves_nothing():
    assert Gate(0.5).need(None, 1e-6) == 0


def test_the_need_by_a_classifier_is_its_sigmoid():
    gate = Gate(0.5, (0.5, 0.25, -1.0), 0.75)
    score = 0.5 * 1 + 0.25 * -2 - 1.0 * 3 + 0.75
    assert gate.need(ROW, -9.0) == pytest.approx(1 / (1 + math.exp(-score)))


@pytest.mark.parametrize(("size", "need"), [(1e30, 1.0), (-1e30, 0.0)])
def test_a_classifier_beyond_all_measure_is_sure(size, need):
    assert Gate(0.5, (size, 0.0, 0.0)).need(ROW, 0.0) == pytest.approx(need, abs=1e-300)


def test_at_0_every_token_needs_the_device_and_at_1_none_that_is_foreseen_at_all():
    assert Gate(0.0).opens(None, 0.0)
    assert not Gate(1.0).opens(None, -20.0)


def test_what_is_no_number_needs_the_device():
    assert Gate(1.0).opens(None, math.nan)
    assert Gate(1.0, (1.0, 0.0, 0.0)).opens(np.array([np.nan, 0, 0], np.float32), 0.0)


def test_a_classifier_needs_the_final_state():
    with pytest.raises(ValueError, match="final state"):
        Gate(0.5, (1.0,)).need(None, 0.0)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"threshold": 1.5}, "threshold"),
        ({"threshold": "x"}, "threshold"),
        ({"row": []}, "a number for each"),
        ({"row": [1.0, None]}, "row"),
        ({"row": [1e39]}, "row"),
        ({"row": 1.0}, "row"),
        ({"bias": True}, "bias"),
        ({"bias": -1e39}, "bias"),
    ],
)
def test_a_gate_that_makes_no_sense_is_refused(change, reason):
    good = GATED_REQUEST.gate.to_json()
    assert Gate.from_json(good) == GATED_REQUEST.gate
    with pytest.raises(MalformedMessage, match=reason):
        Gate.from_json(good | change)


@pytest.mark.parametrize("threshold", [-0.1, 1.1, math.nan])
def test_a_threshold_is_a_share(threshold):
    with pytest.raises(MalformedMessage, match="from 0 to 1"):
        Gate(threshold)
