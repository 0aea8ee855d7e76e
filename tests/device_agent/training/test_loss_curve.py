"""A long run as a short curve."""

import pytest

from device_agent.training.course import Progress
from device_agent.training.journal import Journal
from device_agent.training.loss_curve import MOST, LossCurve
from device_agent.training.watcher import Watcher


def noted(steps):
    curve = LossCurve()
    for step in steps:
        curve.note(step, float(step))
    return curve


@pytest.mark.parametrize("steps", [1, MOST, MOST + 1, 1000, 12_345])
def test_every_step_is_in_it_once_and_in_order(steps):
    points = noted(range(1, steps + 1)).to_json()
    assert len(points) <= MOST
    assert sum(count for _, _, count in points) == steps
    assert [step for step, _, _ in points] == sorted({step for step, _, _ in points})
    assert points[-1][0] == steps
    for step, loss, count in points:
        assert loss == pytest.approx(step - (count - 1) / 2), "the mean of its steps"


def test_it_goes_on_where_it_was():
    half = LossCurve.from_json(noted(range(1, 400)).to_json())
    for step in range(400, 900):
        half.note(step, float(step))
    assert half.to_json() == noted(range(1, 900)).to_json()


def test_what_is_done_again_counts_once():
    curve = noted([*range(1, 50), *range(30, 60)])
    assert curve.to_json() == noted(range(1, 60)).to_json()
    curve.note(1, 7.0)
    assert curve.to_json() == [[1, 7.0, 1]]


def test_without_one_it_is_empty():
    assert LossCurve.from_json(None).to_json() == []


def progress(step, validation=None):
    return Progress(1, 2, step, 20, 3.0, validation, 9.0)


def test_a_journal_tells_both_curves_and_memory_and_goes_on_with_the_job():
    written, seen = [], []
    watcher = Watcher()
    watcher.training = seen.append
    earlier = {"curve": [[1, 5.0, 1], [2, 4.0, 1], [3, 3.5, 1]], "held_out": [[2, 4.4, 1]]}
    journal = Journal(lambda state, told: written.append((state, told)), watcher, earlier)
    journal.training(progress(3))
    journal.training(progress(4))
    journal.training(progress(4, validation=3.3))
    journal.close("done")
    assert [state for state, _ in written] == ["running", "done"], "not at every step"
    assert len(seen) == 3
    _, told = written[-1]
    assert told["curve"] == [[1, 5.0, 1], [2, 4.0, 1], [3, 3.0, 1], [4, 3.0, 1]]
    assert told["held_out"] == [[2, 4.4, 1], [4, 3.3, 1]]
    assert 0 < told["memory"] <= told["peak_memory"]
    assert (told["step"], told["steps"], told["validation"]) == (4, 20, 3.3)


def test_a_run_that_ends_before_its_first_step_tells_nothing():
    written = []
    Journal(lambda *told: written.append(told), Watcher(), {}).close("stopped")
    assert written == [("stopped", {})]
