"""Keep files to learn from. They stay on this device; `sideplug train` learns from them.

  sideplug learn diary.md letters/*.txt
  sideplug learn chats.jsonl        one {"text": …} or {"messages": [{"role", "content"}, …]} a line

A file is kept whole or, when something in it is wrong, not at all. What is known already is not kept
twice. Training sends the texts' tokens to the cloud once, to have them read by the backbone.
"""

import argparse
from pathlib import Path

from device_agent.cli import OK, print_json
from device_agent.cloud.link import STORE
from device_agent.data.documents import read_documents
from device_agent.data.store import Store
from device_agent.settings import Settings

NAME = "learn"
HELP = "keep files to learn from"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's own arguments."""
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help=".txt, .md or .jsonl")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Read every file before anything is kept."""
    read = [(path, read_documents(path)) for path in args.files]
    with Store(settings.home / STORE) as store:
        added = sum(store.add_examples(examples, str(path.absolute())) for path, examples in read)
        counts = store.count_examples()
    known = sum(len(examples) for _, examples in read) - added
    if args.json:
        print_json({"added": added, "known": known, "examples": counts})
        return OK
    print(f"{added} new, {known} known already")
    print(f"there are {counts['text']} texts and {counts['chat']} conversations now")
    print("next: sideplug train")
    return OK
