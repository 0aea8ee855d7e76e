"""Runs compiled graphs beside torch on random inputs and refuses those that differ."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor

from adapters.errors import CompileMismatch, UnusedWeight
from adapters.head import HeadWeights
from adapters.ports import Graph, Port

SIZES: Sequence[Mapping[str, int]] = (
    {"T": 13, "S": 37, "N": 17, "P": 6},
    {"T": 1, "S": 3, "N": 1, "P": 0},
)
"""Lengths of the free axes in the checks; a graph that remembers the traced ones fails."""

ALLOWED = 5e-3
"""Largest difference, as a share of an output's largest value: rounding, and no mistake."""

HEAD_ALLOWED = 5e-2
"""The same for the head, whose fast product rounds weights and states to 8 bits."""

_CLOCK = {"rate": 0.1, "count": 3.0, "total": 10.0, "warmup": 5.0}
_SEED = 1


def check_weights_used(graph: Graph, initial: Mapping[str, Tensor], dropout: float) -> None:
    """
    Refuse a training step in which some weight does not move.

    Raises:
        UnusedWeight: A weight's gradient is zero, or not a number, on random inputs.

    """
    feeds = random_feeds(graph, SIZES[0], initial, dropout)
    results = dict(zip((port.name for port in graph.outputs), graph.run(*feeds), strict=True))
    # The moments begin at zero: what they hold after the step is the gradient.
    moved = {name: bool(results[f"next.first.{name}"].abs().sum() > 0) for name in initial}
    unused = [name for name, moves in moved.items() if not moves]
    if unused:
        raise UnusedWeight(unused)


def check_graph(graph: Graph, path: Path, initial: Mapping[str, Tensor], dropout: float) -> None:
    """
    Compare the ONNX file with the function it was made from.

    Raises:
        CompileMismatch: An output differs by more than rounding.

    """
    session = onnx_session(path)
    for sizes in SIZES:
        feeds = random_feeds(graph, sizes, initial, dropout)
        named = {p.name: f.numpy() for p, f in zip(graph.inputs, feeds, strict=False)}
        ours = session.run([port.name for port in graph.outputs], named)
        for port, mine, theirs in zip(graph.outputs, ours, graph.run(*feeds), strict=True):
            _compare(graph.name, port.name, mine, theirs.numpy(), ALLOWED)


def check_head(folder: Path, head: HeadWeights) -> None:
    """
    Compare ``head.onnx`` with the product by the head's own rows.

    Raises:
        CompileMismatch: The logits differ by more than eight bits can help.

    """
    state = torch.randn(3, head.rows.shape[1], generator=_generator())
    logits = head.logits(state)
    (ours,) = onnx_session(folder / "head.onnx").run(["logits"], {"state": state.numpy()})
    _compare("head.onnx", "logits", ours, logits.numpy(), HEAD_ALLOWED)


def onnx_session(path: Path) -> onnxruntime.InferenceSession:
    """Open a graph on one thread, as a small device does."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def random_feeds(
    graph: Graph, sizes: Mapping[str, int], initial: Mapping[str, Tensor], dropout: float
) -> list[Tensor]:
    """Return a seeded value for every input, near what training feeds, and the constants."""
    generator = _generator()
    feeds = [_feed(port, sizes, initial, dropout, generator) for port in graph.inputs]
    return [*feeds, *(constant.value for constant in graph.constants)]


def _feed(
    port: Port,
    sizes: Mapping[str, int],
    initial: Mapping[str, Tensor],
    dropout: float,
    generator: torch.Generator,
) -> Tensor:
    normal = torch.randn(port.lengths(sizes), generator=generator)
    if port.name in _CLOCK:
        return torch.tensor(_CLOCK[port.name])
    if port.name in initial:
        # Off their initial values: behind a zero matrix every gradient would be zero too.
        return initial[port.name].detach() + 0.05 * normal
    # Every "first.…" and "second.…" is made alike.
    make = _FEEDS.get(port.name.partition(".")[0])
    return normal if make is None else make(normal, sizes.get("S", 0), dropout)


_FEEDS: Mapping[str, Callable[[Tensor, int, float], Tensor]] = {
    "targets": lambda normal, rows, dropout: (1000 * normal.abs()).long() % rows,
    "scored": lambda normal, rows, dropout: normal.abs() + 0.1,
    "mask": lambda normal, rows, dropout: (normal > -1).float() / (1 - dropout),
    # Logits of the size that real ones have: a loss of next to nothing is all rounding.
    "rows": lambda normal, rows, dropout: normal / normal.shape[1] ** 0.5,
    "outside": lambda normal, rows, dropout: normal / normal.shape[1] ** 0.5,
    "first": lambda normal, rows, dropout: torch.zeros_like(normal),
    # Never near zero: there the smallest rounding decides where a weight goes.
    "second": lambda normal, rows, dropout: 0.1 + normal.square(),
}
"""From normal numbers, the length of the shortlist and the dropout to what a port is fed."""


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(_SEED)


def _compare(
    graph: str,
    output: str,
    ours: NDArray[np.float32],
    theirs: NDArray[np.float32],
    allowed: float,
) -> None:
    size = max(float(np.abs(theirs).max(initial=0)), float(np.finfo(np.float32).tiny))
    difference = float(np.abs(ours - theirs).max(initial=0)) / size
    # Written so that NaN is refused too.
    if ours.shape != theirs.shape or not difference <= allowed:
        raise CompileMismatch(graph, output, difference, allowed)
