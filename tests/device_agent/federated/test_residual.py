"""What an update leaves out is sent later, and never twice."""

from dataclasses import replace

import numpy as np
import pytest

from device_agent.federated.residual import sparse_update
from device_agent.federated.shared import FOLDER, RESIDUAL, forget, forget_own
from protocol.errors import MalformedMessage
from protocol.federation import Round, whole

SHAPES = {"down": (4, 8), "gate": ()}
ASKED = Round(
    kit="kit", fingerprint="f", number=1, rounds=9, rate=0.1, epochs=1, private=False, last=False,
    kept=0.2,
)  # fmt: skip


def added(seed):
    rng = np.random.default_rng(seed)
    return {name: np.asarray(rng.normal(size=shape), np.float32) for name, shape in SHAPES.items()}


def arrived(home, number, update, **changed):
    asked = replace(ASKED, number=number, **changed)
    return whole(sparse_update(home, asked, update, SHAPES), SHAPES, asked.kept)


def total(updates):
    return {name: sum(update[name] for update in updates) for name in SHAPES}


def zeros():
    return {name: np.zeros(shape, np.float32) for name, shape in SHAPES.items()}


def close(one, other):
    # What 16 bits round off is owed as well, for a while.
    for name in SHAPES:
        np.testing.assert_allclose(one[name], other[name], atol=1e-3)


def test_in_the_end_everything_has_arrived_once(tmp_path):
    updates = [added(1), added(2), *(zeros() for _ in range(7))]
    came = [arrived(tmp_path, number, one) for number, one in enumerate(updates, 1)]
    assert sum(np.count_nonzero(part) for part in came[0].values()) == 7
    close(total(came), total(updates))


def test_without_a_rest_a_share_is_lost(tmp_path):
    came = []
    for number in range(1, 10):
        came.append(arrived(tmp_path, number, added(number)))
        forget_own(tmp_path)
    left = total(came)["down"] - total([added(number) for number in range(1, 10)])["down"]
    assert np.abs(left).max() > 0.5


def test_a_round_that_is_asked_for_again_begins_with_the_same_rest(tmp_path):
    first = arrived(tmp_path, 1, added(1))
    once = arrived(tmp_path, 2, added(2))
    # Killed before it was sent, or lost on the way: trained again, perhaps to another update.
    arrived(tmp_path, 2, added(3))
    again = arrived(tmp_path, 2, added(2))
    close(once, again)
    rest = [arrived(tmp_path, number, zeros()) for number in range(3, 10)]
    close(total([first, again, *rest]), total([added(1), added(2)]))


@pytest.mark.parametrize(
    ("number", "changed"), [(1, {}), (3, {"kit": "other"}), (3, {"rounds": 4})]
)
def test_another_federation_gets_no_rest(tmp_path, number, changed):
    expected = arrived(tmp_path / "new", number, added(5), **changed)
    arrived(tmp_path, 2, added(1))
    close(arrived(tmp_path, number, added(5), **changed), expected)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_a_number_that_is_not_finite_changes_nothing(tmp_path, wrong):
    arrived(tmp_path, 1, added(1))
    kept = (tmp_path / FOLDER / RESIDUAL).read_bytes()
    update = added(2)
    update["down"][0, 0] = wrong
    with pytest.raises(MalformedMessage, match="finite"):
        arrived(tmp_path, 2, update)
    assert (tmp_path / FOLDER / RESIDUAL).read_bytes() == kept


def test_a_rest_that_cannot_be_read_is_none(tmp_path):
    expected = arrived(tmp_path / "new", 2, added(2))
    arrived(tmp_path, 1, added(1))
    path = tmp_path / FOLDER / RESIDUAL
    path.write_bytes(path.read_bytes()[:50])
    close(arrived(tmp_path, 2, added(2)), expected)


def test_a_rest_of_other_shapes_is_none(tmp_path):
    arrived(tmp_path, 1, added(1))
    shapes, update = {"down": (3,)}, {"down": np.array([3, 2, 1], np.float32)}
    asked = replace(ASKED, number=2, kept=1.0)
    np.testing.assert_array_equal(
        whole(sparse_update(tmp_path, asked, update, shapes), shapes, 1.0)["down"], update["down"]
    )


def test_who_leaves_leaves_no_rest(tmp_path):
    arrived(tmp_path, 1, added(1))
    assert not forget(tmp_path)
    assert not (tmp_path / FOLDER / RESIDUAL).exists()
