"""
What does the way to the cloud cost, and what do drafts win back?

One device generates greedily over lines of several lengths and widths, once with a request for each
token, once with drafts as the device chooses them: first the backbone's own text (a plugin as it is
before any training), then with a plugin that was trained here on somebody's text and goes on with
documents of theirs that it has not seen. The same tokens come either way. Beside both, in turn,
the same without the line, which tells what all but the way costs. Lines are made by `tc netem` between two network
namespaces, which takes root on Linux; elsewhere by a proxy that delays, and the report says so.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from benchmarks import texts
from benchmarks.lesson import taught
from benchmarks.lines import Line, line
from benchmarks.picture import draw_panels
from benchmarks.prompts import PROMPTS
from benchmarks.report import Figure, Outcome, Rows, say
from benchmarks.services import cloud, pull
from benchmarks.split import SplitModel
from benchmarks.windows import Prepared
from device_agent.cloud.link import Link
from device_agent.generation.drafting import Drafting, Tally
from device_agent.generation.sampling import Sampling
from device_agent.generation.speaker import Speaker
from device_agent.plugins import PluginVersion
from device_agent.settings import AUTO, OFF, Settings

NAME = "network"
HELP = "tokens a second over lines of several lengths and widths, with and without drafts"

ROUND_TRIPS = (0, 20, 50, 100)
"""Milliseconds."""
WIDTHS = (100, 20, 5)
"""Megabits a second."""
OPENING = 32
"""Tokens of a person's document that are given."""

KINDS = {"fresh": "the backbone's own text", "person": "a trained plugin"}

ARMS = ("near", "plain", "drafts")
"""Without the line and without drafts; over the line without drafts; over the line with them."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the benchmark's own arguments."""
    parser.add_argument("--prompts", type=int, default=4, help="texts of each kind")
    parser.add_argument("--new-tokens", type=int, default=64, help="tokens generated for each")
    parser.add_argument("--training-tokens", type=int, default=12_000, help="the plugin learns")


@dataclass(frozen=True, slots=True)
class Text:
    """What was generated behind one prompt."""

    tokens: tuple[int, ...]
    seconds: float
    drafts: Tally


class Writer(Protocol):
    """Goes on with prompts over a connection of its own."""

    def anew(self) -> None:
        """Know nothing of the line any more."""
        ...

    def write(self, ids: Sequence[int], new: int) -> Text:
        """The ``new`` likeliest tokens behind a prompt, fewer where the text ends."""
        ...


class Fresh:
    """The backbone's own text: its plugin has not been trained."""

    def __init__(self, model: SplitModel, drafts: str) -> None:
        self._model, self._drafts = model, drafts
        self.anew()

    def anew(self) -> None:
        self._drafting = Drafting(self._drafts)

    def write(self, ids: Sequence[int], new: int) -> Text:
        self._model.forget()
        before, began = self._drafting.tally, time.perf_counter()
        tokens = self._model.generate(ids, new, self._drafting)
        return Text(tuple(tokens), time.perf_counter() - began, self._drafting.tally - before)


class Person:
    """The text of somebody's trained plugin, prefix and memory."""

    def __init__(self, speaker: Speaker, link: Link) -> None:
        self._speaker, self._link = speaker, link

    def anew(self) -> None:
        before = self._speaker
        self._speaker = before.beside(self._link)
        before.close()

    def write(self, ids: Sequence[int], new: int) -> Text:
        before = self._speaker.drafts
        pieces = self._speaker.answer(ids, Sampling(), new)
        began = time.perf_counter()
        tokens = tuple(piece.token for piece in pieces if piece.token is not None)
        return Text(tokens, time.perf_counter() - began, self._speaker.drafts - before)


def run(args: argparse.Namespace) -> Outcome:
    """Trains a plugin, then measures every line for both kinds of text."""
    if args.quick:
        args.prompts, args.new_tokens, args.training_tokens = 1, 12, 600
    round_trips = ROUND_TRIPS[::2] if args.quick else ROUND_TRIPS
    widths = WIDTHS[::2] if args.quick else WIDTHS
    documents = texts.load(args.text)
    backbone = pull(args.backbone)
    with tempfile.TemporaryDirectory() as folder, line() as way:
        say(f"lines are made by {way.kind}")
        with cloud(backbone, "auto", args.threads, way.flags, way.within) as service:
            home = Path(folder, "home")
            prepared, version = taught(args, service, documents, home)
            urls = {"near": service.url, "far": way.lead(service.url)}
            with ExitStack() as stack:
                writers = _writers(stack, args, home, urls, version)
                prompts = _prompts(
                    args, stack.enter_context(_link(args, home, urls["near"])), prepared
                )
                cells = [
                    _cell(args, way, writers[kind], kind, prompts[kind], rtt, mbit)
                    for rtt in round_trips
                    for mbit in widths
                    for kind in KINDS
                ]
    results: dict[str, Any] = {"line": way.kind, "speaks": version.speaks, "cells": cells}
    if args.json:
        results["picture"] = _draw(args.json.with_suffix(".png"), cells)
    return Outcome(
        figures=_figures(cells),
        results=results,
        seeds=[args.seed],
        settings={
            "backbone": backbone.name,
            "threads": args.threads,
            "quick": args.quick,
            "prompts": args.prompts,
            "new_tokens": args.new_tokens,
            "training_tokens": args.training_tokens,
        },
        tables=[_table(cells)],
    )


def _writers(
    stack: ExitStack,
    args: argparse.Namespace,
    home: Path,
    urls: Mapping[str, str],
    version: PluginVersion,
) -> dict[str, dict[str, Writer]]:
    """One for each arm of each kind of text; head, plugin and tokenizer are held once."""
    ways = {"near": ("near", OFF), "plain": ("far", OFF), "drafts": ("far", AUTO)}
    links = {
        arm: stack.enter_context(_link(args, home, urls[place], drafts))
        for arm, (place, drafts) in ways.items()
    }
    model, speaker = SplitModel(links["near"]), Speaker(links["near"], version)
    return {
        "fresh": {arm: Fresh(model.beside(links[arm]), ways[arm][1]) for arm in ARMS},
        "person": {arm: Person(speaker.beside(links[arm]), links[arm]) for arm in ARMS},
    }


def _link(args: argparse.Namespace, home: Path, url: str, drafts: str = AUTO) -> Link:
    return Link(Settings(home=home, cloud=url, threads=args.threads, drafts=drafts))


def _prompts(
    args: argparse.Namespace, link: Link, prepared: Prepared
) -> dict[str, list[list[int]]]:
    """Of each kind of text: questions and beginnings of many kinds; beginnings of the person's unseen documents."""
    model = SplitModel(link)
    unseen = [window.ids[:OPENING].tolist() for window in prepared.windows["test"]]
    model.close()
    return {
        "fresh": [model.ids(prompt) for prompt in PROMPTS[: args.prompts]],
        "person": unseen[: args.prompts],
    }


def _cell(
    args: argparse.Namespace,
    way: Line,
    writers: Mapping[str, Writer],
    kind: str,
    prompts: Sequence[list[int]],
    rtt: float,
    mbit: float,
) -> dict[str, Any]:
    """One kind of text over one line, all arms in turn on each prompt."""
    say(f"{KINDS[kind]}: {rtt} ms, {mbit} Mbit/s")
    said: dict[str, list[Text]] = {arm: [] for arm in ARMS}
    for writer in writers.values():
        writer.anew()
    for number in range(-1, len(prompts)):
        for arm, writer in writers.items():
            way.shape(*((0, None) if arm == "near" else (rtt, mbit)))
            text = writer.write(prompts[number], args.new_tokens)
            if number >= 0:  # the first warms everything up, and lets the device learn the line
                said[arm].append(text)
    rates = {arm: _rate(found) for arm, found in said.items()}
    drafts = sum((text.drafts for text in said["drafts"]), Tally())
    ideal = 1 / (rtt / 1000 + 1 / rates["near"])
    return {
        "text": kind,
        "rtt_ms": rtt,
        "mbit": mbit,
        "tokens_per_second": rates,
        "speedup": rates["drafts"] / rates["plain"],
        "ideal_share": rates["plain"] / ideal,
        "drafted": drafts.drafted,
        "accepted": drafts.accepted,
        "tokens": sum(len(text.tokens) for text in said["drafts"]),
        "identical": sum(
            one.tokens == other.tokens
            for one, other in zip(said["plain"], said["drafts"], strict=True)
        ),
        "texts": len(prompts),
    }


def _rate(found: Sequence[Text]) -> float:
    return statistics.median(len(text.tokens) / text.seconds for text in found)


def _figures(cells: Sequence[Mapping[str, Any]]) -> list[Figure]:
    def at(kind: str, rtt: float) -> Mapping[str, Any]:
        wide = max(WIDTHS)
        return next(c for c in cells if (c["text"], c["rtt_ms"], c["mbit"]) == (kind, rtt, wide))

    lines = [c["ideal_share"] for c in cells if c["mbit"] == max(WIDTHS) and c["text"] == "fresh"]
    drafted = {kind: [c for c in cells if c["text"] == kind] for kind in KINDS}
    shares = {
        kind: sum(c["accepted"] for c in found) / max(1, sum(c["drafted"] for c in found))
        for kind, found in drafted.items()
    }
    words = f"at 50 ms and {max(WIDTHS)} Mbit/s: tokens/s with drafts ÷ without"
    return [
        Figure("draft_speedup_50ms", at("fresh", 50)["speedup"], words, at_least=2.5),
        Figure(
            "draft_speedup_50ms_plugin",
            at("person", 50)["speedup"],
            "the same with a trained plugin",
            at_least=1.5,
        ),
        Figure(
            "ideal_share",
            min(lines),
            f"without drafts, {max(WIDTHS)} Mbit/s, the least of all round trips: tokens/s ÷ 1 / (round trip + computing)",
            at_least=0.9,
        ),
        Figure("accepted_share", shares["fresh"], "of drafted tokens, the backbone's own text"),
        Figure("accepted_share_plugin", shares["person"], "of drafted tokens, a trained plugin"),
        Figure(
            "identical",
            sum(c["identical"] for c in cells) / sum(c["texts"] for c in cells),
            "share of texts that are the same with drafts and without",
        ),
    ]


def _draw(path: Path, cells: Sequence[Mapping[str, Any]]) -> str:
    panels: dict[str, dict[str, dict[Any, float]]] = {}
    for kind, title in KINDS.items():
        series = panels.setdefault(title, {})
        for cell in cells:
            if cell["text"] != kind:
                continue
            for arm, words in (("drafts", "with drafts"), ("plain", "without")):
                points = series.setdefault(f"{words}, {cell['mbit']} Mbit/s", {})
                points[cell["rtt_ms"]] = cell["tokens_per_second"][arm]
    return draw_panels(path, panels, "round trip, ms", "tokens/s")


def _table(cells: Sequence[Mapping[str, Any]]) -> Rows:
    columns = ("text", "round trip ms", "Mbit/s", "tok/s", "with drafts", "faster", "of ideal")
    columns += ("accepted", "unchanged")
    rows = []
    for cell in cells:
        rates = cell["tokens_per_second"]
        share = cell["accepted"] / cell["drafted"] if cell["drafted"] else None
        rows.append(
            [
                *(KINDS[cell["text"]], cell["rtt_ms"], cell["mbit"]),
                *(rates["plain"], rates["drafts"], cell["speedup"], cell["ideal_share"], share),
                f"{cell['identical']} of {cell['texts']}",
            ]
        )
    return Rows("lines", columns, rows)
