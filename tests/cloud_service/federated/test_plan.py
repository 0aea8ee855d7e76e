"""How a federation may run."""

import pytest

from cloud_service.errors import BadSetting
from cloud_service.federated.plan import Plan


@pytest.mark.parametrize(
    "wrong",
    [
        {"strategy": "fedsomething"},
        {"rounds": 0},
        {"devices": 0},
        {"share": 0.0},
        {"share": 1.5},
        {"devices": 2, "least": 3},
        {"rate": float("nan")},
        {"rate": -1.0},
        {"rate_decay": 0.0},
        {"round_seconds": 0.0},
        {"momentum": 1.0},
        {"noise": 1.0},
        {"noise": 1.0, "clip": 1.0, "strategy": "fedadam"},
        {"noise": 1.0, "clip": 1.0, "delta": 1.0},
        {"noise": 1.0, "clip": 1.0, "kept": 0.1},
        {"kept": 1.1},
        {"kept": -0.1},
    ],
)
def test_a_plan_that_cannot_work_is_refused(wrong):
    with pytest.raises(BadSetting):
        Plan(**wrong)


def test_a_rate_is_taken_as_it_is():
    assert Plan(strategy="fedadam", server_rate=0.01).optimizer_rate == 0.01
    assert Plan(strategy="fedadam").optimizer_rate == 3e-3
    assert Plan(strategy="fedavg").optimizer_rate == 1.0
