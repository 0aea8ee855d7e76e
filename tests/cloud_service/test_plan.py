import json
import math
from dataclasses import replace

import pytest

from cloud_service.cli import main
from cloud_service.demand import Demand
from cloud_service.errors import BadSetting
from cloud_service.plan import BATCHES, Measured, plan

MEASURED = Measured(
    backbone="small",
    dtype="f32",
    threads=2,
    context=512,
    pass_seconds={1: 0.010, 2: 0.012, 4: 0.016, 8: 0.024, 16: 0.040, 32: 0.072, 64: 0.136},
    prefill_tokens_per_second=1000.0,
    kv_bytes_per_position=1000.0,
    process_bytes=1e9,
    step_bytes_down={"f32": 4000, "f16": 2000, "bf16": 2000, "int8": 1100},
    step_bytes_up=40,
)
DEMAND = Demand(
    devices=86400,
    tokens_per_day=100.0,
    prompt_ratio=2.0,
    peak_factor=2.0,
    session_tokens=100.0,
    session_positions=1000,
    idle=30.0,
    pass_seconds=0.08,
    http_seconds=0.0,
    load=0.5,
    kv_gigabytes=1.0,
)


def test_the_arithmetic_is_that_of_the_docstring():
    found = plan(MEASURED, DEMAND)
    assert found.peak_tokens_per_second == pytest.approx(200)
    assert found.sessions_in_a_pass == 32  # 64 are cheaper still, but take 0.136 s
    assert found.seconds_a_token == pytest.approx(0.072 / 32 + 2 / 1000)
    assert found.replicas_for_computing == math.ceil(200 * 0.00425 / 0.5)
    assert found.sessions_open == math.ceil(200 / 100 * (100 * 0.072 + 30))
    assert found.kv_gigabytes == pytest.approx(2 * 37.2 * 1000 * 1000 / 1e9)
    assert found.network_down_gigabits == pytest.approx(200 * 2400 * 8 / 1e9)
    assert found.memory_gigabytes_a_replica == pytest.approx(2.0)


def test_the_scarcer_of_computing_and_memory_decides():
    found = plan(MEASURED, replace(DEMAND, session_positions=100_000))
    assert found.replicas == found.replicas_for_memory > found.replicas_for_computing
    found = plan(MEASURED, DEMAND)
    assert found.replicas == found.replicas_for_computing > found.replicas_for_memory


def test_twice_the_devices_take_twice_the_tokens():
    one, two = (plan(MEASURED, replace(DEMAND, devices=n)) for n in (10**6, 2 * 10**6))
    assert two.peak_tokens_per_second == pytest.approx(2 * one.peak_tokens_per_second)
    assert abs(two.replicas - 2 * one.replicas) <= 1


def test_what_no_pass_can_do_is_refused():
    with pytest.raises(BadSetting, match=r"the fastest took 0\.010 s"):
        plan(MEASURED, replace(DEMAND, pass_seconds=0.009))


@pytest.mark.parametrize(
    ("name", "value"),
    [("devices", 0), ("load", 1.5), ("idle", -1.0), ("codec", "f8"), ("peak_factor", math.nan)],
)
def test_an_assumption_that_makes_no_sense_is_refused(name, value):
    with pytest.raises(BadSetting, match=name):
        replace(DEMAND, **{name: value})


def test_it_is_measured_once_and_planned_again_from_the_file(cache, pulled_of, tmp_path, capsys):
    name = pulled_of("llama").record.name
    here = [
        "--cache",
        str(cache),
        "--backbone",
        name,
        "--threads",
        "1",
        "--kv",
        "64",
        "--weights",
        "f32",
    ]
    assert main(["plan", *here, "--positions", "64", "--pass-seconds", "60", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    measured = shown["measured"]
    assert [int(batch) for batch in measured["pass_seconds"]] == list(BATCHES)
    assert all(seconds > 0 for seconds in measured["pass_seconds"].values())
    # Keys and values of 4 layers, 2 heads of 16 numbers of 4 bytes each.
    assert measured["kv_bytes_per_position"] == 2 * 4 * 2 * 16 * 4
    # 16 bytes of header, 20 of counts, 4 layers and 5 states of 64 numbers in f16.
    assert measured["step_bytes_down"]["f16"] == 16 + 20 + 4 * 4 + 5 * 64 * 2
    file = tmp_path / "plan.json"
    file.write_text(json.dumps(shown))
    again = ["plan", "--measured", str(file), "--devices", "10", "--pass-seconds", "60"]
    assert main([*again, "--json"]) == 0
    second = json.loads(capsys.readouterr().out)
    assert second["measured"] == measured
    assert second["assumed"]["devices"] == 10
    assert second["plan"]["replicas"] == 1
    assert main(again) == 0
    text = capsys.readouterr().out
    assert text.index("measured") < text.index("assumed") < text.index("it takes")


def test_a_file_without_a_measurement_is_refused(tmp_path, capsys):
    file = tmp_path / "plan.json"
    file.write_text('{"measured": {}}')
    assert main(["plan", "--measured", str(file)]) == 2
    assert "holds no measurement" in capsys.readouterr().err
