import numpy as np
import pytest

from device_agent.data.examples import Encoded
from device_agent.data.tap_cache import DamagedFeatures
from device_agent.runtime.head import Head
from device_agent.training.batches import FeatureRows, Order, Run, batch_size
from device_agent.training.shortlist import Shortlist
from tests.device_agent.small_kit import HIDDEN, TAPS, random_head
from tests.device_agent.teaching import filled_cache, states_of, teaching_kit


def text(first, count, skipped=()):
    scored = np.ones(count, np.float32)
    scored[list(skipped)] = 0
    return Encoded(np.arange(first, first + count + 1).astype(np.uint32) % 26, scored)


TEXTS = [text(0, 20), text(5, 7, skipped=(0, 1, 4)), text(9, 1)]
COUNT = 20 + 4 + 1


@pytest.fixture
def rows(tmp_path):
    kit = teaching_kit(tmp_path / "kit")
    return FeatureRows(filled_cache(tmp_path / "features", kit, TEXTS), TEXTS)


def test_rows_are_the_scored_positions_of_all_texts(rows):
    assert len(rows) == COUNT
    assert rows.tokens.tolist() == [*range(1, 21), 8, 9, 11, 12, 10]
    assert rows.scored.tolist() == [1] * COUNT


@pytest.mark.parametrize(("start", "stop"), [(0, COUNT), (3, 9), (18, 23), (21, 23), (24, 25)])
def test_what_is_read_is_what_the_backbone_said(rows, start, stop):
    head = random_head()
    taps = np.empty((len(TAPS), stop - start, HIDDEN), np.float32)
    final = np.empty((stop - start, HIDDEN), np.float32)
    log_z = rows.read([*rows.cut(start, stop)], taps, final)
    whole = [states_of(one.fed, head) for one in TEXTS]
    expected = np.concatenate(
        [s.taps[:, t.rows] for s, t in zip(whole, TEXTS, strict=True)], axis=1
    )
    np.testing.assert_allclose(taps, expected[:, start:stop], rtol=1e-3, atol=1e-6)
    finals = np.concatenate([s.final[t.rows] for s, t in zip(whole, TEXTS, strict=True)])
    np.testing.assert_allclose(final, finals[start:stop], rtol=1e-3, atol=1e-6)
    every = np.concatenate([s.log_z[t.rows] for s, t in zip(whole, TEXTS, strict=True)])
    assert log_z.tolist() == every[start:stop].tolist()


def test_rest_is_the_share_outside_of_each_row(rows, tmp_path):
    truth = random_head()
    shortlist = Shortlist.of(Head(teaching_kit(tmp_path / "again"), 1), np.arange(30))
    rows.fill_rest(shortlist, HIDDEN, None)
    finals = np.empty((COUNT, HIDDEN), np.float32)
    rows.read([*rows.cut(0, COUNT)], None, finals)
    odds = np.exp(truth.logits(finals))
    np.testing.assert_allclose(rows.rest, odds[:, 30:].sum(1) / odds.sum(1), atol=5e-3)


def test_features_that_vanished_are_missed(rows, tmp_path):
    for path in (tmp_path / "features").rglob("*.taps"):
        path.unlink()
    with pytest.raises(DamagedFeatures, match="gone"):
        rows.read([Run(0, 1)], None, np.empty((1, HIDDEN), np.float32))


STARTS, ONCE = np.array([0, 20, 24, 25]), np.ones(3, np.int64)


def of_epoch(order, batches):
    return [place for n in range(batches) for run in order.batch(n) for place in range(*run)]


@pytest.mark.parametrize("most", [1, 4, 6, 25, 100])
def test_batches_are_equal_and_hold_no_row_twice(most):
    batches, size = batch_size(COUNT, most)
    order = Order(STARTS, ONCE, segment=3, size=size, seed=(0, 0))
    sizes = {sum(run.stop - run.start for run in order.batch(n)) for n in range(batches)}
    assert sizes == {size}
    assert size <= most
    places = of_epoch(order, batches)
    assert len(set(places)) == len(places) == batches * size
    assert COUNT - len(places) < batches


def test_rows_of_a_segment_stay_together():
    order = Order(STARTS, ONCE, segment=5, size=COUNT, seed=(0, 1))
    lengths = sorted(run.stop - run.start for run in order.batch(0))
    assert lengths == [1, 4, 5, 5, 5, 5]


def test_no_run_reaches_over_the_end_of_a_text():
    order = Order(STARTS, ONCE, segment=100, size=5, seed=(1, 2))
    for number in range(5):
        for run in order.batch(number):
            assert np.searchsorted(STARTS, run.start, "right") == np.searchsorted(
                STARTS, run.stop - 1, "right"
            )


def test_the_order_depends_on_seed_and_epoch_alone():
    def places(seed):
        return of_epoch(Order(STARTS, ONCE, segment=2, size=5, seed=seed), 5)

    assert places((3, 1)) == places((3, 1))
    assert places((3, 1)) != places((3, 2))
    assert places((3, 1)) != places((4, 1))


def test_a_text_may_be_read_several_times_an_epoch():
    repeats = np.array([1, 3, 2])
    batches, size = batch_size(20 + 3 * 4 + 2, 6)
    places = of_epoch(Order(STARTS, repeats, segment=3, size=size, seed=(0, 0)), batches)
    left_over = 34 - batches * size
    counts = [places.count(place) for place in range(25)]
    assert (
        sum(([1] * 20 + [3] * 4 + [2])[place] - counts[place] for place in range(25)) == left_over
    )
    assert all(
        count <= often for count, often in zip(counts, [1] * 20 + [3] * 4 + [2], strict=True)
    )
