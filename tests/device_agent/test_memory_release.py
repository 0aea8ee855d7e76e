import subprocess
import sys

import pytest

MB = 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the C library gives back by itself")
def test_what_has_become_free_between_other_things_goes_back_to_the_system():
    script = """
from device_agent.memory_release import release_memory
from device_agent.memory_use import current_memory
kept = [bytearray(1000) for _ in range(40_000)]
last = bytearray(1000)
held = current_memory()
del kept
release_memory()
print(held - current_memory())
"""
    shown = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert int(shown.stdout) > 20 * MB
