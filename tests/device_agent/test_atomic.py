import os
import stat
import sys

import pytest

from device_agent.atomic import replace_folder, temporary_folder, write_whole


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_has_the_bytes_and_nothing_lies_beside_it(tmp_path):
    write_whole(tmp_path / "deep" / "file", b"one")
    write_whole(tmp_path / "deep" / "file", lambda out: out.write(b"two"))
    assert (tmp_path / "deep" / "file").read_bytes() == b"two"
    assert names(tmp_path / "deep") == ["file"]


def test_a_writer_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    write_whole(path, b"old")

    def fail(out):
        out.write(b"half of the new")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_whole(path, fail)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such bits")
def test_files_and_folders_are_their_owners_alone(tmp_path):
    write_whole(tmp_path / "made" / "file", b"")
    assert stat.S_IMODE((tmp_path / "made" / "file").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "made").stat().st_mode) == 0o700


@pytest.mark.parametrize("older", [False, True])
def test_a_folder_takes_its_place_whole(tmp_path, older):
    final = tmp_path / "final"
    if older:
        final.mkdir()
        (final / "old").write_bytes(b"")
    temporary = temporary_folder(final)
    (temporary / "new").write_bytes(b"")
    replace_folder(temporary, final)
    assert names(final) == ["new"]
    assert names(tmp_path) == ["final"]


def test_the_old_folder_is_still_whole_when_the_new_one_cannot_come(tmp_path, monkeypatch):
    final = tmp_path / "final"
    final.mkdir()
    (final / "old").write_bytes(b"kept")
    rename = os.replace

    def fail_into_final(source, target):
        if str(target) == str(final) and "part" in str(source):
            raise OSError("power cut")
        rename(source, target)

    monkeypatch.setattr(os, "replace", fail_into_final)
    with pytest.raises(OSError, match="power cut"):
        replace_folder(temporary_folder(final), final)
    assert (final / "old").read_bytes() == b"kept"
    assert not list(tmp_path.glob("*.old"))
