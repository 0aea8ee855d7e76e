"""
Attention of encoder-decoder models over a ragged batch: sources, targets, and targets to their sources.

What an encoder made of a source stands, as keys and values of every decoder layer, on the first
pages of its session's cache; those of the target stand behind it. So a position of a source takes
as much memory as one of a target, and a session finds its source again in every step.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface

from cloud_service.backbones.base import Span
from cloud_service.backbones.kv import KvStore
from cloud_service.backbones.pages import PAGE

CROSS = "ragged-cross"
"""What an attention implementation has to be set to, to be given a ``Pass``."""


class Bias(Protocol):
    """Gives what attention adds to the scores for how far apart two tokens are."""

    def __call__(self, count: int, total: int, /, *, past_seen_tokens: int) -> Tensor:
        """Return (1, heads, count, total): of the last ``count`` tokens before ``total``."""
        ...


class Pass(Protocol):
    """What attention has to know of one pass through an encoder or a decoder."""

    positions: Tensor
    """Where each token stands in its own source or target (T,)."""

    def attend(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, scaling: float | None
    ) -> Tensor:
        """Return (1, heads, T, width) of a query of that shape; keys and values are of this pass."""
        ...


class SourcePass:
    """Sources one behind the other, each of which sees all of itself."""

    def __init__(self, counts: Sequence[int], bias: Bias | None, device: torch.device) -> None:
        self.positions = torch.cat([torch.arange(count) for count in counts]).to(device)
        self._rows = list(_slices(counts))
        self._biases = [
            None if bias is None else bias(count, count, past_seen_tokens=0) for count in counts
        ]

    def attend(
        self, _module: nn.Module, query: Tensor, key: Tensor, value: Tensor, scaling: float | None
    ) -> Tensor:
        """See ``Pass``."""
        out = torch.empty_like(query)
        for rows, bias in zip(self._rows, self._biases, strict=True):
            part = (slice(None), slice(None), rows)
            out[part] = F.scaled_dot_product_attention(
                query[part], key[part], value[part], attn_mask=bias, scale=scaling
            )
        return out


@dataclass(frozen=True, slots=True)
class Sight:
    """
    What the T tokens of one span's target look at.

    Attributes:
        rows: Their places in the flat sequence.
        source: Pages of the source, and how many positions on them are its own.
        target: Pages of the target, and the positions on them that are its own.
        mask: What is added to the scores of the target (1, heads or 1, T, N), or None where a token
            sees everything.

    """

    rows: slice
    source: tuple[Tensor, slice]
    target: tuple[Tensor, slice]
    mask: Tensor | None


class TargetPass:
    """Targets one behind the other, each behind its source. The caches hold pages for all of it."""

    def __init__(self, store: KvStore, spans: Sequence[Span], bias: Bias | None) -> None:
        """
        Args:
            store: Of keys and values.
            spans: Some may have no target; their sources are kept.
            bias: Of the decoder's attention to itself.

        """
        self._store = store
        self._bias = bias
        self._device = store.keys[0].device
        sources = [span.source or span.cache.source for span in spans]
        starts = [
            span.cache.position + span.source - source
            for span, source in zip(spans, sources, strict=True)
        ]
        counts = [len(span.ids) - span.source for span in spans]
        self.positions = self._moved(
            [
                at
                for start, count in zip(starts, counts, strict=True)
                for at in range(start, start + count)
            ]
            or [0]
        )
        self._read = self._slots(spans, [range(span.source) for span in spans])
        """Where keys and values of the sources that are new in this pass go."""
        self._written = self._slots(
            spans,
            [
                range(source + start, source + start + count)
                for source, start, count in zip(sources, starts, counts, strict=True)
            ],
        )
        self._sights = [
            self._sight(span, rows, source, start)
            for span, rows, source, start in zip(
                spans, _slices(counts), sources, starts, strict=True
            )
            if rows.stop > rows.start
        ]

    def attend(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, scaling: float | None
    ) -> Tensor:
        """See ``Pass``. A module that is not causal looks at the sources."""
        layer: int = module.layer_idx  # type: ignore[assignment]
        itself = bool(module.is_causal)
        keys, values = self._store.keys[layer], self._store.values[layer]
        slots = self._written if itself else self._read
        # Where there is nothing to read or to write, there is one row of nobody's.
        keys.flatten(0, 1)[slots] = key[0, :, : len(slots)].transpose(0, 1)
        values.flatten(0, 1)[slots] = value[0, :, : len(slots)].transpose(0, 1)
        out = torch.zeros_like(query)
        for sight in self._sights:
            pages, places = sight.target if itself else sight.source
            seen_keys, seen_values = (
                held[pages].flatten(0, 1)[places].transpose(0, 1)[None]  # (1, heads, N, D)
                for held in (keys, values)
            )
            part = (slice(None), slice(None), sight.rows)
            out[part] = F.scaled_dot_product_attention(
                query[part],
                seen_keys,
                seen_values,
                attn_mask=sight.mask if itself else None,
                scale=scaling,
            )
        return out

    def _sight(self, span: Span, rows: slice, source: int, start: int) -> Sight:
        table = self._moved(span.cache.pages)
        count = rows.stop - rows.start
        first, end = source // PAGE, source + start + count
        return Sight(
            rows=rows,
            source=(table[: -(-source // PAGE)], slice(0, source)),
            target=(table[first:], slice(source - first * PAGE, end - first * PAGE)),
            mask=self._mask(count, start + count, start),
        )

    def _mask(self, count: int, total: int, start: int) -> Tensor | None:
        dtype = self._store.keys[0].dtype
        mask = None
        if self._bias is not None:
            mask = self._bias(count, total, past_seen_tokens=start).to(dtype)
        if count > 1:
            seen = torch.ones(count, total, dtype=torch.bool, device=self._device).tril(start)
            hidden = torch.zeros(1, 1, count, total, dtype=dtype, device=self._device)
            hidden.masked_fill_(~seen, float("-inf"))
            mask = hidden if mask is None else mask + hidden
        return mask

    def _slots(self, spans: Sequence[Span], positions: Sequence[range]) -> Tensor:
        """Return the places of positions of each span among all places of all pages."""
        return self._moved(
            [
                span.cache.pages[at // PAGE] * PAGE + at % PAGE
                for span, places in zip(spans, positions, strict=True)
                for at in places
            ]
        )

    def _moved(self, numbers: Sequence[int]) -> Tensor:
        return torch.tensor(numbers, dtype=torch.long).to(self._device)


def cross_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    _mask: None,
    scaling: float | None = None,
    *,
    ragged: Pass,
    **_options: Any,
) -> tuple[Tensor, None]:
    """Attend as the pass says. Returns (1, T, heads, width) as transformers expects it."""
    out = ragged.attend(module, query, key, value, scaling)
    return out.transpose(1, 2).contiguous(), None


def _slices(counts: Sequence[int]) -> Iterator[slice]:
    start = 0
    for count in counts:
        yield slice(start, start + count)
        start += count


def _no_mask(*_args: Any, **_options: Any) -> None:
    """Each pass makes its own."""


AttentionInterface.register(CROSS, cross_attention)
AttentionMaskInterface.register(CROSS, _no_mask)
