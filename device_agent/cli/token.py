"""Print the token that the agent's API wants to be shown: what OpenAI's clients call the API key.

export OPENAI_API_KEY="$(sideplug token)" OPENAI_BASE_URL=http://127.0.0.1:8472/v1
"""

import argparse

from device_agent.cli import OK, print_json
from device_agent.daemon.instance import token_of
from device_agent.settings import Settings

NAME = "token"
HELP = "print the key of the agent's API"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """It has none of its own."""


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Print it; it is made when there is none yet."""
    token = token_of(settings.home)
    print_json({"token": token}) if args.json else print(token)
    return OK
