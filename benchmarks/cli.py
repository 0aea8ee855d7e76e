"""The command `python -m benchmarks`: one module a benchmark, one table of them."""

import argparse
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from rich.console import Console

from benchmarks import (
    agent,
    definitions,
    edge,
    exactness,
    far,
    federated,
    gate,
    network,
    overhead,
    quality,
    rules,
    serve,
    soak,
    step,
    summaries,
    summaries_federated,
    survive,
    training,
    wire,
)
from benchmarks.errors import BenchmarkError
from benchmarks.machine import usable_cores
from benchmarks.people import measure as people
from benchmarks.report import Outcome, as_json, print_outcome, write_json
from device_agent.errors import DeviceError
from protocol.errors import Fault

OK, FAILED, INTERRUPTED, ENDED = 0, 1, 130, 143

ABOUT = """\
Measures what the project promises, on this machine and on real text. Each benchmark starts what
it needs, shows a table, and leaves nothing running. Compare ratios, not seconds: what is divided
was measured in one run, in turn, while seconds move with whatever else the machine does.
"""


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One word behind `python -m benchmarks`."""

    name: str
    help: str
    about: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], Outcome]


BENCHMARKS = tuple(
    Benchmark(module.NAME, module.HELP, module.__doc__ or "", module.add_arguments, module.run)
    for module in (
        exactness,
        overhead,
        training,
        quality,
        people,
        definitions,
        summaries,
        far,
        federated,
        summaries_federated,
        rules,
        edge,
        step,
        network,
        serve,
        survive,
        soak,
        wire,
        gate,
        agent,
    )
)
"""What can be measured. To add one: a module and a name in this row."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one benchmark; 0 when it gave its figures, 1 when it could not, 130 for Ctrl-C."""
    args = _parser().parse_args(argv)
    benchmark: Benchmark = args.benchmark
    console = Console()
    # Without this a request to end would leave behind what the benchmark has started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(ENDED))
    interrupted = _noted_interrupt()
    try:
        if args.json:  # before the long work, so that a wrong path is told at once
            args.json.parent.mkdir(parents=True, exist_ok=True)
        outcome = benchmark.run(args)
        if args.json:
            write_json(as_json(benchmark.name, outcome), args.json)
    except KeyboardInterrupt:
        return _stopped()
    except (BenchmarkError, DeviceError, Fault, OSError) as error:
        if interrupted.is_set():
            return _stopped()
        hint = f". {error.hint}" if isinstance(error, DeviceError | Fault) else ""
        print(f"benchmark {benchmark.name}: {error}{hint}", file=sys.stderr)
        return FAILED
    print_outcome(benchmark.name, outcome, console)
    if args.json:
        console.print(f"written to {args.json}")
    return OK


def _noted_interrupt() -> threading.Event:
    """Set at Ctrl-C, which reaches the processes beside this one as well: what fails from then on fails for that."""
    noted = threading.Event()

    def note(_number: int, _frame: FrameType | None) -> None:
        noted.set()
        raise KeyboardInterrupt

    # A shell that has put this into the background has Ctrl-C ignored, and that stays.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, note)
    return noted


def _stopped() -> int:
    print("stopped; no report was written", file=sys.stderr)
    return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    shape = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        "python -m benchmarks", description=ABOUT, formatter_class=shape
    )
    names = parser.add_subparsers(required=True, metavar="NAME")
    for benchmark in BENCHMARKS:
        one = names.add_parser(
            benchmark.name, help=benchmark.help, description=benchmark.about, formatter_class=shape
        )
        _add_shared(one)
        benchmark.add_arguments(one)
        one.set_defaults(benchmark=benchmark)
    return parser


def _add_shared(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything here as JSON")
    parser.add_argument(
        "--backbone",
        default="smollm2-135m-instruct",
        metavar="NAME|FOLDER",
        help="what `sideplug-cloud pull` takes (default smollm2-135m-instruct)",
    )
    parser.add_argument(
        "--text",
        type=Path,
        metavar="FILE",
        help='private text instead of the built-in one: JSONL, one {"text": ...} a line, '
        "a document each",
    )
    parser.add_argument("--threads", type=int, default=usable_cores(), help="for every process")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument(
        "--quick", action="store_true", help="a short run that shows whether everything works"
    )
