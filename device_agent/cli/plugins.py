"""The versions of your plugin: which there are, which one speaks.

  sideplug plugins list
  sideplug plugins show 3
  sideplug plugins use 2            version 2 speaks from now on
  sideplug plugins use base         the frozen backbone speaks
  sideplug plugins rollback         the one that spoke before speaks again
  sideplug plugins export 3 my-plugin.zip

A version never changes once it is there. What is exported holds the plugin's personal prefix and its
memory as well: your own words.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from device_agent.cli import OK, print_json
from device_agent.cli.card import nll_of, parts_in_words
from device_agent.plugins import PluginStore, PluginVersion
from device_agent.settings import Settings

NAME = "plugins"
HELP = "list, show, switch and export plugin versions"

BASE = "base"
"""What stands for the frozen backbone where a version is named."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's own arguments."""
    # No parsers inside the parser: --json and the settings may stand anywhere.
    parser.add_argument("action", choices=ACTIONS, help=f"one of {', '.join(ACTIONS)}")
    parser.add_argument("version", nargs="?", help=f"its number; {BASE} for the frozen backbone")
    parser.add_argument("target", nargs="?", type=Path, help="a new folder, or a new .zip file")
    parser.set_defaults(usage_error=parser.error)


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Do one of the actions."""
    action = ACTIONS[args.action]
    given = sum(value is not None for value in (args.version, args.target))
    if not action.least <= given <= action.most:
        args.usage_error(f"plugins {args.action} takes {action.takes}")
    action.run(args, PluginStore(settings.home))
    return OK


def _list(args: argparse.Namespace, store: PluginStore) -> None:
    current = store.current()
    rows = [_row(version, current) for version in store.versions()]
    if args.json:
        told = {"current": current and current.version, "reason": store.reason, "versions": rows}
        print_json(told)
        return
    for row in rows:
        mark = "*" if row["current"] else " "
        print(
            f"{mark} {row['version']:>4}  {row['recipe']}  on {row['backbone']}"
            f"  held out {_number(row['nll'])} (backbone {_number(row['base_nll'])})"
        )
    if store.reason:
        print(f"rolled back: {store.reason}")
    if not rows:
        print("no version yet; `sideplug train` makes one")
    elif current is None:
        print("none of them speaks: the frozen backbone does")


def _show(args: argparse.Namespace, store: PluginStore) -> None:
    version = store.get(args.version) if args.version else store.current()
    if version is None:
        told: dict[str, object] = {"version": None}
        print_json(told) if args.json else print("the frozen backbone speaks; there is no version")
        return
    told = {
        **_row(version, store.current()),
        "folder": str(version.folder),
        "bytes": version.size,
        "config": version.config,
        "card": version.card,
    }
    if args.json:
        print_json(told)
        return
    for name in ("version", "recipe", "backbone", "speaks", "bytes", "folder"):
        print(f"{name:10} {told[name]}")
    card = version.card
    parts = (card.get("evaluation"), card.get("general"), card.get("requests"))
    for line in parts_in_words(*parts):
        print(line)
    for name in ("harm", "better", "reason"):
        if name in card:
            print(f"{name:10} {_in_words(card[name])}")


def _use(args: argparse.Namespace, store: PluginStore) -> None:
    store.use(None if args.version == BASE else args.version)
    _tell(args, store)


def _rollback(args: argparse.Namespace, store: PluginStore) -> None:
    store.rollback()
    _tell(args, store)


def _export(args: argparse.Namespace, store: PluginStore) -> None:
    store.export(args.version, args.target)
    if args.json:
        print_json({"version": args.version, "path": str(args.target.absolute())})
    else:
        print(f"version {args.version} is in {args.target}")


def _tell(args: argparse.Namespace, store: PluginStore) -> None:
    """Which one speaks now."""
    current = store.current()
    if args.json:
        print_json({"current": current and current.version})
    else:
        print(f"version {current.version} speaks" if current else "the frozen backbone speaks")


def _row(version: PluginVersion, current: PluginVersion | None) -> dict[str, object]:
    about, evaluation = version.config.get("sideplug"), version.card.get("evaluation")
    return {
        "version": version.version,
        "current": current is not None and current.version == version.version,
        "backbone": version.config.get("base_model_name_or_path"),
        "recipe": about.get("recipe") if isinstance(about, dict) else None,
        "fingerprint": version.fingerprint,
        "speaks": version.speaks,
        "nll": nll_of(evaluation, version.speaks) or nll_of(evaluation, "plugin"),
        "base_nll": nll_of(evaluation, "base"),
    }


def _in_words(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:+.2%}" if isinstance(value, float) else str(value)


def _number(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else "?"


class Action(NamedTuple):
    """One word behind ``plugins``."""

    run: Callable[[argparse.Namespace, PluginStore], None]
    least: int
    most: int
    """How many words may follow it."""
    takes: str


ACTIONS = {
    "list": Action(_list, 0, 0, "nothing more"),
    "show": Action(_show, 0, 1, "a version, or nothing for the current one"),
    "use": Action(_use, 1, 1, f"a version, or {BASE}"),
    "rollback": Action(_rollback, 0, 0, "nothing more"),
    "export": Action(_export, 2, 2, "a version and a new folder or .zip file"),
}
"""To add an action: a function and a row."""
