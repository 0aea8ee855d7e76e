"""Forget examples and everything that was made of them, and train anew on the others.

  sideplug forget                          lists the examples with their numbers
  sideplug forget 3 7
  sideplug forget --file diary.md          all that was learned from it
  sideplug forget --matching "Acacia Road" all that hold these words, and feedback that does

With an example go its features, its rows in every memory, and every version of the plugin that was
trained on it or judged by it; the newest version that was not speaks until a new one is trained. None of
its bytes stay in the home. What you have exported, and backups of your disk, are out of reach, and
a cloud may keep a personal prefix for an hour.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from device_agent.cli import OK, print_json
from device_agent.cli.train import show_lesson, train
from device_agent.cloud.connection import CloudUnreachable
from device_agent.cloud.link import STORE, Link
from device_agent.daemon.instance import find_instance
from device_agent.daemon.jobs import anew
from device_agent.data.store import Store, StoredExample
from device_agent.plugins import PluginStore
from device_agent.settings import Settings
from device_agent.training.forgetting import Forgotten, choose, forget
from device_agent.training.hold_out import TooLittleText

NAME = "forget"
HELP = "forget examples and all that was made of them"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's own arguments."""
    parser.add_argument("examples", nargs="*", type=int, metavar="EXAMPLE", help="by number")
    parser.add_argument(
        "--file", action="append", default=[], type=Path, metavar="FILE", help="may be repeated"
    )
    parser.add_argument("--matching", default="", metavar="WORDS", help="however capitalised")
    parser.add_argument("--no-train", action="store_true", help="leave it at forgetting")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """List, or forget and train."""
    if not (args.examples or args.file or args.matching):
        with Store(settings.home / STORE) as store:
            _list(args, store.examples())
        return OK
    files = {str(path) for path in args.file} | {str(path.absolute()) for path in args.file}
    with Link(settings, "forget") as link:
        gone = forget(link, choose(link.store, args.examples, files, args.matching))
    if not args.json:
        _say(gone, settings)
    job = _train(args, settings) if gone.versions and not args.no_train else None
    if args.json:
        print_json({**gone.to_json(), "job": job})
    return OK


def _list(args: argparse.Namespace, examples: Sequence[StoredExample]) -> None:
    if args.json:
        told = [{"id": one.id, "kind": one.example.kind, "source": one.source} for one in examples]
        print_json({"examples": told})
        return
    for one in examples:
        words = " ".join(one.example.body.split())
        print(f"{one.id:>6}  {one.source}  {words if len(words) <= 50 else words[:49] + '…'}")
    if not examples:
        print("there is no example; `sideplug learn` adds some")


def _say(gone: Forgotten, settings: Settings) -> None:
    print(f"{gone.examples} examples are gone, {gone.feedback} answers that you judged")
    print(f"with them {gone.features} files of features, {gone.rows} tokens from memories")
    if gone.versions:
        current = PluginStore(settings.home).current()
        speaks = "the frozen backbone" if current is None else f"version {current.version}"
        print(f"and what was trained on them: version {', '.join(gone.versions)}; {speaks} speaks")


def _train(args: argparse.Namespace, settings: Settings) -> int | None:
    """Train here, or have the agent do it; gives the number of its job."""
    with Store(settings.home / STORE) as store:
        if find_instance(settings.home) is not None:
            return _queue(args, store, settings, "the agent trains anew")
        if not any(store.count_examples().values()):
            return None
    try:
        lesson = train(settings, {})
    except TooLittleText as error:
        _tell(args, f"nothing is trained: {error}")
        return None
    except CloudUnreachable as error:
        with Store(settings.home / STORE) as store:
            return _queue(
                args, store, settings, f"{error}: `sideplug up` will train when it is back"
            )
    if not args.json:
        show_lesson(lesson)
    return None


def _queue(args: argparse.Namespace, store: Store, settings: Settings, words: str) -> int | None:
    job = anew(store, settings.recipe)
    if job is not None:
        _tell(args, f"{words} (job {job})")
    return job


def _tell(args: argparse.Namespace, sentence: str) -> None:
    if not args.json:
        print(sentence)
