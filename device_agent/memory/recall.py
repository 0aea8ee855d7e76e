"""What the memory says of a state: the tokens that came after the most similar ones."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from device_agent.memory.basis import SCALE, Floats
from device_agent.memory.file import Ids, MemoryFile
from device_agent.runtime.highest import highest

NEIGHBOURS = 256
"""States that are looked at; on one person's addresses 64 brought 2 % less, 32 6 %."""

SHARPNESS = 20.0
"""A neighbour counts by the exponential of its cosine times this."""

BLOCK = 1024
"""Keys at a time: as float32 they stay in a core's own cache."""

TRIM = 1 << 15
"""Keys after which pages are handed back."""

COSINES = 1 << 20
"""At most held at a time, states times keys, unless one state's are more."""


class Recalled(NamedTuple):
    """What T states recall, of k neighbours each."""

    tokens: Ids
    """(T, k); a token may come several times."""

    shares: Floats
    """What each neighbour adds to its token's probability, (T, k); a row sums to one."""

    nearest: Floats
    """Cosine of the nearest neighbour, (T,)."""

    def probability(self, tokens: Ids) -> NDArray[np.float64]:
        """Of one token (T,) for each state, (T,)."""
        hits = self.tokens == tokens[:, None]
        found: NDArray[np.float64] = (self.shares * hits).sum(axis=1, dtype=np.float64)
        return found


def recall(memory: MemoryFile, states: Floats) -> Recalled:
    """The neighbours of final states (T, H), found by looking at every key; the memory holds one at least."""
    queries = memory.basis.keys(states)
    tokens, shares, nearest = [], [], []
    together = max(1, COSINES // len(memory.tokens))
    for start in range(0, len(queries), together):
        for cosines in _cosines(memory, queries[start : start + together]):
            places = highest(cosines, NEIGHBOURS)
            near = cosines[places]
            weights = np.exp(SHARPNESS * (near - near.max()))
            tokens.append(memory.tokens[places])
            shares.append(weights / weights.sum())
            nearest.append(near.max())
    memory.trim()
    return Recalled(np.stack(tokens), np.stack(shares), np.array(nearest))


def _cosines(memory: MemoryFile, queries: Floats) -> Floats:
    """Of each query (t, D) with every key, (t, N)."""
    found = np.empty((len(queries), len(memory.keys)), np.float32)
    scaled = queries / np.float32(SCALE)
    for start in range(0, len(memory.keys), BLOCK):
        block = memory.keys[start : start + BLOCK].astype(np.float32)
        np.matmul(scaled, block.T, out=found[:, start : start + BLOCK])
        if start % TRIM == 0:
            memory.trim()
    return found
