"""
Encodings of a kit's coordinates, from coarse to fine, and what each costs on public text.

A coordinate with mean square d, in codes that lose a share n of it, costs ½ n d nats (see
``basis``) and so many bytes. At a price p for a byte every block of coordinates takes the codec
that makes cost + p · bytes smallest; a series of prices gives the series of encodings. None is left out: the
last ones are small on this text and large on another (a sixth of the final state's, left out, cost
0.03 nats on what the backbone says and 0.12 on an address of 1873). What encodings
really cost is then measured: by the divergence of the next token from what exact coordinates give,
of the frozen backbone and of a plugin that has moved as far as training moves one. The larger counts,
as the mean and two of its standard errors.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from adapters.basis import make_basis
from adapters.head import HeadWeights
from adapters.targets.base import Target
from protocol import versions
from protocol.basis import Basis
from protocol.codecs import codec_named
from protocol.encoding import Encoding, Measured, Section, Sections
from protocol.kit import BasisSpec
from protocol.messages import Coordinates, States

LOST = {"int8": 4e-5, "int6": 6e-4, "int4": 1e-2}
"""Share of a block's mean square that its rounding loses, about."""

PRICES = tuple(10 ** (-k / 3) for k in range(9, 18))
"""Nats that a byte is worth, from coarse to fine."""

MOVED = 0.3
"""Nats by which the plugin that is measured diverges from the frozen backbone, as trained ones do."""

STIR = 0.02
"""Standard deviation of the noise that is added to its weights, before its correction is scaled."""

_BLOCK = 32
_TRIALS = 5
_TRIAL_TOKENS = 64


def sections_of(sizes: Sequence[float], price: float) -> Sections:
    """
    Return what coordinates travel in at a price.

    Args:
        sizes: Mean square of each, falling.
        price: Nats that a byte is worth.

    """
    chosen = list[tuple[str, int]]()
    for start in range(0, len(sizes), _BLOCK):
        block = sizes[start : start + _BLOCK]
        costs = {
            codec: lost * sum(block) / 2 + price * codec_named(codec).size((len(block),))
            for codec, lost in LOST.items()
        }
        chosen.append((min(costs, key=lambda codec: costs[codec]), len(block)))
    return tuple(
        Section(codec, sum(width for _, width in some))
        for codec, some in groupby(chosen, lambda one: one[0])
    )


MEASURED_TOKENS = 256
"""Tokens of public text that costs are measured on; the basis never saw them."""


class Wire(NamedTuple):
    """What a kit says of how its states travel."""

    basis: Basis
    spec: BasisSpec
    encodings: tuple[Measured, ...]


def make_wire(states: States, target: Target, head: HeadWeights, width: int) -> Wire:
    """
    Return a basis made of public states, and what its encodings cost.

    Args:
        states: Taps (K, N, H) and final (N, H); the last ones measure what the others made.
        target: With its initial weights.
        head: The backbone's.
        width: Coordinates of the taps, at most.

    """
    rows = states.taps.shape[1]
    last = min(MEASURED_TOKENS, rows // 4)
    made_of, text = rows_of(states, slice(rows - last)), rows_of(states, slice(rows - last, rows))
    basis = make_basis(made_of, head, width)
    spec = BasisSpec(*basis.widths)
    return Wire(basis, spec, measured_encodings(basis, target, head, made_of, text))


def rows_of(states: States, rows: slice) -> States:
    """Return some rows of states."""
    final = None if states.final is None else states.final[rows]
    return States(0, states.layers, states.taps[:, rows], final)


def measured_encodings(
    basis: Basis, target: Target, head: HeadWeights, made_of: States, text: States
) -> tuple[Measured, ...]:
    """
    Return encodings from coarse to fine, each with its cost.

    Args:
        basis: Of the kit.
        target: With its initial weights.
        head: The backbone's.
        made_of: States that the basis was made of: they give the sizes of the coordinates.
        text: Other public states, on which the cost is measured.

    """
    bench = _Bench(basis, target, head, text)
    return tuple(bench.measured(encoding) for encoding in _series(basis, made_of))


def _series(basis: Basis, states: States) -> Iterator[Encoding]:
    """Give each different encoding that some price leads to."""
    written = basis.written(states, basis.widths)
    final, taps = (np.square(part).mean(0).astype(float) for part in (written.final, written.taps))
    # A correction as large as trained ones are, read from the taps alone.
    taps = taps * (2 * MOVED / max(taps.sum(), np.finfo(float).tiny)) if len(taps) else taps
    found = dict[Encoding, None]()
    for price in PRICES:
        encoding = Encoding(sections_of(final.tolist(), price), sections_of(taps.tolist(), price))
        found[encoding] = None
    yield from found


class _Bench:
    """The backbone's and a plugin's next tokens, to be compared with those of decoded states."""

    def __init__(self, basis: Basis, target: Target, head: HeadWeights, text: States) -> None:
        self._basis, self._target, self._head, self._text = basis, target, head, text
        exact = basis.read(basis.written(text, basis.widths))
        generator = torch.Generator().manual_seed(1)
        self._weights = {
            name: weight.detach() + STIR * torch.randn(weight.shape, generator=generator)
            for name, weight in target.named_parameters()
        }
        self._base = self._next(_final(exact))
        self._share = 1.0
        few = rows_of(exact, slice(_TRIAL_TOKENS))
        for _ in range(_TRIALS):  # the divergence grows with the square of the correction, about
            found = _divergence(self._base[:_TRIAL_TOKENS], self._next(self._moved(few)))
            self._share *= (MOVED / max(found, 1e-9)) ** 0.5
        self._plugin = self._next(self._moved(exact))

    def measured(self, encoding: Encoding) -> Measured:
        """Write the text, read it again, and see what that costs."""
        written = self._basis.written(self._text, encoding.widths)
        message = versions.decode(versions.encode(written, encoding))
        states = self._basis.read(cast(Coordinates, message))
        costs = [_upper_end(self._base, self._next(_final(states)))]
        if states.layers:
            costs.append(_upper_end(self._plugin, self._next(self._moved(states))))
        one = Coordinates(0, written.final[:1], written.taps[:1])
        return Measured(encoding, max(0.0, *costs), len(versions.encode(one, encoding)))

    def _moved(self, states: States) -> Tensor:
        """What the head reads of a plugin that has moved, (N, H)."""
        final = _final(states)
        inputs = (torch.from_numpy(states.taps), final, None)
        with torch.no_grad():
            state: Tensor = torch.func.functional_call(self._target, self._weights, inputs)
        return final + self._share * (state - final)

    def _next(self, states: Tensor) -> Tensor:
        """Log-probabilities of the next tokens, (N, V)."""
        return torch.log_softmax(self._head.logits(states), 1)


def _final(states: States) -> Tensor:
    if states.final is None:
        raise ValueError("an encoding needs final states")
    return torch.from_numpy(states.final)


def _upper_end(reference: Tensor, other: Tensor) -> float:
    """Mean divergence and two of its standard errors: a bound should hold on other text too."""
    rows = _divergences(reference, other)
    return float(rows.mean() + 2 * rows.std() / len(rows) ** 0.5)


def _divergence(reference: Tensor, other: Tensor) -> float:
    return float(_divergences(reference, other).mean())


def _divergences(reference: Tensor, other: Tensor) -> Tensor:
    """KL(reference || other) of rows of log-probabilities (N, V), nats, (N,)."""
    return (reference.exp() * (reference - other)).sum(1)
