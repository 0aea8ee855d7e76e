import json
import sys
import tomllib
from pathlib import Path

import pytest

from device_agent.cli import doctor, main
from device_agent.cloud import connection
from device_agent.cloud.client import CloudClient
from device_agent.runtime.kits import KitStore
from tests.device_agent.home import add_plugin, toy_home
from tests.device_agent.scripted_cloud import json_answer
from tests.device_agent.small_kit import small_facts


class Clinic:
    def __init__(self, cloud, settings, capsys):
        self.cloud, self.settings, self._capsys = cloud, settings, capsys

    def check(self, *words):
        """Exit code, and the findings by check."""
        code = main(["doctor", "--json", *words])
        told = json.loads(self._capsys.readouterr().out)
        assert told["ok"] == (code == 0)
        return code, {one["check"]: one for one in told["checks"]}

    def problems(self, *words):
        code, found = self.check(*words)
        wrong = {name: one["found"] for name, one in found.items() if not one["ok"]}
        assert (code == 1) == bool(wrong)
        assert all(one["hint"] for one in found.values() if not one["ok"])
        return wrong

    def fetch_kit(self):
        with CloudClient(self.cloud.url) as client:
            return KitStore(self.settings.home).obtain(client, "small")


@pytest.fixture
def clinic(tmp_path, monkeypatch, capsys):
    with toy_home(tmp_path) as (cloud, settings):
        monkeypatch.setenv("SIDEPLUG_HOME", str(settings.home))
        monkeypatch.setenv("SIDEPLUG_CLOUD", settings.cloud)
        monkeypatch.setenv("SIDEPLUG_RECIPE", "small")
        monkeypatch.setattr(connection, "FIRST_PAUSE", 0)
        yield Clinic(cloud, settings, capsys)


def test_a_fresh_home_is_well(clinic):
    code, found = clinic.check()
    assert code == 0
    assert list(found) == [
        "python", "libraries", "settings", "home", "disk", "private", "policy", "cloud", "codec",
        "kit", "plugin",
    ]  # fmt: skip
    assert "toy" in found["cloud"]["found"]
    assert "1.0" in found["cloud"]["found"]


def test_a_home_with_kit_and_plugin_is_well(clinic):
    clinic.fetch_kit()
    add_plugin(clinic.settings, clinic.cloud.manifest, token=20)
    code, found = clinic.check()
    assert code == 0
    assert found["kit backbone"]["ok"]
    assert found["plugin backbone"]["ok"]


def test_a_person_reads_what_to_do(clinic, capsys):
    assert main(["doctor", "--cloud", "http://127.0.0.1:9"]) == 1
    shown = capsys.readouterr().out
    assert "PROBLEM  cloud" in shown
    assert "what to do:" in shown
    assert "sideplug-cloud serve" in shown


def test_a_cloud_that_is_away_does_not_keep_the_rest_from_being_checked(clinic):
    code, found = clinic.check("--cloud", "http://127.0.0.1:9")
    assert code == 1
    assert not found["cloud"]["ok"]
    assert found["plugin"]["ok"]


def test_a_cloud_of_another_version_is_a_problem(clinic):
    later = json_answer(small_facts(protocol=("2.0",)).to_json())
    clinic.cloud.backbone.other["/v1/backbone"] = later
    assert "2.0" in clinic.problems()["cloud"]


def test_a_codec_that_the_cloud_lacks_is_a_problem(clinic):
    poor = json_answer(small_facts(codecs=("f32",)).to_json())
    clinic.cloud.backbone.other["/v1/backbone"] = poor
    assert clinic.problems("--codec", "int8") == {"codec": "int8"}


def test_a_damaged_kit_is_a_problem_that_names_the_file(clinic):
    kit = clinic.fetch_kit()
    kit.path("head.codes").unlink()
    kit.path("head.codes").write_bytes(b"rotten")
    assert "head.codes" in clinic.problems()["kit"]


def test_a_kit_and_a_plugin_for_another_backbone_are_problems(clinic):
    clinic.fetch_kit()
    add_plugin(clinic.settings, clinic.cloud.manifest, token=20)
    other = json_answer(small_facts(fingerprint="0" * 64).to_json())
    clinic.cloud.backbone.other["/v1/backbone"] = other
    assert set(clinic.problems()) == {"kit backbone", "plugin backbone"}


def test_a_damaged_plugin_is_a_problem(clinic):
    add_plugin(clinic.settings, clinic.cloud.manifest, token=20)
    (path,) = clinic.settings.home.glob("plugins/*/1/*.safetensors")
    path.write_bytes(b"rotten")
    assert "rollback" in clinic.check()[1]["plugin"]["hint"]
    assert set(clinic.problems()) == {"plugin"}


def test_what_cannot_be_read_stops_no_other_check(clinic, monkeypatch):
    kit = clinic.fetch_kit()
    opened = Path.open

    def refuse(path, *args, **kwargs):
        if path.name == "head.codes":
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", refuse)
    assert str(kit.folder) in clinic.problems()["kit"]
    assert clinic.check()[1]["plugin"]["ok"]


def test_a_home_that_cannot_be_written_is_a_problem(clinic, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    assert "home" in clinic.problems("--home", str(tmp_path / "file" / "home"))


def test_a_full_disk_is_a_problem(clinic, monkeypatch):
    monkeypatch.setattr(doctor, "ENOUGH_DISK", 10**18)
    assert set(clinic.problems()) == {"disk"}


def test_old_and_missing_libraries_are_problems(clinic, monkeypatch):
    monkeypatch.setitem(doctor.LIBRARIES, "numpy", (99, 1))
    monkeypatch.setitem(doctor.LIBRARIES, "no-such-library", (1,))
    found = clinic.problems()["libraries"]
    assert "older than 99.1" in found
    assert "no-such-library is missing" in found


def test_a_library_that_is_not_there_stops_no_other_check(clinic, monkeypatch):
    monkeypatch.setitem(sys.modules, "device_agent.runtime.kits", None)
    code, found = clinic.check()
    assert code == 1
    assert not found["kit"]["ok"]
    assert "pip install" in found["kit"]["hint"]
    assert found["home"]["ok"]


def test_an_old_python_is_a_problem(clinic, monkeypatch):
    monkeypatch.setattr(doctor, "OLDEST_PYTHON", (9, 9))
    assert "9.9" in clinic.check()[1]["python"]["hint"]


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("1.2.3", (1, 2, 3)),
        ("2.0rc1", (2, 0)),
        ("1.26.4+cpu", (1, 26, 4)),
        ("3", (3,)),
        ("dev", ()),
    ],
)
def test_versions_are_compared_as_numbers(text, numbers):
    assert doctor._numbers(text) == numbers


def test_the_libraries_are_those_that_the_project_asks_for_and_no_older():
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = project["dependencies"] + project["optional-dependencies"]["device"]
    asked = {line.split(">=")[0]: line for line in lines if "sys_platform" not in line}
    assert set(asked) == set(doctor.LIBRARIES)
    for name, oldest in doctor.LIBRARIES.items():
        assert doctor._numbers(asked[name].split(">=")[1]) <= oldest


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such bits")
def test_a_home_that_others_can_read_is_a_problem(clinic):
    clinic.fetch_kit()
    clinic.settings.home.chmod(0o755)
    (clinic.settings.home / "config.toml").write_text("")
    (clinic.settings.home / "config.toml").chmod(0o644)
    code, found = clinic.check()
    assert (code, found["private"]["ok"]) == (1, False)
    assert "chmod" in found["private"]["hint"]
    clinic.settings.home.chmod(0o700)
    assert clinic.check()[1]["private"]["ok"], "what nobody can enter is nobody's to read"


def test_a_policy_that_is_wrong_is_a_problem(clinic):
    clinic.settings.home.mkdir(mode=0o700)
    (clinic.settings.home / "policy.toml").write_text("x = 1")
    code, found = clinic.check()
    assert (code, found["policy"]["ok"], found["cloud"]["ok"]) == (1, False, False)
    assert "x is unknown" in found["policy"]["found"]
    assert clinic.cloud.requests == []
