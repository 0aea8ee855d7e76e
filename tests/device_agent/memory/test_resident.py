"""A large memory stays on disk while it is searched."""

import subprocess
import sys

import pytest

SEARCH = """
import sys, tempfile
from pathlib import Path
import numpy as np
from device_agent.runtime.arithmetic import one_thread
from device_agent.memory.basis import Basis
from device_agent.memory.file import MemoryFile, Part, write_memory
from device_agent.memory.recall import recall
from device_agent.runtime.memory_use import current_memory, peak_memory

ROWS, WIDTH = 300_000, 256
rng = np.random.default_rng(0)
basis = Basis(np.zeros(WIDTH, np.float32), np.eye(WIDTH, dtype=np.float32))
blocks = (rng.integers(-20, 20, (10_000, WIDTH), dtype=np.int8) for _ in range(ROWS // 10_000))
tokens = rng.integers(0, 1000, ROWS).astype(np.uint32)
with tempfile.TemporaryDirectory() as folder, one_thread():
    path = Path(folder, "memory.bin")
    write_memory(path, bytes(32), basis, {"0" * 64: Part(tokens, blocks)})
    del tokens
    before = peak_memory()
    memory = MemoryFile.mapped(path, bytes(32))
    recall(memory, rng.standard_normal((3, WIDTH)).astype(np.float32))
    print(path.stat().st_size, before, peak_memory(), current_memory())
    del memory
"""


@pytest.mark.skipif(
    sys.platform != "linux", reason="elsewhere mapped pages are counted differently"
)
def test_a_memory_of_eighty_megabytes_is_searched_in_little(tmp_path):
    said = subprocess.run(
        [sys.executable, "-c", SEARCH], check=True, capture_output=True, text=True
    )
    size, before, peak, after = map(int, said.stdout.split())
    assert size > 77_000_000
    assert peak - before < 30_000_000
    assert after - before < 5_000_000
