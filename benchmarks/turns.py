"""Steps of several arms, one of each in turn: what slows the machine down for a while slows all of them."""

import json
import statistics
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.errors import ProcessFailed
from benchmarks.processes import running
from benchmarks.rival import CALM


def in_turns(
    arms: Mapping[str, Mapping[str, Any]], folder: Path, rounds: int
) -> dict[str, dict[str, Any]]:
    """
    Starts a process for each arm, then has one after the other take a step, round after round.

    Args:
        arms: By name, what benchmarks.paced_step reads.
        folder: For files.
        rounds: Timed steps of each arm, behind the one that loads.

    Returns:
        Of each arm the ``steps`` with their seconds and CPU seconds, the medians of both, and
        ``peak_memory`` in bytes.

    Raises:
        ProcessFailed: An arm's process ended early.

    """
    with ExitStack() as stack:
        processes = {}
        for place, (name, asked) in enumerate(arms.items()):
            file = folder / f"paced-{place}.json"
            file.write_text(json.dumps(asked), encoding="utf-8")
            command = [sys.executable, "-m", "benchmarks.paced_step", str(file)]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
            processes[name] = stack.enter_context(running(command, CALM, **pipes))
            _said(processes[name])
        taken: dict[str, list[dict[str, float]]] = {name: [] for name in processes}
        for _ in range(rounds):
            for name, process in processes.items():
                taken[name].append(_asked(process))
        peaks = {name: _ended(process)["peak_memory"] for name, process in processes.items()}
    return {
        name: {
            "steps": steps,
            "median": statistics.median(step["seconds"] for step in steps),
            "median_cpu": statistics.median(step["cpu_seconds"] for step in steps),
            "peak_memory": peaks[name],
        }
        for name, steps in taken.items()
    }


def _asked(process: "subprocess.Popen[str]") -> dict[str, float]:
    """Has an arm take a step."""
    process.stdin.write("\n")
    process.stdin.flush()
    return _said(process)


def _ended(process: "subprocess.Popen[str]") -> dict[str, float]:
    process.stdin.close()
    return _said(process)


def _said(process: "subprocess.Popen[str]") -> dict[str, float]:
    """What a process says next."""
    line = process.stdout.readline()
    if not line:
        raise ProcessFailed("an arm of timed steps ended early; it said above why")
    found: dict[str, float] = json.loads(line)
    return found
