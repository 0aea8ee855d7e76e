"""What left this device, and what came to it: when, to whom, of what kind, and why.

  sideplug egress                          by host, kind and purpose, since the first day
  sideplug egress --since 7d --by day
  sideplug egress --since 2026-01-31 --by day,host,kind

Counted are the heads and bodies of every request and answer, never what is in them. `tokens` are of
somebody's text: yours, a program's, or an answer's. `sideplug policy` tells what may leave.
"""

import argparse
import re
import time
from collections.abc import Sequence
from datetime import datetime

from device_agent.cli import OK, print_json
from device_agent.cli.status import in_words
from device_agent.cloud.link import STORE
from device_agent.cloud.traffic import KINDS
from device_agent.data.store import Store
from device_agent.egress.ledger import USUAL, By, Total, grouping, totals
from device_agent.settings import Settings

NAME = "egress"
HELP = "what left this device, to whom, and why"

SPANS = {"m": 60, "h": 3600, "d": 86_400}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's own arguments."""
    parser.add_argument(
        "--since", type=_moment, default=0.0, metavar="WHEN", help="30m, 24h, 7d, or 2026-01-31"
    )
    parser.add_argument(
        "--by",
        type=_groups,
        default=USUAL,
        metavar="NAMES",
        help=f"of day, host, kind, purpose, minute, with commas (default {','.join(USUAL)})",
    )


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Read the ledger."""
    with Store(settings.home / STORE) as store:
        rows = totals(store, args.since, args.by)
        whole = next(iter(totals(store, args.since, ())), None)
    if args.json:
        print_json(
            {
                "rows": [row.to_json() for row in rows],
                "all": None if whole is None else whole.to_json(),
            }
        )
    elif whole is None:
        print("nothing has left")
    else:
        _show(args.by, rows, whole)
    return OK


def _show(by: Sequence[By], rows: Sequence[Total], whole: Total) -> None:
    told = [[_cell(name, row) for name in by] for row in rows]
    told.append(["all", *[""] * (len(by) - 1)])
    wide = [max(map(len, column)) for column in zip(by, *told, strict=True)]
    print(_line(by, wide, "left", "came", "tokens", "exchanges"))
    for cells, row in zip(told, [*rows, whole], strict=True):
        up, down = in_words(row.up), in_words(row.down)
        print(_line(cells, wide, up, down, str(row.tokens), str(row.exchanges)))
    first = datetime.fromtimestamp(whole.first).strftime("%Y-%m-%d %H:%M")
    last = datetime.fromtimestamp(whole.last).strftime("%Y-%m-%d %H:%M")
    print(f"from {first} to {last}")
    seen = {row.group.get("kind") for row in rows}
    for kind, about in KINDS.items():
        if kind in seen:
            print(f"  {kind:<10} {about.words}")


def _line(cells: Sequence[str], wide: Sequence[int], *numbers: str) -> str:
    texts = [cell.ljust(width) for cell, width in zip(cells, wide, strict=True)]
    return "  ".join([*texts, *(number.rjust(10) for number in numbers)])


def _cell(name: By, total: Total) -> str:
    found = total.group[name]
    if name == "minute":
        return datetime.fromtimestamp(float(found)).strftime("%Y-%m-%d %H:%M")
    return str(found)


def _moment(text: str) -> float:
    """Seconds since 1970, for argparse."""
    span = re.fullmatch(r"(\d{1,6})([mhd])", text)
    if span is not None:
        return time.time() - int(span[1]) * SPANS[span[2]]
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError):
        raise argparse.ArgumentTypeError(
            f"must look like 30m, 24h, 7d or 2026-01-31, but is {text!r}"
        ) from None


def _groups(text: str) -> tuple[By, ...]:
    try:
        return grouping(text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
