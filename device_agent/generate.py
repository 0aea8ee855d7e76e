"""Token after token: the backbone's states, the plugin's correction, the head, the choice."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from device_agent.head import Head
from device_agent.memory.mixture import GatedMemory
from device_agent.sampling import Sampling, choose
from device_agent.session import RemoteSession
from device_agent.side_plugin import SidePlugin
from device_agent.tokenizer import TextStream, Tokenizer
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
    plugin: SidePlugin | None,
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
    on_choice: OnChoice | None = None,
) -> Iterator[Piece]:
    """Continue a session.

    The prompt goes in one step, each new token in one more; the last one chosen stays here.

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
        on_choice: Told of each token before its piece comes.

    Raises:
        ContextExceeded: The prompt itself does not fit; a full context later just ends the answer.
    """
    if limit < 1:
        raise ValueError(f"limit must be at least 1, but is {limit}")
    rng, stream = sampling.generator(), TextStream(tokenizer)
    watch = _StopWatch(stop_strings)
    states = session.step(prompt_ids)
    past = [int(i) for i in session.tokens[uncounted:]]
    for left in range(limit - 1, -1, -1):
        logits = _logits(states, plugin, head, memory)
        token = choose(logits, past, sampling, rng)
        past.append(token)
        if on_choice is not None:
            on_choice(token, logits)
        ends = token in stop_tokens
        text = "" if ends else watch.add(stream.push(token))
        finished = _finished(ends or watch.found, left == 0 or session.position >= session.limit)
        if finished is not None:
            yield Piece(text + watch.add(stream.close()) + watch.close(), token, finished)
            return
        # Shown before the next step is asked for: a reader should not wait for the cloud twice.
        yield Piece(text, token, None)
        try:
            states = session.step([token])
        except ContextExceeded:
            yield Piece(watch.add(stream.close()) + watch.close(), None, "length")
            return


def _finished(stopped: bool, full: bool) -> Finish | None:
    if stopped:
        return "stop"
    return "length" if full else None


def _logits(
    states: States, plugin: SidePlugin | None, head: Head, memory: GatedMemory | None
) -> NDArray[np.float32]:
    """Logits (V,) of the token after the last state."""
    if states.final is None:
        raise ValueError("the session does not bring the final state")
    state = states.final if plugin is None else plugin.state(states)
    logits: NDArray[np.float32] = head.logits(state[-1:])[0]
    return logits if memory is None else memory.mixed(logits, states.final[-1])


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
