"""The demo's course: pull, compile, serve; ask; learn and train; ask again. Cloud and device are processes of their own."""

import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.processes import last_object, measured
from benchmarks.services import CLOUD, Device, cloud, pull
from demo.material import Lesson
from demo.person import share_right


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


class Machine:
    """The device, and the most memory that any of its processes took."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self.peak_bytes = 0

    def call(self, *words: str) -> str:
        """Runs one command and returns what it printed."""
        done = self._device.run(*words)
        self.peak_bytes = max(self.peak_bytes, done.peak_bytes)
        return done.output

    def answer(self, *words: str) -> dict[str, Any]:
        """Runs one command and returns the JSON it printed."""
        return last_object(self.call(*words))


def tell(lesson: Lesson, backbone: str, python: str, folder: Path) -> Outcome:
    """
    Runs the whole demo in ``folder``; leaves no process behind, however it ends.

    Raises:
        ProcessFailed: A step ended with an error, which it printed.
    """
    threads = os.cpu_count() or 1
    _say(f"pull {backbone}")
    pulled = pull(backbone)
    _say("compile the kit (once for each backbone and recipe)")
    measured([*CLOUD, "compile", "ladder", "--backbone", pulled.name])
    start = time.perf_counter()
    with cloud(pulled, "auto", threads) as served:
        command = (python, "-m", "device_agent")
        machine = Machine(Device(folder / "home", served.url, threads, command=command))
        learn, held_out = lesson.write(folder)
        _say(f"before: {lesson.about}")
        before = _ask(machine, lesson, folder)
        _say("learn and train on the device")
        machine.call("learn", *map(str, learn))
        training = machine.answer("train")
        _say("after")
        after = _ask(machine, lesson, folder)
        evaluation = machine.answer("evaluate", *map(str, held_out))
    seconds = time.perf_counter() - start
    return Outcome(before, after, evaluation, training, seconds, machine.peak_bytes)


def _ask(machine: Machine, lesson: Lesson, folder: Path) -> Answers:
    free = _run(machine, lesson.prompts, folder, tokens=60)
    if not lesson.questions:
        return Answers(free, None)
    answers = _run(machine, [question.text for question in lesson.questions], folder, tokens=16)
    return Answers(free, share_right(answers, lesson.questions))


def _run(machine: Machine, prompts: Sequence[str], folder: Path, tokens: int) -> tuple[str, ...]:
    file = folder / "prompts.jsonl"
    file.write_text("".join(json.dumps({"prompt": p}) + "\n" for p in prompts), encoding="utf-8")
    output = machine.call("run", "--prompts", str(file), "--max-tokens", str(tokens))
    return tuple(json.loads(line)["text"] for line in output.splitlines() if line.startswith("{"))


def _say(what: str) -> None:
    print(f"\n── {what}", file=sys.stderr, flush=True)
