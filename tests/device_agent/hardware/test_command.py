"""``sideplug bench hardware``."""

import json
import sys

import pytest

from device_agent.cli import main
from device_agent.hardware import bench
from tests.device_agent.teaching import teaching_home


@pytest.fixture
def settings(tmp_path):
    with teaching_home(tmp_path) as (_, settings):
        yield settings


def run(settings, *words):
    where = ("--home", str(settings.home), "--cloud", settings.cloud, "--recipe", "teaching")
    few = ("--tokens", "8", "16", "--repeats", "1", "--threads", "1")
    return main(["bench", "hardware", *few, *words, *where])


def test_the_bench_writes_a_report_a_table_and_a_picture(settings, tmp_path, capsys):
    report, picture = tmp_path / "here.json", tmp_path / "here.svg"
    assert run(settings, "--output", str(report), "--picture", str(picture)) == 0
    shown = capsys.readouterr().out
    found = json.loads(report.read_text())
    assert [row["step"]["tokens"] for row in found["steps"]] == [8, 16]
    for row in found["steps"]:
        step, more = row["step"], row["derived"]
        seconds = sum(step[part] for part in ("load", "forward", "backward", "optimizer"))
        assert more["tokens_per_second"] == pytest.approx(step["tokens"] / seconds)
        assert more["mfu"] == pytest.approx(step["flops"] / seconds / found["peak_flops"])
        assert row["round"]["compute"] == pytest.approx(seconds * -(-2000 // step["tokens"]))
    assert "teaching" in shown
    assert "granularity" in shown
    assert picture.read_text().startswith("<svg")
    assert picture.read_text().count("<rect") == 1 + 2 * 4


def test_machines_stand_side_by_side(settings, tmp_path, capsys):
    reports = [tmp_path / "one.json", tmp_path / "two.json"]
    for report in reports:
        assert run(settings, "--output", str(report)) == 0
    capsys.readouterr()
    assert run(settings, "--compare", *map(str, reports)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("teaching, 16 tokens") and line.count("%") == 2 for line in lines)
    assert run(settings, "--compare", *map(str, reports), "--json") == 0
    assert len(json.loads(capsys.readouterr().out)) == 2


@pytest.mark.parametrize("data", ["", "[]", '{"format": 1}', '{"format": 2}'])
def test_what_is_no_report_is_told(settings, tmp_path, capsys, data):
    path = tmp_path / "wrong.json"
    path.write_text(data)
    assert run(settings, "--compare", str(path)) == 1
    assert "no report" in capsys.readouterr().err
    assert run(settings, "--compare", str(tmp_path / "missing")) == 1


def test_without_torch_its_arms_are_named_as_left_out(settings, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(bench, "find_spec", lambda name: None)
    assert run(settings, "--torch", str(tmp_path), "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert "torch and peft" in found["left_out"][0]


def test_torch_that_fails_is_told(settings, tmp_path, capsys):
    pytest.importorskip("peft")
    assert run(settings, "--torch", str(tmp_path / "nothing")) == 1
    assert "fine-tuning in torch could not be measured" in capsys.readouterr().err


def test_the_device_side_needs_no_torch(settings):
    import subprocess

    code = "import sys, device_agent.cli.bench; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
