"""Train your plugin on everything that was learned, and let it speak if it is better.

  sideplug train
  sideplug train --epochs 3 --max-seconds 120
  sideplug train --memory 128MB --time 10min     # by the recipe that suits this device best

A part of the examples is held out and never trained on; the new version speaks only when it foresees
that part better than the frozen backbone, and better than the version before. Ctrl-C ends the
training and keeps the best so far. A run that was interrupted, in whatever way, goes on where it was.

With --memory SIZE or --time, each recipe that the cloud offers is first measured on this device, once,
for some seconds on one thread, two, and so on up to --threads; the one that is then trained by, and why,
is said in a sentence. --recipe names it instead.
"""

import argparse
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, replace
from types import FrameType
from typing import Any

from device_agent.cli import INTERRUPTED, OK, print_json
from device_agent.cli.card import parts_in_words
from device_agent.cloud.link import Link
from device_agent.hardware.cost_file import CostFile
from device_agent.settings import CHOICES, Settings
from device_agent.training.bounds import Bounds, seconds_of, size_of
from device_agent.training.choosing import Choice
from device_agent.training.course import Progress
from device_agent.training.learning import Lesson, NothingToLearn, learn
from device_agent.training.offers import choose_here
from device_agent.training.options import TrainingOptions
from device_agent.training.watcher import Watcher

NAME = "train"
HELP = "train your plugin"

OPTIONS_HELP = {
    "rate": "peak learning rate",
    "warmup": "share of the steps that warm up",
    "epochs": "times the texts are read at most",
    "batch_tokens": "most tokens a step; fewer take less memory",
    "segment": "tokens in a row that stay together",
    "patience": "epochs without progress after which training ends; 0: never",
    "answers": "times an epoch reads what was said in conversations",
    "seed": "of order and dropout",
    "validation_tokens": "held-out tokens that are scored after an epoch",
    "checkpoint_seconds": "how much work a sudden end may cost",
    "max_seconds": "end after so long and keep the best",
}


OWN_SETTINGS = ("memory",)
"""Settings whose flag this command declares itself."""

FLAGS = {"patience": "patience_epochs"}
"""Flags with another name than their option's: a setting of every command has that one."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's own arguments."""
    parser.add_argument("--fresh", action="store_true", help="forget an interrupted run")
    parser.add_argument(
        "--memory",
        action=_Memory,
        metavar="SIZE",
        help="the most that training may take, such as 128MB; or whether the memory of your texts"
        " takes part: on, off [SIDEPLUG_MEMORY]",
    )
    parser.add_argument("--time", help="that training may take, such as 90s, 10min or 1h")
    parser.set_defaults(most_memory=None)
    group = parser.add_argument_group("training", "What is left out is as the kit has it.")
    kinds = {field.name: int if field.type is int else float for field in fields(TrainingOptions)}
    for name, text in OPTIONS_HELP.items():
        flag = f"--{FLAGS.get(name, name).replace('_', '-')}"
        group.add_argument(flag, dest=_place(name), type=kinds[name], metavar="N", help=text)


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Train, and say what came of it."""
    chosen: dict[str, object] = {name: getattr(args, _place(name)) for name in OPTIONS_HELP}
    bounds = Bounds(
        None if args.most_memory is None else size_of(args.most_memory),
        None if args.time is None else seconds_of(args.time),
    )
    choice = None
    if bounds != Bounds():
        choice = _choose(settings, chosen, bounds, args.recipe)
        settings = replace(settings, recipe=choice.recipe, threads=choice.threads)
        chosen |= {"batch_tokens": choice.tokens, "epochs": choice.epochs}
        chosen["max_seconds"] = chosen["max_seconds"] or bounds.seconds
    lesson = train(settings, chosen, args.fresh)
    if args.json:
        print_json({**lesson.to_json(), "choice": choice and choice.reason})
    else:
        show_lesson(lesson)
    return INTERRUPTED if lesson.trained.ending == "stopped" else OK


def train(settings: Settings, chosen: Mapping[str, object], fresh: bool = False) -> Lesson:
    """Train while a person looks on; what is raised is what ``learn`` raises."""
    with Link(settings, "train") as link, Screen() as screen:
        return learn(link, {**chosen, "threads": settings.threads}, screen, fresh=fresh)


def _choose(
    settings: Settings, chosen: Mapping[str, object], bounds: Bounds, recipe: str | None
) -> Choice:
    """The recipe to train by, told on the screen."""
    with Link(settings, "train") as link, Screen() as screen:
        examples = link.store.examples()
        if not examples:
            raise NothingToLearn()
        costs, threads = CostFile(settings.home), settings.threads
        choice = choose_here(link, examples, bounds, chosen, recipe, threads, screen, costs)
        screen.note(choice.reason)
        return choice


class _Memory(argparse.Action):
    """What the flag says is either the setting or a bound."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        place = self.dest if values in CHOICES["memory"] else "most_memory"
        setattr(namespace, place, values)


def _place(option: str) -> str:
    """Where the parsed arguments hold an option, apart from the settings."""
    return f"training_{option}"


class Screen(Watcher):
    """Bars on a terminal, a line an epoch elsewhere; Ctrl-C ends the training, twice at once."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._task = ""
        self._stopping = False

    def __enter__(self) -> "Screen":
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def note(self, sentence: str) -> None:
        self._close()
        print(sentence, file=sys.stderr)

    def kit(self, name: str, done: int, size: int) -> None:
        self._show(f"kit: {name}", done, size, "B")

    def fetching(self, done: int, total: int) -> None:
        self._show("features", done, total, "tokens")

    def training(self, progress: Progress) -> None:
        self._show("training", progress.step, progress.steps, "steps", f"loss {progress.loss:.3f}")
        if progress.validation is not None:
            self._say(
                f"epoch {progress.epoch} of {progress.epochs}: loss {progress.loss:.4f},"
                f" held out {progress.validation:.4f}, {progress.seconds_left:.0f} s left at most"
            )

    def stop(self) -> bool:
        return self._stopping

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        def ask_to_stop(_number: int, _frame: FrameType | None) -> None:
            self._stopping = True
            signal.signal(signal.SIGINT, usual)
            self._say("stopping: the best so far is kept; press Ctrl-C again to leave at once")

        usual = signal.signal(signal.SIGINT, ask_to_stop)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, usual)

    def _show(self, task: str, done: int, total: int, unit: str, more: str = "") -> None:
        if not sys.stderr.isatty():
            return
        if task != self._task:
            from tqdm import tqdm

            self._close()
            self._task = task
            self._bar = tqdm(total=total, desc=task, unit=unit, unit_scale=True, leave=False)
        self._bar.set_postfix_str(more, refresh=False)
        self._bar.update(done - self._bar.n)

    def _say(self, sentence: str) -> None:
        if self._bar is not None:
            self._bar.clear()
        print(sentence, file=sys.stderr, flush=True)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        self._bar, self._task = None, ""


def show_lesson(lesson: Lesson) -> None:
    """What a training run gave, on the screen."""
    course = lesson.trained.course
    if lesson.version is None:
        print("stopped before the first step; nothing was learned")
        return
    print(
        f"version {lesson.version.version}: {course.epoch} epochs, {lesson.trained.steps} steps,"
        f" {lesson.seconds:.0f} s, best after epoch {course.best_epoch}"
    )
    requests = lesson.requests and lesson.requests.to_json()
    for line in parts_in_words(lesson.evaluation.to_json(), lesson.general.to_json(), requests):
        print(line)
    if lesson.before is not None:
        print(f"the version before: {lesson.before:.4f}")
    if lesson.promoted:
        print(f"it speaks from now on: {lesson.verdict.reason}. next: sideplug chat")
    else:
        print(f"it is not better, so nothing changes: {lesson.verdict.reason}")
        print("it is kept, see sideplug plugins list")
    if lesson.trained.ending in ("stopped", "time"):
        print("sideplug train goes on where this run ended; --fresh begins anew")
