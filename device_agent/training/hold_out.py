"""Which part of the examples is never trained on."""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

from device_agent.data.examples import Encoded
from device_agent.errors import DeviceError

SHARE = 0.1
"""How much is held out."""

LARGEST_SHARE = 0.15
"""More than this is not given up: then the ends of documents are held out instead of whole ones."""

_SALT = "held out\0"


Example = tuple[str, Sequence[Encoded]]
"""Its sha256, and its windows."""


class TooLittleText(DeviceError):
    """There is not enough to train on one part and to check on another."""

    hint = "Add more with `sideplug learn`: several conversations, or some pages of text."

    def __init__(self, windows: int) -> None:
        super().__init__(
            f"what was learned so far fills {windows} windows of text; two are the least"
        )
        self.windows = windows


class Split(NamedTuple):
    training: list[Encoded]
    validation: list[Encoded]
    owners: list[str]
    """sha256 of the example that each training window is of."""


def hold_out(examples: Sequence[Example]) -> Split:
    """Divide the windows of examples.

    Whole examples are held out, chosen by their hash alone, so that new ones leave the old where they
    are; conversations and documents apart, so that a few of both are there. Where that takes no
    document or too much of them (there are few, and long ones), the last windows of each are held out.

    Args:
        examples: (sha256, windows) of each.

    Raises:
        TooLittleText: There are fewer than two windows in all.
    """
    documents = [one for one in examples if one[1] and one[1][0].document]
    chats = [one for one in examples if one[1] and not one[1][0].document]
    kept = _kept_of_documents(documents) | _kept_by_hash(chats)
    if not 0 < sum(kept.values()) < sum(len(cut) for _, cut in examples):
        kept = _kept_by_force([*documents, *chats])
    split = Split([], [], [])
    for sha256, cut in examples:
        training = cut[: kept.get(sha256, 0)]
        split.training.extend(training)
        split.owners.extend([sha256] * len(training))
        split.validation.extend(cut[kept.get(sha256, 0) :])
    if not split.training or not split.validation:
        raise TooLittleText(sum(len(cut) for _, cut in examples))
    return split


Kept = dict[str, int]
"""How many windows of each example, from its start, are trained on; by sha256."""


def _kept_of_documents(documents: Sequence[Example]) -> Kept:
    whole = _kept_by_hash(documents)
    sizes = {sha256: sum(len(window.rows) for window in cut) for sha256, cut in documents}
    held = sum(size for sha256, size in sizes.items() if not whole[sha256])
    if 0 < held <= LARGEST_SHARE * sum(sizes.values()):
        return whole
    return {sha256: len(cut) - round(SHARE * len(cut)) for sha256, cut in documents}


def _kept_by_hash(examples: Sequence[Example]) -> Kept:
    return {sha256: 0 if _draw(sha256) < SHARE else len(cut) for sha256, cut in examples}


def _kept_by_force(examples: Sequence[Example]) -> Kept:
    """All but one window of the longest text, or but one whole example when all are short."""
    kept = {sha256: len(cut) for sha256, cut in examples}
    longest = max(kept, key=lambda sha256: kept[sha256], default="")
    if kept.get(longest, 0) > 1:
        return kept | {longest: kept[longest] - 1}
    return kept | {min(kept, key=_draw, default=""): 0}


def _draw(sha256: str) -> float:
    """A number in [0, 1) that belongs to the example."""
    digest = hashlib.sha256((_SALT + sha256).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
