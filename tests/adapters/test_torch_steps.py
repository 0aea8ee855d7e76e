"""Fine-tuning steps that are measured in torch."""

import json

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from adapters.torch_steps import ARMS, main, model_flops
from tests.tiny import tiny_folder

# peft asks transformers by a name that is going away.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_folder("llama", tmp_path_factory.mktemp("tiny") / "llama")


@pytest.mark.parametrize(("arm", "slack"), [("full fine-tuning", 0.0), ("LoRA", 0.2)])
def test_arithmetic_is_what_torch_counts_in_its_matrices(folder, arm, slack):
    pytest.importorskip("peft")
    from transformers import AutoModelForCausalLM

    model = ARMS[arm](AutoModelForCausalLM.from_pretrained(folder).train())
    ids = torch.arange(16)[None]
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids, labels=ids).loss.backward()
    counts = counter.get_flop_counts()["Global"]
    counted = sum(count for op, count in counts.items() if "mm" in str(op) and "bmm" not in str(op))
    # LoRA's first layer needs no gradient of its input, and its own products are small.
    assert model_flops(model, 16) == pytest.approx(counted, rel=slack or 1e-9)


def test_every_arm_and_size_is_a_row(folder, capsys):
    pytest.importorskip("peft")
    assert main([str(folder), "--tokens", "8", "300", "--repeats", "1"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["arm"], row["tokens"]) for row in rows] == [
        (arm, tokens) for arm in ARMS for tokens in (8, 512)
    ]
    full, lora = rows[0], rows[2]
    assert full["weights"] > 2 * lora["weights"] > 0
    for row in rows:
        assert min(row[part] for part in ("load", "forward", "backward", "optimizer")) > 0
