import platform
import subprocess
import sys

import pytest

from device_agent.runtime.memory_release import (
    release_memory,
    return_large_blocks,
    share_one_arena,
    unchanged_code,
)

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


CODE = """
import onnxruntime
from device_agent.runtime.memory_release import release_memory
from device_agent.runtime.memory_use import current_memory
import numpy
held = current_memory()
release_memory()
released = held - current_memory()
assert (numpy.eye(3) @ numpy.eye(3) == numpy.eye(3)).all()
options = onnxruntime.SessionOptions()
print(released // 1_000_000)
"""

ARENAS = """
import ctypes
from threading import Barrier, Thread
from device_agent.runtime.memory_release import share_one_arena
if {shared}:
    share_one_arena()
barrier = Barrier(4)
def hold():
    held = [bytes(2000) for _ in range(100)]
    barrier.wait()
threads = [Thread(target=hold) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
libc = ctypes.CDLL(None)
libc.fdopen.restype = ctypes.c_void_p
stdout = ctypes.c_void_p(libc.fdopen(1, b"w"))
libc.malloc_info(0, stdout)
libc.fflush(stdout)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the other allocators return by themselves")
@pytest.mark.parametrize(("program", "returned"), [(SMALL, 40), (LARGE, 14), (CODE, 10)])
def test_what_is_not_needed_goes_back_to_the_system(program, returned):
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) >= returned


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone has arenas")
def test_threads_that_share_an_arena_make_none_of_their_own():
    def arenas(shared):
        program = ARENAS.format(shared=shared)
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
        return done.stdout.count(b"<heap nr=")

    assert arenas(shared=True) == 1 < arenas(shared=False)


SMAPS = """\
1000-2000 r-xp 00000000 fe:00 17    /lib/code.so
Anonymous:             0 kB
Swap:                  0 kB
2000-3000 r-xp 00000000 fe:00 17    /lib/patched.so
Anonymous:             4 kB
Swap:                  0 kB
3000-4000 r-xp 00000000 fe:00 17    /lib/swapped.so
Anonymous:             0 kB
Swap:                  4 kB
4000-5000 r--p 00000000 fe:00 17    /lib/constants.so
Anonymous:             0 kB
Swap:                  0 kB
5000-6000 r-xp 00000000 00:00 0     [vdso]
Anonymous:             0 kB
Swap:                  0 kB
6000-7000 r-xs 00000000 fe:00 17    /lib/shared.so
Anonymous:             0 kB
Swap:                  0 kB
7000-9000 r-xp 00000000 fe:00 18    /lib/more code.so
Anonymous:             0 kB
Swap:                  0 kB
"""


def test_only_code_that_stands_in_a_file_as_it_is_goes_back():
    assert list(unchanged_code(SMAPS.splitlines())) == [(0x1000, 0x2000), (0x7000, 0x9000)]


def test_on_any_platform_it_may_be_called():
    return_large_blocks()
    share_one_arena()
    release_memory()
