"""The memory in the choice of a token: exact over the whole vocabulary, at the cost of a few tokens."""

from dataclasses import dataclass

import numpy as np

from device_agent.memory.basis import Floats
from device_agent.memory.file import Ids, MemoryFile
from device_agent.memory.gate import Gate
from device_agent.memory.recall import recall


@dataclass(frozen=True, slots=True)
class GatedMemory:
    """A memory, and how much it is believed."""

    memory: MemoryFile
    gate: Gate

    def mixed(self, logits: Floats, finals: Floats) -> Floats:
        """Logits (T, V) whose softmax is ``(1 - w) softmax(logits) + w memory``, row by row.

        Their log-sum-exp stays what it was, and all tokens that the memory does not name move alike: what
        comes after (temperature, penalties, nuclei) finds the scale that it knows.

        Args:
            logits: Of every token, (T, V).
            finals: The backbone's own final states, (T, H); the plugin's are another space.
        """
        recalled = recall(self.memory, finals)
        mixed = np.empty_like(logits)
        for row, weight in enumerate(self.gate.weights(recalled.nearest)):
            mixed[row] = _mixed(logits[row], recalled.tokens[row], recalled.shares[row], weight)
        return mixed


def _mixed(logits: Floats, recalled: Ids, shares: Floats, weight: float) -> Floats:
    """One row (V,): what k neighbours say is mixed in with ``weight``."""
    peak = float(logits.max())
    log_z = peak + float(np.log(np.exp(logits - peak).sum(dtype=np.float64)))
    tokens, places = np.unique(recalled, return_inverse=True)
    summed = np.bincount(places, shares.astype(np.float64))
    mixed = logits + np.float32(np.log1p(-weight))
    mixed[tokens] = np.logaddexp(
        logits[tokens] + np.log1p(-weight), log_z + np.log(np.maximum(weight * summed, 1e-300))
    )
    return mixed
