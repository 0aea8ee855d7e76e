"""What this machine can do, and what training costs on it.

  sideplug bench hardware                                 the kit of your recipe, several batch sizes
  sideplug bench hardware --recipes ladder ladder-mempepita --output here.json --picture here.svg
  sideplug bench hardware --torch FOLDER                  full and LoRA fine-tuning of a backbone beside it (extra `bench`)
  sideplug bench hardware --compare here.json there.json  several machines side by side

Peak arithmetic and memory traffic are measured. Each step is cut into load, forward, backward and optimizer; model FLOP
utilisation is its arithmetic over its time and the peak. Energy is read from RAPL or a discharging battery where that is
allowed, and said to be not readable elsewhere. Granularity is a round's computing over its communicating, by link speed.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from device_agent.atomic import write_whole
from device_agent.cli import OK, print_json
from device_agent.cloud.link import Link
from device_agent.hardware.bench import Bench
from device_agent.hardware.bench import run as measure_all
from device_agent.hardware.report import as_text, compared, draw, read
from device_agent.settings import Settings

NAME = "bench"
HELP = "measure this machine: arithmetic, memory, training steps"

SIZES = (64, 128, 256, 512)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's own arguments."""
    parser.add_argument("what", choices=("hardware",))
    parser.add_argument(
        "--recipes", nargs="+", metavar="RECIPE", help="whose kits (default: your recipe's)"
    )
    parser.add_argument(
        "--tokens",
        nargs="+",
        type=_count,
        default=list(SIZES),
        metavar="N",
        help=f"batch sizes (default {' '.join(map(str, SIZES))})",
    )
    parser.add_argument("--repeats", type=_count, default=7, metavar="N", help="default 7")
    parser.add_argument(
        "--round-tokens",
        type=_count,
        default=2000,
        metavar="N",
        help="that a device learns from in a federated round (default 2000)",
    )
    parser.add_argument("--torch", type=Path, metavar="FOLDER", help="a backbone to fine-tune too")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write it all here as JSON")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw it here as SVG")
    parser.add_argument(
        "--compare", nargs="+", type=Path, metavar="FILE", help="show such files side by side"
    )


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Measure, or compare what was measured."""
    if args.compare:
        documents = [read(path) for path in args.compare]
        if args.json:
            print_json(documents)
        else:
            print(compared(documents))
        return OK
    found = _measured(args, settings)
    if args.output:
        write_whole(args.output.absolute(), json.dumps(found, indent=2).encode() + b"\n")
    if args.picture:
        write_whole(args.picture.absolute(), draw(found).encode())
    if args.json:
        print_json(found)
    else:
        print(as_text(found))
    return OK


def _measured(args: argparse.Namespace, settings: Settings) -> dict[str, Any]:
    bench = Bench(settings.threads, args.tokens, args.repeats, args.round_tokens, args.torch)
    with Link(settings, "bench") as link:
        kits = [link.kit(recipe) for recipe in args.recipes or [settings.recipe]]
    return measure_all(bench, kits, lambda text: print(text, file=sys.stderr, flush=True))


def _count(text: str) -> int:
    """A number of at least one."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value
