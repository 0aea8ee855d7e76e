"""
The personal prefix: some of the person's own text, which the backbone reads before anything else.

It brings the backbone close to the person with no training at all. What it costs is privacy: its
tokens go to the cloud with every session. A setting switches it off.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from device_agent.data.examples import Encoded

LEAST = 32
"""Tokens; less is no help."""

Ids = NDArray[np.uint32]

NO_PREFIX: Ids = np.empty(0, np.uint32)


class Prefixed(NamedTuple):
    """Windows behind prefixes.

    Attributes:
        prefix: What precedes every prompt and all held-out text, (P,); empty without a prefix.
        windows: The training windows, each behind a prefix that does not contain it.
    """

    prefix: Ids
    windows: list[Encoded]


def crossed(windows: Sequence[Encoded], budget: int) -> Prefixed:
    """
    Give each half of the windows a prefix made of the other half.

    A plugin that saw its own text in the prefix while it was trained would learn to copy it.

    Args:
        windows: Of the training examples, in order.
        budget: Most tokens of a prefix; 0 for none.
    """
    middle = _middle(windows)
    older, newer = windows[:middle], windows[middle:]
    from_older, from_newer = _prefix(older, budget), _prefix(newer, budget)
    if min(len(from_older), len(from_newer)) < LEAST:
        return Prefixed(NO_PREFIX, list(windows))
    behind_newer = [behind(window, from_newer) for window in older]
    behind_older = [behind(window, from_older) for window in newer]
    return Prefixed(from_newer, behind_newer + behind_older)


def _middle(windows: Sequence[Encoded]) -> int:
    """Where half of what documents hold has passed: each side needs documents to make a prefix of.

    Conversations stay with the document before them, of which they may have been made.
    """
    sizes = np.cumsum([len(window.ids) if window.document else 0 for window in windows])
    middle = int(np.searchsorted(sizes, sizes[-1] / 2)) + 1
    while middle < len(windows) and not windows[middle].document:
        middle += 1
    return middle


def behind(window: Encoded, prefix: Ids) -> Encoded:
    """The same window with ``prefix`` (P,) before it, of which nothing is to be foreseen."""
    if not len(prefix):
        return window
    ids = np.concatenate([prefix, window.ids[window.lead :]])
    unscored = np.zeros(len(prefix), np.float32)
    scored = np.concatenate([unscored, window.scored[window.lead :]])
    return Encoded(ids, scored, window.lead, len(prefix), window.whole)


def _prefix(windows: Sequence[Encoded], budget: int) -> Ids:
    """
    The newest ``budget`` tokens of the documents among the windows.

    The newest, because what a person writes next resembles it most: on one person's addresses the
    newest 1,024 tokens gave half as much again as older ones did.
    """
    documents = [window for window in windows if window.document]
    if not documents or not budget:
        return NO_PREFIX
    lead = documents[0].ids[: documents[0].lead]
    texts = np.concatenate([window.ids[window.lead :] for window in documents])
    return np.concatenate([lead, texts[-max(budget - len(lead), 1) :]])
