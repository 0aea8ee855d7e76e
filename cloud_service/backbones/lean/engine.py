"""The lean engine: reads the tokens of many sessions in one compiled pass."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cloud_service.backbones.answers import Answers
from cloud_service.backbones.base import Span
from cloud_service.backbones.lean.attention import ROWS, Batch, Heads
from cloud_service.backbones.lean.crew import Crew
from cloud_service.backbones.lean.forward import Kept, Room, forward, ledger_for, room_for
from cloud_service.backbones.lean.head import LeanHead
from cloud_service.backbones.lean.packing import Arrays, embedded, head_in, layers_in
from cloud_service.backbones.lean.shape import Shape
from cloud_service.backbones.pages import PAGE, Cache, PagePool, growing
from protocol.facts import BackboneFacts
from protocol.messages import States, Wants

_ROOM = 64
"""Tokens by which the space for a pass grows."""
_TOUCHED = 2**26
"""Numbers of the store that are written at the start: to be given memory takes longer than a pass does,
when sessions that began together need their next pages together."""


class LeanBackbone:
    """A model of the Llama shape on the processor."""

    def __init__(
        self, arrays: Arrays, shape: Shape, facts: BackboneFacts, *, kv_bytes: int, threads: int
    ) -> None:
        """
        Take the arrays of a packed model.

        Args:
            arrays: What ``pack`` made.
            shape: Its measures.
            facts: What a device is told about it.
            kv_bytes: Memory for keys and values of all sessions.
            threads: That compute.

        """
        self.facts = facts
        self._crew = Crew(threads)
        self._layers = layers_in(arrays, shape)
        self._heads = Heads(shape.queries, shape.kv, shape.width, shape.layers)
        self._head = LeanHead(head_in(arrays, shape), self._crew)
        self._arrays, self._shape = arrays, shape
        self._frequencies = arrays["frequencies"]
        self._rotary_scale = arrays["rotary_scale"][0]
        self._room: Room = room_for(_ROOM, self._layers, self._heads)
        self._tokens = _ROOM
        numbers = shape.layers * 2 * shape.kv * shape.width * PAGE
        pages = max(1, kv_bytes // (4 * numbers))
        # The system gives the memory when it is first written.
        self._store = np.empty(pages * numbers, np.float32)
        self._store[:_TOUCHED] = 0
        self.pool = PagePool(pages, 4 * numbers, self._copy)

    def read(self, spans: Sequence[Span]) -> list[States | None]:
        """Read the tokens of all spans in one pass; see ``Backbone.read``."""
        with growing([span.cache for span in spans], [len(span.ids) for span in spans]):
            answers = Answers(spans)
            ids = np.concatenate([span.ids for span in spans])
            kept = self._kept(answers, len(ids))
            room = self._room_for(ids)
            arguments = (self._layers, self._heads, self._batch(spans), room, self._store, kept)
            self._crew.run(forward, *arguments, ledger_for(self._heads))
            return answers.share(kept.states, kept.states[-1], self._head)

    def warm_up(self) -> None:
        """Compile what is not compiled yet, so that nobody has to wait for it."""
        cache, one = Cache(self.pool), np.zeros(1, np.uint32)
        wants = Wants(layers=(0,), final=True, log_z=True, candidates=1, codec="f32")
        self.read([Span(cache, one, 1, wants)])
        cache.release()

    def _room_for(self, ids: NDArray[np.uint32]) -> Room:
        """Return space for a pass, in which the tokens' embeddings stand."""
        if len(ids) > self._tokens:
            self._tokens = -(-len(ids) // _ROOM) * _ROOM
            self._room = room_for(self._tokens, self._layers, self._heads)
        hidden = self._layers.qkv.columns
        states = self._room.x[: len(ids) * hidden].reshape(-1, hidden)
        states[:] = embedded(self._arrays, self._shape, ids)
        return self._room

    def _kept(self, answers: Answers, tokens: int) -> Kept:
        places = np.full(tokens, -1, np.int64)
        places[answers.rows] = np.arange(len(answers.rows))
        taps = np.full(self._heads.layers + 1, -1, np.int64)
        taps[list(answers.layers)] = np.arange(len(answers.layers))
        hidden = self._layers.qkv.columns
        states = np.empty((len(answers.layers) + 1, len(answers.rows), hidden), np.float32)
        depth = self._heads.layers if answers.depth is None else answers.depth
        return Kept(places, taps, states, depth)

    def _batch(self, spans: Sequence[Span]) -> Batch:
        """Say where each token stands in its session, and where its session's pages are."""
        starts = [span.cache.position for span in spans]
        counts = [len(span.ids) for span in spans]
        tables = [span.cache.pages for span in spans]
        positions = np.concatenate(
            [np.arange(start, start + count) for start, count in zip(starts, counts, strict=True)]
        )
        angles = positions[:, None].astype(np.float32) * self._frequencies  # (M, width / 2)
        return Batch(
            positions=positions,
            spans=np.repeat(np.arange(len(spans)), counts),
            tables=np.cumsum([0, *map(len, tables[:-1])]),
            pages=np.concatenate(tables).astype(np.int64),
            pieces=_pieces(counts),
            cosines=np.cos(angles) * self._rotary_scale,
            sines=np.sin(angles) * self._rotary_scale,
        )

    def _copy(self, source: int, target: int) -> None:
        pages = self._store.reshape(self.pool.pages, -1)
        pages[target] = pages[source]


def _pieces(counts: Sequence[int]) -> NDArray[np.int64]:
    """Cut each span into pieces of work, (P, 2): first token and end of each."""
    pieces, start = [], 0
    for count in counts:
        end = start + count
        pieces += [(first, min(first + ROWS, end)) for first in range(start, end, ROWS)]
        start = end
    return np.array(pieces, np.int64)
