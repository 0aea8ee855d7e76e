"""Scores any weights of a kit on any text, as the device itself would: the same windows, head and arithmetic."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.errors import BenchmarkError
from device_agent.cloud.features import fetch
from device_agent.cloud.link import Link
from device_agent.data.examples import Example
from device_agent.federated.shared import of_kit
from device_agent.plugins import PluginStore
from device_agent.runtime.head import Head
from device_agent.runtime.side_plugin import SidePlugin
from device_agent.settings import Settings
from device_agent.training.batches import FeatureRows
from device_agent.training.corpus import cache_of, matching_kit, tokens_of
from device_agent.training.evaluate import evaluate
from device_agent.training.watcher import Watcher

Weights = Mapping[str, NDArray[np.float32]]


class Scorer:
    """One cloud and a kit of it.

    Args:
        home: Where features are kept.
        url: Of the cloud.
        recipe: Of the kit.
    """

    def __init__(self, home: Path, url: str, recipe: str) -> None:
        self._settings = Settings(home=home, cloud=url, recipe=recipe, threads=1, prefix=0)
        with Link(self._settings) as link:
            self._kit = matching_kit(link, self._settings.recipe, Watcher())
            tokenizer = link.tokenizer()
        self.size = lambda text: len(tokenizer.encode(text))
        self._head = Head(self._kit, 1)
        self.tokens = 0
        """Tokens of the last text that was scored."""

    def score(self, test: Sequence[str], weights: Weights | None) -> float:
        """Mean negative log-likelihood a token; of the frozen backbone when there are no weights."""
        rows = self._rows(test)
        self.tokens = len(rows)
        plugin = None if weights is None else SidePlugin(self._kit, dict(weights), 1)
        found = evaluate(self._kit.manifest, self._head, plugin, rows)
        return found.base if found.plugin is None else found.plugin

    def shared(self, home: Path) -> Weights:
        """
        What a federation has left in a home, with the home's own weights where not all are shared.

        Raises:
            BenchmarkError: It left nothing.

        """
        found = of_kit(home, self._kit.manifest)
        if found is None:
            raise BenchmarkError(f"the federation left no weights in {home.name}")
        return found.weights

    def speaking(self, home: Path) -> Weights | None:
        """Weights of the version that speaks in a home; None when the frozen backbone does."""
        version = PluginStore(home).current()
        return None if version is None else version.weights()

    def _rows(self, test: Sequence[str]) -> FeatureRows:
        with Link(self._settings) as link:
            windows = [
                window
                for cut in tokens_of(link, [Example(text=text) for text in test])
                for window in cut
            ]
            cache = cache_of(link, self._kit, None)
            fetch(lambda: link.cloud, cache, windows)
        return FeatureRows(cache, windows)


def parameters(folder: Path) -> int:
    """Weights of a backbone in Hugging Face layout, each once; nothing of them is read."""
    total = 0
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        shapes = [one["shape"] for name, one in header.items() if name != "__metadata__"]
        total += sum(math.prod(shape) for shape in shapes)
    return total
