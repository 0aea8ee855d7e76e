"""Answer one prompt, or a file of them, and exit.

  sideplug run "What is my dog's name?"
  sideplug run --raw "It was a dark and" --temperature 0.8 --seed 1
  echo "a long question" | sideplug run -
  sideplug run --prompts questions.jsonl --json      one {"prompt": …} a line

The current plugin answers when there is one, else the frozen backbone.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

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
from device_agent.generation.sampling import Sampling
from device_agent.generation.speaker import Speaker
from device_agent.settings import Settings

NAME = "run"
HELP = "answer one prompt and exit"


class BadPrompts(DeviceError):
    """A file of prompts cannot be used."""

    hint = 'Each line must be a JSON object like {"prompt": "…"}.'

    def __init__(self, path: str, line: int, reason: str) -> None:
        super().__init__(f"{path}, line {line}: {reason}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's own arguments."""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("prompt", nargs="?", help="what to answer; - reads it from stdin")
    what.add_argument("--prompts", metavar="FILE", help="JSONL with one prompt a line")
    parser.add_argument("--raw", action="store_true", help="continue the text, no chat template")
    add_speaking_arguments(parser)


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Answer every prompt in turn, over one connection."""
    prompts = list(_prompts(args))
    sampling = sampling_of(args)
    version = plugin_of(args, settings)
    with Link(settings, "run") as link, Speaker(link, version, show_progress) as speaker:
        for prompt in prompts:
            answer = _answer(prompt, args, sampling, link, speaker)
            if args.json:
                print_json({"prompt": prompt, **answer, "plugin": version and version.version})
    return OK


def _prompts(args: argparse.Namespace) -> Iterator[str]:
    if args.prompts is None:
        yield sys.stdin.read() if args.prompt == "-" else args.prompt
        return
    lines = Path(args.prompts).read_bytes().split(b"\n")
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield _prompt_in(line, args.prompts, number)


def _prompt_in(line: bytes, path: str, number: int) -> str:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadPrompts(path, number, f"no JSON: {error}") from error
    prompt = found.get("prompt") if isinstance(found, dict) else None
    if not isinstance(prompt, str):
        raise BadPrompts(path, number, 'has no text "prompt"')
    return prompt


def _answer(
    prompt: str, args: argparse.Namespace, sampling: Sampling, link: Link, speaker: Speaker
) -> dict[str, object]:
    """Answer one prompt, on the screen as it comes; gives what ``--json`` prints."""
    up, down, before, started = link.up, link.down, speaker.drafts, time.perf_counter()
    ids = _ids(prompt, args, speaker)
    text, tokens, finished = "", 0, None
    pieces = speaker.answer(ids, sampling, args.max_tokens, stop_strings=args.stop, text=args.raw)
    for piece in pieces:
        text += piece.text
        tokens += piece.token is not None
        finished = piece.finished
        if not args.json:
            print(piece.text, end="", flush=True)
    seconds = time.perf_counter() - started
    drafts = speaker.drafts - before
    if not args.json:
        print()
    return {
        "text": text,
        "prompt_tokens": len(ids),
        "tokens": tokens,
        "seconds": round(seconds, 3),
        "tokens_per_second": round(tokens / seconds, 2),
        "finished": finished,
        "drafted": drafts.drafted,
        "accepted": drafts.accepted,
        "alone": drafts.alone,
        "bytes_up": link.up - up,
        "bytes_down": link.down - down,
        "made_with": speaker.made_with(gated=speaker.gates(sampling)).to_json(),
    }


def _ids(prompt: str, args: argparse.Namespace, speaker: Speaker) -> list[int]:
    if args.raw:
        return speaker.read(prompt)
    return speaker.ask([*opening(args), {"role": "user", "content": prompt}])
