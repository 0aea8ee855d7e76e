"""How much memory this process holds, and has held at most, in bytes."""

import os
import subprocess
import sys


def current_memory() -> int:
    """Resident memory now, in bytes."""
    if sys.platform == "win32":
        return _windows("rss")
    if sys.platform == "linux":
        return _linux("VmRSS:")
    shown = subprocess.run(
        ["ps", "-o", "rss=", "-p", str(os.getpid())], capture_output=True, check=True, text=True
    )
    return int(shown.stdout) * 1024


def peak_memory() -> int:
    """The most resident memory this process has had, in bytes."""
    if sys.platform == "win32":
        return _windows("peak_wset")
    if sys.platform == "linux":
        # Not getrusage: its maximum outlives exec, so a child of a large process starts at that size.
        return _linux("VmHWM:")
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _linux(field: str) -> int:
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        for line in file:
            if line.startswith(field):
                return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {field}")


def _windows(field: str) -> int:
    import psutil

    return int(getattr(psutil.Process().memory_info(), field))
