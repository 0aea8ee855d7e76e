"""What training costs: measured in a process of its own, and kept."""

import json

import pytest

from device_agent.hardware.cost_file import FILE, CostFile
from device_agent.hardware.training_cost import NotMeasured, TrainingCost, measured_apart
from device_agent.runtime.kits import MANIFEST
from tests.device_agent.teaching import teaching_kit


@pytest.fixture
def kit(tmp_path):
    kit = teaching_kit(tmp_path / "kit")
    (kit.folder / MANIFEST).write_text(json.dumps(kit.manifest.to_json()))
    return kit


def break_training(kit):
    (kit.folder / "train.onnx").write_bytes(b"no graph")


def test_a_kit_is_measured_apart(kit):
    cost = measured_apart(kit, 32, 1)
    assert cost.step > 0
    assert cost.scoring > 0
    # An interpreter with numpy and onnxruntime at work is no smaller.
    assert cost.peak > 40e6


def test_a_run_is_its_steps_and_a_scoring_an_epoch():
    assert TrainingCost(2.0, 3.0, 1).seconds(steps=10, epochs=4) == 4 * (10 * 2 + 3)


def test_a_kit_that_cannot_train_is_named(kit):
    break_training(kit)
    with pytest.raises(NotMeasured, match="recipe teaching could not be measured"):
        measured_apart(kit, 32, 1)


def test_what_was_measured_is_not_measured_again(kit, tmp_path):
    found = CostFile(tmp_path).cost(kit, 32, 1)
    break_training(kit)
    again = CostFile(tmp_path)
    assert again.knows(kit, 32, 1)
    assert again.cost(kit, 32, 1) == found
    # Other steps and other threads are other costs.
    for tokens, threads in ((16, 1), (32, 2)):
        with pytest.raises(NotMeasured):
            again.cost(kit, tokens, threads)


def test_costs_of_another_machine_or_of_a_damaged_file_are_measured_anew(kit, tmp_path):
    CostFile(tmp_path).cost(kit, 32, 1)
    path = tmp_path / FILE
    good = json.loads(path.read_text())
    cost = {"step": 0, "scoring": 1, "peak": 1}
    for bad in ({**good, "machine": "another"}, {**good, "costs": [1]}, {**good, "costs": {"it": cost}}, []):  # fmt: skip
        path.write_text(json.dumps(bad))
        assert not CostFile(tmp_path).knows(kit, 32, 1)
    path.write_bytes(b"\xff")
    assert not CostFile(tmp_path).knows(kit, 32, 1)
    path.write_text(json.dumps(good))
    assert CostFile(tmp_path).knows(kit, 32, 1)
