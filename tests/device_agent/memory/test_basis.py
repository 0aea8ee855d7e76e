import numpy as np
import pytest

from device_agent.memory.basis import SCALE, WHITENING, WIDTH, Basis
from tests.device_agent.memory.samples import BASIS, HIDDEN, states_of


def test_keys_are_unit_vectors_and_codes_their_rounding():
    states = states_of(50, 1)
    keys = BASIS.keys(states)
    np.testing.assert_allclose(np.linalg.norm(keys, axis=1), 1, atol=1e-5)
    codes = BASIS.codes(states)
    assert codes.dtype == np.int8
    np.testing.assert_allclose(codes / SCALE, keys, atol=0.5 / SCALE + 1e-6)


def test_products_of_codes_are_cosines_to_some_thousandths():
    rng = np.random.default_rng(2)
    wide = Basis.of([rng.standard_normal((400, 300)).astype(np.float32)])
    states = rng.standard_normal((60, 300)).astype(np.float32)
    keys, codes = wide.keys(states), wide.codes(states).astype(np.float64) / SCALE
    assert np.abs(keys @ codes.T - keys @ keys.T).max() < 0.015


def test_a_channel_counts_by_what_it_varies_and_not_by_its_size():
    larger = states_of(200, 99) * np.where(np.arange(HIDDEN) == 3, 1000, 1).astype(np.float32)
    other = Basis.of([larger])
    state = states_of(20, 3)
    moved = state * np.where(np.arange(HIDDEN) == 3, 1000, 1).astype(np.float32)
    np.testing.assert_allclose(
        other.keys(moved) @ other.keys(moved).T,
        BASIS.keys(state) @ BASIS.keys(state).T,
        atol=1e-3,
    )


def test_the_directions_are_those_of_the_singular_values_of_all_states_at_once():
    states = states_of(200, 8).astype(np.float64)
    apart = states - states.mean(axis=0)
    spread = apart.std(axis=0)
    inverse = np.where(spread > 0, 1 / np.where(spread > 0, spread, 1), 0)
    _, sizes, axes = np.linalg.svd(apart * inverse, full_matrices=False)
    weights = (sizes[: HIDDEN - 1] / sizes[0]) ** -WHITENING
    expected = inverse[:, None] * axes[: HIDDEN - 1].T * weights
    basis = Basis.of(np.array_split(states.astype(np.float32), 7))
    np.testing.assert_allclose(basis.shift, states.mean(axis=0), atol=1e-5)
    # A direction is the same one when it points the other way.
    signs = np.sign((basis.directions * expected).sum(axis=0))
    np.testing.assert_allclose(basis.directions * signs, expected, atol=1e-5)


def test_no_states_make_no_basis():
    with pytest.raises(ValueError, match="needs states"):
        Basis.of([])


def test_a_constant_channel_and_few_states_leave_finite_keys():
    assert BASIS.width == HIDDEN - 1, "the constant channel says nothing"
    few = Basis.of([states_of(3, 4)])
    assert few.width == 2
    same = Basis.of([np.ones((5, HIDDEN), np.float32)])
    for basis in (few, same):
        assert np.isfinite(basis.keys(states_of(10, 5))).all()


def test_a_key_is_never_wider_than_it_has_to_be():
    rng = np.random.default_rng(6)
    assert Basis.of([rng.standard_normal((900, 576)).astype(np.float32)]).width == WIDTH
