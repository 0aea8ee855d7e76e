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

Bytes are those of all bodies that the server received and sent in a round, heartbeats and questions for work
included. Full fine-tuning would move every weight of the backbone down and up, in 32 bits as the
published work has it; at our own 16 bits the ratio is half of that.
"""

import argparse
import json
import statistics
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks import texts
from benchmarks.division import SPLITS, Share, by_person, by_quantity
from benchmarks.errors import BenchmarkError, ProcessFailed
from benchmarks.picture import draw_panels
from benchmarks.processes import last_object, running
from benchmarks.report import Figure, Outcome, Rows, say
from benchmarks.services import CLOUD, DEVICE, Backbone, Cloud, cloud, pull, share_features
from benchmarks.shared_scoring import Scorer, parameters
from device_agent.federated import shared
from device_agent.federated.joining import require_flower

NAME = "federated"
HELP = "ten devices learn a shared plugin together: what each gains, what it moves"

PEOPLE = (
    "George Washington",
    "Andrew Jackson",
    "Abraham Lincoln",
    "Ulysses S. Grant",
    "Theodore Roosevelt",
    "Woodrow Wilson",
    "Calvin Coolidge",
    "Dwight D. Eisenhower",
    "William J. Clinton",
    "Barack Obama",
)
TRAINING_TOKENS, TEST_TOKENS, ROUNDS = 2000, 1500, 10
FEW = 2
"""Devices of a quick run."""

ARMS = ("frozen", "alone", "federated", "federated + personal", "pooled")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the benchmark's own arguments."""
    parser.add_argument("--devices", type=int, default=len(PEOPLE), help="how many take part")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--training-tokens", type=int, default=TRAINING_TOKENS, help="of each")
    parser.add_argument("--test-tokens", type=int, default=TEST_TOKENS, help="of each")
    parser.add_argument("--splits", nargs="+", choices=SPLITS, default=list(SPLITS))
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


def run(args: argparse.Namespace) -> Outcome:
    """Divides the text, runs the arms one after the other, scores them all alike."""
    texts.load(args.text)  # a wrong one is told before anything is started
    require_flower()
    if args.quick:
        args.devices, args.rounds = min(args.devices, FEW), min(args.rounds, 2)
        args.training_tokens, args.test_tokens = 600, 200
        args.splits = args.splits[:1]
    backbone = pull(args.backbone)
    with tempfile.TemporaryDirectory() as folder, cloud(backbone, "auto", args.threads) as service:
        found = {
            split: _Split(args, backbone, service, Path(folder) / split).measure(split)
            for split in args.splits
        }
    return _outcome(args, backbone, found)


@dataclass(frozen=True, slots=True)
class _Home:
    """One device's folder and commands."""

    path: Path
    url: str

    def environment(self) -> dict[str, str]:
        return {
            "SIDEPLUG_HOME": str(self.path),
            "SIDEPLUG_CLOUD": self.url,
            "SIDEPLUG_THREADS": "1",
            "SIDEPLUG_PREFIX": "0",
            "SIDEPLUG_MEMORY": "off",
            "SIDEPLUG_FEDERATED": "on",
        }

    def run(self, *words: str) -> dict[str, Any]:
        """What `sideplug WORDS... --json` printed."""
        with self.started(*words) as process:
            return answer_of(process, f"sideplug {words[0]}")

    def started(self, *words: str) -> Any:
        """The process, ended when the block is left."""
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return running([*DEVICE, *words, "--json"], self.environment(), **pipes)


def answer_of(process: "subprocess.Popen[str]", name: str) -> dict[str, Any]:
    """The JSON that a process ends with. Raises ProcessFailed with its last words when it failed."""
    out, said = process.communicate()
    if process.returncode != 0:
        raise ProcessFailed(f"`{name}` ended with code {process.returncode}: {said[-600:]}")
    return last_object(out)


class _Split:
    """All arms of one division of the text."""

    def __init__(
        self, args: argparse.Namespace, backbone: Backbone, service: Cloud, folder: Path
    ) -> None:
        self._args, self._backbone, self._service = args, backbone, service
        self._folder = folder
        folder.mkdir()
        self._scorer = Scorer(self._home("scoring").path, service.url)

    def measure(self, split: str) -> dict[str, Any]:
        """The figures of every arm."""
        shares = self._shares(split)
        pooled = self._taught("pooled", [text for share in shares for text in share.training])
        say(f"{split}: pooled")
        self._train(pooled)
        whole = self._scorer.speaking(pooled.path)
        rows = []
        for share in shares:
            say(f"{split}: {share.name} alone")
            alone = self._taught(f"alone-{share.number}", share.training)
            self._train(alone)
            rows.append(
                {
                    "name": share.name,
                    "training_tokens": share.tokens,
                    "nll": {
                        "frozen": self._scorer.score(share.test, None),
                        "alone": self._scorer.score(share.test, self._scorer.speaking(alone.path)),
                        "pooled": self._scorer.score(share.test, whole),
                    },
                }
            )
        federations = []
        args = self._args
        seeds = range(args.seed, args.seed + args.seeds)
        for strategy, kept, seed in product(args.strategies, args.kept, seeds):
            personal = not federations
            federations.append(
                self._federation(split, shares, rows, (strategy, kept, seed), personal)
            )
        return {"people": rows, "federations": federations, "tokens": self._scorer.tokens}

    def _shares(self, split: str) -> list[Share]:
        args = self._args
        if args.text:
            documents = texts.from_file(args.text)
            people = {
                f"device {number}": documents[number :: args.devices]
                for number in range(args.devices)
            }
        else:
            people = {name: texts.president(name) for name in PEOPLE[: args.devices]}
        if len(people) < args.devices:
            raise BenchmarkError(f"there are {len(PEOPLE)} people, not {args.devices}")
        shares = by_person(people, self._scorer.size, args.training_tokens, args.test_tokens)
        if split == "person":
            return shares
        return by_quantity(shares, self._scorer.size, args.seed)

    def _federation(
        self,
        split: str,
        shares: Sequence[Share],
        rows: list[dict[str, Any]],
        about: tuple[str, float, int],
        personal: bool,
    ) -> dict[str, Any]:
        """One federation; with ``personal`` the arms of the people are filled in from it."""
        strategy, kept, seed = about
        name = f"{strategy}-{kept:g}-{seed}".replace(".", "_")
        say(f"{split}: {len(shares)} devices, {strategy}, {_sent(kept)}, seed {seed}")
        homes = [self._taught(f"{name}-{share.number}", share.training) for share in shares]
        told = self._rounds(homes, strategy, kept, seed, f"{split}-{name}")
        weights = [shared.find(home.path) for home in homes]
        missing = [share.name for share, one in zip(shares, weights, strict=True) if one is None]
        if missing:
            raise BenchmarkError(f"the federation left no weights with {', '.join(missing)}")
        nll = [
            self._scorer.score(share.test, one and one.weights)
            for share, one in zip(shares, weights, strict=True)
        ]
        if personal:
            for share, home, row, mean in zip(shares, homes, rows, nll, strict=True):
                say(f"{split}: {share.name} on top of the shared weights")
                self._train(home)
                row["nll"]["federated"] = mean
                row["nll"]["federated + personal"] = self._scorer.score(
                    share.test, self._scorer.speaking(home.path)
                )
        return {
            "strategy": strategy,
            "kept": kept,
            "seed": seed,
            "federated_nll": statistics.fmean(nll),
            "seconds": sum(one["seconds"] for one in told["log"]),
            **{name: told[name] for name in ("rounds", "log", "last")},
        }

    def _rounds(
        self, homes: Sequence[_Home], strategy: str, kept: float, seed: int, name: str
    ) -> dict[str, Any]:
        args = self._args
        command = [*CLOUD, "federate", "run", "--json", "--port", "0", "--name", name]
        command += ["--backbone", self._backbone.name, "--strategy", strategy]
        command += ["--devices", str(len(homes)), "--least", str(max(1, len(homes) // 2))]
        command += ["--rounds", str(args.rounds), "--seed", str(1000 * seed), "--kept", str(kept)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        with running(command, {"SIDEPLUG_CACHE": str(self._cache())}, **pipes) as server:
            url = json.loads(server.stdout.readline() or "{}").get("url")
            if url is None:
                answer_of(server, "sideplug-cloud federate run")
            with ExitStack() as life:
                joined = [
                    life.enter_context(home.started("federate", "join", url)) for home in homes
                ]
                told = answer_of(server, "sideplug-cloud federate run")
                for process in joined:
                    answer_of(process, "sideplug federate join")
        return told

    def _cache(self) -> Path:
        """A cache of this run's own that shares backbones and kits: federations are kept in a cache."""
        cache = self._folder / "cache"
        if not cache.exists():
            cache.mkdir()
            for name in ("backbones", "kits"):
                (cache / name).symlink_to(self._backbone.folder.parents[1] / name)
        return cache

    def _taught(self, name: str, training: Sequence[str]) -> _Home:
        home = self._home(name)
        lines = [json.dumps({"text": text}) + "\n" for text in training]
        file = self._folder / f"{name}.jsonl"
        file.write_text("".join(lines), encoding="utf-8")
        home.run("learn", str(file))
        return home

    def _train(self, home: _Home) -> None:
        home.run("train", "--epochs", str(self._args.rounds), "--seed", str(self._args.seed))

    def _home(self, name: str) -> _Home:
        path = self._folder / name
        share_features(path, self._folder / "features")
        return _Home(path, self._service.url)


def _outcome(args: argparse.Namespace, backbone: Backbone, found: Mapping[str, Any]) -> Outcome:
    split = args.splits[0]
    rows = found[split]["people"]
    first = found[split]["federations"][0]
    full = 2 * 4 * parameters(backbone.folder)
    ours = statistics.fmean(
        (one["bytes_up"] + one["bytes_down"]) / one["asked"] for one in first["log"]
    )
    gains = [_nll(row, "alone") - _nll(row, "federated + personal") for row in rows]
    worst = max(_nll(row, "federated + personal") / _nll(row, "alone") - 1 for row in rows)
    better = sum(gain > 0 for gain in gains)
    results: dict[str, Any] = {
        "splits": dict(found),
        "bytes_full_round": full,
        "bytes_round_device": ours,
        "means": {name: _means(one["people"]) for name, one in found.items()},
    }
    if args.json:
        results["picture"] = _draw(args.json.with_suffix(".png"), found)
    goal = round(0.8 * len(rows))
    return Outcome(
        figures=[
            Figure(
                "bytes_ratio_full",
                full / ours,
                "bytes of a round, full fine-tuning in 32 bits ÷ ours",
                at_least=200,
            ),
            Figure("bytes_ratio_equal_precision", full / 2 / ours, "the same, both in 16 bits"),
            Figure("bytes_round_device_mb", ours / 1e6, "MB a device moves in a round, measured"),
            Figure(
                "gain_vs_alone",
                statistics.fmean(gains),
                f"nats, alone less federated + personal, split by {split}",
            ),
            Figure("better_than_alone", better, f"of {len(rows)} devices", at_least=goal),
            Figure("worst_vs_alone", worst, "largest rise of NLL against alone", at_most=0.01),
            Figure("round_seconds", first["seconds"] / first["rounds"], "a round, all devices"),
        ],
        results=results,
        seeds=[args.seed + number for number in range(args.seeds)],
        settings={
            "backbone": backbone.name,
            "devices": args.devices,
            "rounds": args.rounds,
            "training_tokens": args.training_tokens,
            "test_tokens": args.test_tokens,
            "strategies": args.strategies,
            "kept": args.kept,
            "quick": args.quick,
        },
        tables=[_people_table(name, one["people"]) for name, one in found.items()]
        + [_federation_table(found)],
    )


def _nll(row: Mapping[str, Any], arm: str) -> float:
    return float(row["nll"][arm])


def _means(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    return {arm: statistics.fmean(_nll(row, arm) for row in rows) for arm in ARMS}


def _people_table(split: str, rows: Sequence[Mapping[str, Any]]) -> Rows:
    shown = [
        [row["name"], row["training_tokens"], *(_nll(row, arm) for arm in ARMS)] for row in rows
    ]
    shown.append(["mean", None, *_means(rows).values()])
    return Rows(f"test NLL, split by {split}", ("device", "tokens", *ARMS), shown)


def _federation_table(found: Mapping[str, Any]) -> Rows:
    rows = [
        [
            split,
            one["strategy"],
            _sent(one["kept"]),
            one["seed"],
            one["federated_nll"],
            one["rounds"],
            sum(line["bytes_up"] for line in one["log"]) / 1e6,
            sum(line["bytes_down"] for line in one["log"]) / 1e6,
            one["seconds"],
        ]
        for split, told in found.items()
        for one in told["federations"]
    ]
    columns = (
        "split",
        "strategy",
        "sent",
        "seed",
        "test NLL of shared",
        "rounds",
        "MB up",
        "MB down",
        "seconds",
    )
    return Rows("federations", columns, rows)


def _sent(kept: float) -> str:
    return f"{kept:g} of an update" if kept else "all"


def _draw(path: Path, found: Mapping[str, Any]) -> str:
    """Held-out text of the devices, round by round, as they told it."""
    panels = {
        split: {
            f"{one['strategy']}, {_sent(one['kept'])}, seed {one['seed']}": {
                line["round"]: line["figures"]["held-out"]
                for line in one["log"]
                if "held-out" in line["figures"]
            }
            for one in told["federations"]
        }
        for split, told in found.items()
    }
    return draw_panels(path, panels, "round", "held-out NLL after local training, nats a token")
