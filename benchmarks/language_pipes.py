"""
Another peer of many devices: Language Pipes, whose nodes share a model's layers.

Here one node has all of them, which spares it the network between nodes. It needs its program
`language-pipes`, best in an environment of its own, for it insists on certain versions.
"""

import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from benchmarks.errors import ProcessFailed
from benchmarks.processes import running

PROGRAM = "language-pipes"
MODEL = "local/backbone"
START_SECONDS = 120.0
ANSWER_SECONDS = 900.0
_SETTINGS = """\
job_port = {job_port}
peer_port = {peer_port}
node_id = "node"
network_ip = "127.0.0.1"
max_node_jobs = {jobs}
max_api_jobs = {jobs}

[[layer_models]]
model_id = "{model}"
device = "cpu"
memory = 64.0

[[end_models]]
model_id = "{model}"
num_local_layers = 0
"""


def installed(program: str) -> bool:
    """Whether there is such a program."""
    return shutil.which(program) is not None


@dataclass(frozen=True, slots=True)
class Node:
    """One that answers chats at ``url``."""

    url: str

    def tokens_per_second(self, prompts: Sequence[str], new: int) -> float:
        """Of greedy answers of ``new`` tokens at most, all prompts at once, prefill included."""
        with (
            httpx.Client(base_url=self.url, timeout=ANSWER_SECONDS) as client,
            ThreadPoolExecutor(len(prompts)) as clients,
        ):
            began = time.perf_counter()
            counts = list(clients.map(lambda prompt: _chat(client, prompt, new), prompts))
            return sum(counts) / (time.perf_counter() - began)


@contextmanager
def node(program: str, folder: Path, threads: int, jobs: int) -> Iterator[Node]:
    """
    A node that serves the model of a folder; gone when the block is left.

    Raises:
        ProcessFailed: It does not come up.

    """
    with tempfile.TemporaryDirectory() as place:
        home = Path(place)
        (home / "models" / MODEL).parent.mkdir(parents=True)
        shutil.copytree(folder, home / "models" / MODEL / "data")
        job_port, peer_port = _free_port(), _free_port()
        settings = home / "node.toml"
        settings.write_text(
            _SETTINGS.format(job_port=job_port, peer_port=peer_port, jobs=jobs, model=MODEL)
        )
        places = {"LP_APP_DIR": str(home / "app"), "LP_MODEL_DIR": str(home / "models")}
        limits = {"OMP_NUM_THREADS": str(threads)}
        with (home / "log").open("w") as log:
            command = [program, "--config", str(settings), "run"]
            # Its own environment's packages, not this tree's.
            extra = {**places, **limits, "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
            with running(command, extra, stdout=log, stderr=log):
                started = Node(f"http://127.0.0.1:{job_port}")
                _wait_for(started, home / "log")
                yield started


def _wait_for(started: Node, log: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        # The model is listed before its layers are there.
        if "successfully loaded on" in log.read_text() and "End Model" in log.read_text():
            started.tokens_per_second(["Hello."], 2)
            return
        time.sleep(0.5)
    raise ProcessFailed(f"{PROGRAM} did not come up: {log.read_text()[-300:]!r}")


def _chat(client: httpx.Client, prompt: str, new: int) -> int:
    asked = {
        "model": MODEL,
        "messages": [{"role": "user", "content": prompt}],
        "max_completion_tokens": new,
        "temperature": 0,
    }
    answer = client.post("/v1/chat/completions", json=asked).raise_for_status().json()
    return int(answer["usage"]["completion_tokens"])


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
