"""What the quality benchmark makes of its arms' figures."""

import pytest

from benchmarks.arms_of_quality import _row
from benchmarks.quality import _figures, _results, _summary, gain_share, least

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


def test_the_report_has_the_worst_of_each_and_every_one_by_person():
    def one(everything, harm):
        figures = {"frozen": 3.3, "everything": everything, "LoRA": 3.0, "LoRA + prefix": 2.9}
        return {"arms": {a: [{"test_nll": v}] for a, v in figures.items()}, "harm": harm}

    measured = {
        "a": {2000: one(3.0, [0.0, 0.002]), 10000: one(2.7, [0.0])},
        "b": {2000: one(3.15, [0.01])},
    }
    results = _results(measured)
    assert results["gain_share"] == {
        "a": {"2000": pytest.approx(1.0), "10000": pytest.approx(2.0)},
        "b": {"2000": pytest.approx(0.5)},
    }
    figures = {figure.name: figure for figure in _figures(results)}
    assert {name: figure.value for name, figure in figures.items()} == pytest.approx(
        {
            "gain_share_min": 0.5,
            "gain_share_min_2000": 0.5,
            "gain_share_min_10000": 2.0,
            "gain_share_with_prefix": 0.375,
            "harm": 0.01,
        }
    )
    assert figures["gain_share_min_10000"].at_least == 1.0
    assert figures["gain_share_min_2000"].at_least == 0.9
