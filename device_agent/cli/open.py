"""Open the page of this home in your browser: chat, teach, train, and see what left the device.

sideplug open                   starts the agent in the background when none is up
sideplug open --print           print the address instead, with the token in it
"""

import argparse
import html
import sys
import webbrowser
from pathlib import Path

from device_agent.atomic import write_whole
from device_agent.cli import OK, print_json
from device_agent.daemon.instance import find_instance, token_of
from device_agent.settings import Settings

NAME = "open"
HELP = "open the page in your browser"

DOOR = "open.html"
"""File in the home that leads to the page. Browsers are named an address on their command line, which everybody
on a machine can read; so they are named this file, which its owner alone can read."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's own arguments."""
    parser.add_argument("--print", action="store_true", help="print the address, open nothing")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Find or start the agent, and lead the browser to it."""
    agent = find_instance(settings.home)
    if agent is None:
        # Imported late: an agent that is up already needs no server here.
        from device_agent.daemon.serve import detach

        agent = detach(settings)
    # Behind the #, which browsers send to nobody; the page takes it away from there at once.
    address = f"{agent.url}/#token={token_of(settings.home)}"
    if args.print:
        print_json({"url": address}) if args.json else print(address)
        return OK
    door = settings.home / DOOR
    write_whole(door, _door(address))
    opened = webbrowser.open(door.as_uri())
    if args.json:
        print_json({"url": agent.url, "file": str(door), "opened": opened})
    elif opened:
        print(f"the page is at {agent.url}; nothing to be seen? `sideplug open --print`")
    else:
        print(_no_browser(door), file=sys.stderr)
    return OK


def _no_browser(door: Path) -> str:
    return f"no browser was found; open {door} in one, or what `sideplug open --print` prints"


def _door(address: str) -> bytes:
    """A file that leads on."""
    there = html.escape(address)
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="referrer" content="no-referrer">
<meta http-equiv="refresh" content="0;url={there}"><title>Sideplug</title>
<p><a href="{there}">To your model</a></p></html>
""".encode()
