"""
The slim parent of a measured command: `python -m benchmarks.peaks COST_FILE COMMAND...`.

A process starts with the memory peak of the one it was made from, so a large benchmark must not
itself start what it measures. This program imports next to nothing.
"""

import json
import signal
import subprocess
import sys
import time


def main(arguments: list[str]) -> int:
    """Runs the command, writes its cost to the file, and ends with the command's code."""
    try:
        import resource
    except ImportError:
        print("peak memory of a process is measured on Linux and macOS alone", file=sys.stderr)
        return 2
    cost_file, *command = arguments
    began = time.perf_counter()
    process = subprocess.Popen(command)
    # Ctrl-C reaches the command too; its answer is waited for. A request to end is passed on.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    code = process.wait()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    unit = 1 if sys.platform == "darwin" else 1024
    cost = {
        "seconds": time.perf_counter() - began,
        "cpu_seconds": used.ru_utime + used.ru_stime,
        "peak_bytes": used.ru_maxrss * unit,
    }
    with open(cost_file, "w", encoding="utf-8") as file:
        json.dump(cost, file)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
