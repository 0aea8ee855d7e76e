"""What each kind of weights loses: divergence, perplexity and greedy texts against f32."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cloud_service.backbones.base import Backbone, Span
from cloud_service.backbones.engines import Choice, start
from cloud_service.backbones.loading import load_model
from cloud_service.backbones.pages import Cache
from cloud_service.registry import Pulled
from protocol.messages import Ids, Wants

KV_BYTES = 2**30
_FINAL = Wants((), True, False, 0, "f32")
_BEST = Wants((), False, False, 1, "f32")


def compare(
    pulled: Pulled,
    choices: Sequence[Choice],
    texts: Sequence[Ids],
    prompts: Sequence[Ids],
    new: int,
    cache: Path,
    threads: int,
) -> list[dict[str, Any]]:
    """
    Read the same texts and continue the same prompts with each choice.

    Args:
        pulled: The backbone.
        choices: The first is what the others are compared with.
        texts: Each is read at once.
        prompts: Are continued greedily, side by side.
        new: Tokens each of them is continued by.
        cache: The cloud's.
        threads: That compute.

    Returns:
        For each choice: mean KL(first || it) in nats, perplexity of each text, the largest share
        by which one differs from the first's, and how many greedy texts stay the same.

    """
    head = load_model(pulled.folder, "f32").get_output_embeddings()
    found: list[dict[str, Any]] = []
    for choice in choices:
        facts = pulled.record.facts(choice.weights)
        backbone = start(choice, pulled, facts, cache=cache, kv_bytes=KV_BYTES, threads=threads)
        rows = [_log_probabilities(backbone, head, text) for text in texts]
        written = _continued(backbone, prompts, new)
        if not found:
            exact, kept = rows, written
        perplexities = [_perplexity(one, text) for one, text in zip(rows, texts, strict=True)]
        first = found[0]["perplexity"] if found else perplexities
        pairs = zip(perplexities, first, strict=True)
        found.append(
            {
                "engine": choice.engine,
                "weights": choice.weights,
                "kl": float(np.mean([_divergence(*p) for p in zip(exact, rows, strict=True)])),
                "perplexity": perplexities,
                "perplexity_change": max(abs(one / other - 1) for one, other in pairs),
                "unchanged": sum(a == b for a, b in zip(kept, written, strict=True)),
            }
        )
    return found


def _log_probabilities(backbone: Backbone, head: Any, text: Ids) -> torch.Tensor:
    """Return those of the next token at every position (T, V)."""
    cache = Cache(backbone.pool)
    (states,) = backbone.read([Span(cache, text, len(text), _FINAL)])
    cache.release()
    with torch.no_grad():
        logits: torch.Tensor = head(torch.from_numpy(states.final))
        return logits.log_softmax(-1)


def _perplexity(rows: torch.Tensor, text: Ids) -> float:
    following = torch.from_numpy(text[1:].astype(np.int64))[:, None]
    return float((-rows[:-1].gather(1, following)).mean().exp())


def _divergence(exact: torch.Tensor, other: torch.Tensor) -> float:
    return float((exact.exp() * (exact - other)).sum(-1).mean())


def _continued(backbone: Backbone, prompts: Sequence[Ids], new: int) -> list[list[int]]:
    caches = [Cache(backbone.pool) for _ in prompts]
    added: list[NDArray[np.uint32]] = list(prompts)
    written: list[list[int]] = [[] for _ in prompts]
    for _ in range(new):
        spans = [Span(cache, ids, 1, _BEST) for cache, ids in zip(caches, added, strict=True)]
        added = [states.candidates.ids[0] for states in backbone.read(spans)]
        for text, ids in zip(written, added, strict=True):
            text.append(int(ids[0]))
    for cache in caches:
        cache.release()
    return written
