"""What the edge benchmark makes of its arms' figures."""

import pytest

from benchmarks.edge import LORA, Below, Comparison, passing

LORA_NLL = 3.0


def comparison(arms, one_pass=0.2, pass_peak=50e6, epochs=3):
    """Arms: name -> (NLL, seconds a step, peak); twice as many blocks below as each has itself."""
    steps = {name: {"median": step, "peak_memory": peak} for name, (_, step, peak) in arms.items()}
    steps[LORA] = {"median": 1.2, "peak_memory": 2e9}
    for name in arms:
        steps[passing(name)] = {"median": one_pass, "peak_memory": pass_peak}
    trained = {
        name: {"test_nll": nll, "test_nll_with_memory": nll - 0.1, "peak_memory": peak}
        for name, (nll, _, peak) in arms.items()
    }
    lora = {"test_nll": LORA_NLL, "peak_memory": 2e9}
    return Comparison(lora, trained, steps, dict.fromkeys(arms, Below(2.0, 1e8)), epochs)


def figures(found):
    return {figure.name: figure.value for figure in found.figures()}


def test_the_fastest_arm_that_learns_as_well_is_reported():
    found = comparison(
        {"good": (3.02, 0.4, 2e8), "quick": (3.02, 0.3, 4e8), "bad": (3.1, 0.1, 1e8)}
    )
    told = figures(found)
    # Two passes, once in three epochs, come to each step.
    assert told["speedup"] == pytest.approx(1.2 / (0.3 + 2 * 0.2 / 3))
    assert told["speedup_with_cloud"] == pytest.approx(4.0)
    assert told["memory_ratio"] == pytest.approx(5.0)
    assert told["nll_excess"] == pytest.approx(0.02 / 3)


def test_without_such_an_arm_the_best_learner_is_reported_and_misses_the_goal():
    found = comparison({"near": (3.05, 0.4, 2e8), "far": (3.3, 0.1, 1e8)})
    told = figures(found)
    assert told["nll_excess"] == pytest.approx(0.05 / 3)
    assert not next(f for f in found.figures() if f.name == "nll_excess").reached


def test_memory_alone_is_that_of_the_largest_process():
    arms = {"it": (3.0, 0.4, 2e8)}
    assert figures(comparison(arms, pass_peak=4e8))["memory_ratio"] == pytest.approx(4.0)
    assert figures(comparison(arms, pass_peak=4e8))["memory_ratio_with_cloud"] == 10.0


def test_the_table_has_every_arm():
    rows = comparison({"it": (3.0, 0.4, 2e8)}).table().rows
    assert [row[0] for row in rows] == [LORA, "it"]
    assert all(len(row) == 10 for row in rows)
