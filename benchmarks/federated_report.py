"""What `benchmarks federated` found: figures, tables and a picture."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.picture import draw_panels
from benchmarks.report import Figure, Rows

ARMS = ("frozen", "alone", "federated", "federated + personal", "pooled")

Found = Mapping[str, Any]
"""By name of the split: what ``Split.measure`` gave."""


def figures_of(found: Found, parameters: int) -> list[Figure]:
    """
    The figures of the first split.

    Args:
        found: Of all splits.
        parameters: Of the backbone, which full fine-tuning would move.

    """
    split, told = next(iter(found.items()))
    rows, first = told["people"], told["federations"][0]
    full, ours = full_round(parameters), round_bytes(first)
    gains = [_nll(row, "alone") - _nll(row, "federated + personal") for row in rows]
    worst = max(_nll(row, "federated + personal") / _nll(row, "alone") - 1 for row in rows)
    better, goal = sum(gain > 0 for gain in gains), round(0.8 * len(rows))
    return [
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
        *_comparisons(split, told["federations"]),
    ]


def full_round(parameters: int) -> int:
    """Bytes that full fine-tuning would move for a device in a round: all weights down and up in 32 bits."""
    return 2 * 4 * parameters


def round_bytes(federation: Mapping[str, Any]) -> float:
    """Bytes that one device moved in a round, in the mean over rounds."""
    return statistics.fmean(
        (one["bytes_up"] + one["bytes_down"]) / one["asked"] for one in federation["log"]
    )


def compared(federations: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float | int | None]]:
    """
    Every way against the first one, seed by seed.

    Returns:
        By way: ``gain``, by how many nats of test NLL it is below the first one in the mean; ``spread``, the
        standard deviation of that over seeds, None for one seed; ``better``, seeds in which it is below.

    """
    by_way: dict[str, dict[int, float]] = {}
    for one in federations:
        by_way.setdefault(one["way"], {})[one["seed"]] = one["federated_nll"]
    base, *others = by_way
    found: dict[str, dict[str, float | int | None]] = {}
    for name in others:
        gains = [by_way[base][seed] - nll for seed, nll in by_way[name].items()]
        found[name] = {
            "gain": statistics.fmean(gains),
            "spread": statistics.stdev(gains) if len(gains) > 1 else None,
            "better": sum(gain > 0 for gain in gains),
        }
    return found


def _comparisons(split: str, federations: Sequence[Mapping[str, Any]]) -> list[Figure]:
    base, seeds = federations[0]["way"], len({one["seed"] for one in federations})
    figures = []
    for name, one in compared(federations).items():
        against = f"test NLL of {base} less that of {name}, split by {split}"
        figures += [
            Figure(f"gain_{name}", one["gain"], f"nats, {against}, mean of {seeds} seeds"),
            Figure(f"spread_{name}", one["spread"], "standard deviation of that over seeds"),
            Figure(f"better_{name}", one["better"], f"of {seeds} seeds in which it is above 0"),
        ]
    return figures


def means(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Of every arm over the people."""
    return {arm: statistics.fmean(_nll(row, arm) for row in rows) for arm in ARMS}


def tables_of(found: Found) -> list[Rows]:
    """The people of each split, and all federations."""
    return [_people_table(name, told["people"]) for name, told in found.items()] + [
        _federation_table(found)
    ]


def _people_table(split: str, rows: Sequence[Mapping[str, Any]]) -> Rows:
    shown = [
        [row["name"], row["training_tokens"], *(_nll(row, arm) for arm in ARMS)] for row in rows
    ]
    shown.append(["mean", None, *means(rows).values()])
    return Rows(f"test NLL, split by {split}", ("device", "tokens", *ARMS), shown)


def _federation_table(found: Found) -> Rows:
    rows = [
        [
            split,
            one["strategy"],
            one["sent"],
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


def draw(path: Path, found: Found) -> str:
    """Held-out text of the devices, round by round, as they told it."""
    panels = {
        split: {
            f"{one['strategy']}, {one['sent']}, seed {one['seed']}": {
                line["round"]: line["figures"]["held-out"]
                for line in one["log"]
                if "held-out" in line["figures"]
            }
            for one in told["federations"]
        }
        for split, told in found.items()
    }
    return draw_panels(path, panels, "round", "held-out NLL after local training, nats a token")


def _nll(row: Mapping[str, Any], arm: str) -> float:
    return float(row["nll"][arm])
