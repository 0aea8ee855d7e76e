"""Batches of whole texts, for kits whose tokens see one another."""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from device_agent.training.batches import Run


class Packed:
    """Every row of every text once a repeat, in batches that no text crosses unless it is longer than one.

    Which texts share a batch is the same in every epoch, so that epochs have equally many; the batches'
    order is not.

    Attributes:
        batches: How many an epoch has.
        size: Rows of the fullest.
    """

    def __init__(
        self, starts: NDArray[np.int64], repeats: NDArray[np.int64], most: int, seed: int
    ) -> None:
        """Fill batches, the longest pieces first, each into the first batch that has room.

        Args:
            starts: Where each text's rows begin, and where the last one's end, (texts + 1,).
            repeats: How often each text is read in an epoch, (texts,).
            most: Most rows of a batch; longer texts are cut.
            seed: Of the order in which equally long pieces are placed, and of the batches' order.
        """
        pieces = [
            Run(start, min(start + most, end))
            for (begin, end), times in zip(pairwise(starts.tolist()), repeats, strict=True)
            for start in range(begin, end, most)
            for _ in range(times)
        ]
        self._seed = seed
        mixed = np.random.default_rng(seed).permutation(len(pieces))
        self._batches: list[list[Run]] = []
        room: list[int] = []
        for piece in sorted((pieces[place] for place in mixed), key=_rows, reverse=True):
            place = next((i for i, free in enumerate(room) if free >= _rows(piece)), len(room))
            if place == len(room):
                room.append(most)
                self._batches.append([])
            room[place] -= _rows(piece)
            self._batches[place].append(piece)
        self.batches, self.size = len(room), most - min(room)

    def epoch(self, number: int) -> list[list[Run]]:
        """The batches of one epoch in its order."""
        order = np.random.default_rng((self._seed, number)).permutation(self.batches)
        return [self._batches[place] for place in order]


def _rows(piece: Run) -> int:
    return piece.stop - piece.start
