import numpy as np
import pytest

from device_agent.runtime.head import EXACT, Head
from device_agent.runtime.kits import DamagedKit
from tests.device_agent.small_kit import HIDDEN, VOCABULARY, random_head, small_kit


@pytest.fixture
def states():
    return np.random.default_rng(1).standard_normal((5, HIDDEN)).astype(np.float32) * 3


def test_rows_are_codes_less_the_zero_point_times_scales(tmp_path):
    truth = random_head()
    head = Head(small_kit(tmp_path, truth), threads=1)
    ids = np.array([7, 0, 95, 7], dtype=np.int64)
    rows, bias = head.rows(ids)
    assert rows.dtype == bias.dtype == np.float32
    np.testing.assert_array_equal(rows, truth.rows[ids])
    np.testing.assert_array_equal(bias, truth.bias[ids])


def test_more_rows_than_are_read_at_a_time_come_in_their_order(tmp_path):
    truth = random_head()
    ids = np.random.default_rng(2).integers(0, VOCABULARY, 2000).astype(np.uint32)
    rows, _ = Head(small_kit(tmp_path, truth), threads=1).rows(ids)
    np.testing.assert_array_equal(rows, truth.rows[ids])


def test_no_rows_are_no_rows(tmp_path):
    rows, bias = Head(small_kit(tmp_path), threads=1).rows(np.array([], dtype=np.int64))
    assert rows.shape == (0, HIDDEN)
    assert bias.shape == (0,)


@pytest.mark.parametrize("softcap", [None, 4.0])
def test_the_highest_logits_are_exact_and_the_others_close(tmp_path, states, softcap):
    truth = random_head(softcap=softcap)
    logits = Head(small_kit(tmp_path, truth), threads=1).logits(states)
    expected = truth.logits(states)
    assert logits.shape == (5, VOCABULARY)
    top = np.argsort(-expected, axis=1)[:, : EXACT // 2]
    np.testing.assert_allclose(
        np.take_along_axis(logits, top, 1), np.take_along_axis(expected, top, 1), atol=1e-5
    )
    np.testing.assert_allclose(logits, expected, atol=0.1)


def test_the_rounding_that_is_repaired_is_there(tmp_path, states):
    # Else the test of exactness would hold without the repair.
    truth = random_head()
    logits = Head(small_kit(tmp_path, truth), threads=1).logits(states)
    worst = np.argsort(-truth.logits(states), axis=1)[:, EXACT:]
    error = np.take_along_axis(logits - truth.logits(states), worst, 1)
    assert np.abs(error).max() > 1e-3


def test_a_vocabulary_smaller_than_the_exact_part_is_exact_throughout(tmp_path, states):
    truth = random_head(vocabulary=16)
    logits = Head(small_kit(tmp_path, truth), threads=1).logits(states)
    np.testing.assert_allclose(logits, truth.logits(states), atol=1e-5)


@pytest.mark.parametrize("name", ["head.codes", "head.scales", "head.bias"])
def test_a_file_of_another_size_is_refused_by_name(tmp_path, name):
    kit = small_kit(tmp_path)
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DamagedKit, match=name):
        Head(kit, threads=1)
