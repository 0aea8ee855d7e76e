"""Time of a fine-tuning step in torch, full and by LoRA: ``python -m adapters.torch_steps FOLDER``.

A program of its own, started by the hardware bench: it prints a row for each arm and batch size as one JSON list.
"""

import argparse
import gc
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

RATE = 1e-4
WINDOW = 256
"""Tokens of a sequence, as long as the device's windows."""

RANK, ALPHA = 8, 16


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m adapters.torch_steps", description=__doc__)
    parser.add_argument("folder", type=Path, help="a causal model in Hugging Face layout")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--tokens", type=int, nargs="+", default=[256])
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    rows = []
    for arm, prepare in ARMS.items():
        model = prepare(_model(args.folder))
        rows += [measure(arm, model, tokens, args.repeats) for tokens in args.tokens]
        del model
        gc.collect()
    sys.stdout.write(json.dumps(rows) + "\n")
    return 0


def measure(arm: str, model: Any, tokens: int, repeats: int) -> dict[str, Any]:
    """
    Time one batch size in f32 with AdamW.

    Returns:
        Medians in seconds by part, arithmetic, resident bytes, and how many weights a round would move.

    """
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=RATE)
    vocabulary = int(model.config.vocab_size)
    length = min(tokens, WINDOW)
    texts = torch.randint(vocabulary, (10_000,), generator=torch.Generator().manual_seed(0))
    taken: dict[str, list[float]] = {
        "load": [],
        "forward": [],
        "backward": [],
        "optimizer": [],
    }
    for turn in range(repeats + 1):
        seconds = _step(model, optimizer, texts, math.ceil(tokens / length), length)
        if turn:  # the first one makes the optimizer's moments
            for part, value in seconds.items():
                taken[part].append(value)
    optimizer.zero_grad(set_to_none=True)
    read = math.ceil(tokens / length) * length
    return {
        "arm": arm,
        "tokens": read,
        **{part: statistics.median(values) for part, values in taken.items()},
        "flops": model_flops(model, read),
        "resident": _resident(),
        "joules": None,
        "weights": sum(weight.numel() for weight in trained),
    }


def _step(
    model: nn.Module, optimizer: torch.optim.Optimizer, texts: Tensor, count: int, length: int
) -> dict[str, float]:
    seconds = {}
    loss, ids = torch.tensor(0.0), torch.empty(0)

    def timed(part: str, act: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        found = act()
        seconds[part] = time.perf_counter() - began
        return found

    ids = timed("load", lambda: texts[: count * length].reshape(count, length).clone())
    loss = timed("forward", lambda: model(input_ids=ids, labels=ids).loss)
    timed("backward", loss.backward)
    timed("optimizer", lambda: (optimizer.step(), optimizer.zero_grad(set_to_none=True)))
    return seconds


def model_flops(model: nn.Module, tokens: int) -> float:
    """
    Return the operations of a step.

    Every matrix takes 2 a weight and token forward and 2 backward for its input's gradient, and 2 more
    for its own where it is trained. Attention between positions is left out, as is the embedding's look-up;
    a head that shares the embedding's matrix is a product of its own.
    """
    total = 0
    for module in model.modules():
        if isinstance(module, nn.Linear):
            weight = module.weight
            total += (6 if weight.requires_grad else 4) * weight.numel()
    return float(tokens) * total


def _model(folder: Path) -> nn.Module:
    from transformers import AutoModelForCausalLM

    model: nn.Module = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.train()


def _lora(model: nn.Module) -> nn.Module:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    adapted: nn.Module = get_peft_model(model, config)
    return adapted


ARMS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "full fine-tuning": lambda model: model,
    "LoRA": _lora,
}


def _resident() -> int:
    """Return bytes of this process; 0 where the system does not tell them."""
    try:
        lines = Path("/proc/self/status").read_text("ascii", "replace").splitlines()
    except OSError:
        return 0
    found = [line.split()[1] for line in lines if line.startswith("VmRSS:")]
    return int(found[0]) * 1024 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
