"""
States of text that is nobody's own: what the backbone says when nobody asks it anything.

Every other text begins as texts do, the rest with a token drawn from the whole vocabulary, so that
chats, prose, code and other languages all occur as far as the backbone knows them.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer

from cloud_service.backbones.base import Backbone, Span
from cloud_service.backbones.engines import choose, start
from cloud_service.backbones.pages import Cache
from cloud_service.registry import Pulled
from protocol.messages import Candidates, Ids, States, Wants

TEXTS = 64
TOKENS = 128
"""Of each text."""
READ_WHOLE = 16
"""Texts that are read as wholes, no more than are written side by side."""
AT_ONCE = 32
"""Texts that are written side by side."""
LIKELIEST = 64
"""Tokens among which the next one is drawn."""
SOURCE = 16
"""Tokens of a source that nobody meant."""
_KV_BYTES = 2**29


def public_states(pulled: Pulled, cache: Path, layers: tuple[int, ...]) -> States:
    """
    Load a backbone and return states of what it says: taps (K, N, H) and final (N, H).

    Args:
        pulled: The backbone.
        cache: Folder of packed weights.
        layers: The taps.

    Raises:
        BackboneRefused: The folder holds no such model, or not all of it.

    """
    return _said(pulled, cache, layers, TEXTS)


def public_texts(pulled: Pulled, cache: Path, layer: int) -> torch.Tensor:
    """
    Return states after one layer, text by text: (texts, N, H); for backbones without an encoder.

    Arguments and errors as of ``public_states``.
    """
    (states,) = _said(pulled, cache, (layer,), READ_WHOLE).taps
    # They were read side by side: the first tokens of all texts, then the second ones.
    return torch.from_numpy(states.reshape(-1, READ_WHOLE, states.shape[1])).transpose(0, 1).float()


def _said(pulled: Pulled, cache: Path, layers: tuple[int, ...], texts: int) -> States:
    facts = pulled.record.facts()
    choice = choose(pulled.folder, "auto", "auto")
    backbone = start(choice, pulled, facts, cache=cache, kv_bytes=_KV_BYTES, threads=1)
    begin = None
    if facts.bos_token is not None:
        begin = Tokenizer.from_file(str(pulled.tokenizer)).token_to_id(facts.bos_token)
    room = facts.positions - len(facts.decoder_start) - SOURCE
    tokens = min(TOKENS, room if facts.encodes else facts.positions)
    return say_something(backbone, layers, begin, texts, tokens)


def say_something(
    backbone: Backbone, layers: tuple[int, ...], begin: int | None, texts: int, tokens: int
) -> States:
    """
    Let a backbone write; return the states of every token of it.

    Args:
        backbone: Writes; the same one always the same, up to rounding.
        layers: The taps.
        begin: What every other text begins with, if there is such a token.
        texts: How many.
        tokens: Of each.

    """
    vocabulary = backbone.facts.vocabulary
    wants = Wants(layers, True, False, min(LIKELIEST, vocabulary), "f32")
    rng = np.random.default_rng(0)
    first = rng.integers(0, vocabulary, texts).astype(np.uint32)
    if begin is not None:
        first[::2] = begin
    # An encoder gets the first token, and a few more, as a source.
    start = backbone.facts.decoder_start
    source = SOURCE if backbone.facts.encodes else 0
    more = rng.integers(0, vocabulary, (texts, max(source - 1, 0))).astype(np.uint32)
    taps, finals = [], []
    for start_at in range(0, texts, AT_ONCE):
        chosen = slice(start_at, start_at + AT_ONCE)
        texts_of = [
            np.array([one, *others, *start], np.uint32)
            for one, others in zip(first[chosen], more[chosen], strict=True)
        ]
        caches = [Cache(backbone.pool) for _ in texts_of]
        for step in range(tokens):
            answers = _read(backbone, caches, texts_of, wants, 0 if step else source)
            taps.append(np.concatenate([answer.taps for answer in answers], axis=1))
            finals += [answer.final for answer in answers if answer.final is not None]
            texts_of = [np.array([_drawn(a.candidates, rng)], np.uint32) for a in answers]
        for one in caches:
            one.release()
    return States(0, layers, np.concatenate(taps, axis=1), np.concatenate(finals))


def _read(
    backbone: Backbone, caches: Sequence[Cache], texts: Sequence[Ids], wants: Wants, source: int
) -> list[States]:
    spans = [Span(one, ids, 1, wants, source) for one, ids in zip(caches, texts, strict=True)]
    return [answer for answer in backbone.read(spans) if answer is not None]


def _drawn(candidates: Candidates | None, rng: np.random.Generator) -> int:
    """Draw the next token among the likeliest ones."""
    if candidates is None:
        raise ValueError("candidates were wanted")
    logits = candidates.logits[-1].astype(np.float64)
    shares = np.exp(logits - logits.max())
    return int(rng.choice(candidates.ids[-1], p=shares / shares.sum()))
