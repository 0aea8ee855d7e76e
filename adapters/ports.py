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
class Codes:
    """
    A matrix (out, in) in codes of 8 or 4 bits, blocks of 32 along its rows; B = ceil(in / 32).

    Attributes:
        bits: 8 or 4.
        codes: uint8 (out, B, 32), or (out, B, 16) with two codes a byte, the lower half first.
        scales: Of each block, (out, B).
        zeros: The code that stands for zero in each block: uint8 (out, B), or (out, ceil(B / 2)) with
            two a byte.
    """

    bits: int
    codes: Tensor
    scales: Tensor
    zeros: Tensor


@dataclass(frozen=True, slots=True)
class Constant:
    """A frozen weight, which becomes part of the kit's file of frozen weights."""

    name: str
    value: Tensor
    """float32, as the graph computes with it."""

    codes: Codes | None = None
    """What is stored in its place."""

    @property
    def port(self) -> Port:
        """Return it as an input, which it is until the graph has been exported."""
        return Port(self.name, tuple(self.value.shape))


@dataclass(frozen=True, slots=True)
class Graph:
    """A function of tensors, in the order of its ports."""

    name: str
    """The file it becomes."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    run: Callable[..., tuple[Tensor, ...]]
    """Takes the inputs, then the constants."""

    constants: tuple[Constant, ...] = ()

    def free_axes(self) -> tuple[str, ...]:
        """Return the names of the free axes, in the order in which they first occur."""
        axes = (axis for port in self.inputs for axis in port.shape)
        return tuple(dict.fromkeys(axis for axis in axes if isinstance(axis, str)))


def taken(graph: Graph) -> tuple[Port, ...]:
    """Return everything that ``run`` takes: the inputs, then the constants."""
    return (*graph.inputs, *(constant.port for constant in graph.constants))
