"""Turns a graph of torch operations into a plain ONNX model: trace, export, tidy."""

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count

import onnx
import torch
from torch import Tensor, nn
from torch.fx import config as fx_config
from torch.fx.experimental.proxy_tensor import make_fx

from adapters.ports import Graph, Port, taken
from adapters.tidy import tidy

OPSET = 20
"""The first with Gelu; every onnxruntime from 1.17 takes it."""


def export(graph: Graph) -> onnx.ModelProto:
    """
    Return ``graph`` as an ONNX model with the graph's own names for inputs, outputs and free axes.

    Its constants are the model's last inputs; ``frozen.freeze`` turns them into constants.

    The traced step holds its backward pass: make_fx sees through ``torch.func``.
    """
    sizes = trace_sizes(graph)
    ports = taken(graph)
    example = tuple(_example(port, sizes) for port in ports)
    with _quiet(), _without_origins():
        # Symbolic, or the trace would hold the example's lengths as constants.
        traced = make_fx(graph.run, tracing_mode="symbolic")(*example)
        program = torch.export.export(
            _Traced(traced), example, dynamic_shapes=(_dynamic(graph),), strict=False
        )
        exported = torch.onnx.export(
            program,
            example,
            dynamo=True,
            optimize=True,
            verbose=False,
            opset_version=OPSET,
            input_names=[port.name for port in ports],
            output_names=[port.name for port in graph.outputs],
        )
    assert exported is not None  # dynamo=True gives a program and writes no file
    return tidy(exported.model_proto, graph)


def trace_sizes(graph: Graph) -> dict[str, int]:
    """
    Return a length for every free axis that occurs nowhere else in the graph.

    The tracer takes axes of equal length for the same axis.
    """
    fixed = {axis for port in taken(graph) for axis in port.shape}
    lengths = (length for length in count(5) if length not in fixed)
    return dict(zip(graph.free_axes(), lengths, strict=False))


class _Traced(nn.Module):
    """torch.export takes a module, and one whose inputs have no names of their own."""

    def __init__(self, traced: torch.fx.GraphModule) -> None:
        super().__init__()
        self.traced = traced

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        result: tuple[Tensor, ...] = self.traced(*values)
        return result


def _example(port: Port, sizes: Mapping[str, int]) -> Tensor:
    # Zeros are a valid value of every port, ids included.
    return torch.zeros(port.lengths(sizes), dtype=port.dtype)


def _dynamic(graph: Graph) -> tuple[dict[int, torch.export.Dim] | None, ...]:
    dims = {name: torch.export.Dim(name, min=2) for name in graph.free_axes()}
    return tuple(
        {place: dims[axis] for place, axis in enumerate(port.shape) if isinstance(axis, str)}
        or None
        for port in taken(graph)
    )


@contextmanager
def _without_origins() -> Iterator[None]:
    """Keep torch from noting in which lines each node was made: it takes long, and is dropped anyway."""
    before = fx_config.do_not_emit_stack_traces
    fx_config.do_not_emit_stack_traces = True
    try:
        yield
    finally:
        fx_config.do_not_emit_stack_traces = before


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch's exporter from talking about itself; what concerns our graphs still shows."""
    registration = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = registration.level
    registration.setLevel(logging.ERROR)  # it misses torchvision, which nothing here uses
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning
            )
            yield
    finally:
        registration.setLevel(level)
