"""Be the agent of this home: an API for OpenAI's clients, and training in the background.

  sideplug up                     Ctrl-C ends it
  sideplug up --detach            in the background; `sideplug stop` ends it
  sideplug up --train-hours 22:00-07:00 --train-cpu 50

It listens on this machine alone, and wants to be shown a token: `sideplug token` prints it.
"""

import argparse
import sys

from device_agent.cli import OK, print_json
from device_agent.settings import Settings

NAME = "up"
HELP = "serve your model to programs on this machine"

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's own arguments."""
    parser.add_argument("--detach", action="store_true", help="do it in the background")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Serve until it is stopped, or start who does."""
    # Imported late: --help needs no server.
    from device_agent.daemon.serve import detach, serve

    if settings.host not in LOOPBACK:
        print(
            f"({settings.host} is open to others: your text and the token travel unencrypted)",
            file=sys.stderr,
        )

    def tell(url: str) -> None:
        if args.json:
            print_json({"url": url})
        else:
            print(f"your model is at {url}/v1; `sideplug token` prints the key", flush=True)
            print("`sideplug open` shows it in your browser", flush=True)

    if args.detach:
        tell(detach(settings).url)
    else:
        serve(settings, tell)
    return OK
