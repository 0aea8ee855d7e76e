"""
How many devices does one machine serve?

1, 4, 16, 32 and 64 devices, coroutines over HTTP, prefill prompts of 64 tokens and, when all have, decode
side by side until the last is done, each token answered with four taps and the final state. What is
divided by: the same 16 texts continued one after the other by transformers.generate, in its faster
dtype and in f32. The tokens are the text's own: choosing them is the devices' work, and theirs is
another machine. Then a prefill of 2,000 tokens arrives while 16 devices decode: `stall` is the 99th
percentile of their waits until it is answered, divided by their median wait without it.
Where Language Pipes is installed, one client and 16 ask it to go on from the same texts as well.
"""

import argparse
import asyncio
import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from benchmarks import language_pipes, texts
from benchmarks.errors import TextError
from benchmarks.peer import WholeModel, whole_model
from benchmarks.report import Figure, Outcome, Rows, say
from benchmarks.services import Backbone, cloud, pull
from benchmarks.traffic import crowd, disturbed
from protocol.messages import Wants

NAME = "serve"
HELP = "tokens a second for many devices at once against one generation after the other"

PROMPT = 64
LONG = 2000
COMPARED = 16
"""Devices whose tokens a second are compared."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the benchmark's own arguments."""
    parser.add_argument(
        "--devices", type=int, nargs="+", default=[1, 4, 16, 32, 64], help="devices at once"
    )
    parser.add_argument("--new-tokens", type=int, default=64, help="tokens decoded by each")
    parser.add_argument(
        "--generations", type=int, default=COMPARED, help="texts that transformers continues"
    )
    parser.add_argument(
        "--language-pipes",
        metavar="PROGRAM",
        default=language_pipes.PROGRAM,
        help="where that is; left out of the comparison when it is not there",
    )


def run(args: argparse.Namespace) -> Outcome:
    """Serves with the default weights, then in f32; transformers in between."""
    if args.quick:
        args.devices, args.new_tokens, args.generations = [1, COMPARED], 8, 2
    documents = texts.load(args.text)
    backbone = pull(args.backbone)
    ids = _tokens(backbone, documents, args)
    found = {weights: _serve(args, backbone, weights, ids) for weights in ("auto", "f32")}
    whole = {dtype: _generate(args, backbone, dtype, ids) for dtype in ("bf16", "f32")}
    pipes = _pipes(args, backbone, ids)
    fast, exact = (found[name]["devices"][COMPARED]["tokens_per_second"] for name in found)
    return Outcome(
        figures=[
            Figure(
                "speedup_16",
                fast / max(whole.values()),
                "tokens/s of 16 devices ÷ transformers one by one",
                at_least=20,
            ),
            Figure("speedup_16_f32", exact / whole["f32"], "the same, both in f32", at_least=8),
            Figure(
                "stall",
                found["auto"]["stall"],
                "p99 wait beside a long prefill ÷ median without",
                at_most=3,
            ),
            *_against_pipes(found["auto"]["devices"], pipes),
        ],
        results={
            "served": found,
            "transformers_tokens_per_second": whole,
            "language_pipes_tokens_per_second": pipes,
        },
        seeds=[],
        settings={
            "backbone": backbone.name,
            "threads": args.threads,
            "quick": args.quick,
            "new_tokens": args.new_tokens,
            "prompt": PROMPT,
            "generations": args.generations,
        },
        tables=[_table(found)],
    )


def _tokens(
    backbone: Backbone, documents: Sequence[texts.Document], args: argparse.Namespace
) -> list[int]:
    """Tokens of the whole text, enough for all devices."""
    tokenizer = Tokenizer.from_file(str(backbone.folder / "tokenizer.json"))
    ids = [i for one in documents for i in tokenizer.encode(one.text, add_special_tokens=False).ids]
    needed = max(LONG, COMPARED * (PROMPT + args.new_tokens))
    if len(ids) < PROMPT + args.new_tokens:
        raise TextError(f"the text has {len(ids)} tokens; {PROMPT + args.new_tokens} are needed")
    return (ids * -(-needed // len(ids)))[: max(needed, len(ids))]


def _texts(ids: list[int], count: int, length: int) -> list[list[int]]:
    """As many texts, beginning at other places."""
    starts = np.linspace(0, len(ids) - length, count).astype(int)
    return [ids[start : start + length] for start in starts]


def _serve(
    args: argparse.Namespace, backbone: Backbone, weights: str, ids: list[int]
) -> dict[str, Any]:
    with cloud(backbone, weights, args.threads) as service:
        facts = service.facts()
        layers, limit = facts["layers"], facts["positions"]
        taps = tuple(sorted({round(layers * share) for share in (0.27, 0.5, 0.7, 0.9)}))
        wants = Wants(taps, final=True, log_z=False, candidates=0, codec="f16")
        length = PROMPT + args.new_tokens
        asyncio.run(crowd(service.url, wants, _texts(ids, 2, length), PROMPT))
        devices = {}
        for count in args.devices:
            say(f"{weights}: {count} devices")
            talks, seconds = asyncio.run(
                crowd(service.url, wants, _texts(ids, count, length), PROMPT)
            )
            gaps = [gap for talk in talks for gap in talk.gaps]
            decoding = max(talk.ends[-1] for talk in talks) - min(talk.began for talk in talks)
            devices[count] = {
                "tokens_per_second": count * args.new_tokens / decoding,
                "tokens_per_second_with_prefill": count * args.new_tokens / seconds,
                "p50_ms": 1e3 * float(np.percentile(gaps, 50)),
                "p99_ms": 1e3 * float(np.percentile(gaps, 99)),
            }
        say(f"{weights}: a long prefill among {COMPARED} devices")
        return {
            "weights": facts["dtype"],
            "devices": devices,
            "stall": _stall(service.url, wants, ids, min(LONG, limit - 1), args),
        }


def _stall(
    url: str, wants: Wants, ids: list[int], long: int, args: argparse.Namespace
) -> float | None:
    """Decode long enough that the prefill comes and is answered meanwhile."""
    several = _texts(ids, COMPARED, PROMPT + 2 * args.new_tokens)
    calm, _ = asyncio.run(crowd(url, wants, several, PROMPT))
    median = statistics.median(gap for talk in calm for gap in talk.gaps)
    talks, began, ended = asyncio.run(disturbed(url, wants, several, PROMPT, ids[:long]))
    beside = [
        gap
        for talk in talks
        for gap, end in zip(talk.gaps, talk.ends, strict=True)
        if end > began and end - gap < ended
    ]
    return float(np.percentile(beside, 99)) / median if beside else None


def _generate(args: argparse.Namespace, backbone: Backbone, dtype: str, ids: list[int]) -> float:
    """Tokens a second of transformers, one text after the other."""
    say(f"transformers in {dtype}: {args.generations} generations one by one")
    with whole_model(backbone.folder, dtype, args.threads) as whole:
        prompts = _texts(ids, args.generations, PROMPT)
        _seconds(whole, prompts[0], 4)
        seconds = sum(_seconds(whole, prompt, args.new_tokens) for prompt in prompts)
    return len(prompts) * args.new_tokens / seconds


def _pipes(args: argparse.Namespace, backbone: Backbone, ids: list[int]) -> dict[int, float]:
    """Tokens a second of Language Pipes by its clients; empty where it is not installed."""
    program = args.language_pipes
    if not language_pipes.installed(program):
        return {}
    say("Language Pipes: 1 client, then 16")
    tokenizer = Tokenizer.from_file(str(backbone.folder / "tokenizer.json"))
    prompts = [tokenizer.decode(text) for text in _texts(ids, COMPARED, PROMPT)]
    with language_pipes.node(program, backbone.folder, args.threads, COMPARED) as node:
        return {
            count: node.tokens_per_second(prompts[:count], args.new_tokens)
            for count in (1, COMPARED)
        }


def _against_pipes(devices: dict[int, dict[str, float]], pipes: dict[int, float]) -> list[Figure]:
    """Ours with prefill, as theirs is; a figure for each number of clients that both have served."""
    return [
        Figure(
            "language_pipes" if count == COMPARED else f"language_pipes_{count}",
            devices[count]["tokens_per_second_with_prefill"] / rate,
            f"tokens/s of {count} devices ÷ Language Pipes' with {count} clients",
        )
        for count, rate in pipes.items()
        if count in devices
    ]


def _seconds(whole: WholeModel, prompt: list[int], new: int) -> float:
    return float(whole.ask("generate", ids=prompt, new=new)["seconds"])


def _table(found: dict[str, Any]) -> Rows:
    columns = ("weights", "devices", "tokens/s", "with prefill", "p50 ms", "p99 ms")
    rows = [
        [arm["weights"], count, *one.values()]
        for arm in found.values()
        for count, one in arm["devices"].items()
    ]
    return Rows("devices at once", columns, rows)
