"""The backbone's last blocks at work, with what was trained in them, behind the states of the others.

They are computed here, so their keys and values are kept here, token by token, for one session.
"""

import copy
from collections.abc import Mapping
from typing import Self

import numpy as np
from numpy.typing import NDArray

from device_agent.runtime.kits import Kit
from device_agent.runtime.side_plugin import BrokenPlugin, checked_weights, onnx_session
from protocol.messages import States

TOKENS = 256
"""How many pass at a time: attention takes memory with the square of it."""

UNSEEN = np.float32(-1e9)
"""Added to the score of what a token must not see; finite, so that no row is without a sum."""

Floats = NDArray[np.float32]


class TailPlugin:
    """Trained weights in the kit's ``infer`` graph, and the session that it follows.

    Args:
        kit: Which blocks they are.
        weights: By name, in the manifest's shapes.
        threads: For its arithmetic.

    Raises:
        DamagedKit: The weights are not the kit's.
    """

    sequential = True

    def __init__(self, kit: Kit, weights: Mapping[str, Floats], threads: int) -> None:
        self.kit = kit
        self._weights = checked_weights(kit, weights)
        self._session = onnx_session(kit.path("infer.onnx"), threads)
        self._kept = _nothing(kit)
        self._length = 0

    def beside(self) -> Self:
        """The same blocks for another session."""
        other = copy.copy(self)
        other._kept, other._length = _nothing(self.kit), 0
        return other

    def follows(self, position: int) -> int:
        """How many of a session's first ``position`` tokens it need not be given again."""
        return min(position, self._length)

    def state(self, states: States) -> Floats:
        """What the head reads, (T, H). What was kept from ``states.position`` on is forgotten.

        Args:
            states: The tap (1, T, H) below the first block, of all tokens behind those that were
                given before.

        Raises:
            BrokenPlugin: The weights make numbers that are not finite.
        """
        if states.layers != self.kit.manifest.taps:
            raise ValueError(f"needs tap {self.kit.manifest.taps}")
        if states.position > self._length:
            raise ValueError(f"tokens {self._length} to {states.position} were left out")
        self._length = states.position
        parts = np.array_split(states.taps, range(TOKENS, states.taps.shape[1], TOKENS), axis=1)
        return np.concatenate([self._through(part) for part in parts])

    def _through(self, taps: Floats) -> Floats:
        """Pass the next tokens (1, T, H) through the blocks; keep their keys and values."""
        start, end = self._length, self._length + taps.shape[1]
        inputs = {
            "taps": np.ascontiguousarray(taps),
            "positions": np.arange(start, end, dtype=np.float32),
            "reach": np.triu(np.full((end - start, end - start), UNSEEN), 1),
            "past": self._kept[:start],
        }
        state, fresh = self._session.run(["state", "fresh"], inputs | self._weights)
        if not np.isfinite(state).all():
            raise BrokenPlugin()
        if end > len(self._kept):
            grown = np.empty((max(end, 2 * len(self._kept)), *self._kept.shape[1:]), np.float32)
            grown[:start] = self._kept[:start]
            self._kept = grown
        self._kept[start:end] = fresh
        self._length = end
        out: Floats = state
        return out


def _nothing(kit: Kit) -> Floats:
    """Keys and values of no tokens, (0, k, 2, heads, width)."""
    return np.empty((0, *kit.manifest.cache), np.float32)
