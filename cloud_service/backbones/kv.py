"""The store of keys and values: pages for all sessions, of which each session's cache is a table."""

from typing import NamedTuple

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedConfig
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from cloud_service.backbones.pages import PAGE, PagePool
from cloud_service.errors import BackboneRefused


class KvMeasures(NamedTuple):
    """What one position takes."""

    windows: tuple[int | None, ...]
    """Of each layer, see ``KvStore``."""
    heads: int
    width: int
    """Of a head."""


def measures_of(config: PreTrainedConfig) -> KvMeasures:
    """
    Return the measures of a causal model's keys and values.

    Raises:
        BackboneRefused: A layer keeps something else than keys and values.

    """
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return KvMeasures(windows_of(config), heads, width)


class KvStore:
    """
    The memory behind a pool of pages.

    Attributes:
        keys: (pages, PAGE, heads, width) of each layer.
        values: The same.
        windows: How many positions each layer looks back at, itself included; None for all.
            A layer with a window keeps what has left it: a crop may bring it back into sight.

    """

    def __init__(
        self, measures: KvMeasures, budget: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        """
        Reserve memory, which the system gives when it is first written.

        Args:
            measures: Of the model's keys and values.
            budget: Bytes for all pages; one page at least is made.
            dtype: Of keys and values.
            device: Where they are.

        """
        self.windows, heads, width = measures
        page_bytes = len(self.windows) * 2 * PAGE * heads * width * dtype.itemsize
        pages = max(1, budget // page_bytes)
        shape = (len(self.windows), pages, PAGE, heads, width)
        self.keys: tuple[Tensor, ...] = torch.empty(shape, dtype=dtype, device=device).unbind()
        self.values: tuple[Tensor, ...] = torch.empty(shape, dtype=dtype, device=device).unbind()
        self.pool = PagePool(pages, page_bytes, self._copy)

    def _copy(self, source: int, target: int) -> None:
        for layer in (*self.keys, *self.values):
            layer[target] = layer[source]


def windows_of(config: PreTrainedConfig) -> tuple[int | None, ...]:
    """
    Return the sliding window of each layer, None where it looks at everything.

    Raises:
        BackboneRefused: A layer keeps something else than keys and values.

    """
    return tuple(_window(layer) for layer in DynamicCache(config=config).layers)


def _window(layer: object) -> int | None:
    if type(layer) is DynamicSlidingWindowLayer:
        return int(layer.sliding_window)
    if type(layer) is DynamicLayer:
        return None
    raise BackboneRefused(f"a layer with {type(layer).__name__} cannot be cropped exactly")
