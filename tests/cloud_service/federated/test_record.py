"""A federation on disk."""

import json

import numpy as np
import pytest

from cloud_service.federated.plan import Plan
from cloud_service.federated.record import (
    LOG,
    STATE,
    DamagedFederation,
    OtherFederation,
    Record,
    State,
    Told,
)

PLAN = Plan(devices=4)


def test_what_is_saved_is_loaded(tmp_path):
    record = Record(tmp_path / "f", "kit", PLAN)
    assert record.load() is None
    state = State({"w": np.ones(2, np.float32)}, 3, {"first.w": np.zeros(2, np.float32)}, {"n": 1})
    record.save(state)
    found = Record(tmp_path / "f", "kit", Plan(devices=5, rounds=99, least=2)).load()
    assert (found.round, found.accounting) == (3, {"n": 1})
    np.testing.assert_array_equal(found.weights["w"], state.weights["w"])
    np.testing.assert_array_equal(found.moments["first.w"], state.moments["first.w"])


def test_another_plan_or_kit_does_not_go_on(tmp_path):
    Record(tmp_path, "kit", PLAN).save(State({"w": np.ones(2, np.float32)}))
    for other in (
        Record(tmp_path, "other", PLAN),
        Record(tmp_path, "kit", Plan(devices=4, strategy="fedadam")),
        Record(tmp_path, "kit", Plan(devices=4, epochs=2)),
        Record(tmp_path, "kit", Plan(devices=4, noise=1.0, clip=1.0)),
    ):
        with pytest.raises(OtherFederation):
            other.load()


def test_noise_is_bound_to_the_number_of_devices(tmp_path):
    private = {"noise": 1.0, "clip": 1.0}
    Record(tmp_path, "kit", Plan(devices=4, **private)).save(State({"w": np.ones(1, np.float32)}))
    with pytest.raises(OtherFederation):
        Record(tmp_path, "kit", Plan(devices=5, **private)).load()


def test_a_damaged_file_is_told(tmp_path):
    (tmp_path / STATE).write_bytes(b"x" * 100)
    with pytest.raises(DamagedFederation):
        Record(tmp_path, "kit", PLAN).load()


def test_every_round_is_a_line(tmp_path):
    record = Record(tmp_path, "kit", PLAN)
    for number in (1, 2):
        record.log(Told(number, 1.0, 4, 4, [], 0, False, 10, 20, {"loss": 1.5}, None))
    lines = [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()]
    assert [line["round"] for line in lines] == [1, 2]
    assert lines[0]["figures"] == {"loss": 1.5}
