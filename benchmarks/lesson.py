"""A home whose plugin has learned somebody's text, for benchmarks of what comes afterwards."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks import texts
from benchmarks.report import say
from benchmarks.services import Cloud, Device
from benchmarks.windows import Prepared, prepare
from device_agent.cloud.link import Link
from device_agent.plugins import PluginStore, PluginVersion
from device_agent.settings import Settings


def taught(
    args: argparse.Namespace, service: Cloud, documents: Sequence[texts.Document], home: Path
) -> tuple[Prepared, PluginVersion]:
    """
    Learn the first ``args.training_tokens`` tokens of a text.

    Args:
        args: With ``training_tokens``, ``threads`` and ``seed``.
        service: Which compiles the kit, if there is none yet.
        documents: The text.
        home: Of the device; it is made.

    Returns:
        The text in its parts, and the plugin, promoted or not.

    """
    say(f"learning {args.training_tokens} tokens")
    with Link(Settings(home=home, cloud=service.url, threads=args.threads)) as link:
        link.kit()
        held_out = min(texts.HELD_OUT_TOKENS, args.training_tokens // 3)
        prepared = prepare(link, documents, args.training_tokens, held_out)
    prepared.write_text("training", home / "training.jsonl")
    device = Device(home, service.url, args.threads)
    device.run("learn", str(home / "training.jsonl"))
    device.run("train", "--seed", str(args.seed))
    return prepared, PluginStore(home).versions()[-1]
