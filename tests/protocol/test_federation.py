"""What server and devices of a federation say to each other."""

import numpy as np
import pytest

from protocol.errors import MalformedMessage
from protocol.federation import Round, packed, unpacked

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
