"""What is done with each person, step by step and each step kept: teach, choose, test."""

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from statistics import fmean

from benchmarks import texts
from benchmarks.cells import Cell, Cells
from benchmarks.people.asking import answers, words_in
from benchmarks.people.examples import Person
from benchmarks.people.scoring import SCORINGS
from benchmarks.people.teaching import write_profile
from benchmarks.report import say
from benchmarks.services import FEATURES, Cloud, Device
from benchmarks.voice import Voice, voice

NOTES = (2, 8)
"""How many notes may go in a prompt."""

ARMS = {"retrieval": NOTES, "plugin": (0,), "all": (0, *NOTES)}
"""Arms that know a profile, and between how many notes each chooses."""

LOOK = 64
"""Tokens read to see how fast this machine is."""

TOKENS_A_WORD = 1.6
"""Of notes and conversations with their template; sizes the estimate, no result hangs on it."""


class Course:
    """What is done with each person, kept step by step."""

    def __init__(
        self, kept: Cells, service: Cloud, threads: int, other: Sequence[texts.Document]
    ) -> None:
        self._kept, self._service, self._threads, self._other = kept, service, threads, other

    def announce(self, people: Sequence[Person], sizes: Sequence[int]) -> None:
        """Says about how long it will take, from a short look at how fast this machine reads."""
        home = self._kept.workspace / "looking"
        with voice(home, self._service.url, self._threads, base=True) as speaker:
            words = " ".join(["word"] * LOOK)
            speaker.log_likelihoods(words, ["yes"])  # graphs are loaded at their first use
            began = time.perf_counter()
            speaker.log_likelihoods(words, ["yes"])
            pace = (time.perf_counter() - began) / LOOK
            began = time.perf_counter()
            speaker.write("Count to ten.", 8)
            step = (time.perf_counter() - began) / 8
        seconds = sum(_seconds(person, sizes, pace, step) for person in people)
        say(f"{len(people)} people, sizes {sizes}: about {max(1, round(seconds / 60))} minutes")

    def teach(self, person: Person, size: int) -> Cell:
        """Learn and train in a home of its own, as two commands; what training said and cost."""
        return self._kept.get(f"{person.name}/{size}/lesson", lambda: self._teach(person, size))

    def choose(self, people: Sequence[Person], size: int, arm: str) -> dict[str, int]:
        """By task, how many notes in the prompt do best on all people's validation questions; fewest of equals."""
        tasks = dict.fromkeys(task for person in people for task in person.tasks)
        allowed = ARMS[arm]
        if len(allowed) == 1:
            return dict.fromkeys(tasks, allowed[0])
        asked = {k: [self._validate(person, size, arm, k) for person in people] for k in allowed}

        def mean(task: str, k: int) -> float:
            return fmean(found[task]["score"] for found in asked[k] if task in found)

        return {
            # Without questions to choose by (LaMP's people have none) the most.
            task: max(allowed, key=lambda k, task=task: (mean(task, k), -k))
            if any(task in found for found in asked[allowed[0]])
            else max(allowed)
            for task in tasks
        }

    def test(
        self, person: Person, size: int, arm: str, notes: Mapping[str, int]
    ) -> dict[str, Cell]:
        """Figures and answers by task, with so many notes in the prompt."""
        return self._ask(person, size, arm, "test", notes)

    def _validate(self, person: Person, size: int, arm: str, k: int) -> dict[str, Cell]:
        judged = {task: k for task, one in person.tasks.items() if one.validation}
        return self._ask(person, size, arm, "validation", judged)

    def _ask(
        self, person: Person, size: int, arm: str, part: str, notes: Mapping[str, int]
    ) -> dict[str, Cell]:
        """A part's questions of those tasks in ``notes`` that the person has."""
        names = {
            task: f"{person.name}/{size}/{part}/{arm}-{task}-{k}"
            for task, k in notes.items()
            if task in person.tasks
        }
        missing = [task for task, name in names.items() if not self._kept.has(name)]
        if missing:
            say(f"{person.name}, size {size}, {part}, {arm}: {', '.join(missing)}")
            with self._voice(person, size, arm) as speaker:
                for task in missing:
                    ask = partial(_answers, speaker, person, task, size, part, notes[task])
                    self._kept.get(names[task], ask)
        return {task: self._kept.get(name, dict) for task, name in names.items()}

    def _voice(self, person: Person, size: int, arm: str) -> AbstractContextManager[Voice]:
        known = arm in ("plugin", "all")
        home = self._home(person, size) if known else self._kept.workspace / "looking"
        return voice(
            home,
            self._service.url,
            self._threads,
            base=not known,
            memory="on" if arm == "all" else "off",
        )

    def _teach(self, person: Person, size: int) -> Cell:
        say(f"{person.name}, size {size}: learn and train")
        home = self._home(person, size)
        shutil.rmtree(home.parent, ignore_errors=True)
        home.parent.mkdir(parents=True)
        files = write_profile(person, size, home.parent)
        if self._other:
            # Before the profile: it is older, and the prefix is made of what is newest.
            files.insert(0, home.parent / "other.jsonl")
            lines = [json.dumps({"text": one.text}) for one in self._other]
            files[0].write_text("\n".join(lines) + "\n", encoding="utf-8")
        device = Device(home, self._service.url, self._threads)
        device.run("learn", *map(str, files))
        before = self._service.cpu_seconds()
        training = device.run("train")
        shutil.rmtree(home / FEATURES, ignore_errors=True)
        said = training.answer
        kept = ("promoted", "reason", "validation", "features", "plugin_bytes", "steps")
        return {
            **{name: said[name] for name in kept if name in said},
            "cpu_seconds": training.cpu_seconds,
            "seconds": training.seconds,
            "peak_memory": training.peak_bytes,
            "cloud_seconds": self._service.cpu_seconds() - before,
        }

    def _home(self, person: Person, size: int) -> Path:
        return self._kept.workspace / person.name / str(size) / "home"


def _answers(speaker: Voice, person: Person, task: str, size: int, part: str, k: int) -> Cell:
    one = person.tasks[task]
    questions = one.test if part == "test" else one.validation
    return answers(speaker, SCORINGS[task], one, questions, size, k)


def _seconds(person: Person, sizes: Sequence[int], pace: float, step: float) -> float:
    """About what one person takes, at ``pace`` seconds a token read and ``step`` a token written."""
    read = sum(words_in(person.profile(size)) for size in sizes) * TOKENS_A_WORD
    asked = written = 0.0
    for name, task in person.tasks.items():
        note = words_in(task.profile(20)) / max(1, len(task.profile(20))) * TOKENS_A_WORD
        choices = [k for ks in ARMS.values() if len(ks) > 1 for k in ks]
        prompts = len(task.validation) * len(choices) + len(task.test) * len(ARMS)
        asked += len(sizes) * prompts * (note + 60 + note * fmean(choices))
        written += len(sizes) * prompts * SCORINGS[name].answer_tokens * 0.6
    # Training costs about as much as reading; starting the commands a few seconds each.
    return 2 * read * pace + asked * pace + written * step + 15 * len(sizes)
