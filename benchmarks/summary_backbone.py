"""The backbone of the benchmarks on summaries: a pair trained on the public half of all packages."""

import argparse
import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import texts
from benchmarks.errors import TextError
from benchmarks.package_summaries import Summary, installed, summaries_in
from benchmarks.processes import measured
from benchmarks.report import say
from benchmarks.services import CLOUD, Backbone, pull
from benchmarks.snippets import cache
from benchmarks.warm_pair import make

STEPS, TEST = 600, 30
QUICK = 24
"""Summaries of a quick run."""


@dataclass(frozen=True, slots=True)
class Packages:
    """Summaries in three parts; none is in two of them."""

    test: Sequence[Summary]
    public: Sequence[Summary]
    """The pair is trained on these."""
    private: Sequence[Summary]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what decides the pair."""
    parser.add_argument(
        "--encoder", type=Path, metavar="FOLDER", help="a BERT to make both sides of, not MiniLM"
    )
    parser.add_argument("--steps", type=int, default=STEPS, help="of the pair's own training")


def packages(path: Path | None, *, quick: bool) -> Packages:
    """
    The summaries of this machine's packages, or of a file of texts.

    Raises:
        TextError: There are too few.

    """
    documents = [one.text for one in texts.from_file(path)] if path else None
    found = installed() if documents is None else summaries_in(documents)
    found, test = (found[:QUICK], 4) if quick else (found, TEST)
    rest = found[test:]
    public, private = rest[: len(rest) // 2], rest[len(rest) // 2 :]
    if len(private) < 2:
        raise TextError(f"there are too few summaries: {len(found)}")
    return Packages(found[:test], public, private)


def pair(args: argparse.Namespace, public: Sequence[Summary]) -> Backbone:
    """The trained pair in the cloud's cache, and its kit; of the same text, steps and seed it is made once."""
    text = "\n".join(f"{one.source}\t{one.target}" for one in public)
    about = hashlib.sha256(text.encode()).hexdigest()[:8]
    kind = args.encoder.name.lower() if args.encoder else "minilm"
    name = f"{kind}-pair-{args.steps}-{args.seed}-{about}"
    kept = cache() / "backbones" / name
    if (kept / "backbone.json").is_file():
        found = Backbone(name, kept)
    else:
        say(f"training the pair on {len(public)} packages")
        with tempfile.TemporaryDirectory() as folder:
            made = make(Path(folder) / name, args.encoder, public, args.steps, args.seed)
            found = pull(str(made))
    measured([*CLOUD, "compile", "ladder", "--backbone", found.name])
    return found
