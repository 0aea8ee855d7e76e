import os
import stat
import struct
import subprocess
import sys

import numpy as np
import pytest

from device_agent import atomic
from device_agent.memory.file import (
    DamagedMemory,
    ForeignMemory,
    MemoryFile,
    forget,
    remember,
    source_of,
)
from tests.device_agent.memory.samples import (
    BASIS,
    FINGERPRINT,
    PREFIX,
    SOURCE,
    name_of,
    opened,
    part,
    parts,
    write,
)


def test_what_was_written_comes_back(tmp_path):
    memory = opened(write(tmp_path / "memory.bin", 2, 1))
    assert memory.examples == {name_of(1): 40, name_of(2): 40}
    np.testing.assert_array_equal(memory.basis.directions, BASIS.directions)
    np.testing.assert_array_equal(memory.basis.shift, BASIS.shift)
    found = memory.parts()[name_of(2)]
    np.testing.assert_array_equal(found.tokens, part(2).tokens)
    np.testing.assert_array_equal(np.concatenate([*found.keys]), np.concatenate([*part(2).keys]))


def test_a_header_is_as_documented(tmp_path):
    data = write(tmp_path / "memory.bin", 7).read_bytes()
    hidden, width = BASIS.directions.shape
    assert data[:4] == b"SPMM"
    assert struct.unpack_from("<IIII", data, 4) == (1, hidden, width, 1)
    assert struct.unpack_from("<Q", data, 24) == (40,)
    assert data[32:64] == SOURCE
    index = 64 + 4 * hidden * (1 + width)
    assert data[index : index + 32].hex() == name_of(7)
    assert len(data) == index + 36 + 40 * (4 + width)


def test_to_forget_is_never_to_have_known(tmp_path):
    never = write(tmp_path / "never.bin", 1, 3).read_bytes()
    path = write(tmp_path / "memory.bin", 1, 2, 3)
    assert path.read_bytes() != never
    assert forget(path, SOURCE, {name_of(2)}) == 40
    assert path.read_bytes() == never
    assert forget(path, SOURCE, {name_of(2)}) == 0
    assert path.read_bytes() == never


def test_the_order_in_which_examples_come_leaves_no_trace(tmp_path):
    at_once = write(tmp_path / "once.bin", 1, 2, 3).read_bytes()
    path = write(tmp_path / "memory.bin", 3)
    remember(path, SOURCE, parts(1))
    remember(path, SOURCE, parts(2))
    assert path.read_bytes() == at_once
    remember(path, SOURCE, parts(2))
    assert path.read_bytes() == at_once, "what is known already is replaced by the same"


def test_everything_can_be_forgotten(tmp_path):
    path = write(tmp_path / "memory.bin", 1)
    assert forget(path, SOURCE, {name_of(1)}) == 40
    assert len(opened(path).tokens) == 0
    remember(path, SOURCE, parts(1))
    assert path.read_bytes() == write(tmp_path / "again.bin", 1).read_bytes()


@pytest.mark.parametrize(
    "source",
    [source_of("d" * 64, PREFIX), source_of(FINGERPRINT, PREFIX[:2])],
    ids=["another backbone", "another prefix"],
)
def test_a_memory_of_other_states_is_refused(tmp_path, source):
    path = write(tmp_path / "memory.bin", 1)
    before = path.read_bytes()
    with pytest.raises(ForeignMemory):
        MemoryFile.mapped(path, source)
    for change in (lambda: remember(path, source, parts(2)), lambda: forget(path, source, {name_of(1)})):  # fmt: skip
        with pytest.raises(ForeignMemory):
            change()
    assert path.read_bytes() == before


def test_damage_of_any_byte_is_seen(tmp_path):
    path = write(tmp_path / "memory.bin", 1, rows=8)
    good = path.read_bytes()
    for place in range(0, len(good), 7):
        path.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        with pytest.raises((DamagedMemory, ForeignMemory)):
            opened(path)
    for cut in (0, 10, 63, 64, 100, len(good) - 1):
        path.write_bytes(good[:cut])
        with pytest.raises(DamagedMemory):
            opened(path)


def test_a_write_that_fails_in_the_middle_leaves_the_old_memory(tmp_path):
    path = write(tmp_path / "memory.bin", 1)
    before = path.read_bytes()

    def broken():
        yield part(2).keys[0]
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        remember(path, SOURCE, {name_of(2): part(2)._replace(keys=broken())})
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["memory.bin"]


CRASH = """
import os, sys
from pathlib import Path
from device_agent import atomic
from tests.device_agent.memory.samples import SOURCE, parts
from device_agent.memory.file import remember
replace = os.replace
os.replace = lambda *names: os._exit(9)  # as if the plug were pulled just before the rename
remember(Path(sys.argv[1]), SOURCE, parts(2))
"""


def test_a_process_that_dies_while_it_writes_leaves_the_old_memory(tmp_path):
    path = write(tmp_path / "memory.bin", 1)
    before = path.read_bytes()
    died = subprocess.run([sys.executable, "-c", CRASH, str(path)], check=False)
    assert died.returncode == 9
    assert path.read_bytes() == before
    assert opened(path).examples == {name_of(1): 40}
    remember(path, SOURCE, parts(2))
    assert opened(path).examples == {name_of(1): 40, name_of(2): 40}


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such modes")
def test_only_the_owner_may_read_it(tmp_path):
    path = write(tmp_path / "memory.bin", 1)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert atomic.make_folder(tmp_path / "made").stat().st_mode & 0o077 == 0
