"""Reads hidden states on their way through the layers. Knows no wire."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class FarEnough(Exception):
    """A forward pass has come to the last layer that anybody looks behind."""


class TapReader:
    """
    Keeps what enters the first layer (tap 0) and what leaves layer k (tap k).

    Hooks, not ``output_hidden_states``: its last entry is already normed, and in some families
    its first is not what enters the first layer.
    """

    def __init__(self, layers: nn.ModuleList) -> None:
        self._wanted: frozenset[int] = frozenset()
        self._depth: int | None = None
        self._rows = torch.empty(0, dtype=torch.long)
        self._seen: dict[int, Tensor] = {}
        layers[0].register_forward_pre_hook(self._enter, with_kwargs=True)
        for number, layer in enumerate(layers, start=1):
            layer.register_forward_hook(self._leaving(number))

    @contextmanager
    def reading(
        self, taps: Collection[int], rows: Tensor, depth: int | None
    ) -> Iterator[Mapping[int, Tensor]]:
        """
        Collect the rows ``rows`` (R,) of ``taps`` from the forward pass within the block.

        The pass ends with ``FarEnough`` behind layer ``depth``, unless that is None.

        Yields:
            A mapping from tap to its states (R, H), filled while the model runs.

        """
        self._wanted, self._rows, self._seen = frozenset(taps), rows, {}
        self._depth = depth
        try:
            yield self._seen
        finally:
            self._wanted, self._seen, self._depth = frozenset(), {}, None

    def _enter(self, _layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._keep(0, args[0] if args else kwargs["hidden_states"])

    def _leaving(self, number: int) -> Any:
        def leave(_layer: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
            # Some families' layers return the states in a tuple, with what else they have.
            self._keep(number, output if isinstance(output, torch.Tensor) else output[0])

        return leave

    def _keep(self, tap: int, states: Tensor) -> None:
        if tap in self._wanted:
            self._seen[tap] = states[0, self._rows]  # (R, H)
        if tap == self._depth:
            raise FarEnough
