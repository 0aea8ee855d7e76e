import numpy as np
import pytest
from safetensors import safe_open

from device_agent.training.checkpoint import Checkpoint, DamagedCheckpoint, load, run_of, save

ARRAYS = {
    "now.w": np.arange(6, dtype=np.float32).reshape(2, 3),
    "now.gate": np.array(1.5, np.float32),
    "best.w": np.zeros((0, 3), np.float32),
    "shortlist": np.array([3, 2**40], np.int64),
}
POINT = Checkpoint("run-1", {"epoch": 2, "loss": 0.1 + 0.2, "history": [{"a": 1}]}, ARRAYS)


@pytest.fixture
def path(tmp_path):
    save(tmp_path / "runs" / "point.safetensors", POINT)
    return tmp_path / "runs" / "point.safetensors"


def test_a_checkpoint_comes_back_bit_for_bit(path):
    found = load(path)
    assert (found.run, found.progress) == (POINT.run, POINT.progress)
    assert run_of(path) == "run-1"
    assert set(found.arrays) == set(ARRAYS)
    for name, array in ARRAYS.items():
        assert found.arrays[name].dtype == array.dtype
        assert found.arrays[name].shape == array.shape
        assert found.arrays[name].tobytes() == array.tobytes()


def test_it_is_a_safetensors_file_for_others_too(path):
    with safe_open(path, framework="pt") as file:
        assert file.get_tensor("now.w").tolist() == [[0, 1, 2], [3, 4, 5]]


def test_an_array_that_is_not_contiguous_is_written_as_it_reads(tmp_path):
    turned = np.arange(6, dtype=np.float32).reshape(2, 3).T
    save(tmp_path / "c", Checkpoint("r", {}, {"a": turned}))
    assert load(tmp_path / "c").arrays["a"].tolist() == turned.tolist()


def test_none_is_there_yet(tmp_path):
    assert load(tmp_path / "none") is None
    assert run_of(tmp_path / "none") is None


@pytest.mark.parametrize("size", [0, 5, 8, 60, -1])
def test_a_file_that_was_cut_is_damaged(path, size):
    path.write_bytes(path.read_bytes()[:size])
    for read in (load, run_of):
        with pytest.raises(DamagedCheckpoint):
            read(path)


def test_a_safetensors_file_of_another_kind_is_damaged(tmp_path):
    from safetensors.numpy import save_file

    save_file({"a": np.zeros(1, np.float32)}, tmp_path / "c")
    with pytest.raises(DamagedCheckpoint):
        load(tmp_path / "c")


def test_writing_that_fails_leaves_the_one_before(path):
    class Failing(dict):
        def values(self):
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        save(path, Checkpoint("run-2", {}, Failing(a=np.zeros(1, np.float32))))
    assert run_of(path) == "run-1"
    assert [item.name for item in path.parent.iterdir()] == [path.name]
