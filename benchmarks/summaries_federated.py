"""
Summaries learned together: four clients, an encoder-decoder, and one server optimizer after the other.

The backbone is the pair of `summaries`. The private half of the packages is divided among devices by shares
drawn from a Dirichlet distribution with parameter 1, as the published work divides its dialogues (arXiv
2310.03150); each device is a process, `sideplug federate join`. After every round the shared weights alone,
without memory, are asked for summaries of packages that nothing has learned from, and their greedy answers are
scored by ROUGE-1, -2 and -L (F1) against the synopses. Round 0 is the frozen pair. `held_out` is what the
devices say of the shared weights on pairs that they hold out.

A round ends its federation, and the next one goes on from there, as a server does that was stopped. With
--results FOLDER every round is kept, and the same command goes on where it was.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import summary_backbone
from benchmarks.cells import Cell, Cells, cells
from benchmarks.errors import BenchmarkError, TextError
from benchmarks.federation import Home, Homes, Server
from benchmarks.metrics import ROUGE
from benchmarks.package_summaries import Summary
from benchmarks.picture import draw_panels
from benchmarks.report import Figure, Outcome, Rows, say
from benchmarks.services import Backbone, Cloud, cloud
from benchmarks.summary_answers import answers, scores
from benchmarks.summary_backbone import packages, pair
from device_agent.cloud.link import Link
from device_agent.federated.joining import require_flower
from device_agent.federated.shared import of_kit
from device_agent.plugins import PluginStore, PluginVersion
from device_agent.settings import Settings
from device_agent.training.corpus import matching_kit
from device_agent.training.watcher import Watcher

NAME = "summaries-federated"
HELP = "package summaries learned together by four devices, ROUGE by round and server optimizer"

STRATEGIES = ("fedavg", "fedavgm", "fedadam", "fedadamw")
CLIENTS, ROUNDS, TEST = 4, 8, 100
LEAST = 4
"""Pairs that every client has, whatever it drew."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the benchmark's own arguments."""
    summary_backbone.add_arguments(parser)
    parser.add_argument("--clients", type=int, default=CLIENTS, help="how many take part")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--test", type=int, default=TEST, help="packages that are asked for")
    parser.add_argument("--strategies", nargs="+", default=list(STRATEGIES), help="of the server")
    parser.add_argument("--results", type=Path, metavar="FOLDER", help="keep results, and go on")


def run(args: argparse.Namespace) -> Outcome:
    """Asks the frozen pair, then one federation after the other, round by round."""
    require_flower()
    found = packages(args.text, quick=args.quick)
    if args.quick:
        args.steps, args.test = min(args.steps, 2), len(found.test)
        args.clients, args.rounds, args.strategies = 2, 2, args.strategies[:2]
    # The test of `summaries` is small; more of the private half goes with it, and is learned by nobody.
    more = max(0, args.test - len(found.test))
    test = [*found.test, *found.private[:more]]
    shares = divided(found.private[more:], args.clients, args.seed)
    backbone = pair(args, found.public)
    identity = {
        "backbone": backbone.name,
        "text": str(args.text) if args.text else "dpkg",
        "seed": args.seed,
        "clients": [len(share) for share in shares],
        "test": len(test),
    }
    with (
        cells(args.results, identity) as kept,
        cloud(backbone, "f32", args.threads) as service,
    ):
        desk = Desk(kept, backbone, service, shares, test)
        frozen = kept.get("frozen", desk.frozen)
        rounds = {
            strategy: [desk.round(strategy, number) for number in range(1, args.rounds + 1)]
            for strategy in args.strategies
        }
    results: dict[str, Any] = {"frozen": frozen, "rounds": rounds}
    if args.json:
        results["picture"] = _draw(args.json.with_suffix(".png"), frozen, rounds)
    return Outcome(
        figures=_figures(frozen, rounds),
        results=results,
        seeds=[args.seed],
        settings={**identity, "rounds": args.rounds, "strategies": args.strategies},
        tables=[_table(frozen, rounds)],
    )


def divided(private: Sequence[Summary], clients: int, seed: int) -> list[Sequence[Summary]]:
    """
    Pairs by client, in shares drawn from a Dirichlet distribution with parameter 1.

    Raises:
        TextError: There are not LEAST for each.

    """
    free = len(private) - LEAST * clients
    if free < 0:
        raise TextError(f"{len(private)} summaries are too few for {clients} clients")
    drawn = np.random.default_rng(seed).dirichlet([1.0] * clients)
    ends = [LEAST * (place + 1) + round(free * end) for place, end in enumerate(drawn.cumsum())]
    return [private[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]


class Desk:
    """Where federations are run and their weights are asked."""

    def __init__(
        self,
        kept: Cells,
        backbone: Backbone,
        service: Cloud,
        shares: Sequence[Sequence[Summary]],
        test: Sequence[Summary],
    ) -> None:
        self._kept, self._shares, self._test = kept, shares, test
        self._homes = Homes(kept, "homes", service.url)
        self._server = Server(backbone, kept.workspace / "cache")
        asking = self._homes.empty("asking").path
        self._settings = Settings(home=asking, cloud=service.url, threads=1, prefix=0)

    def frozen(self) -> Cell:
        """What the pair answers without anybody's help."""
        say("the frozen pair is asked")
        return self._asked(None)

    def round(self, strategy: str, number: int) -> Cell:
        """What the shared weights of one round answer, and what the round moved."""
        return self._kept.get(f"{strategy}/round-{number}", lambda: self._round(strategy, number))

    def _round(self, strategy: str, number: int) -> Cell:
        homes = self._members(strategy)
        say(f"{strategy}, round {number}: {len(homes)} devices")
        flags = ["--strategy", strategy, "--rounds", str(number), "--least", str(len(homes))]
        told = self._server.run(strategy, homes, flags)
        line = told["log"][-1]
        return {
            **self._asked(self._version(homes[0])),
            "held_out": told["last"].get("shared"),
            **{name: line[name] for name in ("answered", "seconds", "bytes_up", "bytes_down")},
        }

    def _members(self, strategy: str) -> list[Home]:
        return [
            self._homes.taught(
                f"{strategy}-{number}",
                [{"source": one.source, "target": one.target} for one in share],
            )
            for number, share in enumerate(self._shares)
        ]

    def _version(self, home: Home) -> PluginVersion:
        """The shared weights that came to a home as something that can speak."""
        with Link(self._settings) as link:
            manifest = matching_kit(link, self._settings.recipe, Watcher()).manifest
        found = of_kit(home.path, manifest)
        if found is None:
            raise BenchmarkError(f"the federation left no weights in {home.path.name}")
        nothing = np.array([], np.uint32)
        return PluginStore(self._settings.home).add(manifest, found.weights, {}, nothing, {}, [])

    def _asked(self, version: PluginVersion | None) -> Cell:
        found = answers(self._settings, version, self._test)
        return {**scores(found, self._test), "answers": [one.text for one in found]}


def _figures(frozen: Cell, rounds: Mapping[str, Sequence[Cell]]) -> list[Figure]:
    figures = [Figure(f"{name}_frozen", frozen[name], "of the frozen pair") for name in ROUGE]
    for strategy, cells_of in rounds.items():
        last = cells_of[-1]
        figures += [
            Figure(f"{name}_{strategy}", last[name], f"after {len(cells_of)} rounds")
            for name in ROUGE
        ]
    return figures


def _table(frozen: Cell, rounds: Mapping[str, Sequence[Cell]]) -> Rows:
    rows: list[list[Any]] = [["frozen", 0, *(frozen[name] for name in ROUGE), None, None, None]]
    for strategy, cells_of in rounds.items():
        rows += [
            [
                strategy,
                number,
                *(cell[name] for name in ROUGE),
                cell["held_out"],
                (cell["bytes_up"] + cell["bytes_down"]) / 1e6,
                cell["seconds"],
            ]
            for number, cell in enumerate(cells_of, start=1)
        ]
    columns = (
        "strategy",
        "round",
        "ROUGE-1",
        "ROUGE-2",
        "ROUGE-L",
        "held-out NLL",
        "MB",
        "seconds",
    )
    return Rows("rounds", columns, rows)


def _draw(path: Path, frozen: Cell, rounds: Mapping[str, Sequence[Cell]]) -> str:
    """A panel for each kind of ROUGE, a line for each strategy, from the frozen pair on."""
    panels = {
        name: {
            strategy: dict(enumerate([one[name] for one in (frozen, *cells_of)]))
            for strategy, cells_of in rounds.items()
        }
        for name in ROUGE
    }
    return draw_panels(path, panels, "round", "F1 of answers against synopses")
