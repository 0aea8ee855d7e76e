"""The memory in the choice of a token: exact over the whole vocabulary, at the cost of a few tokens."""

from dataclasses import dataclass

import numpy as np

from device_agent.memory.basis import Floats
from device_agent.memory.file import MemoryFile
from device_agent.memory.gate import Gate
from device_agent.memory.recall import recall


@dataclass(frozen=True, slots=True)
class GatedMemory:
    """A memory, and how much it is believed."""

    memory: MemoryFile
    gate: Gate

    def mixed(self, logits: Floats, final: Floats) -> Floats:
        """Logits (V,) whose softmax is ``(1 - w) softmax(logits) + w memory``.

        Their log-sum-exp stays what it was, and all tokens that the memory does not name move alike: what
        comes after (temperature, penalties, nuclei) finds the scale that it knows.

        Args:
            logits: Of every token, (V,).
            final: The backbone's own final state, (H,); the plugin's is another space.
        """
        recalled = recall(self.memory, final[None])
        weight = float(self.gate.weights(recalled.nearest)[0])
        peak = float(logits.max())
        log_z = peak + float(np.log(np.exp(logits - peak).sum(dtype=np.float64)))
        tokens, places = np.unique(recalled.tokens[0], return_inverse=True)
        shares = np.bincount(places, recalled.shares[0].astype(np.float64))
        mixed = logits + np.float32(np.log1p(-weight))
        mixed[tokens] = np.logaddexp(
            logits[tokens] + np.log1p(-weight), log_z + np.log(np.maximum(weight * shares, 1e-300))
        )
        return mixed
