"""The shared weights on disk."""

import numpy as np
import pytest

from device_agent.federated.shared import FOLDER, WEIGHTS, DamagedShared, Shared, find, forget, keep

SHARED = Shared("kit-1", 2, 5, {"b": np.ones(3, np.float32), "a": np.zeros((), np.float32)})


def test_what_is_kept_is_found(tmp_path):
    assert find(tmp_path) is None
    keep(tmp_path, SHARED)
    found = find(tmp_path)
    assert (found.kit, found.round, found.rounds) == ("kit-1", 2, 5)
    assert found.digest == SHARED.digest
    assert forget(tmp_path)
    assert find(tmp_path) is None
    assert not forget(tmp_path)


def test_the_digest_is_of_names_and_numbers():
    other = Shared("kit-1", 2, 5, SHARED.weights | {"b": np.full(3, 1.5, np.float32)})
    renamed = Shared("kit-1", 2, 5, {"c": SHARED.weights["b"], "a": SHARED.weights["a"]})
    assert len({SHARED.digest, other.digest, renamed.digest}) == 3


@pytest.mark.parametrize("data", [b"", b"{}", b"x" * 64])
def test_a_file_that_is_something_else_is_refused(tmp_path, data):
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / WEIGHTS).write_bytes(data)
    with pytest.raises(DamagedShared):
        find(tmp_path)
