"""Move to another backbone: train anew, on everything you gave, for the one that a cloud hosts now.

  sideplug migrate --to qwen2.5-0.5b-instruct --cloud https://other.example:8471

A plugin, its prefix and its memory belong to one backbone. Your examples do not: from them all is made
again, on the new backbone's kit. The new plugin speaks when it foresees held-out examples better than
the new backbone alone; until then, and when it is not, the old one stays, for the old cloud.
"""

import argparse

from device_agent.cli import INTERRUPTED, OK, print_json
from device_agent.cli.train import Screen, show_lesson
from device_agent.cloud.link import Link
from device_agent.settings import Settings
from device_agent.training.migration import Migration, migrate

NAME = "migrate"
HELP = "move your plugin to another backbone"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's own arguments."""
    parser.add_argument(
        "--to",
        required=True,
        metavar="BACKBONE",
        help="name of the backbone, as its cloud tells it",
    )


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Train on the new backbone, and say what came of it."""
    with Link(settings, "migrate") as link, Screen() as screen:
        moved = migrate(link, args.to, {"threads": settings.threads}, screen)
    if args.json:
        before = moved.before and {"version": moved.before.version, "backbone": _name(moved)}
        print_json({**moved.lesson.to_json(), "to": args.to, "from": before})
    else:
        show_lesson(moved.lesson)
        _tell(moved, settings)
    return INTERRUPTED if moved.lesson.trained.ending == "stopped" else OK


def _tell(moved: Migration, settings: Settings) -> None:
    if moved.before is None:
        return
    version = moved.before.version
    if moved.lesson.promoted:
        print(f'put cloud = "{settings.cloud}" into config.toml if it is another one than before')
        print(f"to go back: sideplug plugins use {version}, and the cloud with {_name(moved)}")
    else:
        print(f"version {version} goes on speaking, on a cloud with {_name(moved)}")


def _name(moved: Migration) -> object:
    """Of the backbone that was left."""
    return moved.before and moved.before.config.get("base_model_name_or_path")
