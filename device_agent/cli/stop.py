"""End the agent of this home. Training that is under way goes on when it is up again."""

import argparse
from dataclasses import asdict

from device_agent.cli import OK, print_json
from device_agent.daemon.instance import stop_instance
from device_agent.settings import Settings

NAME = "stop"
HELP = "end the agent of this home"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """It has none of its own."""


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Ask it to end, and wait until it has."""
    stopped = stop_instance(settings.home)
    if args.json:
        print_json(asdict(stopped))
    else:
        print(f"the agent at {stopped.url} has ended")
    return OK
