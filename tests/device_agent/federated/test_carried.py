"""What a device carries from round to round."""

import numpy as np
import pytest

from device_agent.federated.carried import Carried

SHAPES = {"down": (2, 3), "gate": ()}


def arrays(value):
    return {name: np.full(shape, value, np.float32) for name, shape in SHAPES.items()}


@pytest.fixture
def carried(tmp_path):
    return Carried(tmp_path / "federated" / "own.safetensors", {"kit": "kit"}, SHAPES)


def same(found, value):
    assert found is not None
    for name, one in arrays(value).items():
        np.testing.assert_array_equal(found[name], one)


def test_at_first_there_is_nothing(carried):
    assert carried.before(1) is None
    assert carried.latest() is None


def test_a_round_begins_with_what_the_one_before_left(carried):
    carried.keep(4, arrays(1.0), arrays(2.0))
    same(carried.before(5), 2.0)
    same(carried.before(9), 2.0)  # those between were missed
    same(carried.latest(), 2.0)


def test_a_round_that_is_asked_for_again_begins_where_it_began(carried):
    carried.keep(4, arrays(1.0), arrays(2.0))
    same(carried.before(4), 1.0)


def test_a_federation_that_begins_anew_begins_with_nothing(carried):
    carried.keep(4, arrays(1.0), arrays(2.0))
    assert carried.before(3) is None


@pytest.mark.parametrize("other", [{"kit": "another"}, {"kit": "kit", "rounds": 9}])
def test_what_belongs_to_something_else_is_nothing(carried, other):
    carried.keep(4, arrays(1.0), arrays(2.0))
    assert Carried(carried.path, other, SHAPES).before(5) is None


def test_what_cannot_be_read_or_does_not_fit_is_nothing(carried):
    carried.keep(4, arrays(1.0), arrays(np.nan))
    assert carried.before(5) is None
    same(carried.before(4), 1.0)
    assert Carried(carried.path, {"kit": "kit"}, {"down": (3, 2), "gate": ()}).before(4) is None
    carried.path.write_bytes(carried.path.read_bytes()[:40])
    assert carried.before(4) is None
