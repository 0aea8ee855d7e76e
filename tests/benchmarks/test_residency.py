import subprocess
import sys
import time

import psutil
import pytest

from benchmarks.processes import running
from benchmarks.residency import MB, residency, watched

HOLDING = (
    "import time; held = bytearray(b'x') * 30_000_000; print('held', flush=True); time.sleep(60)"
)
PARENT = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {HOLDING!r}])"


def test_what_a_child_holds_is_added_to_its_parent():
    with running([sys.executable, "-c", PARENT], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        found = residency(process.pid)
        alone = psutil.Process(process.pid).memory_info().rss
    assert abs(found.daemon - alone) < MB
    assert found.children > 30 * MB
    assert found.rss == found.daemon + found.children
    if found.pss is not None:  # pages that both have mapped count once
        assert 30 * MB < found.uss <= found.pss < found.rss


def test_a_process_is_looked_at_until_it_ends():
    with running([sys.executable, "-c", HOLDING], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        with watched(process.pid) as looks:
            while len(looks) < 3:
                time.sleep(0.01)
            process.kill()
            process.wait()
    times = [look.seconds for look in looks]
    assert times == sorted(times)
    assert max(look.rss for look in looks) > 30 * MB
    with pytest.raises(psutil.NoSuchProcess):
        residency(process.pid)
