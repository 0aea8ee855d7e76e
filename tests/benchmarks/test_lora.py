"""The torch rivals: windows behind a prefix, and the last blocks in full."""

import json
import random

import pytest
import torch

from tests.tiny import tiny_folder

pytestmark = [
    pytest.mark.slow,
    # peft asks transformers by an old name.
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning"),
]

PREFIX = [7, 300, 12, 99, 205, 31, 8]
TEXTS = ([5, 77, 130, 9, 300, 42], [11, 12, 13], [200, 3, 45, 6, 70, 80, 90])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_folder("llama", tmp_path_factory.mktemp("llama"))


def behind(text, prefix=PREFIX):
    scored = [0.0] * len(prefix) + [1.0] * (len(text) - 1)
    return {"ids": prefix + text, "scored": scored, "prefix": len(prefix)}


def plan_of(folder, **more):
    from benchmarks import lora

    return lora.Plan(
        **{"task": "train", "folder": str(folder), "windows": "", "adapter": "", **more}
    )


@torch.no_grad()
def test_windows_that_share_a_prefix_are_scored_as_each_alone(folder):
    from benchmarks import lora

    plan = plan_of(folder)
    model = lora._backbone(plan)
    together, count = lora._losses(model, [behind(text) for text in TEXTS], plan)
    apart = 0.0
    for text in TEXTS:
        logits = model(torch.tensor([PREFIX + text])).logits[0, len(PREFIX) : -1]
        apart += torch.nn.functional.cross_entropy(logits, torch.tensor(text[1:]), reduction="sum")
    assert count == sum(len(text) - 1 for text in TEXTS)
    assert float(together) == pytest.approx(float(apart), rel=1e-5)


def test_a_batch_holds_windows_of_one_prefix_and_an_epoch_all_of_them():
    from benchmarks import lora

    windows = [behind([n, n + 1], PREFIX if n % 3 else PREFIX[:3]) for n in range(20)]
    batches = list(lora._batches(windows, 4, random.Random(0)))
    assert all(len({one["prefix"] for one in batch}) == 1 for batch in batches)
    seen = sorted(one["ids"][-1] for batch in batches for one in batch)
    assert seen == [n + 1 for n in range(20)]


@pytest.mark.parametrize(
    ("method", "precision"),
    [("lora", "f32"), ("blocks", "f32"), ("blocks", "bf16-autocast"), ("lora", "bf16-autocast")],
)
def test_what_was_kept_scores_as_well_as_when_it_was_trained(folder, tmp_path, method, precision):
    from benchmarks import lora

    windows = {
        part: [behind(text) for text in TEXTS] for part in ("training", "validation", "test")
    }
    plan = plan_of(
        folder, adapter=str(tmp_path / "kept"), method=method, precision=precision,
        epochs=3, patience=3, rate=3e-3, warmup=1, batch=2,
    )  # fmt: skip
    found = lora.train(plan, windows)
    scoring = {"task": "score", "adapter": plan.adapter, "method": method}
    after = lora.score(plan_of(folder, **scoring), windows)["test"]
    before = lora.score(plan_of(folder, task="score"), windows)["test"]
    assert after["tokens"] == before["tokens"] == 13
    assert after["nll"] < before["nll"]
    slack = 1e-5 if precision == "f32" else 0.05
    assert after["nll"] == pytest.approx(found["best"]["validation_nll"], abs=slack)
    assert json.loads(json.dumps(found)) == found


def test_blocks_are_all_the_weights_of_the_last_four(folder):
    from benchmarks import lora

    model = lora._trainable(lora._backbone(plan_of(folder)), plan_of(folder, method="blocks"))
    trained = {name for name, one in model.named_parameters() if one.requires_grad}
    assert {name.split(".")[2] for name in trained} == {"0", "1", "2", "3"}
    assert len(trained) == 4 * 9
    assert not any("embed" in name or "lm_head" in name for name in trained)


def test_blocks_in_bf16_weights_are_refused(folder):
    from benchmarks import lora

    with pytest.raises(ValueError, match="f32 weights"):
        lora._backbone(plan_of(folder, method="blocks", precision="bf16"))
