"""
The public basis of a kit, made of states of text that is nobody's own.

**Final state.** To second order, a state that comes back as ``x + e`` costs a divergence of
``½ eᵀ F e`` nats, where F is the mean covariance of the head's rows under the next token's
distribution: the Fisher matrix of the softmax. In coordinates ``z = Uᵀ F^½ (x - mean)`` with U the
principal directions of ``F^½ x`` this is ``½ |error of z|²``, so all coordinates cost alike, none
repeats another, and the first ones hold the most.

**Taps.** Principal directions of all taps of a token together, each channel scaled to a deviation
of one: a few channels are a hundred times as large as the rest and say little.
"""

import torch
from torch import Tensor

from adapters.head import HeadWeights
from protocol.basis import Basis, Directions
from protocol.messages import States

RIDGE = 0.01
"""Share of the mean added to the Fisher matrix: directions that this text does not show still cost something."""

FISHER_TOKENS = 1024
"""Tokens whose distributions make the Fisher matrix."""

_TOKENS_AT_ONCE = 128


def make_basis(states: States, head: HeadWeights, width: int) -> Basis:
    """
    Return the basis that public states give.

    Args:
        states: Taps (K, N, H) and final (N, H).
        head: The backbone's.
        width: Coordinates of the taps, at most; 0 for none.

    """
    if states.final is None:
        raise ValueError("a basis needs final states")
    final = _final_directions(torch.from_numpy(states.final.copy()), head)
    if not width or not states.layers:
        return Basis(states.layers, final, None)
    flat = torch.from_numpy(states.taps.transpose(1, 0, 2).reshape(len(states.final), -1).copy())
    return Basis(states.layers, final, _tap_directions(flat, width))


def fisher(final: Tensor, head: HeadWeights) -> Tensor:
    """Return the mean covariance (H, H) of the head's rows under each state's next token, float64."""
    rows = head.rows.float()
    hidden = rows.shape[1]
    means = torch.zeros(hidden, hidden, dtype=torch.float64)
    shares = torch.zeros(len(rows), dtype=torch.float64)
    for part in final.split(_TOKENS_AT_ONCE):
        likely = torch.softmax(head.logits(part), 1)  # (t, V)
        expected = (likely @ rows).double()  # (t, H)
        means += expected.t() @ expected
        shares += likely.sum(0).double()
    outer = (rows.t() * shares.float()) @ rows
    return (outer.double() - means) / len(final)


def _final_directions(final: Tensor, head: HeadWeights) -> Directions:
    every = max(1, len(final) // FISHER_TOKENS)
    metric = fisher(final[::every], head)
    sizes, axes = torch.linalg.eigh(metric)
    root = torch.sqrt(sizes.clamp(min=0) + RIDGE * sizes.mean())
    into_metric = (axes * root) @ axes.t()  # F^½
    out_of_metric = (axes / root) @ axes.t()
    shift = final.double().mean(0)
    seen = (final.double() - shift) @ into_metric
    _, directions = torch.linalg.eigh(seen.t() @ seen)
    directions = directions.flip(1)  # the largest first
    return _directions(shift, into_metric @ directions, directions.t() @ out_of_metric)


def _tap_directions(flat: Tensor, width: int) -> Directions:
    shift, spread = flat.mean(0), flat.std(0)
    inverse = torch.where(spread > 0, 1 / spread, 0)  # a channel that never moves says nothing
    with torch.random.fork_rng():
        torch.manual_seed(0)  # of the random projection that the directions are found by
        _, _, axes = torch.pca_lowrank((flat - shift) * inverse, min(width, *flat.shape), False)
    return _directions(shift, axes * inverse[:, None], axes.t() * spread)


def _directions(shift: Tensor, into: Tensor, back: Tensor) -> Directions:
    return Directions(*(one.float().contiguous().numpy() for one in (shift, into, back)))
