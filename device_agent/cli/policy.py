"""Show what may leave this device, and check policy.toml in the home folder. Exit code 1 when it is wrong.

Without the file everything that a command needs may leave. With it, what it forbids stays here, and
as long as anything in it is wrong or unknown nothing leaves at all:

  text_hosts = ["127.0.0.1", "cloud.example.org:8471"]    no text goes to any other host
  never = ["prefix"]                                      kinds that never leave

  [bytes_per_day]                                         from midnight to midnight
  all = 200_000_000
  features = 50_000_000

`sideplug egress` shows the kinds, and what has left.
"""

import argparse

from device_agent.cli import OK, print_json
from device_agent.cli.status import in_words
from device_agent.cloud.traffic import KINDS
from device_agent.egress.policy import Policy, PolicyFile
from device_agent.settings import Settings

NAME = "policy"
HELP = "what may leave this device"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """It has none of its own."""


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Read it as everything that sends does."""
    file = PolicyFile(settings.home)
    policy, there = file.now(), file.path.exists()
    if args.json:
        print_json({"file": str(file.path), "exists": there, **policy.to_json()})
        return OK
    print(f"{file.path} is right" if there else f"there is no {file.path}: everything may leave")
    for line in _in_words(policy):
        print(f"  {line}")
    return OK


def _in_words(policy: Policy) -> list[str]:
    lines = []
    if policy.text_hosts is not None:
        lines.append(f"text goes to {', '.join(policy.text_hosts) or 'nobody'}, and nowhere else")
    lines += [
        f"{about.words} never leaves ({kind})"
        for kind, about in KINDS.items()
        if kind in policy.never
    ]
    lines += [
        f"at most {in_words(cap)} of {name} leave in a day"
        for name, cap in policy.bytes_per_day.items()
    ]
    return lines
