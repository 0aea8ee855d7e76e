"""Comparisons of federations against sums done by hand."""

import pytest

from benchmarks.federated_arms import Way
from benchmarks.federated_report import compared, figures_of, round_bytes


def federation(way, seed, nll, **others):
    line = {"bytes_up": 300, "bytes_down": 500, "asked": 4, "round": 1, "figures": {}}
    told = {"way": way, "seed": seed, "federated_nll": nll, "rounds": 1, "seconds": 2.0}
    return {**told, "log": [line], **others}


def test_a_way_is_compared_with_the_first_seed_by_seed():
    nll = {"fedavg": (3.0, 3.2, 3.4), "fedadamw": (2.9, 3.3, 3.1)}
    told = [federation(way, seed, one) for way, row in nll.items() for seed, one in enumerate(row)]
    found = compared(told)
    # 0.1, -0.1 and 0.3: mean 0.1, each 0.2 apart, so the deviation is 0.2.
    assert found == {
        "fedadamw": {"gain": pytest.approx(0.1), "spread": pytest.approx(0.2), "better": 2}
    }
    (alone,) = compared([federation("fedavg", 0, 3.0), federation("other", 0, 2.0)]).values()
    assert alone == {"gain": 1.0, "spread": None, "better": 1}


def test_figures_are_of_the_first_split_and_of_one_device():
    arms = {"frozen": 4.0, "alone": 3.0, "federated": 3.2, "pooled": 2.0}
    people = [
        {"name": name, "training_tokens": 9, "nll": {**arms, "federated + personal": nll}}
        for name, nll in (("a", 2.5), ("b", 3.06))
    ]
    told = [federation("fedavg", 0, 3.2), federation("fedadamw", 0, 3.0)]
    assert round_bytes(told[0]) == 200
    found = {"person": {"people": people, "federations": told}, "quantity": None}
    figures = {one.name: one for one in figures_of(found, 1000)}
    assert figures["bytes_ratio_full"].value == 8000 / 200
    assert figures["gain_vs_alone"].value == pytest.approx((0.5 - 0.06) / 2)
    assert (figures["better_than_alone"].value, figures["better_than_alone"].reached) == (1, False)
    assert figures["worst_vs_alone"].value == pytest.approx(0.02)
    assert figures["gain_fedadamw"].value == pytest.approx(0.2)
    assert figures["spread_fedadamw"].value is None


def test_every_way_has_a_name_of_its_own():
    every = [Way(strategy, kept) for strategy in ("fedavg", "fedadamw") for kept in (0.0, 0.01)]
    assert [way.name for way in every] == ["fedavg", "fedavg_0_01", "fedadamw", "fedadamw_0_01"]
    assert every[1].flags == ["--recipe", "ladder", "--strategy", "fedavg", "--kept", "0.01"]
    thresholds = Way("fedavg", recipe="ladder-thresholds")
    assert thresholds.name == "ladder_thresholds_fedavg"
    assert thresholds.flags[1] == "ladder-thresholds"
