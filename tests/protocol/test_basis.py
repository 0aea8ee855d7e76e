import numpy as np
import pytest

from protocol.basis import Basis, Directions
from protocol.errors import MalformedMessage, NotFinite, TensorMismatch
from protocol.messages import Coordinates, States
from tests.protocol.samples import STATES

LAYERS, HIDDEN = STATES.layers, 70


def directions(space: int, width: int, seed: int) -> Directions:
    """An orthonormal frame, turned and stretched."""
    rng = np.random.default_rng(seed)
    axes, _ = np.linalg.qr(rng.standard_normal((space, space)))
    stretch = rng.uniform(0.5, 2, width)
    into, back = axes[:, :width] * stretch, axes[:, :width].T / stretch[:, None]
    shift = rng.standard_normal(space)
    return Directions(*(one.astype(np.float32) for one in (shift, into, back)))


BASIS = Basis(LAYERS, directions(HIDDEN, HIDDEN, 0), directions(3 * HIDDEN, 3 * HIDDEN, 1))
NARROW = Basis(LAYERS, directions(HIDDEN, 20, 2), directions(3 * HIDDEN, 9, 3))


def test_a_whole_basis_gives_back_what_it_was_given():
    back = BASIS.read(BASIS.written(STATES, BASIS.widths))
    assert np.allclose(back.taps, STATES.taps, atol=1e-4)
    assert np.allclose(back.final, STATES.final, atol=1e-4)
    assert back.layers == STATES.layers
    assert back.position == STATES.position
    assert back.log_z is STATES.log_z
    assert back.candidates is STATES.candidates


def test_coordinates_are_those_of_the_formula():
    written = NARROW.written(STATES, (20, 9))
    final, taps = NARROW.final, NARROW.taps
    assert np.allclose(written.final, (STATES.final - final.shift) @ final.into, atol=1e-4)
    flat = np.concatenate(list(STATES.taps), axis=1)
    assert np.allclose(written.taps, (flat - taps.shift) @ taps.into, atol=1e-4)


def test_what_is_left_out_counts_as_nothing():
    few = NARROW.read(NARROW.written(STATES, (7, 4)))
    all_of_them = NARROW.written(STATES, (20, 9))
    all_of_them.final[:, 7:] = 0
    all_of_them.taps[:, 4:] = 0
    same = NARROW.read(all_of_them)
    assert np.allclose(few.final, same.final, atol=1e-5)
    assert np.allclose(few.taps, same.taps, atol=1e-5)


def test_each_part_may_be_left_out():
    only = NARROW.written(States(0, (), STATES.taps[:0], STATES.final), (20, 0))
    assert only.taps.shape == (2, 0)
    back = NARROW.read(only)
    assert (back.layers, back.taps.shape) == ((), (0, 2, HIDDEN))
    taps = NARROW.read(NARROW.written(STATES, (0, 9)))
    assert taps.final is None
    assert taps.layers == LAYERS


@pytest.mark.parametrize("basis", [BASIS, NARROW, Basis((), NARROW.final, None)])
def test_a_basis_comes_back_from_its_file(basis):
    data = basis.to_bytes()
    back = Basis.from_bytes(data, basis.layers, HIDDEN, basis.widths)
    assert back.to_bytes() == data
    assert back.widths == basis.widths
    with pytest.raises(TensorMismatch):
        Basis.from_bytes(data[:-4], basis.layers, HIDDEN, basis.widths)


def test_more_coordinates_than_directions_are_refused():
    for shapes in ((21, 9), (20, 10)):
        final, taps = (np.zeros((1, width), np.float32) for width in shapes)
        with pytest.raises(MalformedMessage, match="no more than"):
            NARROW.read(Coordinates(0, final, taps))


def test_coordinates_that_overflow_are_refused():
    huge = np.full((1, 20), 3e38, np.float32)
    with pytest.raises(NotFinite):
        NARROW.read(Coordinates(0, huge, huge[:, :9]))
