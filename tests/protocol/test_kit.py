import json
from dataclasses import replace
from types import MappingProxyType

import pytest

from protocol.errors import MalformedMessage
from protocol.kit import KitManifest
from tests.protocol.samples import KIT

FILE = {"sha256": "b" * 64, "size": 1}
WEIGHT = {"name": "down", "shape": [2, 3]}


def test_a_manifest_survives_its_file():
    assert KitManifest.from_json(json.loads(json.dumps(KIT.to_json()))) == KIT


def test_any_mapping_can_be_written():
    fields = KIT.to_json()
    fields |= {"weights": KIT.weights, "schedule": KIT.schedule}
    fields |= {"basis": KIT.basis, "encodings": KIT.encodings}
    fields |= {"files": MappingProxyType(KIT.files), "recipe_json": MappingProxyType({"a": 1})}
    assert json.loads(json.dumps(KitManifest(**fields).to_json()))["recipe_json"] == {"a": 1}


@pytest.mark.parametrize(
    "change", [{"loss": "full"}, {"loss": "full", "shortlist": 0}, {"mask": []}, {"taps": []}]
)
def test_other_good_manifests_pass(change):
    KitManifest.from_json(KIT.to_json() | change)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("id", "../../etc"),
        ("id", "Ladder"),
        ("recipe", "a/b"),
        ("recipe_json", []),
        ("recipe_json", dict.fromkeys(map(str, range(257)))),
        ("backbone", ""),
        ("tokenizer_sha256", "short"),
        ("layers", 0),
        ("taps", [0, 5]),
        ("taps", [2, 0]),
        ("taps", [2, 2]),
        ("taps", [-1]),
        ("loss", "hinge"),
        ("shortlist", 0),
        ("negatives", -1),
        ("mask", [4]),
        ("mask", [4, 0]),
        ("mask", [4, 4, 4]),
        ("dropout", 1.0),
        ("dropout", -0.1),
        ("weights", [WEIGHT, WEIGHT]),
        ("weights", [WEIGHT | {"name": "../down"}]),
        ("weights", [WEIGHT | {"name": "con"}]),
        ("weights", [WEIGHT | {"shape": [0]}]),
        ("weights", [WEIGHT | {"shape": [2**16, 2**16]}]),
        ("weights", [WEIGHT | {"shape": [1] * 9}]),
        ("weights", [7]),
        ("schedule", None),
        ("schedule", KIT.to_json()["schedule"] | {"rate": 0}),
        ("schedule", KIT.to_json()["schedule"] | {"warmup": 1.5}),
        ("schedule", KIT.to_json()["schedule"] | {"batch_tokens": 0}),
        ("head_block", 0),
        ("softcap", -1.0),
        ("files", {"../x": FILE}),
        ("files", {"a/b": FILE}),
        ("files", {"..": FILE}),
        ("files", {"": FILE}),
        ("files", {"nul": FILE}),
        ("files", {"a": FILE | {"size": 16 * 2**30 + 1}}),
        ("files", {"a": FILE | {"size": -1}}),
        ("files", {"a": FILE | {"sha256": "B" * 64}}),
        ("files", {"a": None}),
        ("files", {f"file{i}": FILE for i in range(65)}),
        ("shared", ["another"]),
        ("shared", ["gate", "gate"]),
        ("shared", [3]),
        ("shared", "gate"),
    ],
)
def test_a_manifest_that_makes_no_sense_is_refused(name, value):
    with pytest.raises(MalformedMessage):
        KitManifest.from_json(KIT.to_json() | {name: value})


def test_a_federation_moves_what_is_shared_and_without_a_word_everything():
    assert [one.name for one in KIT.federated] == ["blocks.0.down", "gate"]
    some = KitManifest.from_json(KIT.to_json() | {"shared": ["gate"]})
    assert [one.name for one in some.federated] == ["gate"]
    older = {name: value for name, value in KIT.to_json().items() if name != "shared"}
    assert KitManifest.from_json(older) == KIT


def test_tokens_are_computed_in_sequence_where_something_of_them_is_kept():
    assert KIT.sequential
    assert not replace(KIT, cache=()).sequential


def test_a_cache_of_another_number_of_axes_is_refused():
    with pytest.raises(MalformedMessage, match="cache"):
        KitManifest.from_json(KIT.to_json() | {"cache": [2, 4]})
