"""Seal this whole home into one file, to move it to another device or to keep it safe.

  sideplug export ada.sideplug             asks for a passphrase, twice
  sideplug import ada.sideplug             on the other device

Everything is in it: examples, plugins, memory, features, settings with the cloud's key. Whoever has the
file and the passphrase has all of it; without the passphrase nobody can open it. The agent may be up
meanwhile. (A version alone, which needs no passphrase: `sideplug plugins export`.)
"""

import argparse
from pathlib import Path

from device_agent.cli import OK, print_json
from device_agent.cli.passphrase import add_passphrase_argument, moving_bar, passphrase_of
from device_agent.cli.status import in_words
from device_agent.data.moving import export_home, home_bytes
from device_agent.settings import Settings

NAME = "export"
HELP = "seal this home into one file"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's own arguments."""
    parser.add_argument("file", type=Path, metavar="FILE", help="does not exist yet")
    add_passphrase_argument(parser)


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Ask, and write it whole or not at all."""
    passphrase = passphrase_of(args, twice=True)
    with moving_bar(home_bytes(settings.home)) as on_bytes:
        moved = export_home(settings.home, args.file, passphrase, on_bytes)
    size = args.file.stat().st_size
    if args.json:
        print_json({"file": str(args.file), "files": moved.files, "bytes": size})
    else:
        print(f"{args.file} holds {moved.files} files in {in_words(size)}")
        print("on the other device: sideplug import FILE")
    return OK
