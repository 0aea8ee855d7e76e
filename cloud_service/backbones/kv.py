"""The keys and values of one session: grown as they come, cropped to any position."""

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedConfig
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicLayer, DynamicSlidingWindowLayer

from cloud_service.errors import BackboneRefused

BLOCK = 64
"""Positions by which the memory grows: what is held and not used is less than two blocks."""


class KvLayer(CacheLayerMixin):
    """
    Keys and values of one layer, (1, heads, positions, width) each.

    A layer with a sliding window keeps what has left the window as well and shows its newest
    positions only: a crop may bring the old ones back into sight, and must be exact.
    """

    is_croppable = True
    supports_early_init = False
    keys: Tensor
    values: Tensor

    def __init__(self, window: int | None) -> None:
        super().__init__()
        self.keys = self.values = torch.empty(1, 0, 0, 0)
        self.window = window
        self.is_sliding = window is not None
        self.length = 0

    @property
    def capacity(self) -> int:
        """Positions for which memory is held."""
        return int(self.keys.shape[2])

    @property
    def bytes(self) -> int:
        """Bytes of memory held."""
        return self.keys.nbytes + self.values.nbytes

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Take the shapes from the first states that come."""
        self.keys, self.values = key_states[:, :, :0], value_states[:, :, :0]
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append T positions, return all that the new ones may look at, themselves included."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        count = key_states.shape[2]
        end = self.length + count
        if end > self.capacity:
            self._resize(end)
        self.keys[:, :, self.length : end] = key_states
        self.values[:, :, self.length : end] = value_states
        start = self.length - self._visible()
        self.length = end
        return self.keys[:, :, start:end], self.values[:, :, start:end]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return how many positions the next pass looks at, and the first one's number."""
        visible = self._visible()
        return visible + query_length, self.length - visible

    def get_seq_length(self) -> int:
        """Return the positions seen so far."""
        return self.length

    def get_max_length(self) -> int:
        """Return the window, or -1 when there is none."""
        return -1 if self.window is None else self.window

    def shorten(self, length: int) -> None:
        """Forget all positions from ``length`` on, and give memory back when it is much."""
        self.length = min(self.length, length)
        if self.capacity - _rounded(self.length) > BLOCK:
            self._resize(self.length)

    def _visible(self) -> int:
        return self.length if self.window is None else min(self.length, self.window - 1)

    def _resize(self, length: int) -> None:
        self.keys, self.values = self._moved(self.keys, length), self._moved(self.values, length)

    def _moved(self, held: Tensor, length: int) -> Tensor:
        shape = (*held.shape[:2], _rounded(length), held.shape[3])
        moved = torch.empty(shape, dtype=held.dtype, device=held.device)
        moved[:, :, : self.length] = held[:, :, : self.length]
        return moved


class SessionCache:
    """All layers of one session."""

    def __init__(self, windows: tuple[int | None, ...]) -> None:
        self._layers = [KvLayer(window) for window in windows]
        self.kv = Cache(layers=list(self._layers))

    @property
    def position(self) -> int:
        """Positions that have been read."""
        return self._layers[0].length

    @property
    def capacity(self) -> int:
        """Positions for which memory is held."""
        return self._layers[0].capacity

    @property
    def bytes(self) -> int:
        """Bytes of memory held."""
        return sum(layer.bytes for layer in self._layers)

    def crop(self, position: int) -> None:
        """Forget all positions from ``position`` on."""
        for layer in self._layers:
            layer.shorten(position)


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


def _rounded(length: int) -> int:
    return -(-length // BLOCK) * BLOCK
