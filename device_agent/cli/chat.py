"""Talk with your model. Lines may also come from a pipe, one turn a line.

  sideplug chat
  sideplug chat --temperature 0.7 --system "Answer in one sentence."

In the conversation:
  /base    let the frozen backbone answer from now on; again: your plugin
  /new     begin a new conversation
  /quit    leave (so does the end of input)
"""

import argparse
import sys
from collections.abc import Iterator

from device_agent.cli import OK, print_json
from device_agent.cli.speaking import (
    add_speaking_arguments,
    opening,
    plugin_of,
    sampling_of,
    show_progress,
)
from device_agent.cloud.link import Link
from device_agent.errors import DeviceError
from device_agent.generation.generate import Piece
from device_agent.generation.sampling import Sampling
from device_agent.generation.speaker import Speaker
from device_agent.settings import Settings
from protocol.errors import Fault

NAME = "chat"
HELP = "talk with your model"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's own arguments."""
    add_speaking_arguments(parser)


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Read turns and answer them until the input ends."""
    sampling, version = sampling_of(args), plugin_of(args, settings)
    with Link(settings, "chat") as link, Speaker(link, version, show_progress) as speaker:
        name = f"plugin {version.version}" if version is not None else "the frozen backbone"
        _note(args, f"{speaker.facts.name} with {name}. /base /new /quit")
        conversation = Conversation(speaker, args, sampling)
        for line in _lines():
            if line == "/quit":
                break
            try:
                conversation.take(line)
                link.egress.flush()  # a person may think for long about the next turn
            except (DeviceError, Fault) as error:
                # A person can try again; a program that pipes lines has to know.
                if not sys.stdin.isatty():
                    raise
                _note(args, f"{error}. {error.hint}")
    return OK


class Conversation:
    """The turns so far, and who answers."""

    def __init__(self, speaker: Speaker, args: argparse.Namespace, sampling: Sampling) -> None:
        self._speaker, self._args, self._sampling = speaker, args, sampling
        self._turns = opening(args)
        self._base = False

    def take(self, line: str) -> None:
        """A line of the person: a command or a turn."""
        if line == "/base":
            self._base = not self._base
            who = "the frozen backbone" if self._base else "your plugin, if there is one,"
            _note(self._args, f"{who} answers now")
        elif line == "/new":
            self._turns = opening(self._args)
            _note(self._args, "a new conversation")
        elif line.startswith("/"):
            _note(self._args, f"there is no {line.split()[0]}; there are /base /new /quit")
        elif line.strip():
            self._reply(line)

    def _reply(self, line: str) -> None:
        turns = [*self._turns, {"role": "user", "content": line}]
        text, finished = "", "interrupted"
        try:
            for piece in self._pieces(turns):
                text, finished = text + piece.text, piece.finished or finished
                if not self._args.json:
                    print(piece.text, end="", flush=True)
        except KeyboardInterrupt:
            # Ctrl-C ends the answer, not the conversation.
            if not sys.stdin.isatty():
                raise
        if self._args.json:
            print_json({"text": text, "finished": finished, "base": self._base})
        else:
            print(flush=True)
        self._turns = [*turns, {"role": "assistant", "content": text}]

    def _pieces(self, turns: list[dict[str, str]]) -> Iterator[Piece]:
        limit = self._args.max_tokens
        return self._speaker.answer(
            self._speaker.fit(turns, limit),
            self._sampling,
            limit,
            stop_strings=self._args.stop,
            base=self._base,
            reuse=True,
        )


def _lines() -> Iterator[str]:
    """The person's lines until the input ends; prompts where a person sits."""
    interactive = sys.stdin.isatty() and sys.stdout.isatty()
    if interactive:
        # Gives arrow keys and a history where the platform has it.
        try:
            import readline  # noqa: F401
        except ImportError:
            pass
    while True:
        try:
            yield input("> " if interactive else "").rstrip("\n")
        except EOFError:
            return


def _note(args: argparse.Namespace, text: str) -> None:
    """What is not part of the conversation goes to stderr."""
    if not args.json:
        print(f"({text})", file=sys.stderr, flush=True)
