"""What server and devices of a federation say to each other."""

from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays as arrays_of

from protocol.errors import MalformedMessage
from protocol.federation import Round, packed, sparse, unpacked, whole

ASKED = Round(
    kit="kit-1",
    fingerprint="f" * 64,
    number=3,
    rounds=10,
    rate=1e-3,
    epochs=2,
    private=False,
    last=False,
    seed=7,
    proximal=0.1,
    kept=0.25,
)
SHAPES = {"a": (2, 3), "b": ()}


def weights():
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}


def test_a_round_is_read_as_it_was_written():
    assert Round.from_config(ASKED.to_config()) == ASKED


@pytest.mark.parametrize(
    "changed",
    [
        {"kit": "../kit"},
        {"server-round": 0},
        {"rate": float("nan")},
        {"rate": 0.0},
        {"epochs": 101},
        {"epochs": "1"},
        {"private": 1},
        {"proximal-mu": -1.0},
        {"kept": -0.1},
        {"kept": 1.1},
    ],
)
def test_a_round_that_makes_no_sense_is_refused(changed):
    with pytest.raises(MalformedMessage):
        Round.from_config(ASKED.to_config() | changed)
    with pytest.raises(MalformedMessage):
        Round.from_config({})


def test_arrays_travel_in_sixteen_bits():
    halves = packed(weights())
    assert sum(half.nbytes for half in halves.values()) == 2 * 7
    back = unpacked(halves, SHAPES)
    assert list(back) == list(SHAPES)
    for name, array in weights().items():
        assert back[name].dtype == np.float32
        np.testing.assert_allclose(back[name], array, rtol=2**-11)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, 1e6])
def test_what_is_not_finite_in_sixteen_bits_is_not_packed(wrong):
    with pytest.raises(MalformedMessage, match="finite"):
        packed(weights() | {"b": np.array(wrong, np.float32)})


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("a", np.zeros((3, 2), np.float16)),
        ("a", np.zeros((2, 3), np.float32)),
        ("a", np.full((2, 3), np.nan, np.float16)),
        ("c", np.zeros((2, 3), np.float16)),
    ],
)
def test_arrays_that_are_not_the_kits_are_refused(name, array):
    with pytest.raises(MalformedMessage):
        unpacked(packed(weights()) | {name: array}, SHAPES)
    with pytest.raises(MalformedMessage):
        unpacked({"a": np.zeros((2, 3), np.float16)}, SHAPES)


def sample(total=1000, seed=1):
    numbers = np.random.default_rng(seed).normal(size=total).astype(np.float32)
    return {"b": numbers[: total // 2].reshape(2, -1), "a": numbers[total // 2 :]}


def shapes_of(arrays):
    return {name: array.shape for name, array in arrays.items()}


@pytest.mark.parametrize("kept", [1e-9, 0.01, 0.1, 1.0])
def test_a_sparse_update_is_its_largest_numbers(kept):
    arrays = sample()
    sent = sparse(arrays, kept)
    back = whole(sent, shapes_of(arrays), kept)
    count = max(1, round(1000 * kept))
    assert sum(one.nbytes for one in sent.values()) == 4 * count
    assert list(back) == list(arrays)
    flat = np.concatenate([array.ravel() for array in arrays.values()])
    least = np.sort(np.abs(flat.astype(np.float16)))[-count]
    for name, array in arrays.items():
        expected = array.astype(np.float16).astype(np.float32)
        np.testing.assert_array_equal(back[name], np.where(np.abs(expected) >= least, expected, 0))


def test_the_bytes_of_a_sparse_update():
    arrays = {"b": np.array([0, 0, -4], np.float32), "a": np.array([[1, 2]], np.float32)}
    sent = sparse(arrays, 0.4)
    # By name: 1, 2, 0, 0, -4.
    assert sent["gaps"].tobytes() == b"\x01\x00\x02\x00"
    assert sent["values"].tobytes() == b"\x00\x40\x00\xc4"


def test_numbers_far_apart_are_bridged():
    arrays = {"a": np.zeros(400_000, np.float32)}
    arrays["a"][[65_536, 131_072, 399_999]] = 1
    sent = sparse(arrays, 3 / 400_000)
    back = whole(sent, shapes_of(arrays), 3 / 400_000)["a"]
    np.testing.assert_array_equal(back, arrays["a"])
    assert len(sent["gaps"]) == 3 + 1 + 4


@pytest.mark.parametrize("wrong", [np.nan, np.inf, 1e6])
def test_what_is_not_finite_is_not_made_sparse(wrong):
    arrays = sample()
    arrays["a"][3] = wrong
    with pytest.raises(MalformedMessage, match="finite"):
        sparse(arrays, 0.1)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda sent: {"gaps": sent["gaps"]}, "sparse"),
        (lambda sent: packed(sample()), "sparse"),
        (lambda sent: sent | {"gaps": sent["gaps"].astype(np.int16)}, "type"),
        (lambda sent: sent | {"values": sent["values"].astype(np.float32)}, "type"),
        (lambda sent: {name: one[None] for name, one in sent.items()}, "type"),
        (lambda sent: sent | {"gaps": sent["gaps"][1:]}, "99 gaps, 100 values"),
        (lambda sent: {name: one[:0] for name, one in sent.items()}, "0 gaps"),
        (lambda sent: sparse(sample(), 0.2), "200 gaps"),
        (lambda sent: sent | {"values": np.full(100, np.nan, np.float16)}, "finite"),
        (lambda sent: sent | {"gaps": np.full(100, 10, np.uint16)}, "beyond"),
    ],
)
def test_what_is_no_sparse_update_is_refused(change, reason):
    sent = dict(sparse(sample(), 0.1))
    with pytest.raises(MalformedMessage, match=reason):
        whole(change(sent), shapes_of(sample()), 0.1)


@given(
    numbers=arrays_of(np.float16, st.integers(1, 60), elements=st.floats(-1e4, 1e4, width=16)),
    kept=st.floats(0, 1, exclude_min=True),
)
def test_any_sparse_update_comes_back(numbers, kept):
    found = {"a": numbers.astype(np.float32)}
    back = whole(sparse(found, kept), shapes_of(found), kept)["a"]
    left = np.abs(found["a"] - back)
    assert np.all((back == found["a"]) | (back == 0))
    assert left.max() <= np.abs(back[back != 0]).min(initial=np.inf)


@given(
    gaps=arrays_of(np.uint16, st.integers(0, 12)),
    values=arrays_of(np.float16, st.integers(0, 12)),
    kept=st.floats(0, 1, exclude_min=True),
)
def test_any_gaps_and_values(gaps, values, kept):
    with suppress(MalformedMessage):
        back = whole({"gaps": gaps, "values": values}, {"a": (5,), "b": ()}, kept)
        assert np.isfinite(back["a"]).all()
