import numpy as np
import pytest

from device_agent.generation.costs import Costs


def learned(counts, truth, noise=0.0, seed=0, costs=None):
    rng = np.random.default_rng(seed)
    costs = costs or Costs((1.0, 0.25, 0.1))
    for one in counts:
        costs.learn(one, float(np.dot(one, truth)) * (1 + noise * rng.standard_normal()))
    return costs


def test_before_anything_is_measured_costs_are_the_shares():
    assert Costs((1.0, 0.25)).each == [1.0, 0.25]


def test_the_first_measurement_gives_the_scale():
    costs = Costs((1.0, 0.25))
    costs.learn((1, 4), 0.06)
    np.testing.assert_allclose(costs.each, [0.03, 0.0075], rtol=1e-6)


@pytest.mark.parametrize("truth", [(0.055, 0.004, 0.0005), (0.009, 0.003, 0.003), (0.1, 0.0, 0.02)])
def test_costs_are_found_where_counts_vary(truth):
    rng = np.random.default_rng(1)
    counts = [(1, int(k), int(m)) for k, m in zip(rng.integers(0, 16, 200), rng.integers(0, 9, 200), strict=True)]  # fmt: skip
    each = learned(counts, truth, noise=0.1).each
    # A cost matters as it weighs in a whole request.
    for found, true, most in zip(each, truth, (1, 15, 8), strict=True):
        assert found * most == pytest.approx(true * most, abs=0.25 * truth[0])


def test_where_counts_do_not_vary_the_sum_is_right():
    costs = learned([(1, 8, 0)] * 50, (0.05, 0.004, 0.0))
    assert np.dot(costs.each, (1, 8, 0)) == pytest.approx(0.082, rel=0.05)


def test_what_changes_is_followed():
    counts = [(1, k % 9, 0) for k in range(200)]
    costs = learned(counts, (0.05, 0.004, 0.0))
    costs = learned(counts, (0.15, 0.004, 0.0), costs=costs)
    assert costs.each[0] == pytest.approx(0.15, rel=0.15)
    assert costs.each[1] == pytest.approx(0.004, abs=0.003)


def test_one_long_wait_is_not_taken_for_what_requests_cost():
    costs = learned([(1, k % 5, 0) for k in range(50)], (0.05, 0.004, 0.0))
    costs.learn((1, 2, 0), 30.0)
    assert np.dot(costs.each, (1, 2, 0)) < 0.12


def test_costs_are_never_below_zero():
    costs = Costs((1.0, 0.25))
    for k in range(40):
        costs.learn((1, k % 8), 0.1 - 0.01 * (k % 8))
    assert min(costs.each) >= 0


def test_what_took_no_time_is_no_error():
    costs = Costs((1.0, 0.25))
    for _ in range(5):
        costs.learn((1, 1), 0.0)
    assert all(np.isfinite(costs.each))
