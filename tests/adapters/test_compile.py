import hashlib
import json
import logging
import shutil
from dataclasses import replace

import onnx
import pytest
import torch
from safetensors.torch import load_file

from adapters.check import check_graph, check_weights_used
from adapters.compile import compile_kit
from adapters.errors import CompileMismatch, FolderTaken, HeadMismatch, UnusedWeight
from adapters.export import export
from adapters.graphs import infer_graph, train_graph
from adapters.head import HeadWeights
from adapters.kit_folder import publish
from adapters.plan import kit_id, make_plan
from adapters.ports import Graph, Port
from adapters.recipe import RECIPES
from adapters.targets.ladder import Ladder
from protocol.basis import Basis
from protocol.kit import BasisSpec, KitManifest
from tests.adapters.samples import HIDDEN, LADDER, SPA, public, tiny_facts, tiny_head


def no_one(stage):
    """Nobody listens to the progress."""


def test_the_manifest_comes_back_from_its_file(kit):
    data = json.loads((kit.folder / "manifest.json").read_text(encoding="utf-8"))
    assert KitManifest.from_json(data).to_json() == kit.manifest.to_json()
    assert kit.manifest.id == kit_id(kit.recipe, kit.facts)


def test_the_manifest_lists_every_file_by_its_digest(kit):
    found = {path.name for path in kit.folder.iterdir()} - {"manifest.json"}
    assert found == {
        "infer.onnx",
        "train.onnx",
        "head.onnx",
        "head.codes",
        "head.scales",
        "head.bias",
        "initial.safetensors",
    }
    for name, file in kit.manifest.files.items():
        data = (kit.folder / name).read_bytes()
        assert (file.sha256, file.size) == (hashlib.sha256(data).hexdigest(), len(data))
    assert found == set(kit.manifest.files)


def test_the_initial_weights_are_the_target_s(kit):
    saved = load_file(kit.folder / "initial.safetensors")
    expected = dict(kit.target.named_parameters())
    assert [weight.name for weight in kit.manifest.weights] == list(expected)
    assert all(torch.equal(saved[name], weight) for name, weight in expected.items())
    assert {w.name: w.shape for w in kit.manifest.weights} == {
        name: tuple(weight.shape) for name, weight in saved.items()
    }


def test_the_ladder_s_manifest_says_what_the_device_must_feed(ladder_kit):
    manifest = ladder_kit.manifest
    assert manifest.taps == (0, 1)
    assert (manifest.loss, manifest.shortlist, manifest.negatives) == ("shortlist", 120, 40)
    assert manifest.mask == (3, 16)
    assert manifest.dropout == 0.1
    assert manifest.softcap is None


def test_the_spa_s_manifest_says_what_the_device_must_feed(spa_kit):
    manifest = spa_kit.manifest
    assert manifest.taps == (0, 1, 2)
    assert (manifest.loss, manifest.shortlist, manifest.negatives) == ("full", 0, 0)
    assert manifest.mask == ()
    assert manifest.softcap == 8.0


def test_a_second_compilation_does_nothing(kit):
    stages = []
    again = compile_kit(kit.recipe, kit.facts, kit.head, kit.folder, stages.append)
    assert again == kit.manifest
    assert stages == []


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, OSError])
def test_an_interrupted_compilation_leaves_nothing(interruption, tmp_path):
    def interrupt(stage):
        raise interruption

    with pytest.raises(interruption):
        compile_kit(LADDER, tiny_facts(), tiny_head(), tmp_path / "kit", interrupt)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_something_else_is_left_alone(kit, tmp_path):
    other = replace(kit.recipe, seed=99)
    with pytest.raises(FolderTaken):
        compile_kit(other, kit.facts, kit.head, kit.folder, no_one)
    (tmp_path / "manifest.json").write_text("{}", encoding="utf-8")
    with pytest.raises(FolderTaken):
        compile_kit(kit.recipe, kit.facts, kit.head, tmp_path, no_one)
    assert len(list(tmp_path.iterdir())) == 1


def test_the_faster_of_two_compilations_wins(kit, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    shutil.copytree(kit.folder, first)
    shutil.copytree(kit.folder, second)
    published = publish(first, tmp_path / "kit", kit.manifest)
    assert publish(second, tmp_path / "kit", kit.manifest) == published == kit.manifest


def test_a_folder_that_cannot_be_moved_is_an_error(kit, tmp_path):
    draft = tmp_path / "draft"
    shutil.copytree(kit.folder, draft)
    with pytest.raises(FileNotFoundError):
        publish(draft, tmp_path / "missing" / "kit", kit.manifest)


def test_the_kit_s_id_covers_recipe_backbone_and_tokenizer():
    facts = tiny_facts()
    ids = {
        kit_id(LADDER, facts),
        kit_id(replace(LADDER, seed=1), facts),
        kit_id(SPA, facts),
        kit_id(LADDER, tiny_facts(fingerprint="cd" * 32)),
        kit_id(LADDER, replace(facts, tokenizer_sha256="1" * 64)),
    }
    assert len(ids) == 5
    assert kit_id(LADDER, replace(facts, name="renamed")) in ids


@pytest.mark.parametrize(
    ("rows", "bias", "softcap"),
    [
        (torch.zeros(10, HIDDEN), None, None),
        (tiny_head().rows, torch.zeros(3), None),
        (tiny_head().rows, None, 30.0),
    ],
)
def test_a_head_of_another_backbone_is_refused(rows, bias, softcap, tmp_path):
    with pytest.raises(HeadMismatch):
        compile_kit(
            LADDER, tiny_facts(), HeadWeights(rows, bias, softcap), tmp_path / "kit", no_one
        )
    assert list(tmp_path.iterdir()) == []


def test_a_weight_that_takes_no_part_is_refused():
    class WithSpare(Ladder):
        def __init__(self, *args):
            super().__init__(*args)
            self.spare = torch.nn.Parameter(torch.ones(3))

    plan, target = make_plan(LADDER, tiny_facts())
    initial = dict(target.named_parameters())
    check_weights_used(train_graph(plan, target), initial, LADDER.dropout)
    spare = WithSpare(2, HIDDEN, LADDER.width, torch.Generator())
    initial = {name: weight.detach() for name, weight in spare.named_parameters()}
    with pytest.raises(UnusedWeight) as refusal:
        check_weights_used(train_graph(plan, spare), initial, LADDER.dropout)
    assert refusal.value.names == ("spare",)


def test_a_graph_that_computes_something_else_is_noticed(ladder_kit):
    graph = infer_graph(ladder_kit.plan, ladder_kit.target)
    initial = {name: weight.detach() for name, weight in ladder_kit.target.named_parameters()}
    path = ladder_kit.folder / "infer.onnx"
    check_graph(graph, path, initial, 0.1)
    wrong = replace(graph, run=lambda *feeds: (graph.run(*feeds)[0] * 1.1,))
    with pytest.raises(CompileMismatch) as mismatch:
        check_graph(wrong, path, initial, 0.1)
    assert mismatch.value.graph == "infer.onnx"
    assert mismatch.value.difference > 0.05
    lost = replace(graph, run=lambda *feeds: (graph.run(*feeds)[0] * float("nan"),))
    with pytest.raises(CompileMismatch):
        check_graph(lost, path, initial, 0.1)


def test_a_vocabulary_no_larger_than_the_shortlist_is_scored_whole():
    plan, _ = make_plan(RECIPES["ladder"], tiny_facts())
    assert (plan.loss, plan.shortlist, plan.negatives) == ("full", 0, 0)


def test_there_are_no_more_negatives_than_tokens_outside_the_shortlist():
    plan, _ = make_plan(replace(LADDER, shortlist=290), tiny_facts())
    assert (plan.loss, plan.negatives) == ("shortlist", 10)


def test_exporting_says_nothing(capfd, caplog):
    port = Port("x", ("T", 3))
    graph = Graph("double.onnx", (port,), (Port("y", ("T", 3)),), lambda x: (x + x,))
    model = export(graph)
    assert [node.op_type for node in model.graph.node] == ["Add"]
    assert capfd.readouterr() == ("", "")
    assert [record for record in caplog.records if record.levelno >= logging.INFO] == []


def test_an_input_that_the_function_ignores_is_still_an_input():
    inputs = (Port("x", ("T", 3)), Port("unread", ("T",)))
    graph = Graph("first.onnx", inputs, (Port("y", ("T", 3)),), lambda x, unread: (x + x,))
    model = export(graph)
    onnx.checker.check_model(model)
    assert [value.name for value in model.graph.input] == ["x", "unread"]


# A tail needs a backbone's blocks as well: test_tail compiles each kind.
@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in RECIPES if RECIPES[name].target != "tail"])
def test_every_named_recipe_compiles(name, tmp_path):
    recipe = replace(RECIPES[name], shortlist=100, negatives=30)
    stages = []
    manifest = compile_kit(
        recipe, tiny_facts(layers=4), tiny_head(), tmp_path / name, stages.append
    )
    assert manifest.recipe == name
    assert stages[-1] == "quantising the head"
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_kit_with_public_states_has_a_basis_and_says_what_encodings_cost(tmp_path):
    facts, head = tiny_facts(), tiny_head()

    def sample(layers):
        assert layers == LADDER.layers(facts.layers)
        return public(taps=len(layers))

    recipe = replace(LADDER, coordinates=12)
    manifest = compile_kit(recipe, facts, head, tmp_path / "kit", lambda _: None, sample)
    assert manifest.basis == BasisSpec(facts.hidden, 12)
    data = (tmp_path / "kit" / "basis.bin").read_bytes()
    Basis.from_bytes(data, manifest.taps, facts.hidden, (facts.hidden, 12))
    assert manifest.files["basis.bin"].size == len(data)
    assert len(manifest.encodings) > 1


def test_a_recipe_that_wants_no_coordinates_has_no_basis(ladder_kit):
    assert (ladder_kit.manifest.basis, ladder_kit.manifest.encodings) == (None, ())
    assert not (ladder_kit.folder / "basis.bin").exists()
