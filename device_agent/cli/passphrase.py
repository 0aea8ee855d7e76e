"""What ``export`` and ``import`` share: where the passphrase comes from, and how far they are."""

import argparse
import getpass
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from device_agent.data.moving import OnBytes
from device_agent.errors import DeviceError

LEAST = 8
"""Characters of a passphrase."""


class BadPassphrase(DeviceError):
    """The passphrase cannot be used."""

    hint = "Several words that nobody can guess are good; without them the export cannot be opened."

    def __init__(self, reason: str) -> None:
        super().__init__(f"the passphrase {reason}")


def add_passphrase_argument(parser: argparse.ArgumentParser) -> None:
    """Declare it. It is never an argument itself: everybody on a machine can read command lines."""
    parser.add_argument(
        "--passphrase-file",
        type=Path,
        metavar="FILE",
        help="its first line is the passphrase (default: it is asked for)",
    )


def passphrase_of(args: argparse.Namespace, twice: bool) -> str:
    """The passphrase, from the file or from the terminal.

    Raises:
        BadPassphrase: It is too short, was typed differently, or there is nobody to ask.
    """
    if args.passphrase_file is not None:
        lines = args.passphrase_file.read_text(encoding="utf-8").splitlines()
        found = lines[0] if lines else ""
    elif sys.stdin.isatty():
        found = getpass.getpass("passphrase: ")
        if twice and getpass.getpass("once more: ") != found:
            raise BadPassphrase("was typed differently the second time")
    else:
        raise BadPassphrase("is missing: there is no terminal; name a --passphrase-file")
    if len(found) < LEAST:
        raise BadPassphrase(f"must have {LEAST} characters at least")
    return found


@contextmanager
def moving_bar(total: int) -> Iterator[OnBytes]:
    """A bar on a terminal."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from tqdm import tqdm

    with tqdm(total=total, unit="B", unit_scale=True, leave=False) as bar:
        yield bar.update
