import json
from xml.etree import ElementTree

import pytest

from cloud_service.cli import main

LLAMA = {
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "vocab_size": 300,
}


def test_a_published_model_is_compared_by_both_counts(capsys, tmp_path):
    picture = tmp_path / "cost.svg"
    command = ["cost", "--model", "distilbert", "--tokens", "1024", "--memory", "128"]
    assert main([*command, "--json", "--picture", str(picture)]) == 0
    answer = json.loads(capsys.readouterr().out)
    fits = {rule: row["fits"] for rule, row in answer["as published"].items()}
    assert fits == {"backprop": False, "pepita": False, "mempepita": True}
    assert not answer["as frameworks compute"]["mempepita"]["fits"]
    lines = ElementTree.parse(picture).findall(".//{http://www.w3.org/2000/svg}polyline")
    assert len(lines) == 2 * 3 + 2 * 4
    assert main(command) == 0
    text = capsys.readouterr().out
    assert "98.8 MB  fits" in text
    assert "139.9 MB  does not fit" in text


@pytest.mark.parametrize("inside", [False, True])
def test_any_configuration_is_counted(inside, capsys, tmp_path):
    file = tmp_path / "config.json"
    file.write_text(json.dumps(LLAMA), encoding="utf-8")
    model = tmp_path if inside else file
    assert main(["cost", "--model", str(model), "--tokens", "16", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["break_even_tokens"] == 75
    assert "fits" not in answer["as published"]["backprop"]


@pytest.mark.parametrize("text", ["{}", "no json"])
def test_a_configuration_without_sizes_is_refused(text, capsys, tmp_path):
    (tmp_path / "config.json").write_text(text, encoding="utf-8")
    assert main(["cost", "--model", str(tmp_path)]) == 2
    assert "does not give the model's sizes" in capsys.readouterr().err


def test_no_tokens_cost_nothing_and_are_refused(capsys):
    assert main(["cost", "--tokens", "0"]) == 2
    assert "--tokens must be at least 1" in capsys.readouterr().err


def test_a_model_that_is_not_here_is_named(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("SIDEPLUG_CACHE", str(tmp_path))
    assert main(["cost", "--model", "nowhere"]) == 1
    assert "nowhere" in capsys.readouterr().err
