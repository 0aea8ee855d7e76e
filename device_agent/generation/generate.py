"""Token after token: the backbone's states, the plugin's correction, the head, the choice."""

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from device_agent.cloud.session import RemoteSession
from device_agent.cloud.traffic import StepKind
from device_agent.data.tokenizer import TextStream, Tokenizer
from device_agent.generation.drafting import MOST, Draft, Drafting, Tally
from device_agent.generation.lookup import Lookup
from device_agent.generation.sampling import Sampling
from device_agent.generation.verification import Verifier
from device_agent.memory.mixture import GatedMemory
from device_agent.runtime.head import Head
from device_agent.runtime.plugin_kinds import Plugin
from device_agent.settings import OFF
from protocol.errors import ContextExceeded
from protocol.messages import States

Finish = Literal["stop", "length"]

OnChoice = Callable[[int, NDArray[np.float32]], None]
"""Told of each token that was chosen, and of the logits (V,) that it was chosen by."""


@dataclass(frozen=True, slots=True)
class Piece:
    """What one token added."""

    text: str
    """Complete characters that can no longer become part of a stop string; may be empty."""

    token: int | None
    """The token that was chosen; None when the context turned out to be full before the next one."""

    finished: Finish | None
    """Set on the last piece: a stop token or string came, or there was no more room."""


def generate(
    session: RemoteSession,
    plugin: Plugin | None,
    head: Head,
    tokenizer: Tokenizer,
    prompt_ids: Sequence[int] | NDArray[np.uint32],
    sampling: Sampling,
    stop_tokens: Collection[int],
    stop_strings: Sequence[str],
    limit: int,
    *,
    memory: GatedMemory | None = None,
    uncounted: int = 0,
    drafting: Drafting | None = None,
    gated: bool = False,
    known: NDArray[np.uint32] | None = None,
    on_choice: OnChoice | None = None,
) -> Iterator[Piece]:
    """Continue a session.

    The prompt goes in one step. So does each new token, and brings the states of drafted ones with it, which
    are kept as far as they are what is chosen. The last one chosen stays here.

    Args:
        session: Where the prompt is added; it keeps what was said.
        plugin: Has the last word on every token; None lets the frozen backbone speak.
        head: Of the backbone.
        tokenizer: Of the backbone.
        prompt_ids: (T,), at least one.
        sampling: How tokens are drawn.
        stop_tokens: End the answer; their text is not shown.
        stop_strings: End the answer; neither they nor what follows is shown.
        limit: Most tokens to generate, at least 1.
        memory: Mixed into every choice; None for none.
        uncounted: Tokens at the session's start that may be repeated without a penalty.
        drafting: How many tokens are drafted; None for none.
        gated: Whether the cloud says by itself what does not need the device, by the session's gate. Then
            nothing is drafted, and the backbone's likeliest tokens stand where it has spoken: for greedy
            sampling only, and ``on_choice`` is not told of them.
        known: Other text (N,), tokens of which may be sent as a guess where the answer says the same.
        on_choice: Told of each token before its piece comes.

    Raises:
        ContextExceeded: The prompt itself does not fit; a full context later just ends the answer.
    """
    if limit < 1:
        raise ValueError(f"limit must be at least 1, but is {limit}")
    stream, watch = TextStream(tokenizer), _StopWatch(stop_strings)
    text = [*session.tokens, *(int(i) for i in prompt_ids)]
    verifier = Verifier(plugin, head, memory, sampling, text[uncounted:])
    lookup = Lookup(text, session.limit, known)
    drafts = _Drafts(session, drafting or Drafting(OFF), lookup, gated)
    left, ids = limit, read_ahead(session, plugin, prompt_ids)
    while True:
        try:
            kind: StepKind = "prompt" if left == limit else "answer"
            states, drafted = drafts.step(ids, left - 1, kind)
        except ContextExceeded:
            if left == limit:
                raise
            yield Piece(watch.add(stream.close()) + watch.close(), None, "length")
            return
        said = ((token, None) for token in states.spoken.tolist())
        for token, logits in chain(said, verifier.choices(states, drafted)):
            left -= 1
            full = drafts.take(token)
            if on_choice is not None and logits is not None:
                on_choice(token, logits)
            ends = token in stop_tokens
            shown = "" if ends else watch.add(stream.push(token))
            finished = _finished(ends or watch.found, left == 0 or full)
            if finished is not None:
                drafts.settle(verifier)
                yield Piece(shown + watch.add(stream.close()) + watch.close(), token, finished)
                return
            # Shown before the next step is asked for: a reader should not wait for the cloud twice.
            yield Piece(shown, token, None)
        drafts.settle(verifier)
        ids = [token]


def _finished(stopped: bool, full: bool) -> Finish | None:
    if stopped:
        return "stop"
    return "length" if full else None


def read_ahead(
    session: RemoteSession, plugin: Plugin | None, ids: Sequence[int] | NDArray[np.uint32]
) -> Sequence[int] | NDArray[np.uint32]:
    """Let a plugin that needs every state see those of a prompt but the last; give what is left of it."""
    if plugin is None or not plugin.sequential:
        return ids
    for start in range(0, len(ids) - 1, session.most):
        part = ids[start : min(start + session.most, len(ids) - 1)]
        plugin.state(session.step(part, wanted=len(part)))
    return ids[-1:]


class _Drafts:
    """The requests of one answer: what each drafts, and what became of it."""

    def __init__(
        self, session: RemoteSession, drafting: Drafting, lookup: Lookup, gated: bool
    ) -> None:
        self._session, self._drafting, self._lookup = session, drafting, lookup
        self._gated, self._said = gated, 0
        self._draft, self._guess = Draft(), list[int]()
        self._drafted, self._chosen = list[int](), list[int]()
        self._stands = 0

    def step(
        self, ids: Sequence[int] | NDArray[np.uint32], useful: int, kind: StepKind
    ) -> tuple[States, list[int]]:
        """States of the last of ``ids`` and of drafted tokens, and these.

        Args:
            ids: That the text goes on with.
            useful: Most drafted tokens that the answer has room for.
            kind: What ``ids`` are, for the ledger.

        Raises:
            ContextExceeded: ``ids`` themselves do not fit.
        """
        session, drafting = self._session, self._drafting
        left = max(0, session.limit - session.position - len(ids))
        if self._gated:
            self._draft, self._guess = Draft(), []
            # The answer's last token too: whose it is must not hang on where the answer ends.
            return self._take_in(session.step(ids, kind=kind, alone=min(useful + 1, left)))
        room = min(useful, left)
        self._guess = self._lookup.guess(min(room, MOST)) if drafting.adapts else []
        self._draft = drafting.next(room, self._guess)
        began = time.perf_counter()
        try:
            states = self._send(ids, kind)
        except ContextExceeded:
            if not self._draft.own:
                raise
            # The context is smaller than it was told, as after a change of clouds: without a guess it may do.
            self._draft = Draft()
            states = self._send(ids, kind)
        seconds = time.perf_counter() - began
        if len(ids) == 1:
            # A prompt takes what it takes: that says nothing of the tokens behind it.
            drafting.learn_request(self._draft, len(states.drafted), seconds)
        return self._take_in(states)

    def _take_in(self, states: States) -> tuple[States, list[int]]:
        self._drafted, self._chosen = [*self._draft.own, *states.drafted.tolist()], []
        self._said = len(states.spoken)
        self._stands = states.position + 1 - self._said
        return states, self._drafted

    def _send(self, ids: Sequence[int] | NDArray[np.uint32], kind: StepKind) -> States:
        own = self._draft.own
        return self._session.step([*ids, *own], 1 + len(own), self._draft.asked, kind)

    def take(self, token: int) -> bool:
        """Note the token that was chosen next; whether the context has no room behind it."""
        self._chosen.append(token)
        self._lookup.add(token)
        return self._stands + len(self._chosen) > self._session.limit

    def settle(self, verifier: Verifier) -> None:
        """Take back what was drafted in vain, and learn from it."""
        self._session.crop(self._stands + len(self._chosen) - 1)
        self._drafting.tally += Tally(alone=min(self._said, len(self._chosen)))
        self._drafting.learn_choices(self._draft, self._drafted, self._chosen, self._guess)
        self._drafting.learn_rows(verifier.rows, verifier.seconds)


class _StopWatch:
    """Holds back the end of the text for as long as a stop string may be beginning there."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = [stop for stop in stops if stop]
        self._held = ""
        self.found = False

    def add(self, text: str) -> str:
        """Take text in, give out what is certain to be shown."""
        self._held += text
        if self.found:
            return ""
        places = [place for stop in self._stops if (place := self._held.find(stop)) >= 0]
        if places:
            self.found = True
            shown, self._held = self._held[: min(places)], ""
            return shown
        keep = max((_overlap(self._held, stop) for stop in self._stops), default=0)
        cut = len(self._held) - keep
        shown, self._held = self._held[:cut], self._held[cut:]
        return shown

    def close(self) -> str:
        """What was held back for nothing."""
        shown, self._held = self._held, ""
        return "" if self.found else shown


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of ``text`` that begins ``stop``."""
    longest = min(len(text), len(stop) - 1)
    return next((size for size in range(longest, 0, -1) if text.endswith(stop[:size])), 0)
