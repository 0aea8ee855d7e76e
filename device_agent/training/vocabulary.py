"""Sums over the whole vocabulary without ever holding all of it: exact, a block of head rows at a time."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from device_agent.runtime.head import Head

BLOCK = 2048
"""Head rows at a time."""

TOKENS = 256
"""Tokens at a time: with a block of rows, logits that stay in a core's own cache."""

Floats = NDArray[np.float32]


def soft_capped(logits: Floats, cap: float | None) -> Floats:
    """Logits as the backbone gives them, in place: ``cap * tanh(logits / cap)`` where it has a cap."""
    if cap is not None:
        logits /= cap
        np.tanh(logits, out=logits)
        logits *= cap
    return logits


def log_sum_exp(head: Head, states: Floats, cap: float | None) -> NDArray[np.float64]:
    """Logarithm of the sum of the exponentials of all logits.

    Args:
        head: V rows.
        states: What the head reads, (T, H).
        cap: Soft cap of the logits.

    Returns:
        (T,)
    """
    peak = np.full(len(states), -np.inf, np.float32)
    total = np.zeros(len(states))
    for part, _, logits in _logits(head, states, cap):
        higher = np.maximum(peak[part], logits.max(axis=1))
        total[part] *= np.exp(peak[part].astype(np.float64) - higher)
        peak[part] = higher
        logits -= higher[:, None]
        np.exp(logits, out=logits)
        total[part] += logits.sum(axis=1)
    return peak.astype(np.float64) + np.log(total)


def mean_probability(head: Head, finals: Floats, log_z: Floats, cap: float | None) -> Floats:
    """How likely the frozen backbone finds each token on average.

    Args:
        head: V rows.
        finals: The backbone's final states, (T, H).
        log_z: Their log-sum-exp, (T,).
        cap: Soft cap of the logits.

    Returns:
        (V,)
    """
    mean = np.zeros(head.vocabulary, np.float32)
    for part, tokens, logits in _logits(head, finals, cap):
        logits -= log_z[part, None]
        np.exp(logits, out=logits)
        mean[tokens] += logits.sum(axis=0)
    mean /= len(finals)
    return mean


def _logits(head: Head, states: Floats, cap: float | None) -> Iterator[tuple[slice, slice, Floats]]:
    """(tokens' slice, vocabulary's slice, logits): each pair once; the array is overwritten by the next."""
    space = np.empty(min(TOKENS, len(states)) * min(BLOCK, head.vocabulary), np.float32)
    for start in range(0, head.vocabulary, BLOCK):
        tokens = slice(start, min(start + BLOCK, head.vocabulary))
        rows, bias = head.rows(np.arange(tokens.start, tokens.stop))
        for first in range(0, len(states), TOKENS):
            part = slice(first, min(first + TOKENS, len(states)))
            shape = (part.stop - part.start, len(rows))
            logits = space[: shape[0] * shape[1]].reshape(shape)
            np.matmul(states[part], rows.T, out=logits)
            logits += bias
            yield part, tokens, soft_capped(logits, cap)
