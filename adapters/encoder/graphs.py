"""
The encoder's graphs: scores, and one training step with its optimizer inside.

A step takes every weight whole. What learns comes out as ``next.<name>``, and so do its moments
``first.<name>`` and ``second.<name>``. Bound to the memory that was read, as devices bind them,
learner rows and the tables' rows are written in place and all else stays untouched: nothing is
copied. Rows of ``words`` and ``places`` that a step does not read keep their moments too, as in
torch's SparseAdam.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor

from adapters.adamw import AdamW, Clock
from adapters.encoder.network import TABLES, EncoderShape, Learners, loss_of, scores, undecayed
from adapters.encoder.selection import Selection
from adapters.graphs import CLOCK
from adapters.ports import Graph, Port

_Pullback = tuple[Tensor, Callable[[Tensor], tuple[dict[str, Tensor]]]]

BETAS, DECAY, CLIP = (0.9, 0.999), 0.01, 1.0
"""AdamW as it is usual for fine-tuning encoders."""

_BATCH = (
    Port("ids", ("B", "N"), torch.int64),
    Port("seen", ("B", "N")),
    Port("distinct", ("U",), torch.int64),
    Port("order", ("N",), torch.int64),
)
"""
A batch of B texts of N tokens: ``distinct`` are the tokens in it, ``ids`` say for each place which
of ``distinct`` stands there, ``seen`` is 0 where a text has ended, ``order`` counts from 0.
"""


def infer_graph(shape: EncoderShape) -> Graph:
    """Return the graph from a batch and the weights to ``scores`` (B, C)."""
    ports = (*_BATCH, *_weight_ports(shape.weights()))
    names = [port.name for port in ports]

    def run(*values: Tensor) -> tuple[Tensor, ...]:
        inputs = dict(zip(names, values, strict=True))
        whole = {**inputs, **_rows_read(inputs, inputs)}
        return (scores(shape, whole, {}, inputs["ids"], inputs["seen"]),)

    return Graph("infer.onnx", ports, (Port("scores", ("B", shape.classes)),), run)


def train_graph(shape: EncoderShape, selection: Selection) -> Graph:
    """Return the graph of one step in which ``selection`` learns: ``loss`` (before it) and ``norm`` too."""
    sizes = shape.weights()
    learns = _learning(shape, selection)
    weights = _weight_ports({n: s for n, s in sizes.items() if n in learns})
    frozen = _weight_ports({n: s for n, s in sizes.items() if n not in learns})
    moments = _weight_ports(learns)
    state = (*weights, *_named("first.", moments), *_named("second.", moments))
    rows = tuple(Port(f"rows.{n}", (k,), torch.int64) for n, k in selection.learners.items())
    clock = tuple(Port(name, ()) for name in CLOCK)
    labels = Port("labels", ("B",), torch.int64)
    inputs = (*_BATCH, labels, *clock, *rows, *frozen, *state)
    outputs = (Port("loss", ()), Port("norm", ()), *_named("next.", state))
    run = _step(shape, selection, [port.name for port in inputs], list(learns))
    return Graph("train.onnx", inputs, outputs, run)


def _learning(shape: EncoderShape, selection: Selection) -> dict[str, tuple[int, ...]]:
    """Return the shape of what has a moment, by weight: of learners their rows alone."""
    found = {}
    for name, size in shape.weights().items():
        count = selection.learners.get(name.removesuffix("_bias"))
        if name in selection.whole:
            found[name] = size
        elif count is not None:
            found[name] = (count, *size[1:])
    return found


def _step(
    shape: EncoderShape, selection: Selection, names: Sequence[str], learning: Sequence[str]
) -> Callable[..., tuple[Tensor, ...]]:
    optimizer = AdamW(BETAS, DECAY, CLIP, undecayed(dict.fromkeys(learning)))

    def run(*values: Tensor) -> tuple[Tensor, ...]:
        given = dict(zip(names, values, strict=True))
        rows = _rows_of(selection, given)
        moving = {name: _part(given[name], rows.get(name)) for name in learning}
        read = {**given, **_rows_read(given, given)}

        def forward(current: dict[str, Tensor]) -> Tensor:
            apart = {
                name: Learners(current[name], current[f"{name}_bias"], rows[name])
                for name in selection.learners
            }
            whole = {n: w for n, w in current.items() if n.removesuffix("_bias") not in apart}
            found = scores(shape, {**read, **whole}, apart, given["ids"], given["seen"])
            return loss_of(found, given["labels"])

        loss, backward = cast(_Pullback, torch.func.vjp(forward, moving))
        (gradients,) = backward(torch.ones_like(loss))
        tables = {name: rows[name] for name in TABLES if name in rows}

        def moment(which: str, name: str) -> Tensor:
            return _part(given[f"{which}.{name}"], tables.get(name))

        moments = {name: (moment("first", name), moment("second", name)) for name in learning}
        norm = optimizer.norm(gradients)
        clock = Clock(*(given[name] for name in CLOCK))
        moved = optimizer.step(moving, gradients, moments, norm, clock)
        return (
            loss,
            norm,
            *(_put(given[n], rows.get(n), moved[n].weight) for n in learning),
            *(_put(given[f"first.{n}"], tables.get(n), moved[n].first) for n in learning),
            *(_put(given[f"second.{n}"], tables.get(n), moved[n].second) for n in learning),
        )

    return run


def _rows_of(selection: Selection, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return which rows move of those weights that do not move whole in a step."""
    rows = {name: given[asked] for name, asked in TABLES.items() if name in selection.whole}
    for name in selection.learners:
        rows[name] = rows[f"{name}_bias"] = given[f"rows.{name}"]
    return rows


def _rows_read(given: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: weights[name].index_select(0, given[rows]) for name, rows in TABLES.items()}


def _part(whole: Tensor, rows: Tensor | None) -> Tensor:
    return whole if rows is None else whole.index_select(0, rows)


def _put(whole: Tensor, rows: Tensor | None, part: Tensor) -> Tensor:
    """Return ``whole`` with its ``rows`` replaced by ``part``."""
    return part if rows is None else whole.index_copy(0, rows, part)


def _weight_ports(sizes: Mapping[str, tuple[int, ...]]) -> tuple[Port, ...]:
    return tuple(Port(name, size) for name, size in sizes.items())


def _named(prefix: str, ports: Sequence[Port]) -> tuple[Port, ...]:
    return tuple(Port(prefix + port.name, port.shape) for port in ports)
