"""How well text is foreseen: by your plugin, by each of its parts, and by the frozen backbone alone.

  sideplug evaluate new-diary.md
  sideplug evaluate test.jsonl --plugin 2 --json

The figures are negative log-likelihoods in nats a token, and perplexities; lower is better. They are
honest only for text that the plugin was not trained on.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from device_agent.cli import OK, print_json
from device_agent.cli.card import parts_in_words
from device_agent.cloud.features import fetch
from device_agent.cloud.link import Link
from device_agent.cloud.wire import choose_encoding
from device_agent.data.documents import read_documents
from device_agent.data.prefix import NO_PREFIX, behind
from device_agent.errors import DeviceError
from device_agent.plugins import PluginStore, PluginVersion
from device_agent.runtime.arithmetic import one_thread
from device_agent.runtime.head import Head
from device_agent.runtime.plugin_kinds import plugin_of
from device_agent.settings import Settings
from device_agent.training.batches import FeatureRows
from device_agent.training.corpus import cache_of, matching_kit, tokens_of
from device_agent.training.evaluate import Evaluation, compare, evaluate, unprefixed
from device_agent.training.watcher import Watcher

NAME = "evaluate"
HELP = "how well text is foreseen"


class NothingToScore(DeviceError):
    """The files are too short to foresee anything in them."""

    hint = "Give a longer text."

    def __init__(self) -> None:
        super().__init__("there is no token to foresee in these files")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's own arguments."""
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help=".txt, .md or .jsonl")
    parser.add_argument("--plugin", metavar="VERSION", help="instead of the current one")
    parser.add_argument("--base", action="store_true", help="the frozen backbone alone")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Fetch the features of the files and score every token."""
    examples = [example for path in args.files for example in read_documents(path)]
    plugins = PluginStore(settings.home)
    version = plugins.get(args.plugin) if args.plugin else plugins.current()
    version = None if args.base else version
    with Link(settings, "evaluate") as link:
        if version is not None:
            version.require(link.facts().fingerprint)
        kit = matching_kit(link, version.kit_id if version else settings.recipe, Watcher())
        cuts = tokens_of(link, examples, whole=kit.manifest.sequential)
        texts = [window for cut in cuts for window in cut]
        if not texts:
            raise NothingToScore()
        encoding = choose_encoding(link, kit) if version is None else version.encoding
        cache = cache_of(link, kit, encoding)
        prefix = version.prefix if version and link.prefix > 0 else NO_PREFIX
        prefixed = [behind(text, prefix) for text in texts]
        fetch(lambda: link.cloud, cache, [*texts, *prefixed])
    head, bare = Head(kit, settings.threads), FeatureRows(cache, texts)
    with one_thread():
        if version is None:
            found = evaluate(kit.manifest, head, None, bare)
        else:
            plugin = plugin_of(kit, version.weights(), settings.threads)
            memory = version.memory() if settings.memory == "on" else None
            behind_prefix = FeatureRows(cache, prefixed)
            parts = (kit.manifest, head, plugin, bare)
            found = compare(*parts, behind_prefix, memory, version.gates)
            if behind_prefix.prefixed:
                found = replace(found, unprefixed=unprefixed(*parts, memory, version.gates))
    _tell(args, version, found)
    return OK


def _tell(args: argparse.Namespace, version: PluginVersion | None, found: Evaluation) -> None:
    if args.json:
        who = {"version": version and version.version, "speaks": version and version.speaks}
        print_json({**found.to_json(), **who})
        return
    if version is not None:
        print(f"version {version.version}")
    for line in parts_in_words(found.to_json()):
        print(line)
