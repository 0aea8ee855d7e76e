"""An answer, token by token, as a voice makes it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from device_agent.api.models import Model
from device_agent.api.voices import Work
from device_agent.cloud.link import Link
from device_agent.data.tokenizer import INCOMPLETE, Tokenizer
from device_agent.generation.drafting import Tally
from device_agent.generation.generate import Finish
from device_agent.generation.made_with import MadeWith
from device_agent.generation.sampling import Sampling
from device_agent.generation.speaker import Speaker
from device_agent.runtime.highest import highest
from protocol.errors import ContextExceeded


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be answered, and how."""

    model: Model
    beginning: str
    """The prompt as one text, to find out who knows it."""
    ids: Callable[[Speaker], list[int]]
    """Gives the prompt's tokens."""
    text: bool
    """Whether it is a text to be continued, and no conversation."""
    sampling: Sampling
    limit: int | None
    """Most tokens of the answer; None for as many as there is room for."""
    stops: Sequence[str]
    alternatives: int | None
    """How many of the likeliest tokens are told with each one; None when likelihoods are not wanted."""


@dataclass(frozen=True, slots=True)
class Likely:
    """A token, and the logarithm of its probability before temperature and nucleus."""

    text: str
    logprob: float

    @property
    def bytes(self) -> list[int] | None:
        """Its UTF-8; None for a part of a character."""
        return None if INCOMPLETE in self.text else [*self.text.encode()]


@dataclass(frozen=True, slots=True)
class Choice:
    """A token that was chosen, beside the likeliest ones."""

    chosen: Likely
    alternatives: tuple[Likely, ...]


@dataclass(frozen=True, slots=True)
class Said:
    """What one token added to an answer."""

    text: str
    choice: Choice | None
    """None when it was not asked for, and for a token that ends the answer."""
    finished: Finish | None
    prompt_tokens: int
    tokens: int
    """Of the answer so far."""
    drafts: Tally
    """Of the answer so far; those of the last request are counted when it is verified."""
    made_with: MadeWith


def speech(asked: Asked) -> Work[Said]:
    """What a voice has to do to answer."""

    def work(_link: Link, speaker: Speaker) -> Iterator[Said]:
        ids = asked.ids(speaker)
        left = speaker.room - len(ids)
        if left < 1:
            raise ContextExceeded(limit=speaker.room, asked=len(ids) + 1)
        likelihood = _Likelihood(speaker.tokenizer, asked.alternatives)
        tokens, before, base = 0, speaker.drafts, asked.model.version is None
        watched = asked.alternatives is not None
        gated = speaker.gates(asked.sampling, base=base, watched=watched)
        made_with = speaker.made_with(base, gated)
        for piece in speaker.answer(
            ids,
            asked.sampling,
            min(asked.limit or left, left),
            stop_strings=asked.stops,
            base=base,
            text=asked.text,
            reuse=True,
            on_choice=likelihood.note if watched else None,
        ):
            tokens += piece.token is not None
            shown = piece.token is not None and piece.token not in speaker.facts.stop_tokens
            choice = likelihood.last if shown else None
            drafts = speaker.drafts - before
            yield Said(piece.text, choice, piece.finished, len(ids), tokens, drafts, made_with)

    return work


class _Likelihood:
    """Remembers how likely the newest token was."""

    def __init__(self, tokenizer: Tokenizer, alternatives: int | None) -> None:
        self._tokenizer, self._count = tokenizer, alternatives or 0
        self.last: Choice | None = None

    def note(self, token: int, logits: NDArray[np.float32]) -> None:
        """A token was chosen by logits (V,)."""
        peak = float(logits.max())
        log_z = peak + float(np.log(np.exp(logits - peak).sum(dtype=np.float64)))

        def likely(one: int) -> Likely:
            return Likely(self._tokenizer.decode([one]), float(logits[one]) - log_z)

        best = highest(logits, self._count) if self._count else np.empty(0, np.intp)
        ranked = best[np.argsort(-logits[best], kind="stable")]
        self.last = Choice(likely(token), tuple(likely(int(one)) for one in ranked))
