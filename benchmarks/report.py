"""
What a benchmark found: a table for the eye, one JSON file for everything else.

The JSON holds the figures a reader asks for first at its top level, `results` with the same
figures and all that they were computed from, and what it takes to repeat the run.
"""

import datetime
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.errors import BenchmarkError
from benchmarks.machine import library_versions, machine_facts, revision


@dataclass(frozen=True, slots=True)
class Figure:
    """One number a benchmark is run for."""

    name: str
    """Its key in the JSON."""

    value: float | int | None
    """None when it could not be computed, as a share of a gain that is none."""

    meaning: str
    """What it says, in a few words for the table."""

    at_least: float | None = None
    at_most: float | None = None
    """The goal, if the figure has one."""

    @property
    def reached(self) -> bool | None:
        """Whether the goal is reached; None without a goal."""
        if self.at_least is None and self.at_most is None:
            return None
        if self.value is None:
            return False
        above = self.at_least is None or self.value >= self.at_least
        below = self.at_most is None or self.value <= self.at_most
        return above and below

    @property
    def goal(self) -> str:
        bounds = ((">=", self.at_least), ("<=", self.at_most))
        return " ".join(f"{sign} {show(bound)}" for sign, bound in bounds if bound is not None)


@dataclass(frozen=True, slots=True)
class Rows:
    """A table for the screen beside the figures."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """All that one run of a benchmark found."""

    figures: Sequence[Figure]
    results: Mapping[str, Any]
    seeds: Sequence[int]
    settings: Mapping[str, Any]
    tables: Sequence[Rows] = field(default=())


def as_json(benchmark: str, outcome: Outcome) -> dict[str, Any]:
    """The whole report as plain JSON values."""
    figures = {figure.name: figure.value for figure in outcome.figures}
    frame = {
        "benchmark": benchmark,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": machine_facts(),
        "versions": library_versions(),
        "revision": revision(),
        "seeds": list(outcome.seeds),
        "settings": dict(outcome.settings),
        "goals": {f.name: _goal(f) for f in outcome.figures if f.reached is not None},
        "results": {**figures, **outcome.results},
    }
    taken = figures.keys() & frame.keys()
    if taken:
        raise BenchmarkError(f"figures may not be named {sorted(taken)}: the report uses the words")
    return {**frame, **figures}


def write_json(report: Mapping[str, Any], path: Path) -> None:
    """Writes the report whole or not at all."""
    draft = path.with_name(path.name + ".part")
    draft.write_text(json.dumps(report, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(draft, path)


def say(stage: str) -> None:
    """Tells the person who waits what is being measured now."""
    print(f"benchmark: {stage}", file=sys.stderr, flush=True)


def print_outcome(benchmark: str, outcome: Outcome, console: Console) -> None:
    """Shows the figures with their goals, then the benchmark's own tables."""
    figures = Table(title=benchmark, title_justify="left")
    for column in ("figure", "value", "goal", "", "meaning"):
        figures.add_column(column, justify="right" if column == "value" else "left")
    marks = {None: "", True: "reached", False: "not reached"}
    for figure in outcome.figures:
        row = (figure.name, show(figure.value), figure.goal, marks[figure.reached], figure.meaning)
        figures.add_row(*row)
    console.print(figures)
    for rows in outcome.tables:
        table = Table(*rows.columns, title=rows.title, title_justify="left")
        for row in rows.rows:
            table.add_row(*(show(cell) for cell in row))
        console.print(table)


def show(value: Any) -> str:
    """A cell of a table: numbers to four figures, None as a dash."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _goal(figure: Figure) -> dict[str, Any]:
    bounds = {"at_least": figure.at_least, "at_most": figure.at_most}
    given = {word: bound for word, bound in bounds.items() if bound is not None}
    return {**given, "reached": figure.reached}
