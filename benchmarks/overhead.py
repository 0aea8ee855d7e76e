"""
What does it cost in time that the model is split?

Greedy generation, split over HTTP on this machine against transformers.generate in one process:
same weights, dtype, threads and prompts, in turn, so that both meet the same weather. Then the
bulk features that training buys (five taps, final state, log Z) against the plain forward of the
same texts in a process like the cloud's; and, apart, the same without log Z against a forward
that skips the language model head too.
"""

import argparse
import statistics
import time
from collections.abc import Sequence
from typing import Any

from benchmarks import texts
from benchmarks.arms import Arms, arms
from benchmarks.exactness import text_windows
from benchmarks.prompts import PROMPTS
from benchmarks.report import Figure, Outcome, Rows, say
from benchmarks.services import Backbone, pull
from protocol.messages import Wants

NAME = "overhead"
HELP = "tokens a second split over HTTP against one process; features against plain forwards"

TAPS = 5
FEATURE_TEXTS = 20
FEATURE_TOKENS = 256


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the benchmark's own arguments."""
    parser.add_argument("--prompts", type=int, default=6, help="prompts generated from")
    parser.add_argument("--new-tokens", type=int, default=64, help="tokens generated for each")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of features and forwards")
    parser.add_argument(
        "--codec", default="f16", help="how hidden states travel (default f16, the device's own)"
    )
    parser.add_argument(
        "--dtypes",
        nargs="+",
        choices=("f32", "bf16"),
        default=["f32", "bf16"],
        help="of the backbone in both arms; the figures are the first one's",
    )


def run(args: argparse.Namespace) -> Outcome:
    """Measures each dtype in turn."""
    if args.quick:
        args.prompts, args.new_tokens, args.rounds = 2, 8, 2
        args.dtypes = args.dtypes[:1]
    documents = texts.load(args.text)
    backbone = pull(args.backbone)
    found = {dtype: _measure(args, backbone, dtype, documents) for dtype in args.dtypes}
    first = found[args.dtypes[0]]
    settings = {
        "backbone": backbone.name,
        "dtype": args.dtypes[0],
        "codec": args.codec,
        "threads": args.threads,
        "quick": args.quick,
        "prompts": args.prompts,
        "new_tokens": args.new_tokens,
        "feature_texts": FEATURE_TEXTS,
        "feature_tokens": first["features"]["tokens_each"],
        "rounds": args.rounds,
    }
    ratio, taps = first["generation"]["ratio"], first["features"]["overhead"]
    return Outcome(
        figures=[
            Figure("ratio", ratio, "tokens/s split ÷ whole", at_least=0.85),
            Figure("taps_overhead", taps, "seconds with taps ÷ without", at_most=1.10),
        ],
        results={"dtypes": found},
        seeds=[],
        settings=settings,
        tables=[_table(found)],
    )


def _measure(
    args: argparse.Namespace, backbone: Backbone, dtype: str, documents: Sequence[texts.Document]
) -> dict[str, Any]:
    with arms(backbone, dtype, args.threads, args.codec) as both:
        say(f"{dtype}: generation")
        generation = _generation(both, args.prompts, args.new_tokens)
        length = min(FEATURE_TOKENS, both.split.facts.positions)
        say(f"{dtype}: features")
        pieces = text_windows(both, documents, FEATURE_TEXTS, length)
        taps = _five_taps(both.split.facts.layers)
        bought = Wants(layers=taps, final=True, log_z=True, candidates=0, codec=args.codec)
        lean = Wants(layers=taps, final=True, log_z=False, candidates=0, codec=args.codec)
        return {
            "generation": generation,
            "features": {"taps": list(taps), **_features(both, pieces, bought, args.rounds)},
            "features_without_head": _features(both, pieces, lean, args.rounds),
            "whole": both.whole.facts,
        }


def _five_taps(layers: int) -> tuple[int, ...]:
    """Five layers spread over the depth, or all of a shallower backbone."""
    return tuple(sorted({round(layers * share / TAPS) for share in range(1, TAPS + 1)}))


def _generation(both: Arms, count: int, new: int) -> dict[str, Any]:
    """Tokens a second of both arms for each prompt; the order within a pair alternates."""
    prompts = [both.split.ids(prompt) for prompt in PROMPTS[:count]]
    _split_rate(both, prompts[0], new)
    _whole_rate(both, prompts[0], new)
    pairs = []
    for number, ids in enumerate(prompts):
        if number % 2:
            whole = _whole_rate(both, ids, new)
            pairs.append((_split_rate(both, ids, new), whole))
        else:
            pairs.append((_split_rate(both, ids, new), _whole_rate(both, ids, new)))
    return {
        "ratio": statistics.median(split / whole for split, whole in pairs),
        "split_tokens_per_second": statistics.median(split for split, _ in pairs),
        "whole_tokens_per_second": statistics.median(whole for _, whole in pairs),
        "pairs": pairs,
    }


def _split_rate(both: Arms, ids: list[int], new: int) -> float:
    began = time.perf_counter()
    made = both.split.generate(ids, new)
    return len(made) / (time.perf_counter() - began)


def _whole_rate(both: Arms, ids: list[int], new: int) -> float:
    answer = both.whole.ask("generate", ids=ids, new=new)
    return float(len(answer["tokens"]) / answer["seconds"])


def _features(both: Arms, pieces: Sequence[list[int]], wants: Wants, rounds: int) -> dict[str, Any]:
    """Seconds for all texts with taps over HTTP and without taps in one process, in turn."""
    both.split.features(pieces[:2], wants)
    both.whole.ask("forward", texts=pieces[:2], head=wants.log_z)
    pairs = []
    for _ in range(rounds):
        began = time.perf_counter()
        both.split.features(pieces, wants)
        tapped = time.perf_counter() - began
        plain = both.whole.ask("forward", texts=pieces, head=wants.log_z)["seconds"]
        pairs.append((tapped, plain))
    return {
        "overhead": statistics.median(tapped / plain for tapped, plain in pairs),
        "seconds_with_taps": statistics.median(tapped for tapped, _ in pairs),
        "seconds_without": statistics.median(plain for _, plain in pairs),
        "tokens_each": len(pieces[0]),
        "pairs": pairs,
    }


def _table(found: dict[str, dict[str, Any]]) -> Rows:
    columns = ("dtype", "split tok/s", "whole tok/s", "ratio", "features s", "forwards s")
    columns += ("overhead", "overhead, no head")
    rows = [
        [
            dtype,
            one["generation"]["split_tokens_per_second"],
            one["generation"]["whole_tokens_per_second"],
            one["generation"]["ratio"],
            one["features"]["seconds_with_taps"],
            one["features"]["seconds_without"],
            one["features"]["overhead"],
            one["features_without_head"]["overhead"],
        ]
        for dtype, one in found.items()
    ]
    return Rows("medians", columns, rows)
