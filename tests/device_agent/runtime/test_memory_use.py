import shutil
import subprocess
import sys

import pytest

from device_agent.runtime.memory_use import current_memory, peak_memory

MB = 2**20


def test_memory_is_seen_to_grow_and_the_peak_to_stay():
    before = current_memory()
    block = b"x" * (64 * MB)
    assert current_memory() - before > 48 * MB
    peak = peak_memory()
    assert peak >= current_memory() - MB
    del block
    assert peak_memory() >= peak - MB


def test_a_child_does_not_inherit_the_peak_of_a_large_parent():
    block = b"x" * (200 * MB)
    script = "from device_agent.runtime.memory_use import peak_memory; print(peak_memory())"
    shown = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert int(shown.stdout) < len(block) // 2


@pytest.mark.skipif(shutil.which("ps") is None, reason="there is no ps here")
def test_systems_without_proc_give_the_same_numbers(monkeypatch):
    now, peak = current_memory(), peak_memory()
    monkeypatch.setattr(sys, "platform", "freebsd")
    assert abs(current_memory() - now) < 0.1 * now
    # Where the maximum outlives exec, it may be that of the process which began this one.
    assert peak_memory() > 0.9 * peak


def test_windows_is_asked_through_psutil(monkeypatch):
    pytest.importorskip("psutil")
    now = current_memory()
    monkeypatch.setattr(sys, "platform", "win32")
    assert abs(current_memory() - now) < 0.1 * now
