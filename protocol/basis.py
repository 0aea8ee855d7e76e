"""
A public basis: few numbers for the states of a token, made of nobody's own text.

Coordinates are ordered: those that come first matter most, and some of the first will do. The
file of a kit that holds a basis is float32, little-endian, one array behind the other, for K taps,
H wide, F and G coordinates:

    final shift (H)    final into (H, F)    final back (F, H)
    taps shift (K*H)   taps into (K*H, G)   taps back (G, K*H)     without taps none of them
"""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from protocol.codecs.base import require_finite
from protocol.errors import MalformedMessage, TensorMismatch
from protocol.messages import Coordinates, States

FILE = "basis.bin"

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Directions:
    """Directions in a space of S numbers, D of them.

    Attributes:
        shift: What lies at the origin, (S,).
        into: (S, D)
        back: (D, S)
    """

    shift: Floats
    into: Floats
    back: Floats

    def coordinates(self, states: Floats, width: int) -> Floats:
        """Return the first ``width`` coordinates (T, width) of states (T, S)."""
        centred: Floats = states - self.shift
        found: Floats = centred @ self.into[:, :width]
        return found

    def states(self, coordinates: Floats) -> Floats:
        """Return the states (T, S) that some first coordinates (T, d) stand for."""
        with np.errstate(over="ignore", invalid="ignore"):
            found: Floats = coordinates @ self.back[: coordinates.shape[1]] + self.shift
        require_finite(found, "coordinates")
        return found


@dataclass(frozen=True, slots=True, eq=False)
class Basis:
    """Where the final state lies, and all taps together.

    Attributes:
        layers: The taps, ascending, K.
        final: Of a space of H numbers.
        taps: Of a space of K*H numbers, a tap behind the other; None without taps.
    """

    layers: tuple[int, ...]
    final: Directions
    taps: Directions | None

    @property
    def widths(self) -> tuple[int, int]:
        """Coordinates of the final state and of the taps, (F, G)."""
        return self.final.into.shape[1], 0 if self.taps is None else self.taps.into.shape[1]

    @classmethod
    def from_bytes(
        cls, data: bytes | memoryview, layers: tuple[int, ...], hidden: int, widths: tuple[int, int]
    ) -> Self:
        """Read a file, as views of ``data``.

        Args:
            data: What ``to_bytes`` gave.
            layers: The taps.
            hidden: H.
            widths: (F, G)

        Raises:
            TensorMismatch: It is not of these sizes.

        """
        final, taps = widths
        shapes = _shapes(hidden, final)
        shapes += _shapes(len(layers) * hidden, taps) if taps else []
        needed = 4 * sum(map(math.prod, shapes))
        if len(data) != needed:
            expected, got = f"{needed} bytes", f"{len(data)} bytes"
            raise TensorMismatch(part="basis", expected=expected, got=got)
        arrays, start = [], 0
        for shape in shapes:
            count = math.prod(shape)
            flat = np.frombuffer(data, "<f4", count, 4 * start)
            arrays.append(flat.astype(np.float32, copy=False).reshape(shape))
            start += count
        return cls(layers, Directions(*arrays[:3]), Directions(*arrays[3:]) if taps else None)

    def to_bytes(self) -> bytes:
        """Return the content of the file."""
        every = [self.final] if self.taps is None else [self.final, self.taps]
        arrays = [array for one in every for array in (one.shift, one.into, one.back)]
        return b"".join(array.astype("<f4").tobytes() for array in arrays)

    def written(self, states: States, widths: tuple[int, int]) -> Coordinates:
        """
        Return states in coordinates.

        Args:
            states: Of the basis's layers, or with none where no taps are written.
            widths: Coordinates of the final state and of the taps; 0 writes none of them.

        """
        final, taps = widths
        tokens = states.taps.shape[1]
        none = np.empty((tokens, 0), np.float32)
        in_final, in_taps = none, none
        if final and states.final is not None:
            in_final = self.final.coordinates(states.final, final)
        if taps and self.taps is not None:
            flat = states.taps.transpose(1, 0, 2).reshape(tokens, -1)
            in_taps = self.taps.coordinates(flat, taps)
        beside = (states.log_z, states.candidates, states.drafted, states.spoken)
        return Coordinates(states.position, in_final, in_taps, *beside)

    def read(self, message: Coordinates) -> States:
        """
        Return the states that coordinates stand for.

        Raises:
            MalformedMessage: There are more coordinates than the basis has directions.
            NotFinite: They overflow.

        """
        final, taps = message.final, message.taps
        most = self.widths
        if final.shape[1] > most[0] or taps.shape[1] > most[1]:
            raise MalformedMessage(reason=f"the basis has no more than {most} coordinates")
        hidden, layers = len(self.final.shift), self.layers if taps.shape[1] else ()
        tapped = np.empty((0, len(final), hidden), np.float32)
        if self.taps is not None and layers:
            flat = self.taps.states(taps).reshape(len(final), len(layers), hidden)
            tapped = np.ascontiguousarray(flat.transpose(1, 0, 2))
        return States(
            message.position,
            layers,
            tapped,
            self.final.states(final) if final.shape[1] else None,
            message.log_z,
            message.candidates,
            message.drafted,
            message.spoken,
        )


def _shapes(space: int, width: int) -> list[tuple[int, ...]]:
    return [(space,), (space, width), (width, space)]
