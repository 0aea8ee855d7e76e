import subprocess
import sys

import pytest

from device_agent.runtime.memory_release import release_memory, return_large_blocks

SMALL = """
from device_agent.runtime.memory_release import release_memory
from device_agent.runtime.memory_use import current_memory
kept = [bytes(2000) for _ in range(30_000)]
held = current_memory()
del kept[:-1]
release_memory()
print((held - current_memory()) // 1_000_000)
"""

LARGE = """
from device_agent.runtime.memory_release import return_large_blocks
from device_agent.runtime.memory_use import current_memory
return_large_blocks()
before = current_memory()
first = bytearray(20_000_000)
del first
second, wall = bytearray(b"x") * 15_000_000, bytearray(10_000)
held = current_memory()
del second
print((held - current_memory()) // 1_000_000)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the other allocators return by themselves")
@pytest.mark.parametrize(("program", "returned"), [(SMALL, 40), (LARGE, 14)])
def test_what_is_freed_goes_back_to_the_system(program, returned):
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) >= returned


def test_on_any_platform_it_may_be_called():
    return_large_blocks()
    release_memory()
