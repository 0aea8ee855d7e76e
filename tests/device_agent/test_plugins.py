import json
import os
import zipfile

import numpy as np
import pytest

from device_agent.plugins import (
    DamagedPlugin,
    ExportExists,
    NoSuchVersion,
    NothingBefore,
    PluginStore,
)
from device_agent.runtime.kits import WrongBackbone
from tests.device_agent.small_kit import FINGERPRINT, HIDDEN, TAPS, write_kit

PREFIX = np.array([5, 6], np.uint32)


@pytest.fixture
def manifest(tmp_path):
    return write_kit(tmp_path / "kit")


@pytest.fixture
def plugins(tmp_path):
    return PluginStore(tmp_path / "home")


def weights_of(value):
    return {"scale": np.full(HIDDEN, value, np.float32)}


def add(plugins, manifest, value=1.0):
    card = {"evaluation": {"tokens": 9, "plugin": {"nll": value}}}
    return plugins.add(
        manifest, weights_of(value), {"codec": "f16"}, PREFIX, card, [{"epoch": 1}]
    ).version


def test_a_version_comes_back_as_it_was(plugins, manifest):
    version = plugins.get(add(plugins, manifest, 0.5))
    assert (version.version, version.kit_id) == ("1", manifest.id)
    assert version.weights()["scale"].tolist() == [0.5] * HIDDEN
    assert version.prefix.tolist() == [5, 6]
    assert version.card["evaluation"]["plugin"] == {"nll": 0.5}
    assert version.size == (version.folder / "adapter_model.safetensors").stat().st_size
    assert json.loads((version.folder / "history.json").read_bytes()) == [{"epoch": 1}]


def test_its_description_is_laid_out_as_peft_does_and_names_its_backbone(plugins, manifest):
    config = plugins.get(add(plugins, manifest)).config
    assert config["base_model_name_or_path"] == "toy"
    assert config["peft_type"] == "SIDEPLUG"
    assert config["sideplug"] == {
        "format": 1,
        "kit": manifest.id,
        "recipe": "small",
        "fingerprint": FINGERPRINT,
        "tokenizer_sha256": manifest.tokenizer_sha256,
        "taps": list(TAPS),
        "codec": "f16",
    }


def test_the_first_version_does_not_speak_until_it_is_told(plugins, manifest):
    assert plugins.current() is None
    add(plugins, manifest)
    assert plugins.current() is None
    plugins.use("1")
    assert plugins.current().version == "1"


def test_versions_are_counted_as_numbers(plugins, manifest):
    for _ in range(11):
        add(plugins, manifest)
    assert [version.version for version in plugins.versions()] == [str(n) for n in range(1, 12)]


def test_rollback_goes_back_step_by_step_to_the_backbone(plugins, manifest):
    for number in ("1", "2"):
        add(plugins, manifest)
        plugins.use(number)
    plugins.use("2")
    assert plugins.rollback() == "1"
    assert plugins.rollback() is None
    assert plugins.current() is None
    with pytest.raises(NothingBefore):
        plugins.rollback()


def test_the_backbone_may_speak_again(plugins, manifest):
    add(plugins, manifest)
    plugins.use("1")
    plugins.use(None)
    assert plugins.current() is None
    assert plugins.rollback() == "1"


@pytest.mark.parametrize("version", ["2", "0", "one", "../1", "", "1/../1", "²"])
def test_what_is_no_version_is_refused(plugins, manifest, version):
    add(plugins, manifest)
    for action in (plugins.get, plugins.use):
        with pytest.raises(NoSuchVersion):
            action(version)
    assert plugins.current() is None


def test_another_backbone_is_refused_by_fingerprint(plugins, manifest):
    version = plugins.get(add(plugins, manifest))
    version.require(FINGERPRINT)
    with pytest.raises(WrongBackbone):
        version.require("0" * 64)


def test_a_switch_that_fails_changes_nothing(plugins, manifest, monkeypatch):
    add(plugins, manifest)
    add(plugins, manifest)
    plugins.use("1")

    def fail(*_):
        raise OSError("pulled the plug")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="plug"):
        plugins.use("2")
    monkeypatch.undo()
    assert plugins.current().version == "1"


def test_a_version_that_could_not_be_written_is_not_there(plugins, manifest, monkeypatch, tmp_path):
    add(plugins, manifest)
    usual, done = os.replace, []

    def fail_third(source, target):
        done.append(target)
        if len(done) == 3:
            raise OSError("disk full")
        usual(source, target)

    monkeypatch.setattr(os, "replace", fail_third)
    with pytest.raises(OSError, match="disk full"):
        add(plugins, manifest)
    monkeypatch.undo()
    assert [version.version for version in plugins.versions()] == ["1"]
    assert [path.name for path in (tmp_path / "home" / "plugins" / "mine").iterdir()] == ["1"]
    assert add(plugins, manifest) == "2"


NAMES = {
    "adapter_config.json",
    "adapter_model.safetensors",
    "prefix.json",
    "card.json",
    "history.json",
}


def test_export_copies_to_a_folder_and_into_a_zip(plugins, manifest, tmp_path):
    version = plugins.get(add(plugins, manifest))
    plugins.export("1", tmp_path / "folder")
    plugins.export("1", tmp_path / "one.zip")
    assert {path.name for path in (tmp_path / "folder").iterdir()} == NAMES
    with zipfile.ZipFile(tmp_path / "one.zip") as archive:
        assert set(archive.namelist()) == NAMES
        weights = archive.read("adapter_model.safetensors")
    for copy in (weights, (tmp_path / "folder" / "adapter_model.safetensors").read_bytes()):
        assert copy == (version.folder / "adapter_model.safetensors").read_bytes()


@pytest.mark.parametrize("name", ["taken", "taken.zip"])
def test_export_overwrites_nothing(plugins, manifest, tmp_path, name):
    add(plugins, manifest)
    (tmp_path / name).write_bytes(b"mine")
    with pytest.raises(ExportExists):
        plugins.export("1", tmp_path / name)
    assert (tmp_path / name).read_bytes() == b"mine"


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"sideplug": {"kit": 1}}', b"\xff"])
def test_a_damaged_description_is_named(plugins, manifest, content):
    version = plugins.get(add(plugins, manifest))
    (version.folder / "adapter_config.json").write_bytes(content)
    with pytest.raises(DamagedPlugin, match="adapter_config"):
        plugins.get("1")


@pytest.mark.parametrize("content", [b"", b"{}", b'{"version": "../x", "before": []}'])
def test_a_damaged_pointer_is_named(plugins, manifest, content):
    path = plugins.get(add(plugins, manifest)).folder.parent / "current.json"
    path.write_bytes(content)
    with pytest.raises(DamagedPlugin, match=r"current\.json"):
        plugins.current()


def test_damaged_weights_are_named(plugins, manifest):
    version = plugins.get(add(plugins, manifest))
    path = version.folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(DamagedPlugin, match="adapter_model"):
        version.weights()


@pytest.mark.parametrize("content", [b"{}", b'{"tokens": ["a"]}', b'{"tokens": [-1]}', b"no"])
def test_a_damaged_prefix_is_named(plugins, manifest, content):
    version = plugins.get(add(plugins, manifest))
    (version.folder / "prefix.json").write_bytes(content)
    with pytest.raises(DamagedPlugin, match=r"prefix\.json"):
        _ = version.prefix
