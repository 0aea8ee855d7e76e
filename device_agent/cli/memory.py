"""What your plugin remembers word for word: look, bring it up to date.

  sideplug memory status
  sideplug memory list             the examples, by number
  sideplug memory update           remember what was learned since, without training

The memory takes part in every answer where it has been found to help; `--memory off` (or `memory = "off"`
in config.toml) does without. `sideplug forget` takes examples out of it, and out of everything else.
"""

import argparse
import time
from collections.abc import Callable

from device_agent.cli import OK, print_json
from device_agent.cli.status import in_words
from device_agent.cloud.link import Link
from device_agent.plugins import PluginStore
from device_agent.settings import Settings
from device_agent.training.remembering import catch_up, known_rows, open_memory
from device_agent.training.watcher import Watcher

NAME = "memory"
HELP = "what your plugin remembers; update"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's own arguments."""
    parser.add_argument("action", choices=ACTIONS, help=f"one of {', '.join(ACTIONS)}")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Do one of the actions."""
    with Link(settings, "memory") as link:
        ACTIONS[args.action](args, link)
    return OK


def _status(args: argparse.Namespace, link: Link) -> None:
    version = PluginStore(link.settings.home).current()
    memory = None if version is None else version.memory()
    helps = version is not None and version.speaks in ("memory", "whole")
    on = link.settings.memory == "on"
    size = version.memory_path.stat().st_size if version and memory else 0
    told = {
        "setting": link.settings.memory,
        "version": version and version.version,
        "speaks": on and memory is not None and helps,
        "gates": version and version.gates.to_json(),
        "examples": len(memory.examples) if memory else 0,
        "rows": len(memory.tokens) if memory else 0,
        "bytes": size,
    }
    if args.json:
        print_json(told)
    elif memory is None:
        print("there is no memory yet; `sideplug train` makes one")
    else:
        rows, examples = told["rows"], told["examples"]
        print(f"version {told['version']} remembers {rows} tokens of {examples} examples")
        print(f"on disk {in_words(size)}; {_taking_part(on, helps)}")


def _taking_part(on: bool, helps: bool) -> str:
    if not on:
        return "it is switched off"
    return "it takes part in every answer" if helps else "it was found to be of no help, and rests"


def _list(args: argparse.Namespace, link: Link) -> None:
    _, memory = open_memory(PluginStore(link.settings.home).current())
    examples = link.store.examples()
    rows = known_rows(memory, examples)
    if args.json:
        told = [
            {"id": one.id, "kind": one.example.kind, "source": one.source, "rows": rows[one.id]}
            for one in examples
        ]
        print_json({"examples": told})
        return
    for one in examples:
        print(
            f"{one.id:>6}  {rows[one.id]:>7} tokens  {one.source}  {_beginning(one.example.body)}"
        )


def _beginning(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= 50 else words[:49] + "…"


def _update(args: argparse.Namespace, link: Link) -> None:
    started = time.monotonic()
    rows = catch_up(link, Watcher())
    seconds = time.monotonic() - started
    if args.json:
        print_json({"rows": rows, "seconds": round(seconds, 3)})
    else:
        print(f"{rows} more tokens are remembered, after {seconds:.1f} s")


ACTIONS: dict[str, Callable[[argparse.Namespace, Link], None]] = {
    "status": _status,
    "list": _list,
    "update": _update,
}
"""To add an action: a function and a row."""
