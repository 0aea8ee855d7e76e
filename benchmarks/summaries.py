"""
Descriptions of packages to their synopses, with an encoder-decoder: MiniLM twice, trained briefly.

The pair is trained in torch on one half of this machine's packages, served as a backbone, and asked for summaries of
packages that nothing has learned from: greedy answers over HTTP against `generate`. Then a
device learns other packages as pairs, and the same questions are asked of its plugin. ROUGE-1, -2 and -L are of
the answers against the synopses. An answer counts as the same where every token is.

With --text of each document of that file the first line is the synopsis, and the rest the description.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks import summary_backbone
from benchmarks.metrics import ROUGE
from benchmarks.report import Figure, Outcome, Rows
from benchmarks.services import Backbone, Device, cloud
from benchmarks.summary_answers import ANSWER_TOKENS, Answer, answers, scores
from benchmarks.summary_backbone import Packages, packages, pair
from cloud_service.backbones.loading import load_model
from device_agent.plugins import PluginStore
from device_agent.settings import Settings

NAME = "summaries"
HELP = "package descriptions to synopses with an encoder-decoder, frozen and with a plugin"

SHOWN = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the benchmark's own arguments."""
    summary_backbone.add_arguments(parser)


def run(args: argparse.Namespace) -> Outcome:
    """Trains the pair, serves it, asks it, lets a device learn, and asks that."""
    found = packages(args.text, quick=args.quick)
    if args.quick:
        args.steps = min(args.steps, 2)
    backbone = pair(args, found.public)
    with (
        tempfile.TemporaryDirectory() as folder,
        cloud(backbone, "f32", args.threads) as service,
    ):
        device = Device(Path(folder) / "home", service.url, args.threads)
        settings = Settings(home=device.home, cloud=device.url, threads=device.threads, codec="f32")
        # Whole states: what is compared with transformers is not to be rounded on the way.
        frozen = answers(replace(settings, wire_kl=0), None, found.test)
        same = _same(backbone, frozen)
        file = Path(folder) / "private.jsonl"
        lines = [json.dumps({"source": one.source, "target": one.target}) for one in found.private]
        file.write_text("\n".join(lines), encoding="utf-8")
        device.run("learn", str(file))
        lesson = device.run("train").answer
        learned = answers(settings, PluginStore(device.home).current(), found.test)
    return _outcome(args, backbone, found, frozen, learned, same, lesson)


def _same(backbone: Backbone, found: Sequence[Answer]) -> int:
    """How many answers are, token by token, what `generate` gives."""
    model: Any = load_model(backbone.folder, "f32").eval()
    same = 0
    for answer in found:
        with torch.no_grad():
            made = model.generate(
                torch.tensor([answer.source]),
                max_new_tokens=ANSWER_TOKENS,
                do_sample=False,
                num_beams=1,
            )[0].tolist()
        same += made[1:] == answer.tokens
    return same


def _outcome(
    args: argparse.Namespace,
    backbone: Backbone,
    found: Packages,
    frozen: Sequence[Answer],
    learned: Sequence[Answer],
    same: int,
    lesson: dict[str, Any],
) -> Outcome:
    of_frozen, of_plugin = (scores(some, found.test) for some in (frozen, learned))
    shown = [
        [one.target, answer.text, other.text]
        for one, answer, other in zip(found.test, frozen, learned, strict=True)
    ]
    columns = ("synopsis", "frozen", "with a plugin")
    figures = [
        Figure("same", same, f"of {len(frozen)} answers, those that are generate's", len(frozen))
    ]
    for name in ROUGE:
        figures += [
            Figure(f"{name}_frozen", of_frozen[name], "of the frozen pair"),
            Figure(f"{name}_plugin", of_plugin[name], "with the device's plugin and memory"),
        ]
    return Outcome(
        figures=figures,
        results={
            "lesson": lesson,
            "answers": [dict(zip(columns, row, strict=True)) for row in shown],
        },
        seeds=[args.seed],
        settings={
            "backbone": backbone.name,
            "steps": args.steps,
            "public": len(found.public),
            "private": len(found.private),
            "test": len(found.test),
            "quick": args.quick,
        },
        tables=[Rows("answers", columns, shown[:SHOWN])],
    )
