"""What a backbone has to be for the rest of the service."""

from typing import Protocol

from protocol.facts import BackboneFacts
from protocol.messages import Ids, States, Wants


class Context(Protocol):
    """What a backbone remembers of one session."""

    @property
    def position(self) -> int:
        """Positions that have been read."""
        ...

    @property
    def capacity(self) -> int:
        """Positions for which memory is held."""
        ...

    @property
    def bytes(self) -> int:
        """Bytes of memory held."""
        ...

    def read(self, ids: Ids, wanted: int, wants: Wants) -> States:
        """
        Read T tokens behind those read before, and answer for the last ``wanted`` of them.

        When this raises, the context is as it was.

        Args:
            ids: Tokens (T,), checked against the vocabulary and the room that is left.
            wanted: 1 to T.
            wants: What the answer holds.

        """
        ...

    def crop(self, position: int) -> None:
        """Forget all positions from ``position`` on."""
        ...


class Backbone(Protocol):
    """A frozen model. One thread at a time may read with it or its contexts."""

    @property
    def facts(self) -> BackboneFacts:
        """What a device is told about it."""
        ...

    def open(self) -> Context:
        """Return a context that has read nothing. Any thread may call this."""
        ...

    def read(self, ids: Ids, wanted: int, wants: Wants) -> States:
        """Read a text by itself and remember nothing; otherwise as ``Context.read``."""
        ...
