"""Choosing a token behind each state for as long as the tokens that were drafted are the ones chosen.

A token is chosen behind a drafted one exactly as it would be without drafts: out of the same
probabilities, with the same draw. So a drafted token x is accepted with the probability p(x) that the
device itself gives it, and what comes in its place otherwise has p without x: the same law as in speculative
sampling with a draft that is certain of itself (Leviathan, Kalman and Matias 2023). And the same seed
gives the same answer, drafted or not.
"""

import time
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from device_agent.generation.sampling import Sampling, choose
from device_agent.memory.mixture import GatedMemory
from device_agent.runtime.head import Head
from device_agent.runtime.plugin_kinds import Plugin
from protocol.messages import States

ROWS = 16
"""Rows whose logits are computed together: the head's weights are read once for them, and the logits take
some megabytes. When a draft is refused early, what is left of a long one costs nothing."""


class Verifier:
    """What the device makes of states, row after row.

    Args:
        plugin: Has the last word on every token; None lets the frozen backbone speak.
        head: Of the backbone.
        memory: Mixed into every choice; None for none.
        sampling: How tokens are drawn.
        past: Tokens so far, which may get a penalty; each chosen one is appended.
    """

    def __init__(
        self,
        plugin: Plugin | None,
        head: Head,
        memory: GatedMemory | None,
        sampling: Sampling,
        past: list[int],
    ) -> None:
        self._plugin, self._head, self._memory = plugin, head, memory
        self._sampling, self._rng = sampling, sampling.generator()
        self._past = past
        self.rows = 0
        """Rows that were computed for the last states."""
        self.seconds = 0.0
        """What they took."""

    def choices(
        self, states: States, drafted: Sequence[int]
    ) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """The token behind each row, with the logits (V,) that it was chosen by.

        The first one that is not what was drafted there is the last.

        Args:
            states: Of the last token, and of each drafted one: their last rows.
            drafted: Tokens of the rows but the first.
        """
        self.rows, self.seconds = 0, 0.0
        began = time.perf_counter()
        for place, logits in enumerate(self._logits(states, 1 + len(drafted))):
            token = choose(logits, self._past, self._sampling, self._rng)
            self._past.append(token)
            # Whoever gets the token may take their time.
            self.seconds += time.perf_counter() - began
            yield token, logits
            began = time.perf_counter()
            if place == len(drafted) or token != drafted[place]:
                return

    def _logits(self, states: States, rows: int) -> Iterator[NDArray[np.float32]]:
        """Logits (V,) of the token behind each of the last ``rows`` states."""
        moved = states.final if self._plugin is None else self._plugin.state(states)
        # Without a memory nobody looks at the backbone's own.
        finals = moved if states.final is None else states.final
        if moved is None or finals is None:
            raise ValueError("the session does not bring the final state")
        state, finals = moved[-rows:], finals[-rows:]
        for start in range(0, rows, ROWS):
            part = slice(start, start + ROWS)
            logits: NDArray[np.float32] = self._head.logits(state[part])
            self.rows += len(logits)
            if self._memory is not None:
                logits = self._memory.mixed(logits, finals[part])
            yield from logits
