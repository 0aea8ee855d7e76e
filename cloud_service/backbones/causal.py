"""Causal models of Hugging Face, frozen."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from cloud_service.backbones.families import family_named, layers_of
from cloud_service.backbones.head import head_of
from cloud_service.backbones.kv import SessionCache, windows_of
from cloud_service.backbones.taps import TapReader
from cloud_service.errors import BackboneRefused
from protocol.facts import BackboneFacts
from protocol.messages import Floats, Ids, States, Wants

TRIAL_TOKENS = 8
TRIAL_TOLERANCE = 1e-3
"""Largest logit difference, relative to the largest logit, between the model and its parts."""


class CausalBackbone:
    """A causal model with taps, sessions, and a head that is run when it is asked for."""

    def __init__(self, model: PreTrainedModel, facts: BackboneFacts) -> None:
        self.facts = facts
        config = model.config
        self.model = model.eval().requires_grad_(False)
        self._base = model.base_model
        self._taps = TapReader(layers_of(self._base, family_named(config.model_type)))
        self._head = head_of(model, config.hidden_size, softcap_of(model))
        self._windows = windows_of(config)

    def open(self) -> "CausalContext":
        """Return a context that has read nothing. Any thread may call this."""
        return CausalContext(self, SessionCache(self._windows))

    # Not inference_mode: its tensors can never enter autograd.
    @torch.no_grad()
    def read(
        self, ids: Ids, wanted: int, wants: Wants, cache: SessionCache | None = None
    ) -> States:
        """Read tokens (T,) behind what the cache holds, answer for the last ``wanted`` of them."""
        start = 0 if cache is None else cache.position
        with self._taps.reading(wants.layers, wanted) as seen:
            final = self._final(ids, cache)[-wanted:]  # (wanted, H)
            taps = _stacked(seen, wants.layers, final)
        log_z, candidates = self._head.read(final, wants.log_z, wants.candidates)
        return States(
            position=start + len(ids) - wanted,
            layers=wants.layers,
            taps=taps,
            final=final.float().numpy() if wants.final else None,
            log_z=log_z,
            candidates=candidates,
        )

    @torch.no_grad()
    def try_out(self) -> None:
        """
        Compare the logits that taps and head lead to with the model's own, on a few tokens.

        Raises:
            BackboneRefused: The model does more than its parts; a device could not follow it.

        """
        ids = np.arange(TRIAL_TOKENS, dtype=np.uint32) % self._head.vocabulary
        own = self.model(input_ids=_batch(ids), use_cache=False).logits[0].float()
        ours = self._head.logits(self._final(ids, None))
        if not (own - ours).abs().max() <= TRIAL_TOLERANCE * own.abs().max():
            raise BackboneRefused(
                "the model's logits are not those of its LM head over its last state",
                "Its family does something with the logits that a device would not know of.",
            )

    def _final(self, ids: Ids, cache: SessionCache | None) -> Tensor:
        """Run the base model, return what the head reads (T, H)."""
        output = self._base(
            input_ids=_batch(ids),
            past_key_values=None if cache is None else cache.kv,
            use_cache=cache is not None,
        )
        final: Tensor = output.last_hidden_state[0]
        return final


class CausalContext:
    """One session of a causal backbone."""

    def __init__(self, backbone: CausalBackbone, cache: SessionCache) -> None:
        self._backbone = backbone
        self._cache = cache

    @property
    def position(self) -> int:
        """Positions that have been read."""
        return self._cache.position

    @property
    def capacity(self) -> int:
        """Positions for which memory is held."""
        return self._cache.capacity

    @property
    def bytes(self) -> int:
        """Bytes of memory held."""
        return self._cache.bytes

    def read(self, ids: Ids, wanted: int, wants: Wants) -> States:
        """Read tokens (T,), answer for the last ``wanted`` of them; see ``Context.read``."""
        start = self.position
        try:
            return self._backbone.read(ids, wanted, wants, self._cache)
        except BaseException:
            # Some layers have grown and some have not.
            self._cache.crop(start)
            raise

    def crop(self, position: int) -> None:
        """Forget all positions from ``position`` on."""
        self._cache.crop(position)


def softcap_of(model: PreTrainedModel) -> float | None:
    """Return the bound that the family puts on logits, if it does."""
    softcap = getattr(model.config, "final_logit_softcapping", None)
    return None if softcap is None else float(softcap)


def _batch(ids: Ids) -> Tensor:
    return torch.from_numpy(ids.astype(np.int64))[None]  # (1, T)


def _stacked(seen: Mapping[int, Tensor], layers: tuple[int, ...], final: Tensor) -> Floats:
    """Return the taps (K, T, H) in one copy."""
    if not layers:
        return np.empty((0, *final.shape), np.float32)
    return torch.stack([seen[layer] for layer in layers]).float().numpy()
