"""Summaries from end to end: a pair of tiny encoders, trained for two steps, served, and learned with."""

import json

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel

from tests.benchmarks.test_benchmarks_run import run

pytestmark = pytest.mark.slow

WORDS = (
    "the a lamp boat office tea price names places promises burns until last harbour counts".split()
)
MARKS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]


@pytest.fixture
def encoder(tmp_path):
    words = {word: place for place, word in enumerate([*MARKS, *WORDS])}
    words |= {str(number): len(words) + number for number in range(80)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words), hidden_size=64, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=128,
    )  # fmt: skip
    BertModel(config).save_pretrained(tmp_path / "tiny")
    tokenizer.save(str(tmp_path / "tiny" / "tokenizer.json"))
    return tmp_path / "tiny"


@pytest.fixture
def flags(encoder, tmp_path):
    file = tmp_path / "packages.jsonl"
    texts = [f"counts {n}\n{' '.join(WORDS)} {n}" for n in range(24)]
    file.write_text("\n".join(json.dumps({"text": one}) for one in texts))
    return "--encoder", str(encoder), "--text", str(file), "--quick", "--threads", "1"


def test_a_pair_answers_as_generate_and_is_learned_with(flags, tmp_path):
    report, _ = run("summaries", tmp_path / "it.json", *flags, cache=tmp_path / "cache")
    assert report["same"] == 4
    assert report["results"]["lesson"]["promoted"]
    assert {"rouge1_frozen", "rouge2_frozen", "rougeL_frozen", "rougeL_plugin"} <= report.keys()
    # The same pair is not made again.
    (kept,) = (tmp_path / "cache" / "backbones").iterdir()
    assert kept.name.startswith("tiny-pair-2-0-")


def test_clients_learn_summaries_together_and_a_round_is_gone_on_from(flags, tmp_path):
    pytest.importorskip("flwr")
    file, flags = tmp_path / "it.json", (*flags, "--results", str(tmp_path / "kept"))
    report, _ = run("summaries-federated", file, *flags, cache=tmp_path / "cache")
    assert {"rougeL_frozen", "rougeL_fedavg", "rouge1_fedavgm", "rouge2_fedavgm"} <= report.keys()
    assert sum(report["settings"]["clients"]) == 10
    rounds = report["results"]["rounds"]
    assert [[one["answered"] for one in cells] for cells in rounds.values()] == [[2, 2]] * 2
    for cells in rounds.values():
        assert cells[1]["held_out"] < cells[0]["held_out"]
    assert (tmp_path / "it.png").read_bytes().startswith(b"\x89PNG")

    cut = tmp_path / "kept" / "fedavgm" / "round-2.json"
    cut.unlink()
    again, _ = run("summaries-federated", file, *flags, cache=tmp_path / "cache")
    assert again["results"]["rounds"]["fedavgm"][1] == rounds["fedavgm"][1]
