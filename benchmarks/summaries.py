"""
Descriptions of packages to their synopses, with an encoder-decoder: MiniLM twice, trained briefly.

The pair is trained in torch on one half of this machine's packages, served as a backbone, and asked for summaries of
packages that nothing has learned from: greedy answers over HTTP against `generate`. Then a
device learns other packages as pairs, and the same questions are asked of its plugin. `rouge_l` is of
the answers against the synopses. An answer counts as the same where every token is.

With --text of each document of that file the first line is the synopsis, and the rest the description.
"""

import argparse
import hashlib
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from benchmarks import texts
from benchmarks.errors import TextError
from benchmarks.metrics import rouge_l
from benchmarks.package_summaries import Summary, installed, summaries_in
from benchmarks.processes import measured
from benchmarks.report import Figure, Outcome, Rows, say
from benchmarks.services import CLOUD, Backbone, Device, cloud, pull
from benchmarks.snippets import cache
from benchmarks.warm_pair import make
from cloud_service.backbones.loading import load_model
from device_agent.cloud.link import Link
from device_agent.generation.sampling import Sampling
from device_agent.generation.speaker import Speaker
from device_agent.plugins import PluginStore
from device_agent.settings import Settings

NAME = "summaries"
HELP = "package descriptions to synopses with an encoder-decoder, frozen and with a plugin"

STEPS, TEST = 600, 30
ANSWER_TOKENS = 24
QUICK = 24
SHOWN = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the benchmark's own arguments."""
    parser.add_argument(
        "--encoder", type=Path, metavar="FOLDER", help="a BERT to make both sides of, not MiniLM"
    )
    parser.add_argument("--steps", type=int, default=STEPS, help="of the pair's own training")
    parser.add_argument("--test", type=int, default=TEST, help="packages that are asked for")


def run(args: argparse.Namespace) -> Outcome:
    """Trains the pair, serves it, asks it, lets a device learn, and asks that."""
    found = _summaries(args.text)
    if args.quick:
        args.steps, args.test, found = min(args.steps, 2), 4, found[:QUICK]
    test, rest = found[: args.test], found[args.test :]
    public, private = rest[: len(rest) // 2], rest[len(rest) // 2 :]
    if len(private) < 2:
        raise TextError(f"there are too few summaries: {len(found)}")
    backbone = _pair(args, public)
    measured([*CLOUD, "compile", "ladder", "--backbone", backbone.name])
    with (
        tempfile.TemporaryDirectory() as folder,
        cloud(backbone, "f32", args.threads) as service,
    ):
        device = Device(Path(folder) / "home", service.url, args.threads)
        frozen = _answers(device, test, base=True)
        same = _same(backbone, frozen)
        file = Path(folder) / "private.jsonl"
        lines = [json.dumps({"source": one.source, "target": one.target}) for one in private]
        file.write_text("\n".join(lines), encoding="utf-8")
        device.run("learn", str(file))
        lesson = device.run("train").answer
        learned = _answers(device, test, base=False)
    return _outcome(
        args, backbone, (len(public), len(private)), test, frozen, learned, same, lesson
    )


@dataclass(frozen=True, slots=True)
class _Answer:
    """What was made of one description."""

    source: list[int]
    tokens: list[int]
    text: str


def _summaries(path: Path | None) -> list[Summary]:
    documents = [one.text for one in texts.from_file(path)] if path else None
    return installed() if documents is None else summaries_in(documents)


def _pair(args: argparse.Namespace, public: Sequence[Summary]) -> Backbone:
    """The trained pair in the cloud's cache; of the same text, steps and seed it is made once."""
    text = "\n".join(f"{one.source}\t{one.target}" for one in public)
    about = hashlib.sha256(text.encode()).hexdigest()[:8]
    kind = args.encoder.name.lower() if args.encoder else "minilm"
    name = f"{kind}-pair-{args.steps}-{args.seed}-{about}"
    kept = cache() / "backbones" / name
    if (kept / "backbone.json").is_file():
        return Backbone(name, kept)
    say(f"training the pair on {len(public)} packages")
    with tempfile.TemporaryDirectory() as folder:
        return pull(str(make(Path(folder) / name, args.encoder, public, args.steps, args.seed)))


def _answers(device: Device, test: Sequence[Summary], *, base: bool) -> list[_Answer]:
    settings = Settings(home=device.home, cloud=device.url, threads=device.threads, codec="f32")
    # Whole states: what is compared with transformers is not to be rounded on the way.
    settings = replace(settings, wire_kl=0) if base else settings
    version = None if base else PluginStore(device.home).current()
    found = []
    with Link(settings) as link, Speaker(link, version) as speaker:
        for one in test:
            source = speaker.ask([{"role": "user", "content": one.source}])
            pieces = list(speaker.answer(source, Sampling(), ANSWER_TOKENS))
            tokens = [piece.token for piece in pieces if piece.token is not None]
            found.append(_Answer(source, tokens, "".join(piece.text for piece in pieces)))
    return found


def _same(backbone: Backbone, answers: Sequence[_Answer]) -> int:
    """How many answers are, token by token, what `generate` gives."""
    model: Any = load_model(backbone.folder, "f32").eval()
    same = 0
    for answer in answers:
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
    sizes: tuple[int, int],
    test: Sequence[Summary],
    frozen: Sequence[_Answer],
    learned: Sequence[_Answer],
    same: int,
    lesson: dict[str, Any],
) -> Outcome:
    scores = {
        name: fmean(
            rouge_l(answer.text, one.target) for answer, one in zip(some, test, strict=True)
        )
        for name, some in (("frozen", frozen), ("plugin", learned))
    }
    shown = [
        [one.target, answer.text, other.text]
        for one, answer, other in zip(test, frozen, learned, strict=True)
    ]
    columns = ("synopsis", "frozen", "with a plugin")
    return Outcome(
        figures=[
            Figure("same", same, f"of {len(test)} answers, those that are generate's", len(test)),
            Figure("rouge_l_frozen", scores["frozen"], "of the frozen pair"),
            Figure("rouge_l_plugin", scores["plugin"], "with the device's plugin and memory"),
        ],
        results={
            "lesson": lesson,
            "answers": [dict(zip(columns, row, strict=True)) for row in shown],
        },
        seeds=[args.seed],
        settings={
            "backbone": backbone.name,
            "steps": args.steps,
            "public": sizes[0],
            "private": sizes[1],
            "test": len(test),
            "quick": args.quick,
        },
        tables=[Rows("answers", columns, shown[:SHOWN])],
    )
