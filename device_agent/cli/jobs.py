"""Training that the agent does in the background, when nobody chats.

  sideplug jobs add                     train on everything that was learned
  sideplug jobs add epochs=1 seed=3     options as sideplug train has them
  sideplug jobs list
  sideplug jobs pause 2                 resume, cancel

Jobs are kept in the home folder, and done while an agent is up (`sideplug up`).
"""

import argparse
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import NamedTuple

from device_agent.cli import OK, print_json
from device_agent.cloud.link import STORE
from device_agent.daemon import jobs
from device_agent.data.store import Job, Store
from device_agent.settings import BadSetting, Settings

NAME = "jobs"
HELP = "train in the background: add, list, pause, resume, cancel"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's own arguments."""
    parser.add_argument("action", choices=ACTIONS, help=f"one of {', '.join(ACTIONS)}")
    parser.add_argument("words", nargs="*", metavar="JOB | OPTION=NUMBER", help="see above")
    parser.set_defaults(usage_error=parser.error)


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Do one of the actions."""
    action = ACTIONS[args.action]
    if action.takes and (len(args.words) != 1 or not args.words[0].isdecimal()):
        args.usage_error(f"jobs {args.action} takes the number of a job")
    with Store(settings.home / STORE) as store:
        found = action.run(store, settings, args.words)
    if args.json:
        print_json({"jobs": [jobs.told(job) for job in found]})
        return OK
    for job in found:
        print(_line(job))
    if not found:
        print("no job yet; `sideplug jobs add` makes one")
    return OK


def _list(store: Store, _settings: Settings, _words: Sequence[str]) -> list[Job]:
    return store.jobs()


def _add(store: Store, settings: Settings, words: Sequence[str]) -> list[Job]:
    return [jobs.queue(store, settings.recipe, dict(map(_option, words)))]


def _act(action: str) -> "Run":
    def run(store: Store, _settings: Settings, words: Sequence[str]) -> list[Job]:
        return [jobs.act(store, int(words[0]), action)]

    return run


def _option(word: str) -> tuple[str, int | float]:
    name, _, value = word.partition("=")
    name = name.replace("-", "_")
    for kind in (int, float):
        try:
            return name, kind(value)
        except ValueError:
            continue
    raise BadSetting(name, f"must be a number, as in {name}=3")


def _line(job: Job) -> str:
    created = datetime.fromtimestamp(job.created).strftime("%Y-%m-%d %H:%M")
    parts = [f"{job.id:>4}  {job.state:9}  {job.recipe}  {created}"]
    step, steps = job.progress.get("step"), job.progress.get("steps")
    if step is not None:
        parts.append(f"step {step} of {steps}")
    if job.problem:
        parts.append(job.problem)
    return "  ".join(parts)


Run = Callable[[Store, Settings, Sequence[str]], list[Job]]


class Action(NamedTuple):
    """One word behind ``jobs``."""

    run: Run
    takes: bool
    """Whether the number of a job follows it."""


ACTIONS = {
    "list": Action(_list, False),
    "add": Action(_add, False),
    **{name: Action(_act(name), True) for name in jobs.ACTIONS},
}
"""To add an action: a function and a row."""
