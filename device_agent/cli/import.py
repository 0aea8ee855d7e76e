"""Make this home out of a file that `sideplug export` has sealed. The home must be empty.

  sideplug import ada.sideplug
  sideplug import ada.sideplug --home /data/ada

A wrong passphrase, or a file that was cut off or changed, leaves everything as it is.
"""

import argparse
from pathlib import Path

from device_agent.cli import OK, print_json
from device_agent.cli.passphrase import add_passphrase_argument, moving_bar, passphrase_of
from device_agent.cli.status import in_words
from device_agent.data.moving import import_home
from device_agent.settings import Settings

NAME = "import"
HELP = "make this home out of a sealed file"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's own arguments."""
    parser.add_argument("file", type=Path, metavar="FILE", help="made by `sideplug export`")
    add_passphrase_argument(parser)


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Ask, and take it whole or not at all."""
    size = args.file.stat().st_size
    passphrase = passphrase_of(args, twice=False)
    with moving_bar(size) as on_bytes:
        moved = import_home(args.file, settings.home, passphrase, on_bytes)
    if args.json:
        print_json({"home": str(settings.home), "files": moved.files, "bytes": moved.bytes})
    else:
        print(f"{settings.home} has {moved.files} files, {in_words(moved.bytes)}")
        print("next: sideplug doctor")
    return OK
