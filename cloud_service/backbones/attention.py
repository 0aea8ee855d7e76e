"""
Attention over a ragged batch: many sessions in one flat sequence, each looking at itself only.

Everything else in a layer sees single tokens, so that all sessions share one product with each
weight (selective batching: Yu et al., Orca, OSDI 2022, section 3.2).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface

from cloud_service.backbones.base import Span
from cloud_service.backbones.kv import KvStore
from cloud_service.backbones.pages import PAGE

RAGGED = "ragged"
"""What a model's attention implementation has to be set to, to be given a ``RaggedPass``."""


@dataclass(frozen=True, slots=True)
class Sight:
    """
    What T tokens of one span look at in the layers of one window: N positions.

    Attributes:
        rows: The tokens' places in the flat sequence.
        pages: Pages that hold the positions (n,).
        places: The positions among those of the pages.
        mask: Which token sees which position (T, N), or None where a token sees everything up to
            itself.

    """

    rows: slice
    pages: Tensor
    places: slice
    mask: Tensor | None


class RaggedPass:
    """What attention has to know of one pass. The caches hold pages for all of its tokens."""

    def __init__(self, store: KvStore, spans: Sequence[Span]) -> None:
        self.store = store
        self._device = store.keys[0].device
        self._spans = spans
        self._sights: dict[int | None, list[Sight]] = {}
        self._tables = [self._moved(span.cache.pages) for span in spans]
        """The pages of each span (n,)."""
        starts = [span.cache.position for span in spans]
        counts = [len(span.ids) for span in spans]
        places = [torch.arange(s, s + n) for s, n in zip(starts, counts, strict=True)]
        self.positions = self._moved(torch.cat(places))  # (T,)
        slots = [
            torch.tensor(span.cache.pages)[at // PAGE] * PAGE + at % PAGE
            for span, at in zip(spans, places, strict=True)
        ]
        self.slots = self._moved(torch.cat(slots))
        """Where each token's keys and values go, among all places of all pages (T,)."""

    def sights(self, layer: int) -> list[Sight]:
        """Return what each span looks at in a layer."""
        window = self.store.windows[layer]
        if window not in self._sights:
            self._sights[window] = self._look(window)
        return self._sights[window]

    def _look(self, window: int | None) -> list[Sight]:
        sights, row = [], 0
        for span, table in zip(self._spans, self._tables, strict=True):
            start, count = span.cache.position, len(span.ids)
            end = start + count
            first = 0 if window is None else max(0, start - window + 1)
            page = first // PAGE
            sights.append(
                Sight(
                    rows=slice(row, row + count),
                    pages=table[page:],
                    places=slice(first - page * PAGE, end - page * PAGE),
                    mask=self._mask(start, count, first, window),
                )
            )
            row += count
        return sights

    def _mask(self, start: int, count: int, first: int, window: int | None) -> Tensor | None:
        # One token sees all that is shown to it, and a text's first ones see a plain triangle.
        if count == 1 or (start == 0 and (window is None or count <= window)):
            return None
        tokens = torch.arange(start, start + count, device=self._device)[:, None]
        seen = torch.arange(first, start + count, device=self._device)
        mask = seen <= tokens
        return mask if window is None else mask & (seen > tokens - window)

    def _moved(self, numbers: Tensor | list[int]) -> Tensor:
        return torch.as_tensor(numbers, dtype=torch.long).to(self._device)


def ragged_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    _mask: None,
    scaling: float | None = None,
    softcap: float | None = None,
    *,
    ragged: RaggedPass,
    **_options: Any,
) -> tuple[Tensor, None]:
    """
    Keep keys and values (1, heads, T, width) on their pages, attend to each span's own.

    Windows come from the store. Returns (1, T, heads, width) as transformers expects it.
    """
    layer: int = module.layer_idx  # type: ignore[assignment]
    keys, values = ragged.store.keys[layer], ragged.store.values[layer]
    keys.flatten(0, 1)[ragged.slots] = key[0].transpose(0, 1)
    values.flatten(0, 1)[ragged.slots] = value[0].transpose(0, 1)
    out = torch.empty_like(query)
    for sight in ragged.sights(layer):
        seen_keys, seen_values = (
            held[sight.pages].flatten(0, 1)[sight.places].transpose(0, 1)[None]  # (1, heads, N, D)
            for held in (keys, values)
        )
        rows = query[:, :, sight.rows]
        out[:, :, sight.rows] = (
            F.scaled_dot_product_attention(
                rows,
                seen_keys,
                seen_values,
                attn_mask=sight.mask,
                is_causal=sight.mask is None and rows.shape[2] > 1,
                scale=scaling,
                enable_gqa=True,
            )
            if softcap is None
            else _capped(rows, seen_keys, seen_values, sight.mask, scaling, softcap)
        )
    return out.transpose(1, 2).contiguous(), None


def _capped(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    mask: Tensor | None,
    scaling: float | None,
    softcap: float,
) -> Tensor:
    """Attend with scores bounded by ``softcap * tanh(score / softcap)``; as ``eager`` of Gemma 2."""
    heads, count, total = query.shape[1], query.shape[2], keys.shape[2]
    keys, values = (one.repeat_interleave(heads // one.shape[1], 1) for one in (keys, values))
    scores = query @ keys.transpose(2, 3) * (query.shape[3] ** -0.5 if scaling is None else scaling)
    scores = torch.tanh(scores / softcap) * softcap
    if mask is None:
        mask = torch.ones(count, total, dtype=torch.bool, device=query.device).tril(total - count)
    weights = scores.masked_fill(~mask, float("-inf")).softmax(-1, dtype=torch.float32)
    return weights.to(query.dtype) @ values


def _no_mask(*_args: Any, **_options: Any) -> None:
    """Each span makes its own."""


AttentionInterface.register(RAGGED, ragged_attention)
AttentionMaskInterface.register(RAGGED, _no_mask)
