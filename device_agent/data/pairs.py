"""
What a person gave, as pairs of a source and a target: for backbones with an encoder.

Of a conversation each answer is a target, and what was said before it is the source. A document is
continued: of each window the first half is the source, the second the target (Raffel et al.,
"Exploring the Limits of Transfer Learning", 2020, section 3.2: a prefix language model's objective).
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from device_agent.data.examples import WINDOW, Encoded, Example
from device_agent.data.tokenizer import Tokenizer
from protocol.facts import BackboneFacts

SOURCE = 512
"""Most tokens of a source; what is longer loses its end."""

Ids = NDArray[np.uint32]


def pairs(example: Example, tokenizer: Tokenizer, facts: BackboneFacts) -> list[Encoded]:
    """The pairs of an example, in order; those in which there is nothing to foresee are left out."""
    spans = _spans(tokenizer)
    found = _of_text if example.kind == "text" else _of_chat
    made = [
        _paired(_within(source, spans, facts), target, facts)
        for source, target in found(example, tokenizer, facts)
    ]
    return [one for one in made if one.scored.any()]


def source_of(messages: Sequence[Mapping[str, str]]) -> str:
    """What the encoder reads of a conversation that the assistant is to answer."""
    return "\n".join(message["content"] for message in messages)


def opened(source: Sequence[int], facts: BackboneFacts) -> list[int]:
    """Tokens of a session up to where its target begins to be chosen."""
    return [*source, *facts.decoder_start]


def _of_chat(
    example: Example, tokenizer: Tokenizer, facts: BackboneFacts
) -> Iterator[tuple[Ids, Ids]]:
    turns = [{"role": role, "content": said} for role, said in example.messages]
    for place, turn in enumerate(turns):
        if turn["role"] == "assistant":
            asked = tokenizer.encode(source_of(turns[:place]), special=False)
            said = tokenizer.encode(turn["content"], special=False)
            yield asked, np.concatenate([said, _end(tokenizer, facts)])[:WINDOW]


def _of_text(
    example: Example, tokenizer: Tokenizer, _facts: BackboneFacts
) -> Iterator[tuple[Ids, Ids]]:
    ids = tokenizer.encode(example.text, special=False)
    for start in range(0, len(ids), WINDOW):
        window = ids[start : start + WINDOW]
        half = len(window) // 2
        if half:
            yield window[:half], window[half:]


def _end(tokenizer: Tokenizer, facts: BackboneFacts) -> Ids:
    """The token behind a whole answer."""
    told = tokenizer.encode(facts.eos_token or "", special=False).tolist()
    ends = [token for token in (*told, *facts.stop_tokens) if token in facts.stop_tokens]
    return np.array(ends[:1], np.uint32)


def _spans(tokenizer: Tokenizer) -> tuple[Ids, Ids]:
    """What the tokenizer puts before a text, and behind it."""
    bare, whole = tokenizer.encode("a", special=False), tokenizer.encode("a")
    places = range(len(whole) - len(bare) + 1)
    at = next(p for p in places if np.array_equal(whole[p : p + len(bare)], bare))
    return whole[:at], whole[at + len(bare) :]


def _within(source: Ids, spans: tuple[Ids, Ids], facts: BackboneFacts) -> Ids:
    before, behind = spans
    most = min(SOURCE, facts.positions // 2) - len(before) - len(behind)
    return np.concatenate([before, source[:most], behind])


def _paired(source: Ids, target: Ids, facts: BackboneFacts) -> Encoded:
    start = np.array(opened(source.tolist(), facts), np.uint32)
    ids = np.concatenate([start, target])[: facts.positions]
    scored = np.zeros(len(ids) - 1, np.float32)
    scored[len(start) - 1 :] = 1
    return Encoded(ids, scored, source=len(source))
