"""Questions and answers made of your notes, so that what a note tells once is known when you ask for it.

  sideplug questions make          of every plain fact in your notes ("My sister lives in Ghent.")
  sideplug questions make --plain  by patterns alone; nothing is sent to the cloud
  sideplug questions list
  sideplug questions drop 17 18    drop some of them, by number

They are examples like any other: `sideplug train` learns from them. The backbone is asked for further
wordings of the questions, never for the answers. English notes only.
"""

import argparse
import sys
from collections.abc import Callable
from typing import NamedTuple

from device_agent.cli import OK, print_json
from device_agent.cloud.link import Link
from device_agent.data.questioning import made_questions, make_questions
from device_agent.data.store import StoredExample
from device_agent.settings import Settings
from device_agent.training.forgetting import NoSuchExample, choose, drop

NAME = "questions"
HELP = "questions and answers made of your notes"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's own arguments."""
    parser.add_argument("action", choices=ACTIONS, help=f"one of {', '.join(ACTIONS)}")
    parser.add_argument("examples", nargs="*", type=int, metavar="NUMBER", help="for drop")
    parser.add_argument("--plain", action="store_true", help="by patterns alone, without the cloud")
    parser.set_defaults(usage_error=parser.error)


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Do one of the actions."""
    action = ACTIONS[args.action]
    if bool(args.examples) != action.takes_examples:
        takes = "takes numbers of examples" if action.takes_examples else "takes nothing more"
        args.usage_error(f"questions {args.action} {takes}")
    if args.plain and args.action != "make":
        args.usage_error("--plain is for questions make")
    with Link(settings, "questions") as link:
        action.run(args, link)
    return OK


def _make(args: argparse.Namespace, link: Link) -> None:
    added = make_questions(link, plain=args.plain, on_note=_show_progress)
    known = len(made_questions(link.store.examples()))
    if args.json:
        print_json({"added": added, "questions": known})
        return
    print(f"{added} new questions, {known} in all")
    print(
        "next: sideplug questions list, sideplug train" if known else "no note tells a plain fact"
    )


def _show_progress(done: int, total: int) -> None:
    if sys.stderr.isatty():
        end = "\n" if done == total else ""
        print(f"\rnotes {done} of {total}", end=end, file=sys.stderr, flush=True)


def _list(args: argparse.Namespace, link: Link) -> None:
    rows = [_row(stored) for stored in made_questions(link.store.examples())]
    if args.json:
        print_json({"questions": rows})
        return
    for row in rows:
        print(f"{row['id']:>6}  {row['question']}  →  {row['answer']}")


def _row(stored: StoredExample) -> dict[str, object]:
    (_, question), (_, answer) = stored.example.messages
    return {"id": stored.id, "question": question, "answer": answer}


def _drop(args: argparse.Namespace, link: Link) -> None:
    made = {stored.id for stored in made_questions(link.store.examples())}
    for number in args.examples:
        if number not in made:
            raise NoSuchExample(number)
    gone = drop(link, choose(link.store, args.examples))
    if args.json:
        print_json({"examples": gone.examples, "rows": gone.rows})
    else:
        print(f"{gone.examples} questions are gone")


class Action(NamedTuple):
    """One word behind ``questions``."""

    run: Callable[[argparse.Namespace, Link], None]
    takes_examples: bool


ACTIONS = {
    "make": Action(_make, takes_examples=False),
    "list": Action(_list, takes_examples=False),
    "drop": Action(_drop, takes_examples=True),
}
"""To add an action: a function and a row."""
