"""The asking end of benchmarks.whole: the whole model as a process of its own."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.errors import ProcessFailed
from benchmarks.processes import running


class WholeModel:
    """One request at a time, one answer each."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.facts = self._answer()
        """What it said when it was ready: threads, kind of attention."""

    def ask(self, do: str, **request: Any) -> dict[str, Any]:
        """
        Sends one request of benchmarks.whole.REQUESTS and waits for its answer.

        Raises:
            ProcessFailed: The process has ended.

        """
        try:
            self._process.stdin.write(json.dumps({"do": do, **request}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended; reading says so
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            raise ProcessFailed(f"the whole model's process ended with code {code}; see above why")
        return json.loads(line)


@contextmanager
def whole_model(folder: Path, dtype: str, threads: int) -> Iterator[WholeModel]:
    """The model of a Hugging Face folder, loaded and waiting; gone when the block is left."""
    command = [sys.executable, "-m", "benchmarks.whole", str(folder)]
    command += ["--dtype", dtype, "--threads", str(threads)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with running(command, **pipes) as process:
        yield WholeModel(process)
