"""What a training step reads: rows of features, in an order that depends on seed and epoch alone."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from device_agent.data.examples import Encoded
from device_agent.data.tap_cache import CachedFeatures, DamagedFeatures, TapCache
from device_agent.training.shortlist import Shortlist, share_of

Floats = NDArray[np.float32]

REST_ROWS = 256
"""Rows at a time whose share is computed."""


class Run(NamedTuple):
    """Rows ``start`` to ``stop`` of a ``FeatureRows``, all of one text."""

    start: int
    stop: int


class FeatureRows:
    """Every scored position of some texts, one after another, N in all.

    Attributes:
        tokens: The token to foresee, (N,).
        scored: Its weight in the loss, (N,).
        documents: Whether each text is a document, (texts,); the others are conversations.
        rehearsed: Whether it is somebody else's, there to keep what the backbone knows, (texts,).
        rest: Share of the backbone's probability outside the shortlist, (N,); ones until ``fill_rest``.
    """

    def __init__(
        self, cache: TapCache, texts: Sequence[Encoded], rehearsed: Sequence[Encoded] = ()
    ) -> None:
        """The features of ``texts``, and of those that are ``rehearsed`` besides, must be in the cache."""
        self.rehearsed = np.arange(len(texts) + len(rehearsed)) >= len(texts)
        texts = [*texts, *rehearsed]
        self._cache = cache
        self._texts = texts
        self.starts = np.cumsum([0, *(len(text.rows) for text in texts)])  # (texts + 1,)
        self.tokens = np.concatenate([text.targets for text in texts])  # (N,)
        self.documents = np.array([text.document for text in texts])
        self.scored = np.concatenate([text.scored[text.rows] for text in texts])
        self.rest = np.ones(len(self.tokens), np.float32)

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def prefixed(self) -> bool:
        """Whether any of the texts stands behind a personal prefix."""
        return any(text.prefix for text in self._texts)

    def fill_rest(self, shortlist: Shortlist, hidden: int, cap: float | None) -> None:
        """Set ``rest``: once for a text and a shortlist."""
        final = np.empty((REST_ROWS, hidden), np.float32)
        for start in range(0, len(self), REST_ROWS):
            stop = min(start + REST_ROWS, len(self))
            log_z = self.read([*self.cut(start, stop)], None, final)
            inside = share_of(final[: stop - start], log_z, shortlist.rows, shortlist.bias, cap)
            self.rest[start:stop] = 1 - inside

    def cut(self, start: int, stop: int) -> Iterator[Run]:
        """Runs that together are the rows ``start`` to ``stop``."""
        while start < stop:
            text = int(np.searchsorted(self.starts, start, "right")) - 1
            end = min(stop, int(self.starts[text + 1]))
            yield Run(start, end)
            start = end

    def position(self, run: Run) -> int:
        """Tokens of its text before the first row of a run."""
        text = int(np.searchsorted(self.starts, run.start, "right")) - 1
        return int(self._texts[text].rows[run.start - int(self.starts[text])])

    def read(self, runs: Sequence[Run], taps: Floats | None, final: Floats) -> Floats:
        """Features of n rows, a run after another.

        Args:
            runs: Where they are.
            taps: Filled, (K, n or more, H); None when not needed.
            final: Filled, (n or more, H).

        Returns:
            Log-sum-exp of the base logits, (n,).
        """
        at, log_z = 0, []
        for run in runs:
            text = int(np.searchsorted(self.starts, run.start, "right")) - 1
            begin = int(self.starts[text])
            rows = _slice_of(self._texts[text], run.start - begin, run.stop - begin)
            end = at + run.stop - run.start
            with self._open(self._texts[text]) as features:
                features.read(rows, None if taps is None else taps[:, at:end], final[at:end])
                log_z.append(features.log_z()[rows])
            at = end
        return np.concatenate(log_z)

    def _open(self, text: Encoded) -> CachedFeatures:
        features = self._cache.get(text.fed, text.first, text.source)
        if features is None:
            path = self._cache.path(text.fed, text.first, text.source)
            raise DamagedFeatures(path, "the file is gone")
        return features


def _slice_of(text: Encoded, start: int, stop: int) -> slice | NDArray[np.intp]:
    """Rows of the cached file for the scored positions ``start`` to ``stop`` of a text."""
    rows = text.rows[start:stop] - text.first
    if rows[-1] - rows[0] + 1 == len(rows):
        # A slice is read without first being copied.
        return slice(int(rows[0]), int(rows[-1]) + 1)
    return rows


class Shuffled:
    """Every row once a repeat, in batches of equal size, for kits whose tokens are independent.

    Attributes:
        batches: How many an epoch has.
        size: Rows of each.
    """

    def __init__(
        self,
        starts: NDArray[np.int64],
        repeats: NDArray[np.int64],
        segment: int,
        most: int,
        seed: int,
    ) -> None:
        """Nothing is shuffled yet.

        Args:
            starts: Where each text's rows begin, and where the last one's end, (texts + 1,).
            repeats: How often each text is read in an epoch, (texts,).
            segment: Rows of a text that stay together.
            most: Most rows of a batch.
            seed: Of the whole run.
        """
        self._starts, self._repeats, self._segment, self._seed = starts, repeats, segment, seed
        self.batches, self.size = batch_size(int(np.diff(starts) @ repeats), most)

    def epoch(self, number: int) -> list[list[Run]]:
        """The batches of one epoch."""
        seed = (self._seed, number)
        order = Order(self._starts, self._repeats, self._segment, self.size, seed)
        return [order.batch(place) for place in range(self.batches)]


class Order:
    """The rows of one epoch in batches of equal size.

    Texts are cut into segments, the segments are shuffled, and batches are cut from the stream of
    their rows. Equal sizes let every buffer be bound once; the few rows that are left over are others
    in each epoch.
    """

    def __init__(
        self,
        starts: NDArray[np.int64],
        repeats: NDArray[np.int64],
        segment: int,
        size: int,
        seed: tuple[int, int],
    ) -> None:
        """Shuffle.

        Args:
            starts: Where each text's rows begin, and where the last one's end, (texts + 1,).
            repeats: How often each text is read, (texts,).
            segment: Rows of a text that stay together.
            size: Rows of a batch, at most all of them.
            seed: Of the whole run, and the epoch.
        """
        bounds = [
            (start, min(start + segment, end))
            for (begin, end), times in zip(pairwise(starts.tolist()), repeats, strict=True)
            for start in range(begin, end, segment)
            for _ in range(times)
        ]
        shuffled = np.random.default_rng(seed).permutation(np.array(bounds, np.int64))
        self._starts, self._stops = shuffled.T
        self._ends = np.cumsum(self._stops - self._starts)
        self._size = size

    def batch(self, number: int) -> list[Run]:
        """The runs of batch ``number``, counted from 0."""
        first, last = number * self._size, (number + 1) * self._size
        runs = []
        place = int(np.searchsorted(self._ends, first, "right"))
        while first < last:
            end = int(self._ends[place])
            start = int(self._stops[place]) - (end - first)
            stop = min(int(self._stops[place]), start + last - first)
            runs.append(Run(start, stop))
            first += stop - start
            place += 1
        return runs


def batch_size(rows: int, most: int) -> tuple[int, int]:
    """How many batches an epoch has, and how many rows each: all equal, at most ``most``."""
    count = -(-rows // most)
    return count, rows // count
