"""The two applications as a person starts them: the cloud on a free port, the device's commands."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from benchmarks import processes
from benchmarks.errors import ProcessFailed
from benchmarks.processes import Measured, measured, running

CLOUD = (sys.executable, "-c", "import sys; from cloud_service.cli import main; sys.exit(main())")
DEVICE = (sys.executable, "-c", "import sys; from device_agent.cli import main; sys.exit(main())")
"""The console scripts, by import: they need not be on the path."""

FEATURES = "features"
"""The device's own name of that folder."""

READY_SECONDS = 600.0
"""How long the cloud may load; a cold disk is slow."""


@dataclass(frozen=True, slots=True)
class Backbone:
    """A backbone in the cloud's cache."""

    name: str
    folder: Path
    """In Hugging Face layout, for whoever loads it without us."""


@dataclass(frozen=True, slots=True)
class Cloud:
    """A cloud that answers."""

    url: str
    process: "subprocess.Popen[bytes]"

    def facts(self) -> dict[str, Any]:
        """What it tells devices of its backbone."""
        facts: dict[str, Any] = httpx.get(f"{self.url}/v1/backbone").raise_for_status().json()
        return facts

    def cpu_seconds(self) -> float:
        """What the process has used since it started."""
        return processes.cpu_seconds(self.process)


@dataclass(frozen=True, slots=True)
class Device:
    """The device's commands, all in one home folder."""

    home: Path
    url: str
    threads: int
    prefix: int | None = None
    """Most tokens of the personal prefix; None for the device's own default."""
    wire_kl: float | None = None
    """Most nats that the encoding of states may cost; None for the device's own default."""
    command: tuple[str, ...] = DEVICE
    """How the device's commands are started; another interpreter has another one."""

    def run(self, *words: str) -> Measured:
        """
        Runs `sideplug WORDS... --json`; its answer is the JSON it printed.

        Raises:
            ProcessFailed: It ended with an error.

        """
        settings = {
            "SIDEPLUG_HOME": str(self.home),
            "SIDEPLUG_CLOUD": self.url,
            "SIDEPLUG_THREADS": str(self.threads),
        }
        if self.prefix is not None:
            settings["SIDEPLUG_PREFIX"] = str(self.prefix)
        if self.wire_kl is not None:
            settings["SIDEPLUG_WIRE_KL"] = str(self.wire_kl)
        return measured([*self.command, *words, "--json"], settings)


def share_features(home: Path, folder: Path) -> None:
    """Lets a home keep its features in a folder that other homes use too: each text is fetched once."""
    home.mkdir(parents=True, exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    link = home / FEATURES
    if not link.is_symlink():
        link.symlink_to(folder.resolve(), target_is_directory=True)


def pull(source: str) -> Backbone:
    """Has the cloud fetch a backbone by name, hub id or folder; at once when it has it."""
    found = measured([*CLOUD, "pull", source, "--json"]).answer
    return Backbone(found["name"], Path(found["folder"]))


@contextmanager
def cloud(
    backbone: Backbone,
    dtype: str,
    threads: int,
    flags: Sequence[str] = ("--port", "0"),
    within: Sequence[str] = (),
) -> Iterator[Cloud]:
    """
    A cloud on a free port of this machine, ready to answer; stopped when the block is left.

    ``flags`` are further ones of `sideplug-cloud serve`, in place of those that take a free port;
    ``within`` are words in front of the command.

    Raises:
        ProcessFailed: It ended or was not ready in time; the message ends with its last words.

    """
    command = [*within, *CLOUD, "serve", "--backbone", backbone.name, "--json", *flags]
    command += ["--weights", dtype, "--threads", str(threads)]
    with (
        tempfile.TemporaryFile() as said,
        running(command, stdout=subprocess.PIPE, stderr=said) as process,
    ):
        try:
            found = Cloud(_address(process), process)
            wait_until_ready(found)
        except ProcessFailed as error:
            said.seek(0)
            words = said.read().decode("utf-8", "replace").strip()
            raise ProcessFailed(f"{error}; it said: {words[-800:]}") from None
        yield found


def wait_until_ready(found: Cloud, seconds: float = READY_SECONDS) -> None:
    """Asks until the cloud is ready, it has ended, or time is up; the latter two raise."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        _require_alive(found.process)
        try:
            if httpx.get(f"{found.url}/ready", timeout=5.0, trust_env=False).is_success:
                return
        except httpx.TransportError:
            pass  # it does not listen yet
        time.sleep(0.2)
    raise ProcessFailed(f"the cloud was not ready after {seconds:.0f} seconds")


def _address(process: "subprocess.Popen[bytes]") -> str:
    """Where the cloud listens: the first thing it says."""
    line = process.stdout.readline()
    if not line:
        process.wait(processes.PATIENCE)
        _require_alive(process)
    return str(json.loads(line)["url"])


def _require_alive(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is not None:
        raise ProcessFailed(f"the cloud ended with code {process.returncode}")
