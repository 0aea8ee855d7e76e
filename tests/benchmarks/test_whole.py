"""The peer and the rival against plain arithmetic on a tiny model."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from benchmarks import whole
from tests.tiny import tiny_folder

IDS = [5, 77, 130, 9, 300, 42]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_folder("llama", tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def model(folder):
    return whole.load(str(folder), "f32")


@torch.no_grad()
def argmax_loop(model, ids, new):
    ids = list(ids)
    for _ in range(new):
        ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[-new:]


def test_generation_takes_the_likeliest_token_every_time(model):
    answer = whole.generate(model, IDS, 40, gaps=True)
    assert answer["tokens"] == argmax_loop(model, IDS, 40)
    assert len(answer["gaps"]) == 40
    assert min(answer["gaps"]) >= 0


def test_a_stop_token_in_the_folder_does_not_end_an_answer(folder, tmp_path):
    first = argmax_loop(whole.load(str(folder), "f32"), IDS, 1)[0]
    copy = tiny_folder("llama", tmp_path / "copy")
    settings = {"eos_token_id": first, "do_sample": True, "temperature": 2.0}
    (copy / "generation_config.json").write_text(json.dumps(settings))
    made = whole.generate(whole.load(str(copy), "f32"), IDS, 5)
    assert made["tokens"] == argmax_loop(whole.load(str(folder), "f32"), IDS, 5)


@torch.no_grad()
def test_distributions_are_those_of_the_model(model, tmp_path):
    file = tmp_path / "rows.npy"
    assert whole.distributions(model, [IDS, IDS[:2]], str(file)) == {"positions": 8}
    expected = model(input_ids=torch.tensor([IDS])).logits[0].log_softmax(-1)
    np.testing.assert_allclose(np.load(file)[:6], expected, atol=1e-6)


@pytest.mark.slow
def test_lora_scores_windows_like_plain_cross_entropy(folder):
    from benchmarks import lora

    windows = {"test": [_window(IDS), _window(IDS[:3])]}
    plan = lora.Plan(task="score", folder=str(folder), windows="", adapter="", parts=("test",))
    scored = lora.score(plan, windows)["test"]
    plain = whole.load(str(folder), "f32")
    with torch.no_grad():
        total = sum(
            F.cross_entropy(plain(torch.tensor([ids])).logits[0, :-1], torch.tensor(ids[1:]))
            * (len(ids) - 1)
            for ids in (IDS, IDS[:3])
        )
    assert scored["tokens"] == 7
    assert scored["nll"] == pytest.approx(float(total) / 7, rel=1e-5)


def _window(ids):
    return {"ids": ids, "scored": [1.0] * (len(ids) - 1), "prefix": 0}
