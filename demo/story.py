"""The demo's course: pull, compile, serve; ask; learn and train; ask again. Cloud and device are processes of their own."""

import json
import os
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.errors import ProcessFailed
from benchmarks.processes import last_object, measured, running
from demo.material import Lesson
from demo.person import share_right

READY_SECONDS = 240.0
CLOUD = (sys.executable, "-m", "cloud_service")


@dataclass(frozen=True, slots=True)
class Answers:
    """What the device said at one point of the story."""

    free: tuple[str, ...]
    right: float | None
    """Share of the questions answered with the right value; None without questions."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Everything the demo measured."""

    before: Answers
    after: Answers
    evaluation: dict[str, Any]
    """`sideplug evaluate` on the held-out documents: base and plugin."""
    training: dict[str, Any]
    """`sideplug train`."""
    seconds: float
    peak_bytes: int
    """Largest resident set of any device process."""


class Device:
    """The device's command line in an interpreter and a home of its own."""

    def __init__(self, python: str, home: Path, cloud: str) -> None:
        self._command = (python, "-m", "device_agent")
        self._extra = {"SIDEPLUG_HOME": str(home), "SIDEPLUG_CLOUD": cloud}
        self.peak_bytes = 0

    def call(self, *words: str) -> str:
        """Runs one command with ``--json`` and returns its output."""
        done = measured([*self._command, *words, "--json"], self._extra)
        self.peak_bytes = max(self.peak_bytes, done.peak_bytes)
        return done.output


def tell(lesson: Lesson, backbone: str, python: str, folder: Path) -> Outcome:
    """
    Runs the whole demo in ``folder``; leaves no process behind, however it ends.

    Raises:
        ProcessFailed: A step ended with an error, which it printed.

    """
    _say(f"pull {backbone}")
    measured([*CLOUD, "pull", backbone])
    _say("compile the kit (once for each backbone and recipe)")
    measured([*CLOUD, "compile", "ladder", "--backbone", backbone])
    start = time.perf_counter()
    with _serving(backbone) as url:
        device = Device(python, folder / "home", url)
        learn, held_out = lesson.write(folder)
        _say(f"before: {lesson.about}")
        before = _ask(device, lesson, folder)
        _say("learn and train on the device")
        device.call("learn", *map(str, learn))
        training = last_object(device.call("train"))
        _say("after")
        after = _ask(device, lesson, folder)
        evaluation = last_object(device.call("evaluate", *map(str, held_out)))
    seconds = time.perf_counter() - start
    return Outcome(before, after, evaluation, training, seconds, device.peak_bytes)


def _ask(device: Device, lesson: Lesson, folder: Path) -> Answers:
    free = _run(device, lesson.prompts, folder, tokens=60)
    if not lesson.questions:
        return Answers(free, None)
    answers = _run(device, [question.text for question in lesson.questions], folder, tokens=16)
    return Answers(free, share_right(answers, lesson.questions))


def _run(device: Device, prompts: Sequence[str], folder: Path, tokens: int) -> tuple[str, ...]:
    file = folder / "prompts.jsonl"
    file.write_text("".join(json.dumps({"prompt": p}) + "\n" for p in prompts), encoding="utf-8")
    output = device.call("run", "--prompts", str(file), "--max-tokens", str(tokens))
    return tuple(json.loads(line)["text"] for line in output.splitlines() if line.startswith("{"))


@contextmanager
def _serving(backbone: str) -> Iterator[str]:
    """The cloud on a free port of the loopback address, ready to answer."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [*CLOUD, "serve", "--backbone", backbone, "--port", str(port)]
    with open(os.devnull, "wb") as silence, running(command, stdout=silence) as process:
        deadline = time.monotonic() + READY_SECONDS
        while not _ready(url):
            if process.poll() is not None or time.monotonic() > deadline:
                raise ProcessFailed("the cloud did not become ready; it said above why")
            time.sleep(0.25)
        yield url


def _ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/ready", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _say(what: str) -> None:
    print(f"\n── {what}", file=sys.stderr, flush=True)
