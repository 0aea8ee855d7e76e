import numpy as np
import pytest

from device_agent.runtime.highest import highest


@pytest.mark.parametrize("count", [1, 2, 63, 64, 200, 4999, 5000, 6000])
@pytest.mark.parametrize("size", [1, 5, 64, 65, 5000, 49152])
def test_they_are_those_of_a_full_sort(size, count):
    values = np.random.default_rng(size + count).standard_normal(size).astype(np.float32)
    found = highest(values, count)
    assert len(set(found.tolist())) == len(found) == min(size, count)
    np.testing.assert_array_equal(np.sort(values[found]), np.sort(values)[-count:])


@pytest.mark.parametrize(
    "values",
    [
        np.zeros(1000),
        np.arange(1000.0),
        -np.arange(1000.0),
        np.repeat([-np.inf, 1.0], 500),
        np.repeat([1.0, np.inf, 2.0, 3.0], 250),
    ],
    ids=["ties", "rising", "falling", "minus infinity", "infinity"],
)
def test_ties_order_and_infinities_change_nothing(values):
    found = highest(values, 10)
    assert len(set(found.tolist())) == 10
    np.testing.assert_array_equal(np.sort(values[found]), np.sort(values)[-10:])
