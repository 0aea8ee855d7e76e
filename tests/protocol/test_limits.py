import pytest

from protocol.errors import MalformedMessage
from protocol.limits import Limits, smaller_of


def test_the_defaults_are_those_of_the_specification():
    assert Limits().to_json() == {
        "frame_bytes": 67108864,
        "tokens": 8192,
        "taps": 256,
        "hidden": 65536,
        "candidates": 1024,
        "drafts": 64,
        "json_bytes": 1048576,
    }


@pytest.mark.parametrize("name", Limits().to_json())
@pytest.mark.parametrize("value", [0, -1, 2**33])
def test_a_limit_that_could_never_be_kept_is_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} must be .* but is {value}"):
        Limits(**{name: value})
    with pytest.raises(MalformedMessage, match=name):
        Limits.from_json(Limits().to_json() | {name: value})


def test_limits_come_back():
    limits = Limits(
        frame_bytes=1000, tokens=7, taps=1, hidden=2, candidates=3, drafts=5, json_bytes=6
    )
    assert Limits.from_json(limits.to_json()) == limits


def test_the_smaller_limit_holds_for_both():
    first, second = Limits(tokens=7, taps=300), Limits(tokens=9, json_bytes=1000)
    smaller = Limits(tokens=7, json_bytes=1000)
    assert smaller_of(first, second) == smaller_of(second, first) == smaller
