"""The arms of `benchmarks federated`, each kept as soon as it is measured."""

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from benchmarks import texts
from benchmarks.cells import Cell, Cells
from benchmarks.division import Share, by_person, by_quantity
from benchmarks.errors import BenchmarkError
from benchmarks.federation import Home, Homes, Server
from benchmarks.report import say
from benchmarks.services import Backbone, Cloud
from benchmarks.shared_scoring import Scorer

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


@dataclass(frozen=True, slots=True)
class Way:
    """One way to learn together."""

    strategy: str
    kept: float = 0.0
    """Share of an update that is sent; 0: all of it."""
    recipe: str = "ladder"

    @property
    def name(self) -> str:
        """As a figure and a file may be called."""
        recipe = "" if self.recipe == "ladder" else self.recipe.replace("-", "_")
        kept = f"{self.kept:g}".replace(".", "_") if self.kept else ""
        return "_".join(part for part in (recipe, self.strategy, kept) if part)

    @property
    def sent(self) -> str:
        """What of an update travels, in words."""
        all_of_it = "all" if self.recipe == "ladder" else f"what {self.recipe} shares"
        return f"{self.kept:g} of an update" if self.kept else all_of_it

    @property
    def flags(self) -> list[str]:
        """Of `sideplug-cloud federate run`."""
        flags = ["--recipe", self.recipe, "--strategy", self.strategy]
        return [*flags, "--kept", str(self.kept)]


def ways(args: argparse.Namespace) -> list[Way]:
    """Every way that is asked for; the arms that follow the federated one are for the first."""
    first, *others = args.recipes
    every = [Way(strategy, kept, first) for strategy, kept in product(args.strategies, args.kept)]
    return [*every, *(Way(args.strategies[0], recipe=recipe) for recipe in others)]


class Split:
    """All arms of one division of the text."""

    def __init__(
        self, args: argparse.Namespace, backbone: Backbone, service: Cloud, kept: Cells, name: str
    ) -> None:
        self._args, self._kept, self._name = args, kept, name
        self._homes = Homes(kept, name, service.url)
        self._server = Server(backbone, self._homes.folder / "cache")
        scoring = self._homes.empty("scoring").path
        self._scorers = {way.recipe: Scorer(scoring, service.url, way.recipe) for way in ways(args)}
        self._first = ways(args)[0]
        self._scorer = self._scorers[self._first.recipe]
        self._shares = self._divided()

    def measure(self) -> dict[str, Any]:
        """The figures of every arm."""
        args = self._args
        pooled = self._cell("pooled", self._pooled)
        alone = [self._cell(f"alone-{s.number}", lambda s=s: self._alone(s)) for s in self._shares]
        seeds = range(args.seed, args.seed + args.seeds)
        federations = [
            self._cell(f"{way.name}-{seed}", lambda w=way, s=seed: self._federation(w, s))
            for way in ways(args)
            for seed in seeds
        ]
        people = []
        for place, share in enumerate(self._shares):
            personal = self._cell(
                f"personal-{share.number}", lambda s=share: self._personal(s, args.seed)
            )
            nll = {
                **alone[place]["nll"],
                "pooled": pooled["nll"][place],
                "federated": federations[0]["nll"][place],
                "federated + personal": personal["nll"],
            }
            people.append({"name": share.name, "training_tokens": share.tokens, "nll": nll})
        return {"people": people, "federations": federations}

    # --- arms ---

    def _pooled(self) -> Cell:
        say(f"{self._name}: pooled")
        home = self._taught("pooled", [text for share in self._shares for text in share.training])
        self._train(home)
        weights = self._scorer.speaking(home.path)
        return {"nll": [self._scorer.score(share.test, weights) for share in self._shares]}

    def _alone(self, share: Share) -> Cell:
        say(f"{self._name}: {share.name} alone")
        home = self._taught(f"alone-{share.number}", share.training)
        self._train(home)
        weights = self._scorer.speaking(home.path)
        nll = {
            "frozen": self._scorer.score(share.test, None),
            "alone": self._scorer.score(share.test, weights),
        }
        return {"nll": nll}

    def _federation(self, way: Way, seed: int) -> Cell:
        args, homes = self._args, self._members(way, seed)
        say(f"{self._name}: {len(homes)} devices, {way.strategy}, {way.sent}, seed {seed}")
        flags = [*way.flags, "--least", str(max(1, len(homes) // 2))]
        flags += ["--rounds", str(args.rounds), "--seed", str(1000 * seed)]
        told = self._server.run(f"{way.name}-{seed}", homes, flags)
        scorer = self._scorers[way.recipe]
        nll = [
            scorer.score(share.test, scorer.shared(home.path))
            for share, home in zip(self._shares, homes, strict=True)
        ]
        return {
            "way": way.name,
            "strategy": way.strategy,
            "sent": way.sent,
            "seed": seed,
            "nll": nll,
            "federated_nll": statistics.fmean(nll),
            "seconds": sum(one["seconds"] for one in told["log"]),
            **{name: told[name] for name in ("rounds", "log", "last")},
        }

    def _personal(self, share: Share, seed: int) -> Cell:
        say(f"{self._name}: {share.name} on top of the shared weights")
        home = self._members(self._first, seed)[share.number]
        self._train(home)
        return {"nll": self._scorer.score(share.test, self._scorer.speaking(home.path))}

    # --- what they are made of ---

    def _cell(self, name: str, make: Any) -> Cell:
        return self._kept.get(f"{self._name}/{name}", make)

    def _members(self, way: Way, seed: int) -> list[Home]:
        """The homes of one federation."""
        return [
            self._taught(f"{way.name}-{seed}-{share.number}", share.training, way.recipe)
            for share in self._shares
        ]

    def _taught(self, name: str, training: Sequence[str], recipe: str | None = None) -> Home:
        lines = [{"text": text} for text in training]
        return self._homes.taught(name, lines, recipe or self._first.recipe)

    def _train(self, home: Home) -> None:
        home.run("train", "--epochs", str(self._args.rounds), "--seed", str(self._args.seed))

    def _divided(self) -> list[Share]:
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
        if self._name == "person":
            return shares
        return by_quantity(shares, self._scorer.size, args.seed)
