"""
What do the learning rules cost, and what do they learn?

Each rule trains the same side network, `ladder`, on the same text of one person, from the same
cached features and without a personal prefix: held-out loss over CPU seconds, and the peak memory
of `sideplug train`. Beside it, the memory of one compiled training step alone, over lengths: of
these kits, where the loss and the weights' directions weigh most, and of a ladder beside every
layer with a small vocabulary, where activations do. There MEMPEPITA shows what it saves.

Every rule has its recipe's schedule. A rule that learns nothing is listed as it is. The first step
of a run is slower than the others; CPU seconds are all that the process used.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import texts
from benchmarks.picture import draw_panels
from benchmarks.processes import measured
from benchmarks.report import Figure, Outcome, Rows, say
from benchmarks.services import CLOUD, Cloud, Device, cloud, pull, share_features
from benchmarks.windows import prepare
from device_agent.cloud.link import Link
from device_agent.settings import Settings

NAME = "rules"
HELP = "learning rules on one side network: what they learn, in what time and memory"

RECIPES: Mapping[str, str] = {
    "backprop": "ladder",
    "recompute": "ladder-recompute",
    "pepita": "ladder-pepita",
    "mempepita": "ladder-mempepita",
    "zeroth_order": "ladder-zeroth-order",
}
"""Rule -> the recipe that trains the ladder by it."""

LENGTHS = (128, 512, 1024)
"""Tokens a step."""

MEGABYTE = 1e6


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the benchmark's own arguments."""
    parser.add_argument("--training-tokens", type=int, default=texts.TRAINING_TOKENS)
    parser.add_argument("--held-out-tokens", type=int, default=texts.HELD_OUT_TOKENS)
    parser.add_argument("--rules", nargs="+", choices=tuple(RECIPES), default=list(RECIPES))
    parser.add_argument("--deep-layers", type=int, default=8, help="of the network in steps alone")


def run(args: argparse.Namespace) -> Outcome:
    """Trains by one rule after the other, then measures steps."""
    if args.quick:
        args.training_tokens, args.held_out_tokens, args.deep_layers = 1000, 300, 2
    documents = texts.load(args.text)
    backbone = pull(args.backbone)
    for rule in args.rules:
        say(f"compiling {RECIPES[rule]}")
        measured([*CLOUD, "compile", RECIPES[rule], "--backbone", backbone.name, "--json"])
    flags = ["--port", "0"]
    for rule in args.rules:
        flags += ["--recipe", RECIPES[rule]]
    with tempfile.TemporaryDirectory() as folder:
        workspace = Path(folder)
        with cloud(backbone, "f32", args.threads, flags) as service:
            _write_text(service, documents, args, workspace)
            arms = {rule: _arm(service, workspace, rule, args) for rule in args.rules}
        ladder = {rule: _steps(_graph(workspace / rule), workspace) for rule in args.rules}
        deep = {rule: _steps(_deep(rule, args, workspace), workspace) for rule in args.rules}
    results: dict[str, Any] = {"arms": arms, "ladder_steps": ladder, "deep_steps": deep}
    if args.json:
        results["picture"] = _draw(args.json.with_suffix(".png"), arms)
    return Outcome(
        figures=[*_figures("", ladder), *_figures("_deep", deep)],
        results=results,
        seeds=[args.seed],
        settings={
            "backbone": backbone.name,
            "training_tokens": args.training_tokens,
            "held_out_tokens": args.held_out_tokens,
            "threads": args.threads,
            "deep_layers": args.deep_layers,
            "quick": args.quick,
        },
        tables=[_arm_table(arms), _step_table("ladder", ladder), _step_table("deep", deep)],
    )


def _write_text(
    service: Cloud, documents: Sequence[texts.Document], args: argparse.Namespace, folder: Path
) -> None:
    first = RECIPES[args.rules[0]]
    with Link(Settings(home=folder / "preparing", cloud=service.url, recipe=first)) as link:
        link.kit()
        found = prepare(link, documents, args.training_tokens, args.held_out_tokens)
    found.write_text("training", folder / "training.jsonl")
    found.write_text("test", folder / "test.jsonl")


def _arm(service: Cloud, folder: Path, rule: str, args: argparse.Namespace) -> dict[str, Any]:
    """Train by one rule in a home of its own, on features that all homes share."""
    say(f"training by {rule}")
    home = folder / rule
    share_features(home, folder / "features")
    device = Device(home, service.url, args.threads, prefix=0)
    chosen = ("--recipe", RECIPES[rule])
    device.run("learn", str(folder / "training.jsonl"))
    training = device.run("train", *chosen, "--seed", str(args.seed))
    scored = device.run("evaluate", *chosen, str(folder / "test.jsonl")).answer
    said = training.answer
    return {
        "test_nll": scored.get("plugin", scored["base"])["nll"],
        "test_nll_frozen": scored["base"]["nll"],
        "promoted": said["promoted"],
        "validation": said["validation"],
        "cpu_seconds": training.cpu_seconds,
        "peak_memory": max(training.peak_bytes, said["peak_memory"]),
        "history": said["history"],
    }


def _graph(home: Path) -> tuple[Path, Mapping[str, int]]:
    """The training step that a home has, and the rows that its loss reads."""
    (manifest,) = home.glob("kits/*/manifest.json")
    kit = json.loads(manifest.read_text(encoding="utf-8"))
    rows = {"S": kit["shortlist"] or kit["vocabulary"], "N": kit["negatives"]}
    return manifest.with_name("train.onnx"), rows


def _deep(rule: str, args: argparse.Namespace, folder: Path) -> tuple[Path, Mapping[str, int]]:
    """A ladder of width 256 beside every layer of a narrow backbone with 64 tokens, exported."""
    say(f"exporting a deep ladder for {rule}")
    # Imported late: torch is large, and the arms above need the memory.
    from adapters.recipe import Recipe
    from benchmarks.narrow import export_step

    recipe = Recipe(name="deep", taps=(), width=256, loss="full", dropout=0.0)
    path = folder / f"deep-{rule}.onnx"
    export_step(replace(recipe, rule=rule), args.deep_layers, path)
    return path, {"S": 64, "N": 0}


def _steps(graph: tuple[Path, Mapping[str, int]], folder: Path) -> dict[int, dict[str, int]]:
    """Memory of one step by its tokens, each measured in a process of its own."""
    path, rows = graph
    found = {}
    for tokens in LENGTHS:
        # A step of the shortlist's loss brings as many rows as it has tokens.
        scored = rows["S"] + (tokens if rows["N"] else 0)
        asked = {"graph": str(path), "sizes": {"T": tokens, "S": scored, "N": rows["N"]}}
        (folder / "asked.json").write_text(json.dumps(asked), encoding="utf-8")
        command = [sys.executable, "-m", "benchmarks.step_memory", str(folder / "asked.json")]
        # Every array a mapping of its own, which is gone when it is freed.
        found[tokens] = measured(command, {"MALLOC_MMAP_THRESHOLD_": "65536"}).answer
    return found


def _figures(suffix: str, steps: Mapping[str, Mapping[int, Mapping[str, int]]]) -> list[Figure]:
    if not {"backprop", "mempepita"} <= steps.keys():
        return []

    def cut(tokens: int) -> float:
        ours, theirs = (steps[rule][tokens]["activations"] for rule in ("mempepita", "backprop"))
        return 1 - ours / theirs

    where = "deep network" if suffix else "ladder"
    goals = {512: 0.5}
    return [
        Figure(
            f"mempepita_activation_cut{suffix}_{tokens}",
            cut(tokens),
            f"memory of a step below backprop's, {where}, {tokens} tokens",
            at_least=goals.get(tokens),
        )
        for tokens in LENGTHS
    ]


def _draw(path: Path, arms: Mapping[str, dict[str, Any]]) -> str:
    curves = {
        rule: {0.0: arm["validation"]["base"]}
        | {row["cpu_seconds"]: row["validation"] for row in arm["history"]}
        for rule, arm in arms.items()
    }
    return draw_panels(path, {"ladder": curves}, "CPU seconds", "held-out NLL, nats a token")


def _arm_table(arms: Mapping[str, dict[str, Any]]) -> Rows:
    columns = ("rule", "test NLL", "frozen", "gain", "CPU s", "peak MB")
    rows: Sequence[Sequence[Any]] = [
        [
            rule,
            arm["test_nll"],
            arm["test_nll_frozen"],
            arm["test_nll_frozen"] - arm["test_nll"],
            arm["cpu_seconds"],
            arm["peak_memory"] / MEGABYTE,
        ]
        for rule, arm in arms.items()
    ]
    return Rows("ladder, trained", columns, rows)


def _step_table(title: str, steps: Mapping[str, Mapping[int, Mapping[str, int]]]) -> Rows:
    columns = (
        "rule",
        *(f"{kind} MB, {tokens}" for tokens in LENGTHS for kind in ("step", "arena")),
    )
    rows = [
        [rule, *(one[kind] / MEGABYTE for one in by.values() for kind in ("activations", "arena"))]
        for rule, by in steps.items()
    ]
    return Rows(f"{title}: memory of a step by tokens", columns, rows)
