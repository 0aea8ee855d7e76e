"""
How fast is one session, and what do its weights lose?

One device generates greedily through the cloud, its plugin and its own head included, once with a
request for each token and once with drafts, as it does by default, against transformers.generate
in one process on the same prompts, in turn: with the cloud's default weights against the faster
dtype of transformers, and in f32 on both sides; where llama-cpp-python is installed, with the
default weights against llama.cpp too. The plugin is as it is before any training: it agrees with
the cloud's drafts but for what rounding decides, which a trained one does less often. Then the
cloud's step by itself, as a multiple of the time in which this machine copies as many bytes as the
layers' weights have. Last, for each kind of weights, what it loses against f32 of the same engine,
whose texts are those of transformers (`python -m benchmarks exactness`).
"""

import argparse
import os
import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer

from benchmarks import llama_cpp, texts
from benchmarks.arms import Arms, arms
from benchmarks.choices import KV_BYTES, compare
from benchmarks.peer import WholeModel, whole_model
from benchmarks.prompts import PROMPTS
from benchmarks.report import Figure, Outcome, Rows, say
from benchmarks.services import Backbone, pull
from cloud_service.backbones.base import Span
from cloud_service.backbones.engines import Choice, choose, start
from cloud_service.backbones.lean.packs import Packs
from cloud_service.backbones.pages import Cache
from cloud_service.packages import PACKAGES
from cloud_service.registry import Pulled, Registry
from cloud_service.settings import load
from device_agent.generation.drafting import Drafting
from protocol.messages import Wants

NAME = "step"
HELP = "tokens a second of one session against transformers; what each kind of weights loses"

TEXTS, TEXT_TOKENS = 3, 512
CODEC = "f16"
"""The device's own."""
LLAMA = "llama.cpp"
DRAFTS = "split, drafts"
_COPIED = 2**28
_MATRICES = ("qkv", "output", "gate_up", "down")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the benchmark's own arguments."""
    parser.add_argument("--prompts", type=int, default=5, help="prompts generated from")
    parser.add_argument("--new-tokens", type=int, default=64, help="tokens generated for each")
    parser.add_argument("--steps", type=int, default=60, help="steps timed by themselves")


def run(args: argparse.Namespace) -> Outcome:
    """Whole programs first, then the engine by itself."""
    if args.quick:
        args.prompts, args.new_tokens, args.steps = 2, 8, 10
    documents = texts.load(args.text)[:TEXTS]
    backbone = pull(args.backbone)
    cache = load({}, os.environ).cache
    pulled = Registry(cache).find(backbone.name)
    fast, slow = ("auto", ("bf16", "f32")), ("f32", ("f32",))
    speeds = [_speeds(args, backbone, *arm) for arm in (fast, slow)]
    engine = _engine(args, pulled)
    say("what each kind of weights loses")
    losses = _losses(args, pulled, documents)
    return Outcome(
        figures=[
            Figure(
                "speedup_1",
                speeds[0]["ratio"],
                "tokens/s of one device, a request for each token ÷ transformers' faster dtype",
                at_least=5,
            ),
            Figure(
                "speedup_1_drafts",
                speeds[0]["ratio_drafts"],
                "the same with drafts, which a fresh plugin accepts nearly always",
                at_least=5,
            ),
            Figure("accepted_share", speeds[0]["accepted_share"], "of the drafted tokens"),
            Figure("speedup_1_f32", speeds[1]["ratio"], "the same, both in f32", at_least=2),
            Figure(
                "bound_ratio",
                engine["bound_ratio"],
                "the cloud's step ÷ copying its weights' bytes",
                at_most=4,
            ),
            *_against_llama(speeds[0]),
        ],
        results={"speeds": speeds, "engine": engine, "choices": losses},
        seeds=[],
        settings={
            "backbone": backbone.name,
            "codec": CODEC,
            "threads": args.threads,
            "quick": args.quick,
            "prompts": args.prompts,
            "new_tokens": args.new_tokens,
        },
        tables=[_speed_table(speeds), _loss_table(losses)],
    )


def _against_llama(speeds: dict[str, Any]) -> list[Figure]:
    """The figures that there are where llama-cpp-python is installed."""
    rates = speeds["tokens_per_second"]
    if LLAMA not in rates:
        return []
    plain, drafts = (rates[arm] / rates[LLAMA] for arm in ("split", DRAFTS))
    return [
        Figure("llama_cpp_ratio", plain, "tokens/s of one device ÷ llama.cpp's", at_least=1),
        Figure("llama_cpp_ratio_drafts", drafts, "the same with drafts", at_least=1),
    ]


def _speeds(
    args: argparse.Namespace, backbone: Backbone, weights: str, dtypes: tuple[str, ...]
) -> dict[str, Any]:
    """Medians over prompts of tokens a second, all arms in turn on each prompt."""
    with (
        arms(backbone, weights, args.threads, CODEC, dtypes[0]) as both,
        ExitStack() as stack,
    ):
        wholes = {dtypes[0]: both.whole}
        for dtype in dtypes[1:]:
            model = whole_model(backbone.folder, dtype, args.threads)
            wholes[dtype] = stack.enter_context(model)
        peers = dict(wholes)
        # It has the file's own 4 bits: a peer of the default weights alone.
        if weights == "auto" and backbone.name in PACKAGES and llama_cpp.installed():
            peers[LLAMA] = stack.enter_context(llama_cpp.llama(backbone.name, args.threads))
        drafting = Drafting()
        medians = _in_turn(args, both, weights, peers, drafting)
    fastest = max(medians[name] for name in wholes)
    return {
        "weights": both.split.facts.dtype,
        "tokens_per_second": medians,
        "ratio": medians["split"] / fastest,
        "ratio_drafts": medians[DRAFTS] / fastest,
        "accepted_share": drafting.tally.accepted / max(1, drafting.tally.drafted),
    }


def _in_turn(
    args: argparse.Namespace,
    both: Arms,
    weights: str,
    peers: dict[str, WholeModel],
    drafting: Drafting,
) -> dict[str, float]:
    say(f"one session: {weights} against transformers")
    rates: dict[str, list[float]] = {name: [] for name in ("split", DRAFTS, *peers)}
    for number in range(-1, args.prompts):
        ids = both.split.ids(PROMPTS[number % len(PROMPTS)])
        took = {}
        for name, drafts in (("split", None), (DRAFTS, drafting)):
            began = time.perf_counter()
            both.split.generate(ids, args.new_tokens, drafts)
            took[name] = time.perf_counter() - began
        for name, peer in peers.items():
            took[name] = peer.ask("generate", ids=ids, new=args.new_tokens)["seconds"]
        if number >= 0:  # the first warms everything up
            for name, seconds in took.items():
                rates[name].append(args.new_tokens / seconds)
    return {name: statistics.median(one) for name, one in rates.items()}


def _engine(args: argparse.Namespace, pulled: Pulled) -> dict[str, Any]:
    """The engine's step in this process, and the machine's copying."""
    settings = load({}, os.environ)
    choice = choose(pulled.folder, "lean", "auto")
    facts = pulled.record.facts(choice.weights)
    lean = start(
        choice, pulled, facts, cache=settings.cache, kv_bytes=KV_BYTES, threads=args.threads
    )
    layers = facts.layers
    wants = Wants((layers // 4, layers // 2), True, False, 0, CODEC)
    cache, one = Cache(lean.pool), np.ones(1, np.uint32)
    lean.read([Span(cache, np.ones(64, np.uint32), 1, wants)])
    took, copied = [], []
    torch.set_num_threads(args.threads)
    source, target = (
        torch.zeros(_COPIED, dtype=torch.uint8),
        torch.empty(_COPIED, dtype=torch.uint8),
    )
    for _ in range(args.steps):
        began = time.perf_counter()
        lean.read([Span(cache, one, 1, wants)])
        took.append(time.perf_counter() - began)
    for _ in range(10):
        began = time.perf_counter()
        target.copy_(source)
        copied.append(time.perf_counter() - began)
    cache.release()
    step, bandwidth = statistics.median(took), 2 * _COPIED / statistics.median(copied)
    size = _weight_bytes(pulled, choice)
    return {
        "weights": choice.weights,
        "step_ms": 1e3 * step,
        "weight_bytes": size,
        "copy_bytes_per_second": bandwidth,
        "bound_ratio": step / (size / bandwidth),
    }


def _weight_bytes(pulled: Pulled, choice: Choice) -> int:
    packs = Packs(load({}, os.environ).cache)
    arrays = packs.get(pulled.record.fingerprint, choice.weights, dict)
    return sum(
        array.nbytes for name, array in arrays.items() if name.partition(".")[0] in _MATRICES
    )


def _losses(
    args: argparse.Namespace, pulled: Pulled, documents: Sequence[texts.Document]
) -> list[dict[str, Any]]:
    tokenizer = Tokenizer.from_file(str(pulled.tokenizer))
    encoded = [tokenizer.encode(one.text, add_special_tokens=False).ids for one in documents]
    length = min(TEXT_TOKENS, pulled.record.positions)
    read = [np.array(ids[:length], np.uint32) for ids in encoded]
    asked = [tokenizer.encode(prompt.text, add_special_tokens=False).ids for prompt in PROMPTS]
    prompts = [np.array(ids, np.uint32) for ids in asked]
    choices = [Choice("lean", weights) for weights in ("f32", "bf16", "int8", "int4")]
    choices.append(Choice("general", "bf16"))
    cache = load({}, os.environ).cache
    return compare(pulled, choices, read, prompts, args.new_tokens, cache, args.threads)


def _speed_table(speeds: list[dict[str, Any]]) -> Rows:
    columns = (
        "weights",
        "device tok/s",
        "with drafts",
        "transformers bf16 tok/s",
        "transformers f32 tok/s",
    )
    columns += ("llama.cpp tok/s",)
    rows = []
    for one in speeds:
        rates = one["tokens_per_second"]
        rows.append(
            [
                *(one["weights"], rates["split"], rates[DRAFTS]),
                *(rates.get("bf16"), rates.get("f32"), rates.get(LLAMA)),
            ]
        )
    return Rows("one session", columns, rows)


def _loss_table(losses: list[dict[str, Any]]) -> Rows:
    columns = ("engine", "weights", "mean KL, nats", "perplexity, off by %", "texts unchanged")
    rows = [
        [o["engine"], o["weights"], o["kl"], 100 * o["perplexity_change"], o["unchanged"]]
        for o in losses
    ]
    return Rows(f"against f32, {len(PROMPTS)} greedy texts", columns, rows)
