"""Encoder-decoder models of Hugging Face, frozen, of any family of the table: the general engine."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from cloud_service.backbones.answers import Answers
from cloud_service.backbones.base import Span
from cloud_service.backbones.cross_attention import CROSS, Pass, SourcePass, TargetPass
from cloud_service.backbones.head import head_of
from cloud_service.backbones.kv import KvStore
from cloud_service.backbones.pages import Cache, PagePool, growing
from cloud_service.backbones.seq2seq_families import parts_of
from cloud_service.backbones.taps import FarEnough, TapReader
from cloud_service.errors import BackboneRefused
from protocol.facts import BackboneFacts
from protocol.messages import Ids, States, Wants

TRIAL_TOKENS = 8
TRIAL_TOLERANCE = 1e-3
"""Largest logit difference, relative to the largest logit, between the model and its parts."""
_NOTHING = Wants(layers=(), final=False, log_z=False, candidates=0, codec="f32")


class Seq2SeqBackbone:
    """
    An encoder-decoder with taps, a store of keys and values, and a head that runs when it is asked.

    All sessions and texts of a pass share one product with each weight, as of causal models.
    """

    def __init__(self, model: PreTrainedModel, facts: BackboneFacts, *, kv_bytes: int) -> None:
        """
        Take a model over: from now on it reads for ``read`` only.

        Args:
            model: Of a family of the table.
            facts: What a device is told about it.
            kv_bytes: Memory for keys and values of all sessions, of sources and targets.

        Raises:
            BackboneRefused: It is built otherwise than its family.

        """
        self.facts = facts
        self.model = model.eval().requires_grad_(False)
        self._parts = parts = parts_of(model)
        self._source_taps = TapReader(parts.encoder.layers)
        self._target_taps = TapReader(parts.decoder.layers)
        self._head = head_of(model, parts.hidden, None)
        self._store = KvStore(parts.kv, kv_bytes, model.dtype, model.device)
        self._pass: Pass | None = None
        self._own_attention: str = parts.decoder.module.config._attn_implementation
        for stack in (parts.encoder, parts.decoder):
            if stack.positions is not None:
                stack.positions.register_forward_pre_hook(self._place, with_kwargs=True)
            for attention in stack.biased:
                attention.register_forward_pre_hook(self._unbias, with_kwargs=True)
        self._attend_by(CROSS)

    @property
    def pool(self) -> PagePool:
        """Where its caches get their pages."""
        return self._store.pool

    # Not inference_mode: its tensors can never enter autograd.
    @torch.no_grad()
    def read(self, spans: Sequence[Span]) -> list[States | None]:
        """Read the tokens of all spans in one pass; see ``Backbone.read``."""
        with growing([span.cache for span in spans], [len(span.ids) for span in spans]):
            encoded, sources = self._encode(spans)
            targets = self._decode(spans, encoded)
        for span in spans:
            span.cache.source = span.source or span.cache.source
        return [ours or theirs for ours, theirs in zip(targets, sources, strict=True)]

    @torch.no_grad()
    def try_out(self) -> None:
        """
        Compare the logits that taps and head lead to with the model's own, on a few tokens.

        Raises:
            BackboneRefused: The model does more than its parts; a device could not follow it.

        """
        ids = np.arange(1, TRIAL_TOKENS + 1, dtype=np.uint32) % self._head.vocabulary
        cache = Cache(self.pool)
        span = Span(cache, np.concatenate([ids, ids[::-1]]), 0, _NOTHING, len(ids))
        with growing([cache], [len(span.ids)]):
            ours = self._head.logits(self._final([span], self._encode([span])[0]))
        cache.release()
        self._attend_by(self._own_attention)
        source, target = self._batch([ids]), self._batch([ids[::-1]])
        output = self.model(input_ids=source, decoder_input_ids=target, use_cache=False)
        self._attend_by(CROSS)
        own = output.logits[0].float()
        if not (own - ours).abs().max() <= TRIAL_TOLERANCE * own.abs().max():
            raise BackboneRefused(
                "the model's logits are not those of its LM head over its last state",
                "Its family does something with the logits that a device would not know of.",
            )

    def _encode(self, spans: Sequence[Span]) -> tuple[Tensor, list[States | None]]:
        """Return what the encoder makes of all new sources (1, S, H), and who wants it as an answer."""
        new = [span for span in spans if span.source]
        if not new:
            # transformers cannot read nothing at all; whose row this is, nobody asks.
            width = self._parts.hidden
            idle = torch.zeros(1, 1, width, dtype=self.model.dtype, device=self.model.device)
            return idle, [None] * len(spans)
        parts = [_source_of(span) for span in new]
        answers = Answers(parts)
        rows = torch.from_numpy(answers.rows).to(self.model.device)
        ids = self._batch([part.ids for part in parts])
        encoder = self._parts.encoder
        counts = [span.source for span in new]
        flat = SourcePass(counts, encoder.bias, self.model.device)
        with self._source_taps.reading(answers.layers, rows, None) as seen, self._passing(flat):
            encoded: Tensor = encoder.module(input_ids=ids, **self._told(flat)).last_hidden_state
            found = iter(answers.split(seen, encoded[0, rows], self._head))
        return encoded, [next(found) if span.source else None for span in spans]

    def _decode(self, spans: Sequence[Span], encoded: Tensor) -> list[States | None]:
        """Return the answers to all targets."""
        targets = [_target_of(span) for span in spans]
        answers = Answers(targets)
        rows = torch.from_numpy(answers.rows).to(self.model.device)
        with self._target_taps.reading(answers.layers, rows, answers.depth) as seen:
            try:
                final = self._final(spans, encoded)[rows]  # (R, H)
            except FarEnough:
                # It stands for the final state, which none of these answers holds.
                final = seen[answers.layers[-1]] if answers.layers else rows.new_empty(0)
            found = answers.split(seen, final, self._head)
        return [
            states and replace(states, position=states.position + span.source)
            for span, states in zip(spans, found, strict=True)
        ]

    def _final(self, spans: Sequence[Span], encoded: Tensor) -> Tensor:
        """Run the decoder over all spans' targets, return what the head reads (T, H)."""
        decoder = self._parts.decoder
        flat = TargetPass(self._store, spans, decoder.bias)
        ids = self._batch([span.ids[span.source :] for span in spans], least=1)
        with self._passing(flat):
            output = decoder.module(
                input_ids=ids, encoder_hidden_states=encoded, use_cache=False, **self._told(flat)
            )
        final: Tensor = self._parts.to_head(output.last_hidden_state)[0]
        return final

    @contextmanager
    def _passing(self, flat: Pass) -> Iterator[None]:
        self._pass = flat
        try:
            yield
        finally:
            self._pass = None

    def _told(self, flat: Pass) -> dict[str, object]:
        """Return what encoder and decoder are given besides their tokens."""
        told: dict[str, object] = {"ragged": flat}
        return (
            told | {"position_ids": flat.positions[None]} if self._parts.takes_positions else told
        )

    def _place(
        self, _module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Give an embedding the positions within each source or target, not in the flat sequence."""
        if self._pass is None:
            return args, dict(kwargs)
        return args, {**kwargs, "position_ids": self._pass.positions}

    def _unbias(
        self, _module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Keep an attention from working out distances in the flat sequence, which nobody reads."""
        if self._pass is None:
            return args, dict(kwargs)
        return args, {**kwargs, "position_bias": torch.empty(0)}

    def _attend_by(self, implementation: str) -> None:
        for stack in (self._parts.encoder, self._parts.decoder):
            stack.module.set_attn_implementation(implementation)

    def _batch(self, ids: Sequence[Ids], least: int = 0) -> Tensor:
        flat = np.concatenate(ids).astype(np.int64)
        flat = np.pad(flat, (0, max(least - len(flat), 0)))
        return torch.from_numpy(flat).to(self.model.device)[None]  # (1, T)


def _source_of(span: Span) -> Span:
    """Return the part that the encoder reads; it answers where there is no other part."""
    alone = span.source == len(span.ids)
    wants = Wants(span.wants.layers, span.wants.final, False, 0, span.wants.codec)
    return Span(span.cache, span.ids[: span.source], span.wanted if alone else 0, wants)


def _target_of(span: Span) -> Span:
    """Return the part that the decoder reads."""
    wanted = span.wanted if span.source < len(span.ids) else 0
    return Span(span.cache, span.ids[span.source :], wanted, span.wants, arrived=span.arrived)
