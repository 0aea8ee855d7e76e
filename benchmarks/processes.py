"""Programs that a benchmark runs beside itself: started, listened to, and never left behind."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.errors import ProcessFailed
from benchmarks.machine import ROOT

PATIENCE = 15.0
"""Seconds a process has to end by itself before it is killed."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What a finished command said and what it cost."""

    output: str
    seconds: float
    cpu_seconds: float
    """User and system time of the command and its children."""

    peak_bytes: int
    """Largest resident set the system saw."""

    @property
    def answer(self) -> dict[str, Any]:
        """The JSON object on the last line of the output."""
        return last_object(self.output)


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """
    The environment of every process started here: ours, this source tree, and ``extra``.

    Settings of the two applications are left out, all but the place of the cache: a benchmark
    measures their defaults, not what somebody has set.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("SIDEPLUG_") or name == "SIDEPLUG_CACHE"
    }
    paths = [str(ROOT), *filter(None, [kept.get("PYTHONPATH")])]
    return {**kept, "PYTHONPATH": os.pathsep.join(paths), **(extra or {})}


@contextmanager
def running(
    command: Sequence[str], extra: Mapping[str, str] | None = None, **options: Any
) -> Iterator[subprocess.Popen[Any]]:
    """The started command; when the block is left in any way, it and its children have ended."""
    process = subprocess.Popen(list(command), env=environment(extra), **options)
    try:
        yield process
    finally:
        stop(process)


def stop(process: subprocess.Popen[Any]) -> None:
    """Ends a process and its children: asks first, kills after PATIENCE seconds."""
    if process.poll() is None:
        try:
            root = psutil.Process(process.pid)
            family = [*root.children(recursive=True), root]
        except psutil.NoSuchProcess:
            family = []
        for member in family:
            _quietly(member.terminate)
        _, stubborn = psutil.wait_procs(family, timeout=PATIENCE)
        for member in stubborn:
            _quietly(member.kill)
    process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            stream.close()


def measured(command: Sequence[str], extra: Mapping[str, str] | None = None) -> Measured:
    """
    Runs a command to its end and counts its cost; its standard error stays on the screen.

    Raises:
        ProcessFailed: The command ended with another code than 0.

    """
    with tempfile.TemporaryDirectory() as folder:
        cost_file = Path(folder, "cost.json")
        launcher = [sys.executable, "-m", "benchmarks.peaks", str(cost_file), *command]
        with running(launcher, extra, stdout=subprocess.PIPE, text=True) as process:
            output, _ = process.communicate()
        if process.returncode != 0:
            raise ProcessFailed(
                f"`{_readable(command)}` ended with code {process.returncode}; it said above why"
            )
        cost = json.loads(cost_file.read_text(encoding="utf-8"))
    return Measured(output, cost["seconds"], cost["cpu_seconds"], cost["peak_bytes"])


def last_object(output: str) -> dict[str, Any]:
    """
    The JSON object an output ends with, alone on one line or spread over several.

    Raises:
        ProcessFailed: There is none.

    """
    lines = output.strip().splitlines()
    for start in range(len(lines) - 1, -1, -1):
        if not lines[start].startswith("{"):
            continue
        try:
            found = json.loads("\n".join(lines[start:]))
        except json.JSONDecodeError:
            continue
        if isinstance(found, dict):
            return found
    raise ProcessFailed(f"expected a JSON object at the end of: {output.strip()[-200:]!r}")


def cpu_seconds(process: subprocess.Popen[Any]) -> float:
    """User and system time a living process and its children have used so far."""
    root = psutil.Process(process.pid)
    times = [member.cpu_times() for member in (root, *root.children(recursive=True))]
    return sum(one.user + one.system for one in times)


def _readable(command: Sequence[str]) -> str:
    shown = [word if len(word) < 60 else word[:57] + "..." for word in command]
    return " ".join(["python", *shown[1:]] if shown[0] == sys.executable else shown)


def _quietly(act: Any) -> None:
    try:
        act()
    except psutil.NoSuchProcess:
        pass  # it ended by itself, which is what was wanted
