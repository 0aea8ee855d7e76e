"""What a person gave to learn from, as tokens: which are read, and which the plugin has to foresee."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from device_agent.data.chat_template import render
from device_agent.data.tokenizer import Tokenizer
from protocol.facts import BackboneFacts

WINDOW = 256
"""Tokens that see one another in training and in evaluation; longer texts are cut."""

Kind = Literal["text", "chat"]


@dataclass(frozen=True, slots=True)
class Example:
    """One document or one conversation."""

    text: str = ""
    """The document; empty for a conversation."""

    messages: tuple[tuple[str, str], ...] = ()
    """The conversation as (role, content) in order; empty for a document."""

    @property
    def kind(self) -> Kind:
        return "chat" if self.messages else "text"

    @property
    def body(self) -> str:
        """The example as one JSON text, the same for the same content."""
        content: object = self.text
        if self.messages:
            content = [{"role": role, "content": said} for role, said in self.messages]
        return json.dumps(content, ensure_ascii=False, separators=(",", ":"))

    @property
    def sha256(self) -> str:
        """Hex digest that names the content."""
        return hashlib.sha256(f"{self.kind}\0{self.body}".encode()).hexdigest()

    @classmethod
    def from_body(cls, kind: str, body: str) -> Self:
        """The example whose ``kind`` and ``body`` these are."""
        content = json.loads(body)
        if kind == "text":
            return cls(text=content)
        return cls(messages=tuple((turn["role"], turn["content"]) for turn in content))


@dataclass(frozen=True, slots=True)
class Encoded:
    """Tokens of an example or of a window of it."""

    ids: NDArray[np.uint32]
    """(T,)"""

    scored: NDArray[np.float32]
    """Loss weight of foreseeing ``ids[i + 1]`` after ``ids[: i + 1]``, (T - 1,)."""

    lead: int = 0
    """How many tokens at the start the backbone expects before any text; windows repeat them."""

    prefix: int = 0
    """How many tokens at the start are the personal prefix."""

    whole: bool = False
    """Whether every position is a row: those that are not scored too, for they are seen from others."""

    source: int = 0
    """How many tokens at the start an encoder reads."""

    @property
    def document(self) -> bool:
        """Whether every token counts that follows another of the window: no conversation."""
        return bool(self.scored[max(self.lead, self.prefix) :].all())

    @property
    def fed(self) -> NDArray[np.uint32]:
        """What the backbone has to read: all but the last token, which is only foreseen. (T - 1,)"""
        return self.ids[:-1]

    @property
    def rows(self) -> NDArray[np.intp]:
        """Positions in ``fed`` whose next token counts; all of them in a ``whole`` text."""
        return np.arange(len(self.scored)) if self.whole else np.flatnonzero(self.scored)

    @property
    def first(self) -> int:
        """The first of ``rows``: states before it are of no use."""
        return int(self.rows[0])

    @property
    def targets(self) -> NDArray[np.uint32]:
        """The tokens to foresee, one for each of ``rows``."""
        return self.ids[1:][self.rows]


def encode(example: Example, tokenizer: Tokenizer, facts: BackboneFacts) -> Encoded:
    """Tokens of an example with their loss weights.

    Of a document every next token counts; of a conversation what the assistant said counts, with the
    token that ends its turn.

    Raises:
        NoChatTemplate: A conversation, and a backbone that was not trained to chat.
        TemplateRefused: The template does not take this conversation.
    """
    if example.kind == "text":
        ids = tokenizer.encode(example.text)
        scored = np.ones(max(0, len(ids) - 1), np.float32)
    else:
        ids, scored = _encode_chat(example.messages, tokenizer, facts)
    return Encoded(ids, scored, _lead(ids, tokenizer))


def windows(encoded: Encoded, length: int = WINDOW, *, whole: bool = False) -> list[Encoded]:
    """Cut into windows of at most ``length`` tokens; those in which nothing counts are left out.

    A token at the start of a window is not foreseen: nothing stands before it.
    """
    lead = encoded.ids[: encoded.lead]
    stride = length - encoded.lead
    unscored = np.zeros(encoded.lead, np.float32)
    cut = []
    for start in range(encoded.lead, max(len(encoded.ids) - 1, 0), stride):
        ids = np.concatenate([lead, encoded.ids[start : start + stride]])  # (T,)
        scored = np.concatenate([unscored, encoded.scored[start : start + stride - 1]])  # (T - 1,)
        if scored.any():
            cut.append(Encoded(ids, scored, encoded.lead, whole=whole))
    return cut


def _lead(ids: NDArray[np.uint32], tokenizer: Tokenizer) -> int:
    """How many of the first tokens are what the tokenizer puts before every text."""
    added = tokenizer.encode("")
    return len(added) if np.array_equal(ids[: len(added)], added) else 0


def _encode_chat(
    messages: Sequence[tuple[str, str]], tokenizer: Tokenizer, facts: BackboneFacts
) -> tuple[NDArray[np.uint32], NDArray[np.float32]]:
    # Tokens never reach over the place where the assistant begins: a prompt ends there as well.
    pieces = [
        (tokenizer.encode(text, special=False), answer) for text, answer in _pieces(messages, facts)
    ]
    ids = np.concatenate([piece for piece, _ in pieces])
    counts = [
        _answer_mask(piece, facts.stop_tokens) if answer else np.zeros(len(piece), np.float32)
        for piece, answer in pieces
    ]
    return ids, np.concatenate(counts)[1:]


def _answer_mask(piece: NDArray[np.uint32], stops: Sequence[int]) -> NDArray[np.float32]:
    """Ones up to the token that ends the turn; what a template writes after it is never generated."""
    mask = np.ones(len(piece), np.float32)
    ends = np.flatnonzero(np.isin(piece, stops))
    if len(ends):
        mask[ends[0] + 1 :] = 0
    return mask


def _pieces(messages: Sequence[tuple[str, str]], facts: BackboneFacts) -> list[tuple[str, bool]]:
    """The conversation's text in pieces, each with whether the assistant speaks in it."""
    turns: list[Mapping[str, str]] = [{"role": role, "content": said} for role, said in messages]
    pieces: list[tuple[str, bool]] = []
    told = ""
    for place, turn in enumerate(turns):
        if turn["role"] != "assistant":
            continue
        asked = render(facts, turns[:place], answer_next=True)
        answered = render(facts, turns[: place + 1], answer_next=False)
        if not (asked.startswith(told) and answered.startswith(asked)):
            return _last_answer(turns, facts)
        pieces += [(asked[len(told) :], False), (answered[len(asked) :], True)]
        told = answered
    return pieces


def _last_answer(
    turns: Sequence[Mapping[str, str]], facts: BackboneFacts
) -> list[tuple[str, bool]]:
    """The last answer alone, for templates that tell earlier turns differently once they are over."""
    last = max(place for place, turn in enumerate(turns) if turn["role"] == "assistant")
    asked = render(facts, turns[:last], answer_next=True)
    answered = render(facts, turns[: last + 1], answer_next=False)
    if answered.startswith(asked):
        return [(asked, False), (answered[len(asked) :], True)]
    return [(asked, False), (turns[last]["content"] + (facts.eos_token or ""), True)]
