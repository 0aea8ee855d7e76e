"""The arms of the quality benchmark for one person and one amount of text: the device's, and torch's."""

import argparse
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from benchmarks.cells import Cell, Cells
from benchmarks.errors import ArmsDisagree
from benchmarks.report import say
from benchmarks.rival import Rival, fastest_precision, torch_arm
from benchmarks.services import (
    FEATURES,
    Backbone,
    Cloud,
    Device,
    cloud,
    share_features,
)
from benchmarks.texts import Document
from benchmarks.windows import prepare
from device_agent.cloud.link import Link
from device_agent.settings import Settings
from device_agent.training.corpus import prefix_budget

SLACK = 0.05
"""Nats by which the two frozen figures may differ: bf16, f16 features and an 8-bit head make one of them."""

PREFIXES = {"bare": 0, "prefix": None}
"""Most tokens of the personal prefix; None for the device's own default."""

ARMS = {
    "bare": {"memory": "memory", "plugin": "plugin", "whole": "plugin + memory"},
    "prefix": {
        "prefix": "prefix",
        "memory": "prefix + memory",
        "plugin": "prefix + plugin",
        "whole": "everything",
    },
}
"""What `sideplug evaluate` calls a part -> the arm that it is, with the personal prefix and without."""

CHOICE = "precision"
"""Name of the cells that say which precision a method is fastest in; chosen once for all people."""


def prepared_text(
    kept: Cells,
    backbone: Backbone,
    name: str,
    documents: Sequence[Document],
    general: Sequence[str],
    size: int,
    args: argparse.Namespace,
) -> Cell:
    """
    Cuts one person's text and writes it for all arms.

    Returns:
        ``text``, ``training_tokens``, ``prefix_tokens``.

    """
    place = f"{_slug(name)}/{size}"

    def prepare_it() -> Cell:
        folder = kept.workspace / place
        folder.mkdir(parents=True, exist_ok=True)
        with cloud(backbone, "auto", args.threads) as service:
            return _prepared(service, folder, documents, general, size, args.held_out_tokens)

    return kept.get(f"{place}/text", prepare_it)


def device_arms(
    kept: Cells,
    backbone: Backbone,
    name: str,
    size: int,
    seeds: Sequence[int],
    args: argparse.Namespace,
) -> Cell:
    """
    Learns on the device with and without the prefix, with each seed.

    Returns:
        ``arms`` (name -> a row a seed), ``harm`` and ``frozen_test`` (a seed each), ``lessons``.

    """
    place = f"{_slug(name)}/{size}"
    cells = {(seed, kind): f"{place}/device-{seed}-{kind}" for seed in seeds for kind in PREFIXES}
    if not all(map(kept.has, cells.values())):
        _learn(kept, backbone, kept.workspace / place, cells, args.threads)
    lessons = {which: kept.get(cell, dict) for which, cell in cells.items()}
    rows: dict[str, list[Cell]] = {}
    for (_, kind), lesson in lessons.items():
        for part, arm in ARMS[kind].items():
            row = _row(lesson, part)
            if row is not None:
                rows.setdefault(arm, []).append(row)
    behind = [lesson for (_, kind), lesson in lessons.items() if kind == "prefix"]
    return {
        "arms": rows,
        "harm": [lesson["harm"] for lesson in behind],
        "frozen_test": [{"tokens": one["test"]["tokens"], **one["test"]["base"]} for one in behind],
        "lessons": list(lessons.values()),
    }


def _learn(
    kept: Cells,
    backbone: Backbone,
    folder: Path,
    cells: Mapping[tuple[int, str], str],
    threads: int,
) -> None:
    """All lessons of one text that are not kept yet; each text's features are fetched once for all."""
    with cloud(backbone, "auto", threads) as service:
        for (seed, kind), cell in cells.items():
            say(f"device, seed {seed}, {kind}")
            home = folder / f"home-{seed}-{kind}"
            device = Device(home, service.url, threads, PREFIXES[kind])
            kept.get(cell, partial(_lesson, service, device, folder, seed))
    shutil.rmtree(folder / FEATURES, ignore_errors=True)


def torch_arms(
    kept: Cells,
    backbone: Backbone,
    name: str,
    size: int,
    seeds: Sequence[int],
    args: argparse.Namespace,
    text: Cell,
    device: Cell,
) -> Cell:
    """
    LoRA, LoRA with a prefix, and the last blocks, each with its best rate; and the frozen backbone.

    Raises:
        ArmsDisagree: Torch and the device do not see the same test.

    """
    place = f"{_slug(name)}/{size}"
    folder = kept.workspace / place

    def rival(arm: str, title: str, windows: str, method: str) -> Rival:
        workspace = folder / arm
        workspace.mkdir(parents=True, exist_ok=True)
        return Rival(
            folder=backbone.folder,
            windows=folder / windows,
            workspace=workspace,
            threads=args.threads,
            epochs=args.epochs,
            batch=args.batch,
            method=method,
            title=f"{title}: {name}, {size} tokens",
            keep=lambda cell, make: kept.get(f"{place}/{arm}/{cell}", make),
        )

    lora = rival("lora", "LoRA", "windows.json", "lora")
    frozen = lora.score("", ["validation", "test"])
    _require_agreement(frozen["test"], device)
    arms: dict[str, list[Cell]] = {"frozen": [{"test_nll": frozen["test"]["nll"]}]}
    chosen = {}
    planned: list[tuple[str, Rival, Sequence[float]]] = [
        ("LoRA", lora, args.lora_rates),
        ("blocks", rival("blocks", "last blocks", "windows.json", "blocks"), args.block_rates),
    ]
    if text["prefix_tokens"]:
        behind = rival("lora-prefix", "LoRA + prefix", "windows-behind.json", "lora")
        planned.insert(1, ("LoRA + prefix", behind, args.lora_rates))
    for arm, one, rates in planned:
        precision = _precision(kept, one, seeds[0], args.trial_steps)
        found = torch_arm(one, precision, rates, seeds)
        arms[arm] = [{**row, "cpu_seconds": row["cpu_seconds_to_best"]} for row in found["seeds"]]
        chosen[arm] = {"precision": precision, "rate": found["rate"]}
    return {"arms": arms, "chosen": chosen, "frozen_validation": frozen["validation"]}


def _prepared(
    service: Cloud,
    folder: Path,
    documents: Sequence[Document],
    general: Sequence[str],
    size: int,
    held_out: int,
) -> Cell:
    """Waits for the kit as well, so that compiling it is no part of an arm."""
    with Link(Settings(home=folder / "preparing", cloud=service.url)) as link:
        link.kit()
        found = prepare(link, documents, size, held_out)
        budget = prefix_budget(link)
    found.write_windows(folder / "windows.json")
    prefix = found.write_windows_behind(folder / "windows-behind.json", budget)
    found.write_text("training", folder / "training.jsonl")
    found.write_text("test", folder / "test.jsonl")
    lines = [json.dumps({"text": text}) for text in general]
    (folder / "general.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return {
        "text": found.facts(),
        "training_tokens": found.tokens("training"),
        "prefix_tokens": prefix,
    }


def _lesson(service: Cloud, device: Device, folder: Path, seed: int) -> Cell:
    """Learn, train and evaluate in a fresh home; what the processes said and cost."""
    shutil.rmtree(device.home, ignore_errors=True)
    share_features(device.home, folder / FEATURES)
    device.run("learn", str(folder / "training.jsonl"))
    before = service.cpu_seconds()
    training = device.run("train", "--seed", str(seed))
    cloud_seconds = service.cpu_seconds() - before
    said = training.answer
    version = ("--plugin", said["version"])
    scored = device.run("evaluate", str(folder / "test.jsonl"), *version)
    general = device.run("evaluate", str(folder / "general.jsonl"), *version).answer
    shutil.rmtree(device.home)
    features = said["features"]
    promoted = bool(said["promoted"])
    return {
        "seed": seed,
        "promoted": promoted,
        "test": scored.answer,
        "general": general,
        "harm": _speaking(general)["nll"] / general["base"]["nll"] - 1 if promoted else 0.0,
        "cpu_seconds": training.cpu_seconds,
        "peak_memory": max(training.peak_bytes, said["peak_memory"]),
        "seconds": training.seconds,
        "cloud_seconds": cloud_seconds,
        "bytes": features["bytes_up"] + features["bytes_down"],
        "training": said,
    }


def _speaking(scores: Cell) -> Cell:
    """Of the version as it speaks: parts that do not help rest."""
    found: Cell = scores.get(scores["speaks"]) or scores["plugin"]
    return found


def _row(lesson: Cell, part: str) -> Cell | None:
    """One seed's row of an arm; None where the device has no such part."""
    test = lesson["test"]
    costs = ("seed", "cpu_seconds", "peak_memory", "seconds", "cloud_seconds", "bytes")
    shared = {name: lesson[name] for name in costs}
    if part == "whole":
        speaking = _speaking(test) if lesson["promoted"] else test["base"]
        return {"test_nll": speaking["nll"], "tokens": test["tokens"], **shared}
    if part not in test:
        return None
    # What needs no training costs none.
    paid = shared if part == "plugin" else {}
    return {"test_nll": test[part]["nll"], "tokens": test["tokens"], **paid}


def _precision(kept: Cells, rival: Rival, seed: int, steps: int) -> str:
    """The precision of a method, by short trials on the first text that is measured."""

    def choose() -> Cell:
        # Trials belong to no person: they are kept with the choice.
        trial = replace(rival, keep=lambda _name, make: make())
        precision, trials = fastest_precision(trial, seed, steps)
        return {"precision": precision, "trials": trials}

    return str(kept.get(f"{CHOICE}-{rival.method}", choose)["precision"])


def _require_agreement(frozen: Cell, device: Cell) -> None:
    """The frozen backbone, scored by both sides, shows whether both saw the same windows."""
    for row in device["frozen_test"]:
        if frozen["tokens"] != row["tokens"]:
            raise ArmsDisagree(
                f"torch scored {frozen['tokens']} test tokens, the device {row['tokens']}"
            )
        if abs(frozen["nll"] - row["nll"]) > SLACK:
            raise ArmsDisagree(
                f"the frozen backbone has {frozen['nll']:.4f} nats a token in torch"
                f" and {row['nll']:.4f} on the device"
            )


def _slug(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name.lower())
