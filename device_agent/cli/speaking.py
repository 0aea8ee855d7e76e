"""What ``run`` and ``chat`` share: the flags of sampling, and which plugin speaks."""

import argparse
import sys

from device_agent.generation.sampling import Sampling
from device_agent.plugins import PluginStore, PluginVersion
from device_agent.settings import Settings


def add_speaking_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what decides how an answer is made."""
    who = parser.add_mutually_exclusive_group()
    who.add_argument("--base", action="store_true", help="let the frozen backbone answer")
    who.add_argument(
        "--plugin", metavar="VERSION", help="use this version instead of the current one"
    )
    parser.add_argument("--system", metavar="TEXT", help="instruction in front of the conversation")
    parser.add_argument(
        "--max-tokens", type=_count, default=256, metavar="N", help="longest answer"
    )
    how = parser.add_argument_group("sampling")
    how.add_argument("--temperature", type=float, default=0.0, help="0: the likeliest (default)")
    how.add_argument("--top-k", type=int, default=0, metavar="K", help="out of the K likeliest")
    how.add_argument("--top-p", type=float, default=1.0, metavar="P", help="out of the likeliest P")
    how.add_argument("--repetition", type=float, default=1.0, help="above 1: repeat less")
    how.add_argument("--seed", type=int, default=0, help="same seed, same answer")
    how.add_argument(
        "--stop", action="append", default=[], metavar="TEXT", help="end there; may be repeated"
    )


def _count(text: str) -> int:
    """A number of tokens, for argparse: its message names this function's type of number."""
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, but is {text}")
    return count


def sampling_of(args: argparse.Namespace) -> Sampling:
    """The sampling that the flags describe."""
    return Sampling(args.temperature, args.top_k, args.top_p, args.repetition, args.seed)


def plugin_of(args: argparse.Namespace, settings: Settings) -> PluginVersion | None:
    """The plugin that the flags choose: one by version, the current one, or none."""
    if args.base:
        return None
    store = PluginStore(settings.home)
    return store.get(args.plugin) if args.plugin else store.current()


def opening(args: argparse.Namespace) -> list[dict[str, str]]:
    """The turns that stand before the person's first."""
    return [{"role": "system", "content": args.system}] if args.system else []


def show_progress(name: str, done: int, size: int) -> None:
    """A line on a terminal while a kit is fetched."""
    if sys.stderr.isatty():
        end = "\n" if done == size else ""
        print(f"\rfetching {name} {done / max(size, 1):4.0%}", end=end, file=sys.stderr, flush=True)
