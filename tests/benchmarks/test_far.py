"""Snippets and their split, answers judged, and the whole benchmark on a tiny encoder."""

import json
import sys

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import DistilBertConfig, DistilBertModel

from adapters.check import onnx_session
from adapters.encoder.graphs import infer_graph
from adapters.export import export
from benchmarks import encoders, snippets
from benchmarks.encoder_training import Judge, batches, times_by_operator
from benchmarks.errors import TextError
from benchmarks.processes import measured
from benchmarks.snippets import Snippet, split

GOOD, BAD = ("splendid", "lovely", "brave"), ("dull", "limp", "noisy")
THINGS = ("film", "tale", "cast", "plot", "scene", "end", "score", "joke")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A random DistilBERT of one block with a vocabulary of whole words."""
    folder = tmp_path_factory.mktemp("encoder") / "tiny"
    words = ["[PAD]", "[UNK]", "a", "the", *GOOD, *BAD, *THINGS, *map(str, range(400))]
    tokenizer = Tokenizer(models.WordLevel({w: n for n, w in enumerate(words)}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    torch.manual_seed(0)
    sizes = {"n_layers": 1, "dim": 24, "hidden_dim": 40, "n_heads": 3}
    config = DistilBertConfig(**sizes, vocab_size=len(words), max_position_embeddings=33)
    DistilBertModel(config).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def some_snippets(count=400):
    kinds = (BAD, GOOD)
    return [
        Snippet(f"{n} the {THINGS[n % 8]} a {kinds[n % 2][n % 3]} {THINGS[n % 5]}", n % 2)
        for n in range(count)
    ]


def test_versions_of_one_snippet_stay_together():
    found = some_snippets()
    twins = [Snippet(f"{one.text.upper()}, and more!", one.label) for one in found]
    parts = split([*found, *twins])
    assert sum(map(len, parts.values())) == 800
    starts = [{s.text.lower().split(" a ")[0] for s in part} for part in parts.values()]
    assert not starts[0] & starts[1]
    assert not starts[0] & starts[2]
    assert not starts[1] & starts[2]
    assert 0.6 < len(parts["training"]) / 800 < 0.8
    assert parts == split([*found, *twins])


def test_the_first_of_a_part_are_as_mixed_as_all_of_it():
    ordered = sorted(some_snippets(), key=lambda one: -one.label)
    first = split(ordered)["training"][:100]
    assert 0.3 < sum(one.label for one in first) / 100 < 0.7


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "x"', "not JSON"),
        ('{"text": "x"}', "expected"),
        ('{"text": " ", "label": 1}', "expected"),
        ('{"text": "x", "label": 2}', "expected"),
        ('{"text": "x", "label": true}', "expected"),
        ("[1]", "expected"),
    ],
)
def test_a_line_that_is_no_snippet_is_named(tmp_path, line, message):
    path = tmp_path / "mine.jsonl"
    path.write_text('{"text": "fine", "label": 0}\n' + line)
    with pytest.raises(TextError, match=f"line 2: {message}"):
        snippets.from_file(path)


def test_a_folder_without_an_encoder_is_refused(tmp_path):
    with pytest.raises(TextError, match="no encoder"):
        encoders.load(tmp_path)


def test_a_batch_says_where_each_token_of_its_texts_stands():
    batch = encoders.batch_of([([7, 9, 7, 5], 1), ([9, 3], 0)])
    whole = batch.inputs["distinct"][batch.inputs["ids"]]
    assert whole.tolist() == [[7, 9, 7, 5], [9, 3, 0, 0]]
    assert batch.inputs["seen"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert batch.inputs["labels"].tolist() == [1, 0]
    assert batch.sizes == {"B": 2, "N": 4, "U": 5}


def test_an_epoch_reads_every_whole_batch_once_in_an_order_of_its_own():
    rows = [([place + 1], 0) for place in range(10)]
    found = batches(rows, 3, 2, seed=0)
    read = [batch.inputs["distinct"][batch.inputs["ids"]].flatten().tolist() for batch in found]
    assert len(read) == 6
    assert len({id_ for ids in read[:3] for id_ in ids}) == 9
    assert read[:3] != read[3:]


@pytest.mark.slow
def test_answers_are_judged_by_accuracy_and_matthews_correlation(folder, tmp_path):
    encoder = encoders.load(folder)
    rows = encoders.encoded(encoder, some_snippets(100))
    path = tmp_path / "infer.onnx"
    path.write_bytes(export(infer_graph(encoder.shape)).SerializeToString())
    judge, weights = Judge(path, 1), encoder.weights(0)
    batch = encoders.batch_of(rows)
    given = {name: array for name, array in batch.inputs.items() if name != "labels"}
    (scores,) = onnx_session(path).run(None, {**given, **weights})
    said, true = scores.argmax(1), batch.inputs["labels"]
    hits = [int(((said == a) & (true == b)).sum()) for a in (0, 1) for b in (0, 1)]
    tn, fn, fp, tp = hits
    product = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
    found = judge.judge(weights, rows)
    assert found["accuracy"] == pytest.approx((tp + tn) / 100)
    assert found["mcc"] == pytest.approx((tp * tn - fp * fn) / product**0.5 if product else 0.0)
    weights["head_bias"] = np.array([1000, 0], np.float32)
    assert judge.judge(weights, rows) == {"accuracy": 0.5, "mcc": 0.0}


def test_a_profile_s_kernels_are_summed_by_operator(tmp_path):
    node = {"cat": "Node", "name": "x_kernel_time", "dur": 1500, "args": {"op_name": "Gemm"}}
    other = {**node, "name": "x_fence_before"}
    session = {"cat": "Session", "name": "model_run", "dur": 9}
    (tmp_path / "it.json").write_text(json.dumps([node, node, other, session]))
    assert times_by_operator(tmp_path / "it.json") == {"Gemm": 0.003}


@pytest.mark.slow
def test_the_benchmark_runs_every_arm_on_a_tiny_encoder(folder, tmp_path):
    text, file = tmp_path / "mine.jsonl", tmp_path / "it.json"
    lines = [json.dumps({"text": one.text, "label": one.label}) for one in some_snippets()]
    text.write_text("\n".join(lines))
    given = ("--quick", "--threads", "1", "--encoder", str(folder), "--text", str(text))
    measured([sys.executable, "-m", "benchmarks", "far", "--json", str(file), *given])
    report = json.loads(file.read_text())
    assert {"time_cut", "memory_time_cut", "metric_drop", "peak_cut"} <= report.keys()
    arms = report["results"]["arms"]
    assert set(arms) == {"full", "FAR 10 %", "FAR 40 %", "random 10 %", "BitFit"}
    assert arms["BitFit"]["state"] < arms["FAR 10 %"]["state"] < arms["full"]["state"]
    assert all(0 <= arm["accuracy"] <= 1 and -1 <= arm["mcc"] <= 1 for arm in arms.values())
    assert (tmp_path / "it.png").read_bytes().startswith(b"\x89PNG")
