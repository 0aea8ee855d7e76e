"""How private text is divided among the devices of a federation."""

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.errors import TextError
from benchmarks.texts import Document, Size, cut

SPLITS = ("person", "quantity")

LEAST_TOKENS = 300
"""What every device has, whatever it drew: less cannot be trained on and checked."""

_PARAGRAPH = re.compile(r"\n\s*\n")


@dataclass(frozen=True, slots=True)
class Share:
    """What one device has."""

    number: int
    name: str
    training: Sequence[str]
    """Texts."""
    tokens: int
    test: Sequence[str]
    """Later texts, learned by nobody."""


def by_person(
    people: Mapping[str, Sequence[Document]], size: Size, training: int, test: int
) -> list[Share]:
    """A person's own text to each device; the test is what that person wrote last."""
    shares = []
    for number, (name, documents) in enumerate(people.items()):
        parts = cut(documents, size, training, test)
        own = [document.text for document in parts.training]
        later = [document.text for document in parts.test]
        shares.append(Share(number, name, own, sum(map(size, own)), later))
    return shares


def by_quantity(shares: Sequence[Share], size: Size, seed: int, alpha: float = 1.0) -> list[Share]:
    """Everybody's paragraphs, shuffled, and divided by shares drawn from a Dirichlet distribution.

    All devices are tested on the same: everybody's later text.

    Raises:
        TextError: There is not so much that every device has LEAST_TOKENS.
    """
    pieces = [
        piece.strip()
        for share in shares
        for text in share.training
        for piece in _PARAGRAPH.split(text)
        if piece.strip()
    ]
    random.Random(seed).shuffle(pieces)
    sizes = [size(piece) for piece in pieces]
    free = sum(sizes) - LEAST_TOKENS * len(shares)
    if free < 0:
        raise TextError(f"{sum(sizes)} tokens are too few for {len(shares)} devices")
    drawn = np.random.default_rng(seed).dirichlet([alpha] * len(shares))
    wanted = [LEAST_TOKENS + free * float(part) for part in drawn]
    test = [text for share in shares for text in share.test]
    found, at = [], 0
    for number, tokens in enumerate(wanted):
        begin, held = at, 0
        last = number == len(wanted) - 1
        while at < len(pieces) and (last or held < tokens):
            held += sizes[at]
            at += 1
        if held == 0:
            raise TextError("the paragraphs are too long to be divided among so many devices")
        own = ["\n\n".join(pieces[begin:at])]
        found.append(Share(number, f"device {number}", own, held, test))
    return found
