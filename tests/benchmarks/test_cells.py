import pytest

from benchmarks.cells import Cells, OtherRun, cells


def test_a_result_is_made_once(tmp_path):
    made = []

    def make():
        made.append(1)
        return {"nll": 2.5}

    assert Cells(tmp_path, {"seed": 1}).get("grant/2000/lora", make) == {"nll": 2.5}
    again = Cells(tmp_path, {"seed": 1})
    assert again.has("grant/2000/lora")
    assert not again.has("grant/2000")
    assert again.get("grant/2000/lora", make) == {"nll": 2.5}
    assert len(made) == 1


def test_a_result_that_was_interrupted_is_made_anew(tmp_path):
    def interrupted():
        raise KeyboardInterrupt

    kept = Cells(tmp_path, {})
    with pytest.raises(KeyboardInterrupt):
        kept.get("one", interrupted)
    assert not kept.has("one")
    assert kept.get("one", lambda: {"a": 1}) == {"a": 1}


def test_a_folder_of_other_settings_is_refused(tmp_path):
    Cells(tmp_path, {"seed": 1, "rates": (1e-3,)})
    Cells(tmp_path, {"seed": 1, "rates": (1e-3,)})
    with pytest.raises(OtherRun, match="another rates"):
        Cells(tmp_path, {"seed": 1, "rates": (1e-2,)})


def test_without_a_folder_nothing_is_left(tmp_path):
    with cells(None, {}) as kept:
        kept.get("one", dict)
        folder = kept.workspace
    assert not folder.exists()
