"""What the quality benchmark makes of its arms' figures."""

import pytest

from benchmarks.arms_of_quality import _row
from benchmarks.quality import _summary, gain_share, least

ARMS = {
    "frozen": {"test_nll": 3.3},
    "everything": {"test_nll": 3.0},
    "LoRA": {"test_nll": 2.9},
    "weak": {"test_nll": 3.4},
}


def test_a_gain_share_is_our_gain_over_theirs():
    assert gain_share(ARMS, "LoRA") == pytest.approx(0.75)


def test_a_rival_that_gained_nothing_or_is_missing_gives_no_share():
    assert gain_share(ARMS, "weak") is None
    assert gain_share(ARMS, "LoRA + prefix") is None


def test_the_least_share_is_of_all_people_and_unknown_when_one_is():
    shares = {"a": {"2000": 1.1, "10000": 0.8}, "b": {"2000": 0.9}}
    assert least(shares) == 0.8
    assert least(shares, "2000") == 0.9
    assert least({**shares, "c": {"2000": None}}) is None
    assert least(shares, "50000") is None


def test_a_summary_is_the_mean_with_its_spread_and_the_dearest_costs():
    rows = [
        {"seed": 0, "test_nll": 3.0, "cpu_seconds": 20.0, "bytes": 100},
        {"seed": 1, "test_nll": 3.2, "cpu_seconds": 10.0, "bytes": 0},
    ]
    found = _summary(rows)
    assert found["test_nll"] == pytest.approx(3.1)
    assert found["test_nll_spread"] == pytest.approx(0.1414, abs=1e-4)
    assert (found["cpu_seconds"], found["bytes"]) == (20.0, 100)
    assert "seed" not in found
    assert "test_nll_spread" not in _summary(rows[:1])


def lesson(promoted, speaks="whole", **parts):
    costs = ("seed", "cpu_seconds", "peak_memory", "seconds", "cloud_seconds", "bytes")
    scores = {"base": 3.3, **parts}
    test = {"tokens": 9, "speaks": speaks, **{name: {"nll": v} for name, v in scores.items()}}
    return {"promoted": promoted, "test": test, **dict.fromkeys(costs, 1)}


def test_everything_is_what_would_speak():
    assert _row(lesson(True, plugin=3.0, whole=2.9), "whole")["test_nll"] == 2.9
    assert _row(lesson(True, plugin=3.0), "whole")["test_nll"] == 3.0
    rests = lesson(True, "memory", memory=2.8, plugin=3.0, whole=2.9)
    assert _row(rests, "whole")["test_nll"] == 2.8, "the plugin rests"
    assert _row(lesson(False, plugin=3.0, whole=2.9), "whole")["test_nll"] == 3.3


def test_a_part_is_judged_whether_it_may_speak_or_not_and_only_training_costs():
    one = lesson(False, plugin=3.0, prefix=3.1)
    assert _row(one, "plugin") == {**_row(one, "plugin"), "test_nll": 3.0, "cpu_seconds": 1}
    assert _row(one, "prefix") == {"test_nll": 3.1, "tokens": 9}
    assert _row(one, "memory") is None
