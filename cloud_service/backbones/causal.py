"""Causal models of Hugging Face, frozen, of any family of the table: the general engine."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from cloud_service.backbones.answers import Answers
from cloud_service.backbones.attention import RAGGED, RaggedPass
from cloud_service.backbones.base import Span
from cloud_service.backbones.families import family_named, layers_of
from cloud_service.backbones.head import head_of
from cloud_service.backbones.kv import KvStore, measures_of
from cloud_service.backbones.pages import Cache, PagePool, growing
from cloud_service.backbones.taps import FarEnough, TapReader
from cloud_service.errors import BackboneRefused
from protocol.facts import BackboneFacts
from protocol.messages import Ids, States, Wants

TRIAL_TOKENS = 8
TRIAL_TOLERANCE = 1e-3
"""Largest logit difference, relative to the largest logit, between the model and its parts."""
_NOTHING = Wants(layers=(), final=False, log_z=False, candidates=0, codec="f32")


class CausalBackbone:
    """A causal model with taps, a store of keys and values, and a head that runs when it is asked."""

    def __init__(self, model: PreTrainedModel, facts: BackboneFacts, *, kv_bytes: int) -> None:
        """
        Take a model over: from now on it reads for ``read`` only.

        Args:
            model: Of a family of the table.
            facts: What a device is told about it.
            kv_bytes: Memory for keys and values of all sessions.

        Raises:
            BackboneRefused: It is built otherwise than its family.

        """
        self.facts = facts
        self.model = model.eval().requires_grad_(False)
        config = model.config
        self._base = model.base_model
        self._taps = TapReader(layers_of(self._base, family_named(config.model_type)))
        self._head = head_of(model, config.hidden_size, softcap_of(model))
        self._store = KvStore(measures_of(config), kv_bytes, model.dtype, model.device)
        self._own_attention: str = config._attn_implementation
        model.set_attn_implementation(RAGGED)

    @property
    def pool(self) -> PagePool:
        """Where its caches get their pages."""
        return self._store.pool

    # Not inference_mode: its tensors can never enter autograd.
    @torch.no_grad()
    def read(self, spans: Sequence[Span]) -> list[States | None]:
        """Read the tokens of all spans in one pass; see ``Backbone.read``."""
        with growing([span.cache for span in spans], [len(span.ids) for span in spans]):
            answers = Answers(spans)
            rows = torch.from_numpy(answers.rows).to(self.model.device)
            with self._taps.reading(answers.layers, rows, answers.depth) as seen:
                try:
                    final = self._final(spans)[rows]  # (R, H)
                except FarEnough:
                    # It stands for the final state, which none of these answers holds.
                    final = seen[answers.layers[-1]] if answers.layers else rows.new_empty(0)
                return answers.split(seen, final, self._head)

    @torch.no_grad()
    def try_out(self) -> None:
        """
        Compare the logits that taps and head lead to with the model's own, on a few tokens.

        Raises:
            BackboneRefused: The model does more than its parts; a device could not follow it.

        """
        ids = np.arange(TRIAL_TOKENS, dtype=np.uint32) % self._head.vocabulary
        cache = Cache(self.pool)
        with growing([cache], [len(ids)]):
            ours = self._head.logits(self._final([Span(cache, ids, 0, _NOTHING)]))
        cache.release()
        self.model.set_attn_implementation(self._own_attention)
        own = self.model(input_ids=self._batch([ids]), use_cache=False).logits[0].float()
        self.model.set_attn_implementation(RAGGED)
        if not (own - ours).abs().max() <= TRIAL_TOLERANCE * own.abs().max():
            raise BackboneRefused(
                "the model's logits are not those of its LM head over its last state",
                "Its family does something with the logits that a device would not know of.",
            )

    def _final(self, spans: Sequence[Span]) -> Tensor:
        """Run the base model over all spans' tokens, return what the head reads (T, H)."""
        flat = RaggedPass(self._store, spans)
        output = self._base(
            input_ids=self._batch([span.ids for span in spans]),
            position_ids=flat.positions[None],
            use_cache=False,
            ragged=flat,
        )
        final: Tensor = output.last_hidden_state[0]
        return final

    def _batch(self, ids: Sequence[Ids]) -> Tensor:
        flat = np.concatenate(ids).astype(np.int64)
        return torch.from_numpy(flat).to(self.model.device)[None]  # (1, T)


def softcap_of(model: PreTrainedModel) -> float | None:
    """Return the bound that the family puts on logits, if it does."""
    softcap = getattr(model.config, "final_logit_softcapping", None)
    return None if softcap is None else float(softcap)
