"""
Whose text is this? What is personal is believed in a text as far as it has foreseen it so far.

The personal model and the bare backbone read the same text. Bayesian model averaging gives what comes next

    w_t p_personal + (1 - w_t) p_base        w_t / (1 - w_t) = 3 x product over s < t of p_personal(s) / p_base(s)

where 3 are the odds before the first token. So a whole text costs at most log 4 nats more than under the
bare backbone, and at most log 4/3 more than under what is personal: that cannot do harm where it does not
belong. To continue a text from this average is to choose one of the two by ``w`` and let it go on alone;
a speaker takes the likelier one.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from device_agent.memory.mixture import GatedMemory
from device_agent.runtime.head import Head
from device_agent.runtime.plugin_kinds import Plugin
from protocol.messages import States

BELIEVED = 0.75
"""Before anything is read: who asks for the personal model usually writes as that person."""

EVIDENCE = 128
"""Tokens at the end of a text that tell whose it is; after some twenty there is seldom a doubt."""

ROWS = 32
"""Rows of logits that are held at a time."""

Numbers = NDArray[np.float64]


def averaged(personal: Numbers, base: Numbers, starts: Sequence[int]) -> Numbers:
    """Negative log-likelihoods of the average, token by token.

    Args:
        personal: Negative log-likelihoods by what is personal, (n,).
        base: By the bare backbone, (n,).
        starts: Where each text begins, and where the last one ends, (texts + 1,).

    Returns:
        (n,)
    """
    found = np.empty_like(personal)
    for start, stop in pairwise(starts):
        ours, theirs = np.cumsum(personal[start:stop]), np.cumsum(base[start:stop])
        together = np.logaddexp(np.log(BELIEVED) - ours, np.log(1 - BELIEVED) - theirs)
        found[start:stop] = -np.diff(together, prepend=0.0)
    return found


def is_foreign(personal: float, base: float) -> bool:
    """Whether a text is likelier to be somebody else's, by its log-likelihoods."""
    return bool(np.log(BELIEVED) + personal < np.log(1 - BELIEVED) + base)


def log_likelihood(
    states: States,
    tokens: Sequence[int],
    head: Head,
    plugin: Plugin | None = None,
    memory: GatedMemory | None = None,
) -> float:
    """How well some tokens are foreseen, the sum of the logarithms of their probabilities.

    Args:
        states: Behind which each of them came: the last T of them.
        tokens: (T,)
        head: Of the backbone.
        plugin: Corrects the states; None for the backbone alone.
        memory: Mixed in; None for none.
    """
    moved = states.final if plugin is None else plugin.state(states)
    # Without a memory nobody looks at the backbone's own.
    finals = moved if states.final is None else states.final
    if moved is None or finals is None:
        raise ValueError("the session does not bring the final state")
    moved, finals = moved[-len(tokens) :], finals[-len(tokens) :]
    total = 0.0
    for start in range(0, len(tokens), ROWS):
        rows = slice(start, start + ROWS)
        logits = head.logits(moved[rows])
        if memory is not None:
            logits = memory.mixed(logits, finals[rows])
        for row, token in zip(logits, tokens[rows], strict=True):
            peak = float(row.max())
            log_z = peak + float(np.log(np.exp(row - peak).sum(dtype=np.float64)))
            total += float(row[token]) - log_z
    return total
