"""What a backbone has to be for the rest of the service: the border between scheduler and engine."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from cloud_service.backbones.pages import Cache, PagePool
from protocol.facts import BackboneFacts
from protocol.messages import Floats, Ids, States, Wants


@dataclass(frozen=True, slots=True, eq=False)
class Span:
    """
    Tokens that one session adds in a pass.

    Attributes:
        cache: What the session has read; the tokens stand behind it.
        ids: Tokens (T,), at least one, checked against the vocabulary and the longest context.
        wanted: Of how many of the last tokens there is an answer, 0 to T; none of a chunk whose
            answer nobody reads.
        wants: What the answer holds.
        source: How many of the tokens, from the first on, an encoder reads; only where nothing has been
            read before.
        arrived: What final states (T, H) have become where they are read. The candidates are
            those of that; None has them of the states themselves.

    """

    cache: Cache
    ids: Ids
    wanted: int
    wants: Wants
    source: int = 0
    arrived: Callable[[Floats], Floats] | None = None


class Backbone(Protocol):
    """
    A frozen model, run by an engine.

    An engine makes the pool from a budget of bytes and from what a page takes in its own store
    of keys and values, which it reserves as virtual memory, of which some may be written at the start. It writes
    and reads that store by the tables of pages in the caches, and by nothing else: pages are
    shared, so it never writes a position that it has not been asked to read.
    """

    @property
    def facts(self) -> BackboneFacts:
        """What a device is told about it."""
        ...

    @property
    def pool(self) -> PagePool:
        """Where its caches get their pages: ``Cache(backbone.pool)`` has read nothing."""
        ...

    def read(self, spans: Sequence[Span]) -> list[States | None]:
        """
        Read the tokens of all spans in one pass; only attention looks at one session at a time.

        One thread at a time may call this. A span's answer does not depend on the others: it is
        the one it gets alone, up to the rounding of another order of summation. When this
        returns, each cache has grown by its tokens; ``pages.growing`` does that.

        Args:
            spans: At least one, each with a cache of its own, prefill and decode mixed.

        Returns:
            An answer each, in order; None where nothing is wanted. Their arrays are in main
            memory, moved there together.

        Raises:
            Overloaded: There are no pages for all of them.
            Exception: Whatever the model raises. Every cache is as it was.

        """
        ...
