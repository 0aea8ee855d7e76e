"""
The rivals: PEFT LoRA on the whole backbone, or its last blocks in full, in one torch process.

`python -m benchmarks.lora PLAN.json` carries out one plan and prints one JSON object. To train:
the best epoch by validation is kept, and training stops when validation no longer falls. To
score: the mean negative log-likelihood of windows, with a trained adapter or without.
"""

import contextlib
import json
import math
import random
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

Window = dict[str, Any]
"""
``ids`` (T,) and ``scored`` (T - 1,): the loss weight of foreseeing each token but the first;
``prefix``: how many of the first tokens are the personal prefix, of which none is scored.
"""

Windows = list[Window]

PRECISIONS = ("f32", "bf16", "bf16-autocast")
"""Of the backbone's weights; what is trained and its optimizer are f32 in each."""

METHODS = ("lora", "blocks")
"""LoRA on all linear layers; all weights of the last BLOCKS blocks."""

BLOCKS = 4
BLOCKS_FILE = "blocks.safetensors"


@dataclass(frozen=True, slots=True)
class Plan:
    """All that decides a run."""

    task: str
    """train or score."""

    folder: str
    """Hugging Face folder of the backbone."""

    windows: str
    """JSON file: part name -> list of windows of token ids."""

    adapter: str
    """Folder the best adapter is written to, or read from; "" scores the frozen backbone."""

    parts: tuple[str, ...] = ("test",)
    """Which windows are scored."""

    method: str = "lora"
    """What is trained: one of METHODS."""

    precision: str = "f32"
    threads: int = 1
    seed: int = 0
    rate: float = 1e-3
    epochs: int = 3
    patience: int = 1
    """Epochs without a better validation before training stops."""

    batch: int = 2
    """Windows a step."""

    steps: int = 0
    """Stop after so many; 0 for whole epochs. The schedule is that of whole epochs."""

    rank: int = 8
    alpha: int = 16
    dropout: float = 0.05
    warmup: int = 10
    clip: float = 1.0


def main(arguments: list[str]) -> int:
    """Carries out the plan of a file."""
    plan = Plan(**json.loads(Path(arguments[0]).read_text(encoding="utf-8")))
    windows = json.loads(Path(plan.windows).read_text(encoding="utf-8"))
    torch.set_num_threads(plan.threads)
    torch.manual_seed(plan.seed)
    transformers.logging.disable_progress_bar()
    # peft asks transformers by an old name; nobody who reads the screen can do anything about it.
    warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*")
    found = train(plan, windows) if plan.task == "train" else score(plan, windows)
    print(json.dumps({**found, "plan": asdict(plan)}))
    return 0


def train(plan: Plan, windows: dict[str, Windows]) -> dict[str, Any]:
    """Trains and keeps the epoch that validates best. CPU seconds are of training steps alone."""
    model = _trainable(_backbone(plan), plan)
    after_load = psutil.Process().memory_info().rss
    optimizer = torch.optim.AdamW(_trained(model), lr=plan.rate, weight_decay=0.0)
    order = random.Random(plan.seed)
    total = plan.epochs * math.ceil(len(windows["training"]) / plan.batch)
    history: list[dict[str, Any]] = []
    best: dict[str, Any] | None = None
    step, cpu, wall = 0, 0.0, time.perf_counter()
    for epoch in range(1, plan.epochs + 1):
        losses = []
        for batch in _batches(windows["training"], plan.batch, order):
            began = time.process_time()
            losses.append(_step(model, optimizer, batch, plan, _rate(plan, step, total)))
            cpu += time.process_time() - began
            step += 1
            if step == plan.steps:
                break
        point = {
            "epoch": epoch,
            "steps": step,
            "cpu_seconds": cpu,
            "process_cpu_seconds": time.process_time(),
            "loss": sum(losses) / len(losses),
            "validation_nll": _nll(model, windows["validation"], plan)[0],
        }
        history.append(point)
        print(_told(point), file=sys.stderr, flush=True)
        if best is None or point["validation_nll"] < best["validation_nll"]:
            best = point
            _save(model, plan)
        if epoch - best["epoch"] >= plan.patience or 0 < plan.steps <= step:
            break
    return {
        "best": best,
        "history": history,
        "seconds": time.perf_counter() - wall,
        "cpu_seconds_in_all": time.process_time(),
        "memory_after_load": after_load,
        "trained_weights": sum(weight.numel() for weight in _trained(model)),
    }


def steps(plan: Plan) -> Iterator[float]:
    """Trains step after step, over and over the same windows; gives each one's loss."""
    windows = json.loads(Path(plan.windows).read_text(encoding="utf-8"))["training"]
    torch.set_num_threads(plan.threads)
    torch.manual_seed(plan.seed)
    model = _trainable(_backbone(plan), plan)
    optimizer = torch.optim.AdamW(_trained(model), lr=plan.rate, weight_decay=0.0)
    whole = [window for window in windows if len(window["ids"]) == len(windows[0]["ids"])]
    order = random.Random(plan.seed)
    while True:
        for batch in _batches(whole, plan.batch, order):
            if len(batch) == plan.batch:
                yield _step(model, optimizer, batch, plan, plan.rate)


def score(plan: Plan, windows: dict[str, Windows]) -> dict[str, Any]:
    """Mean negative log-likelihood in nats of each part's tokens, each window by itself."""
    model = _backbone(plan)
    if plan.adapter:
        model = _adapted(model, plan)
    found = {}
    for part in plan.parts:
        nll, tokens = _nll(model, windows[part], plan)
        found[part] = {"nll": nll, "tokens": tokens}
    return found


def _backbone(plan: Plan) -> torch.nn.Module:
    if plan.precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {PRECISIONS}, but is {plan.precision!r}")
    if plan.method not in METHODS:
        raise ValueError(f"method must be one of {METHODS}, but is {plan.method!r}")
    if plan.method == "blocks" and plan.precision == "bf16":
        raise ValueError("blocks are trained in f32 weights: precision f32 or bf16-autocast")
    dtype = torch.float32 if plan.precision == "f32" else torch.bfloat16
    return transformers.AutoModelForCausalLM.from_pretrained(plan.folder, dtype=dtype).eval()


def _trainable(model: torch.nn.Module, plan: Plan) -> torch.nn.Module:
    if plan.method == "blocks":
        model.requires_grad_(False)
        for block in _last_blocks(model):
            # f32 whatever the others are: small steps would be rounded away.
            block.float().requires_grad_(True)
        return model
    config = LoraConfig(
        r=plan.rank,
        lora_alpha=plan.alpha,
        lora_dropout=plan.dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config)


def _last_blocks(model: torch.nn.Module) -> torch.nn.ModuleList:
    lists = [part for part in model.modules() if isinstance(part, torch.nn.ModuleList)]
    return max(lists, key=len)[-BLOCKS:]


def _save(model: torch.nn.Module, plan: Plan) -> None:
    if plan.method == "lora":
        model.save_pretrained(plan.adapter)
        return
    folder = Path(plan.adapter)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: one for name, one in model.named_parameters() if one.requires_grad},
        folder / BLOCKS_FILE,
    )


def _adapted(model: torch.nn.Module, plan: Plan) -> torch.nn.Module:
    if plan.method == "lora":
        return PeftModel.from_pretrained(model, plan.adapter)
    model.load_state_dict(load_file(Path(plan.adapter, BLOCKS_FILE)), strict=False)
    return model


def _trained(model: torch.nn.Module) -> list[torch.nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def _rate(plan: Plan, step: int, total: int) -> float:
    """Linear warm-up, then cosine down to a tenth of the peak."""
    if step < plan.warmup:
        return plan.rate * (step + 1) / plan.warmup
    share = (step - plan.warmup) / max(1, total - plan.warmup)
    return plan.rate * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * share)))


def _batches(windows: Windows, size: int, order: random.Random) -> Iterator[Windows]:
    """All windows once, in an order of chance; those of one batch stand behind the same prefix."""
    groups: dict[tuple[int, ...], Windows] = {}
    for window in order.sample(windows, len(windows)):
        groups.setdefault(tuple(window["ids"][: window["prefix"]]), []).append(window)
    batches = [
        group[start : start + size]
        for group in groups.values()
        for start in range(0, len(group), size)
    ]
    if len(groups) > 1:
        order.shuffle(batches)
    yield from batches


def _step(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: Windows,
    plan: Plan,
    rate: float,
) -> float:
    model.train()
    for group in optimizer.param_groups:
        group["lr"] = rate
    total, count = _losses(model, batch, plan)
    loss = total / count
    loss.backward()
    torch.nn.utils.clip_grad_norm_(_trained(model), plan.clip)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.item()


@torch.no_grad()
def _nll(model: torch.nn.Module, windows: Windows, plan: Plan) -> tuple[float, int]:
    model.eval()
    total, tokens = 0.0, 0
    for window in windows:
        loss, count = _losses(model, [window], plan)
        total, tokens = total + loss.item(), tokens + count
    return total / tokens, tokens


def _losses(model: torch.nn.Module, batch: Windows, plan: Plan) -> tuple[torch.Tensor, int]:
    """Summed loss of the scored next tokens in the windows, and how many those are."""
    logits_of = _logits_behind if batch[0]["prefix"] else _logits
    prefix = batch[0]["prefix"]
    longest = max(len(window["ids"]) for window in batch)
    with _arithmetic(plan.precision):
        logits = logits_of(model, batch)[:, :-1]  # (B, T - 1, V)
    rows = [_filled(window["ids"][prefix:], longest - prefix) for window in batch]
    weights = [_filled(window["scored"][prefix:], longest - prefix - 1) for window in batch]
    scored = torch.tensor(weights)  # (B, T - 1)
    targets = torch.tensor(rows)[:, 1:].masked_fill(scored == 0, -100)
    loss = torch.nn.functional.cross_entropy(
        logits.reshape(-1, logits.shape[-1]).float(), targets.reshape(-1), reduction="sum"
    )
    return loss, int((scored != 0).sum())


def _logits(model: torch.nn.Module, batch: Windows) -> torch.Tensor:
    """Of windows that stand alone, (B, T, V), short ones filled up at the end."""
    longest = max(len(window["ids"]) for window in batch)
    # Causal attention never looks to the right, so what fills up a short window needs no mask.
    ids = torch.tensor([_filled(window["ids"], longest) for window in batch])  # (B, T)
    return model(input_ids=ids, use_cache=False).logits


def _logits_behind(model: torch.nn.Module, batch: Windows) -> torch.Tensor:
    """
    Of windows that stand behind one prefix of P tokens, without the prefix's own: (B, T, V).

    One sequence, the prefix read once and the windows one after another: each sees the prefix and
    itself, at the positions that it would have alone behind the prefix.
    """
    prefix = batch[0]["prefix"]
    longest = max(len(window["ids"]) for window in batch) - prefix
    rows = [_filled(window["ids"][prefix:], longest) for window in batch]
    ids = torch.tensor([batch[0]["ids"][:prefix] + [i for row in rows for i in row]])  # (1, N)
    window_of = torch.arange(len(batch)).repeat_interleave(longest)
    owner = torch.cat([torch.full((prefix,), -1), window_of])  # (N,)
    places = torch.arange(prefix, prefix + longest).repeat(len(batch))
    positions = torch.cat([torch.arange(prefix), places])  # (N,)
    seen = (owner[None, :] == -1) | (owner[:, None] == owner[None, :])
    seen &= positions[None, :] <= positions[:, None]
    logits = model(
        input_ids=ids,
        attention_mask=seen[None, None],
        position_ids=positions[None],
        use_cache=False,
        logits_to_keep=longest * len(batch),
    ).logits  # (1, B * T, V)
    return logits.view(len(batch), longest, -1)


def _filled(values: list[float], length: int) -> list[float]:
    return values + [0] * (length - len(values))


def _told(point: dict[str, Any]) -> str:
    return (
        f"epoch {point['epoch']}: loss {point['loss']:.4f}, validation"
        f" {point['validation_nll']:.4f}, {point['cpu_seconds']:.0f} CPU seconds"
    )


def _arithmetic(precision: str) -> contextlib.AbstractContextManager[Any]:
    if precision == "bf16-autocast":
        return torch.autocast("cpu", dtype=torch.bfloat16)
    return contextlib.nullcontext()


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:  # the one who started this one says so already
        sys.exit(130)
