"""
Does a model split over HTTP say what it says in one piece?

Twenty prompts are continued greedily in f32, once by the device with a fresh plugin through the
cloud, once by transformers in one process; nothing may differ. Then, for each codec, how far the
device's next-token distributions are from the whole model's: the mean Kullback-Leibler divergence.
A fresh plugin adds nothing, so it shows what the final state loses on the way; a plugin stirred
with seeded noise shows what the taps lose, measured against the same plugin on f32 states.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import texts
from benchmarks.arms import Arms, arms
from benchmarks.prompts import PROMPTS
from benchmarks.report import Figure, Outcome, Rows, say
from benchmarks.services import pull
from protocol.codecs import CODEC_NAMES

NAME = "exactness"
HELP = "split over HTTP against one process: the same tokens, and what each codec loses"

STIR = 0.02
"""Standard deviation of the noise in the stirred plugin's weights."""

WINDOW = 128
"""Tokens of the pieces of text that the codecs are compared on."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the benchmark's own arguments."""
    parser.add_argument("--prompts", type=int, default=len(PROMPTS), help="how many prompts")
    parser.add_argument("--new-tokens", type=int, default=64, help="tokens generated for each")
    parser.add_argument("--windows", type=int, default=4, help=f"texts of {WINDOW} tokens")


def run(args: argparse.Namespace) -> Outcome:
    """Runs both halves on one backbone."""
    count, new, windows = args.prompts, args.new_tokens, args.windows
    if args.quick:
        count, new, windows = min(count, 4), min(new, 8), min(windows, 1)
    documents = texts.load(args.text)
    backbone = pull(args.backbone)
    with arms(backbone, "f32", args.threads, "f32") as both:
        say("generating both ways")
        answers = [_compare(both, number, new) for number in range(min(count, len(PROMPTS)))]
        pieces = text_windows(both, documents, windows)
        say("comparing codecs")
        codecs = _codecs(both, pieces, args.seed)
        facts = both.split.facts
        fingerprint, recipe = facts.fingerprint, both.split.kit.manifest.recipe
    identical = sum(answer["identical"] for answer in answers)
    settings = {
        "backbone": backbone.name,
        "fingerprint": fingerprint,
        "recipe": recipe,
        "plugin": "fresh",
        "dtype": "f32",
        "codec": "f32",
        "threads": args.threads,
        "quick": args.quick,
        "new_tokens": new,
        "stir": STIR,
    }
    return Outcome(
        figures=[
            Figure("identical", identical, "prompts continued alike", at_least=len(answers)),
            Figure("prompts", len(answers), f"prompts, {new} new tokens each"),
        ],
        results={
            "codecs": codecs,
            "positions": sum(len(piece) for piece in pieces),
            "differences": [answer for answer in answers if not answer["identical"]],
        },
        seeds=[args.seed],
        settings=settings,
        tables=[_codec_table(codecs)],
    )


def text_windows(
    both: Arms, documents: Sequence[texts.Document], count: int, length: int = WINDOW
) -> list[list[int]]:
    """Beginnings of documents in turn, then what follows them: ``count`` pieces of ids."""
    pieces: list[list[int]] = []
    encoded = [both.split.tokenizer.encode(document.text) for document in documents]
    longest = max(map(len, encoded))
    for start in range(0, longest, length):
        whole = [ids[start : start + length] for ids in encoded if len(ids) >= start + length]
        pieces += [[int(i) for i in piece] for piece in whole]
        if len(pieces) >= count:
            break
    if len(pieces) < count:
        raise texts.TextError(
            f"the text has {len(pieces)} pieces of {length} tokens; {count} are needed"
        )
    return pieces[:count]


def _compare(both: Arms, number: int, new: int) -> dict[str, Any]:
    """One prompt both ways; where they part, how close the whole model's choice was there."""
    ids = both.split.ids(PROMPTS[number])
    split = both.split.generate(ids, new)
    whole = both.whole.ask("generate", ids=ids, new=new, gaps=True)
    if split == whole["tokens"]:
        return {"prompt": number, "identical": True}
    pairs = zip(split, whole["tokens"], strict=False)
    same = next((place for place, (ours, theirs) in enumerate(pairs) if ours != theirs), len(split))
    return {
        "prompt": number,
        "identical": False,
        "first_difference": same,
        "tokens": [len(split), len(whole["tokens"])],
        "gap": whole["gaps"][same] if same < len(whole["gaps"]) else None,
    }


def _codecs(both: Arms, pieces: Sequence[list[int]], seed: int) -> dict[str, dict[str, float]]:
    """For each codec: mean KL, share of positions with the same first choice, bytes a token."""
    stirred = _stirred(both, seed)
    found: dict[str, list[tuple[float, float, float, float]]] = {name: [] for name in CODEC_NAMES}
    for ids in pieces:
        whole = _whole_log_probabilities(both, ids)
        exact = both.split.log_probabilities(ids, "f32", stirred)
        for codec, rows in found.items():
            fresh = both.split.log_probabilities(ids, codec)
            moved = both.split.log_probabilities(ids, codec, stirred)
            size = both.split.features([ids], both.split.wants(codec)) / len(ids)
            same = float(np.mean(whole.argmax(axis=1) == fresh.argmax(axis=1)))
            rows.append((mean_divergence(whole, fresh), mean_divergence(exact, moved), same, size))
    names = ("kl", "kl_stirred_plugin", "same_first_choice", "bytes_per_token")
    return {
        codec: dict(zip(names, np.mean(rows, axis=0).tolist(), strict=True))
        for codec, rows in found.items()
    }


def _whole_log_probabilities(both: Arms, ids: list[int]) -> NDArray[np.float32]:
    """The whole model's own, (T, V); through a file, as they are too many for a line of JSON."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "whole.npy")
        both.whole.ask("distributions", texts=[ids], file=str(file))
        found: NDArray[np.float32] = np.load(file)
    return found


def mean_divergence(reference: NDArray[Any], other: NDArray[Any]) -> float:
    """Mean over positions of KL(reference || other) in nats, from natural logarithms (T, V)."""
    rows = [
        np.sum(np.exp(row.astype(np.float64)) * (row.astype(np.float64) - second))
        for row, second in zip(reference, other, strict=True)
    ]
    return float(np.mean(rows))


def _stirred(both: Arms, seed: int) -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    return {
        name: weight + np.float32(STIR) * rng.standard_normal(weight.shape, dtype=np.float32)
        for name, weight in both.split.kit.initial().items()
    }


def _codec_table(codecs: dict[str, dict[str, float]]) -> Rows:
    columns = ("codec", "mean KL, nats", "KL, stirred plugin", "same first choice", "bytes a token")
    return Rows("codecs", columns, [[name, *row.values()] for name, row in codecs.items()])
