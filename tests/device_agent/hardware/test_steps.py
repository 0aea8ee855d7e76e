"""Steps that are measured: what is computed, not how long it took."""

import pytest

from device_agent.hardware.ceilings import bandwidth, peak_flops
from device_agent.hardware.granularity import LINKS, round_cost, weights_of
from device_agent.hardware.steps import StepCost, measure, model_flops
from tests.device_agent.small_kit import HIDDEN
from tests.device_agent.teaching import teaching_kit


@pytest.fixture
def kit(tmp_path):
    return teaching_kit(tmp_path / "kit")


def test_every_batch_size_is_measured(kit, tmp_path):
    found = measure(kit, 1, [8, 300], 2, tmp_path / "features", None)
    assert [(one.arm, one.tokens) for one in found] == [("teaching", 8), ("teaching", 300)]
    for one in found:
        assert one.seconds > 0
        assert min(one.load, one.forward, one.backward, one.optimizer) > 0
        assert one.resident > 10e6
        assert one.joules is None


def test_arithmetic_is_counted_by_weights_and_rows(kit):
    # The teaching kit trains a vector, which is no matrix: only the head's rows count.
    assert model_flops(kit.manifest, 10, 7) == 10 * 4 * 7 * HIDDEN
    assert weights_of(kit.manifest) == HIDDEN


def test_granularity_is_computing_over_communicating():
    cost = StepCost("it", 100, 0.1, 0.2, 0.3, 0.4, 1e9, 0, None)
    whole = round_cost(cost, 250, weights=1_000_000, width=2)
    assert whole.compute == pytest.approx(3.0)
    assert whole.bytes == 4_000_000
    assert whole.communicate("20 Mbit/s") == pytest.approx(1.6)
    assert whole.granularity("20 Mbit/s") == pytest.approx(3 / 1.6)
    assert set(whole.to_json()["links"]) == set(LINKS)


def test_ceilings_are_numbers_of_this_machine():
    assert peak_flops(1, side=64) > 1e6
    assert bandwidth(2, size=2**20) > 1e6
