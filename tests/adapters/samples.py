"""A backbone too small to be slow, and recipes for it."""

import numpy as np
import torch

from adapters.head import HeadWeights
from adapters.recipe import Recipe
from protocol.facts import BackboneFacts
from protocol.limits import Limits
from protocol.messages import States

HIDDEN = 64
VOCABULARY = 300


def tiny_facts(
    *, layers: int = 2, softcap: float | None = None, fingerprint: str = "ab" * 32
) -> BackboneFacts:
    return BackboneFacts(
        name="tiny",
        fingerprint=fingerprint,
        family="llama",
        layers=layers,
        hidden=HIDDEN,
        vocabulary=VOCABULARY,
        positions=128,
        tokenizer_sha256="0" * 64,
        chat_template=None,
        bos_token=None,
        eos_token=None,
        stop_tokens=(),
        dtype="f32",
        logit_softcap=softcap,
        protocol=("1.0",),
        codecs=("f32",),
        limits=Limits(),
    )


def tiny_head(*, bias: bool = False, softcap: float | None = None) -> HeadWeights:
    generator = torch.Generator().manual_seed(5)
    rows = torch.randn(VOCABULARY, HIDDEN, generator=generator) * 0.3
    return HeadWeights(
        rows, torch.randn(VOCABULARY, generator=generator) if bias else None, softcap
    )


def public(rows: int = 600, taps: int = 2, seed: int = 0) -> States:
    """States as models have them: a few strong directions, one huge channel, neighbours alike."""
    rng = np.random.default_rng(seed)
    sizes = 3 * 0.9 ** np.arange(HIDDEN)
    inner = rng.standard_normal((rows, HIDDEN)) * sizes
    frames = [np.linalg.qr(rng.standard_normal((HIDDEN, HIDDEN)))[0] for _ in range(taps + 1)]
    states = np.stack([inner @ frame for frame in frames]) + 0.5
    states[:, :, 3] *= 50
    states += 0.05 * rng.standard_normal(states.shape)
    states[-1, :, 3] /= 50
    found = states.astype(np.float32)
    return States(0, tuple(range(taps)), found[:taps], found[-1])


LADDER = Recipe(name="tiny-ladder", taps=(0.0, 0.5), width=16, shortlist=120, negatives=40)
"""Shortlist loss, dropout, no cap."""

SPA = Recipe(
    name="tiny-spa", target="spa", taps=(), width=8, mlp="narrow", loss="full", dropout=0.0
)
"""Full loss, no dropout; compiled for a backbone with bias and cap."""
