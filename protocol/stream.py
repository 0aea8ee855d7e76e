"""Cuts a stream of bytes into frames. Holds what has arrived, never what a header promises."""

from collections.abc import Iterator

from protocol.errors import TruncatedFrame
from protocol.limits import Limits
from protocol.versions import HEADER_SIZE, frame_size


class FrameReader:
    """Collects chunks of any size and gives back whole frames, undecoded."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._buffer = bytearray()

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """
        Take a chunk; iterate over the frames that are now whole.

        Frames not taken from the iterator come first with the next chunk.

        Raises:
            ProtocolError: While iterating, as soon as a header is not one that this side reads.

        """
        self._buffer += chunk
        return self._frames()

    def close(self) -> None:
        """Say that nothing more comes; ``TruncatedFrame`` when bytes are left."""
        if self._buffer:
            raise TruncatedFrame(needed=self._needed(), got=len(self._buffer))

    def _frames(self) -> Iterator[bytes]:
        while len(self._buffer) >= HEADER_SIZE and len(self._buffer) >= (size := self._needed()):
            with memoryview(self._buffer) as view:
                frame = bytes(view[:size])
            del self._buffer[:size]
            yield frame

    def _needed(self) -> int:
        """Return the size of the frame at hand, as far as it is known."""
        if len(self._buffer) < HEADER_SIZE:
            return HEADER_SIZE
        return frame_size(self._buffer, self._limits)
