"""Have your agent start when you log in: a systemd user unit, or a launchd file.

  sideplug service show           print the file, write nothing
  sideplug service install        write it, and say what starts it
  sideplug service install --start
  sideplug service uninstall

Settings given here stand in the file; the cloud's key does not: write it into config.toml.
"""

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from device_agent.cli import FAILED, OK, print_json
from device_agent.daemon.service_unit import ServiceUnit, unit_for
from device_agent.settings import Settings

NAME = "service"
HELP = "start the agent when you log in"

ACTIONS = ("show", "install", "uninstall")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's own arguments."""
    parser.add_argument("action", choices=ACTIONS, help=f"one of {', '.join(ACTIONS)}")
    parser.add_argument("--start", action="store_true", help="after install: start it now")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Do one of the actions."""
    unit = unit_for(settings, sys.platform, Path.home())
    commands: Sequence[Sequence[str]] = ()
    if args.action == "install":
        unit.install()
        commands = unit.start
    elif args.action == "uninstall":
        commands = unit.stop
        unit.uninstall()
    if args.json:
        print_json(
            {
                "path": os.fspath(unit.path),
                "content": unit.content.decode(),
                "commands": [list(command) for command in commands],
            }
        )
    else:
        _show(args.action, unit, commands)
    if args.action == "install" and args.start:
        return OK if all(_succeeds(command) for command in commands) else FAILED
    return OK


def _show(action: str, unit: ServiceUnit, commands: Sequence[Sequence[str]]) -> None:
    done = {"show": "would be", "install": "is", "uninstall": "was"}[action]
    print(f"# {unit.path} {done}:")
    print(unit.content.decode(), end="")
    if commands:
        print(f"# what {'starts' if action == 'install' else 'ends'} it:")
    for command in commands:
        print(shlex.join(command))


def _succeeds(command: Sequence[str]) -> bool:
    # stdout is ours, and may be JSON.
    return subprocess.run(command, stdout=sys.stderr, check=False).returncode == 0
