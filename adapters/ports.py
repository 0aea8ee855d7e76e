"""What a graph of a kit is: a function of tensors with named, typed ports."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

Axis = int | str
"""A fixed length, or the name of a free one: "T" tokens, "S" shortlist rows, "N" rows outside."""


@dataclass(frozen=True, slots=True)
class Port:
    """One input or output."""

    name: str
    shape: tuple[Axis, ...]
    dtype: torch.dtype = torch.float32

    def lengths(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """Return the shape with the free axes at the given sizes."""
        return tuple(sizes[axis] if isinstance(axis, str) else axis for axis in self.shape)


@dataclass(frozen=True, slots=True)
class Graph:
    """A function of tensors, in the order of its ports."""

    name: str
    """The file it becomes."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    run: Callable[..., tuple[Tensor, ...]]

    def free_axes(self) -> tuple[str, ...]:
        """Return the names of the free axes, in the order in which they first occur."""
        axes = (axis for port in self.inputs for axis in port.shape)
        return tuple(dict.fromkeys(axis for axis in axes if isinstance(axis, str)))
