"""
Is a classifier that trains a tenth of its feed-forward nodes as good, and how much sooner is it done?

FAR (arXiv 2205.01541) against full fine-tuning, drawn nodes and BitFit, on film review snippets, good
or bad. The encoder is MiniLM, DistilBERT's blocks at half its width; all arms run in onnxruntime by
compiled steps that write what learns in place, embeddings included, of which a step moves the rows it
has read. An arm's rate is chosen on validation by the first seed; the test is scored once a seed.

Seconds are the medians of steps that the arms take in turn on the same batches, times the steps;
FAR's include its priming by full steps. Time in memory-bound work is what the runtime's profile gives
to operators other than matrix products. Memory is of a step after the priming, whose steps take what
full ones take. Beside them stands a step of full fine-tuning in eager torch.
"""

import argparse
import statistics
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adapters.encoder.graphs import infer_graph, train_graph
from adapters.encoder.network import EncoderShape
from adapters.encoder.selection import PRIMING
from adapters.export import export
from benchmarks import encoders, snippets
from benchmarks.encoder_training import EncoderStep, Judge
from benchmarks.errors import TextError
from benchmarks.far_arms import ARMS, BATCH, School, selections
from benchmarks.far_costs import EAGER, costs_of, memory_of
from benchmarks.picture import draw_panels
from benchmarks.report import Figure, Outcome, Rows, say

NAME = "far"
HELP = "fine-tuning a tenth of an encoder's feed-forward nodes: quality, time and memory"

MEGABYTE = 1e6

BATCHES = (4, BATCH, 16, 32)
"""Texts a step for which steps are timed: what a frozen weight saves does not grow with them."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the benchmark's own arguments."""
    parser.add_argument(
        "--encoder", type=Path, metavar="FOLDER", help="BERT or DistilBERT instead of MiniLM"
    )
    parser.add_argument("--snippets", type=int, default=3000, help="to train on")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--timed-steps", type=int, default=30)


def run(args: argparse.Namespace) -> Outcome:
    """Trains every arm, then measures their steps in turn."""
    found = snippets.load(args.text)
    if args.quick:
        args.snippets, args.epochs, args.seeds, args.timed_steps = 64, 1, 1, 3
    encoder = encoders.load(args.encoder)
    parts = {n: encoders.encoded(encoder, part) for n, part in snippets.split(found).items()}
    parts["training"] = parts["training"][: args.snippets]
    if len(parts["training"]) < max(BATCHES) or not all(parts.values()):
        raise TextError(f"there are too few snippets: {len(parts['training'])} to train on")
    with tempfile.TemporaryDirectory() as folder:
        graphs = _export(encoder.shape, Path(folder))
        steps = {
            name: EncoderStep(graphs[name], args.threads) for name in selections(encoder.shape)
        }
        school = School(encoder, steps, Judge(graphs["infer"], args.threads), parts, args)
        arms = {name: _arm(school, name, args) for name in ARMS}
        by_batch = {}
        for size in BATCHES:
            timed = school.batches(args.seed, size)[: args.timed_steps]
            by_batch[size] = costs_of(encoder, graphs, steps, timed, args.threads)
        costs = by_batch[BATCH]
        memory = {n: memory_of(graphs[n], steps[n], costs["sizes"], Path(folder)) for n in steps}
    for name, arm in arms.items():
        arm |= _spent(name, arm["steps"], costs)
        arm |= memory[ARMS[name].graph]
    results: dict[str, Any] = {"arms": arms, "costs_by_batch": by_batch}
    if args.json:
        results["picture"] = _draw(args.json.with_suffix(".png"), arms)
    return Outcome(
        figures=_figures(arms),
        results=results,
        seeds=[args.seed + n for n in range(args.seeds)],
        settings={
            "encoder": encoder.name,
            "batch": BATCH,
            "snippets": {name: len(part) for name, part in parts.items()},
            "epochs": args.epochs,
            "priming": PRIMING,
            "threads": args.threads,
            "quick": args.quick,
        },
        tables=[_quality_table(arms), _cost_table(arms, costs), _batch_table(by_batch)],
    )


def _export(shape: EncoderShape, folder: Path) -> dict[str, Path]:
    made = {name: train_graph(shape, selection) for name, selection in selections(shape).items()}
    paths = {}
    for name, graph in {**made, "infer": infer_graph(shape)}.items():
        say(f"exporting {name}")
        paths[name] = folder / f"{name}.onnx"
        paths[name].write_bytes(export(graph).SerializeToString())
    return paths


def _arm(school: School, name: str, args: argparse.Namespace) -> dict[str, Any]:
    """One arm: its best rate by the first seed, then every seed's test."""
    arm = ARMS[name]
    tried: dict[float, float] = {}
    curve, kept = {}, {}
    for rate in arm.rates:
        say(f"{name}: seed {args.seed}, rate {rate:g}")
        step, found = school.train(arm, rate, args.seed)
        last = found[max(found)]
        if last > max(tried.values(), default=-1):
            curve, kept = found, {n: weight.copy() for n, weight in step.weights().items()}
        tried[rate] = last
    best = max(tried, key=lambda rate: tried[rate])
    tests = [school.judge.judge(kept, school.parts["test"])]
    for seed in range(args.seed + 1, args.seed + args.seeds):
        say(f"{name}: seed {seed}, rate {best:g}")
        step, _ = school.train(arm, best, seed)
        tests.append(school.judge.judge(step.weights(), school.parts["test"]))
    return {
        "rate": best,
        "validation": tried,
        "curve": curve,
        "tests": tests,
        "steps": len(school.batches(args.seed)),
        **{kind: statistics.fmean(one[kind] for one in tests) for kind in ("accuracy", "mcc")},
    }


def _spent(name: str, steps: int, costs: Mapping[str, Any]) -> dict[str, float]:
    """Seconds of one training, all of them and those of memory-bound work."""
    arm = ARMS[name]
    primed = arm.priming(steps)
    return {
        kind: primed * costs[kind]["full"] + (steps - primed) * costs[kind][arm.graph]
        for kind in ("seconds", "memory_seconds")
    }


def _figures(arms: Mapping[str, dict[str, Any]]) -> list[Figure]:
    def cut(kind: str, name: str = "FAR 10 %") -> float:
        return float(1 - arms[name][kind] / arms["full"][kind])

    drop = "of full fine-tuning's accuracy"
    return [
        Figure("time_cut", cut("seconds"), "seconds below full fine-tuning's", at_least=0.30),
        Figure(
            "memory_time_cut",
            cut("memory_seconds"),
            "the same of memory-bound work",
            at_least=0.47,
        ),
        Figure("metric_drop", cut("accuracy"), f"share lost {drop}, FAR 10 %", at_most=0.01),
        Figure("metric_drop_random", cut("accuracy", "random 10 %"), f"{drop}, drawn nodes"),
        Figure("metric_drop_bitfit", cut("accuracy", "BitFit"), f"{drop}, BitFit"),
        Figure("peak_cut", cut("peak"), "peak memory of a step's process below full's"),
    ]


def _draw(path: Path, arms: Mapping[str, dict[str, Any]]) -> str:
    curves = {
        name: {arm["seconds"] * count / arm["steps"]: acc for count, acc in arm["curve"].items()}
        for name, arm in arms.items()
    }
    return draw_panels(
        path, {"film snippets": curves}, "seconds of training", "accuracy on validation"
    )


def _quality_table(arms: Mapping[str, dict[str, Any]]) -> Rows:
    columns = ("arm", "rate", "accuracy", "lowest", "highest", "MCC")
    rows = []
    for name, arm in arms.items():
        each = [one["accuracy"] for one in arm["tests"]]
        rows.append([name, arm["rate"], arm["accuracy"], min(each), max(each), arm["mcc"]])
    return Rows("test, mean over seeds", columns, rows)


def _cost_table(arms: Mapping[str, dict[str, Any]], costs: Mapping[str, Any]) -> Rows:
    columns = ("arm", "step s", "training s", "memory-bound s", "state MB", "step MB", "peak MB")
    sizes = ("state", "grown", "peak")
    rows: list[list[Any]] = [
        [
            name,
            costs["seconds"][ARMS[name].graph],
            arm["seconds"],
            arm["memory_seconds"],
            *(arm[size] / MEGABYTE for size in sizes),
        ]
        for name, arm in arms.items()
    ]
    rows.append([EAGER, costs["seconds"][EAGER], *[None] * 5])
    return Rows("cost of one training", columns, rows)


def _batch_table(by_batch: Mapping[int, Mapping[str, Any]]) -> Rows:
    def cut(costs: Mapping[str, Any], kind: str) -> float:
        return float(1 - costs[kind]["far-10"] / costs[kind]["full"])

    columns = ("texts a step", "full step s", "time cut", "memory-bound time cut")
    rows = [
        [size, costs["seconds"]["full"], *(cut(costs, k) for k in ("seconds", "memory_seconds"))]
        for size, costs in by_batch.items()
    ]
    return Rows("a step of FAR 10 % below a full one, without priming", columns, rows)
