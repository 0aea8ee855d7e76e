"""Learn together with other devices: a shared plugin, made from updates of many, by Flower.

  sideplug federate join http://host:8473 --federated on
  sideplug federate status
  sideplug federate key            this device's public key, for servers that admit only known ones
  sideplug federate leave          forget the shared weights

In each round this device trains the shared weights on its own texts and sends what that added to them, in
16 bits a weight; texts and tokens stay here. An update is no secret: whoever runs the server may learn from
it something of what you wrote, unless the federation adds noise. So it is off until you allow it
(`federated = "on"` in config.toml). After that, `sideplug train` begins with the shared weights, and what it
adds to them is yours alone and is never sent.
"""

import argparse
import sys

from device_agent.cli import OK, print_json
from device_agent.cloud.link import Link
from device_agent.federated import shared
from device_agent.federated.joining import join, require_flower
from device_agent.settings import Settings
from device_agent.training.watcher import Watcher

NAME = "federate"
HELP = "learn together with other devices: join, status, key, leave"

WAIT = 3600.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's own arguments."""
    parser.add_argument("action", choices=ACTIONS, help=f"one of {', '.join(ACTIONS)}")
    parser.add_argument("url", nargs="?", help="address of the federation's server, for join")
    parser.add_argument(
        "--wait",
        type=float,
        default=WAIT,
        metavar="SECONDS",
        help=f"how long a server that does not answer is tried (default {WAIT:.0f})",
    )
    parser.set_defaults(usage_error=parser.error)


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Do one of the actions."""
    if (args.action == "join") != bool(args.url):
        args.usage_error("join takes the address of a server, the other actions take none")
    ACTIONS[args.action](args, settings)
    return OK


def _join(args: argparse.Namespace, settings: Settings) -> None:
    with Link(settings, "federate") as link:
        joined = join(link, args.url, args.wait, Watcher(), _say)
    if args.json:
        print_json(joined.to_json())
    else:
        print(f"{joined.rounds} updates sent; next: sideplug train makes the shared plugin yours")


def _status(args: argparse.Namespace, settings: Settings) -> None:
    found = shared.find(settings.home)
    told = {
        "setting": settings.federated,
        "kit": found and found.kit,
        "round": found and found.round,
        "rounds": found and found.rounds,
    }
    if args.json:
        print_json(told)
    elif found is None:
        print(f"federated is {settings.federated}; no shared weights are here")
    else:
        print(
            f"federated is {settings.federated}; shared weights of round {found.round} of"
            f" {found.rounds}, kit {found.kit[:12]}; sideplug train begins with them"
        )


def _key(args: argparse.Namespace, settings: Settings) -> None:
    require_flower()
    from device_agent.federated.key import make_key, public_text

    text = public_text(make_key(settings.home))
    if args.json:
        print_json({"public_key": text})
    else:
        print(text, end="")


def _leave(args: argparse.Namespace, settings: Settings) -> None:
    there = shared.forget(settings.home)
    if args.json:
        print_json({"forgotten": there})
    else:
        print("the shared weights are forgotten" if there else "there were no shared weights")


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


ACTIONS = {"join": _join, "status": _status, "key": _key, "leave": _leave}
