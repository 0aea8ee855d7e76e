"""
A ladder beside the backbone: one rung a tap, the final state last.

    d_k  = down_k norm(tap_k) + b_k
    side = g_k d_k + (1 - g_k) side        g_k = sigmoid(gate_k); the first rung begins with d_0
    side = side + outer_k gelu(inner_k norm(side))
    state = final + up norm(side)

``up`` begins at zero: a fresh plugin changes nothing.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from adapters.targets.base import ones, uniform, zeros
from adapters.targets.chain import Block, Chain, Stage, Stages, Weights

_EPSILON = 1e-6
"""Keeps the norm of a zero state finite; far below the mean square of any real one."""


class Ladder(Chain):
    """Normed taps, learnt gates, MLP blocks of width R -> 2R -> R."""

    undecayed = frozenset(
        {"scale", "down_bias", "gate", "inner_scale", "inner_bias", "outer_bias", "up_scale"}
    )

    def __init__(self, taps: int, hidden: int, width: int, generator: torch.Generator) -> None:
        super().__init__()
        rungs = taps + 1  # the final state is the last one
        self.mask = (rungs, width)
        self.scale = ones(rungs, hidden)
        self.down = uniform((rungs, hidden, width), hidden, generator)
        self.down_bias = zeros(rungs, width)
        self.gate = zeros(taps)  # one a junction: none is left unused
        self.inner_scale = ones(rungs, width)
        self.inner = uniform((rungs, width, 2 * width), width, generator)
        self.inner_bias = zeros(rungs, 2 * width)
        self.outer = uniform((rungs, 2 * width, width), 2 * width, generator)
        self.outer_bias = zeros(rungs, width)
        self.up_scale = ones(width)
        self.up = zeros(width, hidden)

    def forward(self, taps: Tensor, final: Tensor, mask: Tensor | None) -> Tensor:
        """Return ``final`` and the ladder's correction, (T, H)."""
        downs = self._downs(taps, final, mask).unbind(0)  # each (T, R)
        gates = torch.sigmoid(self.gate).unbind(0)  # each ()
        # A norm's scale goes into the matrix behind it: its gradient then costs no pass over tokens.
        inners = (self.inner_scale.unsqueeze(2) * self.matrix("inner")).unbind(0)  # each (R, 2R)
        blocks = zip(
            inners,
            self.inner_bias.unbind(0),
            self.matrix("outer").unbind(0),
            self.outer_bias.unbind(0),
            strict=True,
        )
        side = downs[0]
        for rung, (inner, inner_bias, outer, outer_bias) in enumerate(blocks):
            if rung:
                side = side + gates[rung - 1] * (downs[rung] - side)  # (T, R)
            spread = functional.gelu(
                torch.addmm(inner_bias, side * _shrink(side), inner)
            )  # (T, 2R)
            side = side + torch.addmm(outer_bias, spread, outer)  # (T, R)
        up = self.up_scale.unsqueeze(1) * self.up  # (R, H)
        return final + torch.mm(side * _shrink(side), up)

    def matrix(self, name: str) -> Tensor:
        """Return a matrix of all rungs as ``forward`` uses it, (K + 1, inputs, neurons)."""
        weight: Tensor = getattr(self, name)
        return weight

    def _downs(self, taps: Tensor, final: Tensor, mask: Tensor | None) -> Tensor:
        """Return every rung's normed, projected state, (K + 1, T, R)."""
        down = self.scale.unsqueeze(2) * self.matrix("down")  # (K + 1, H, R)
        tapped, last = down.split((len(down) - 1, 1))
        # The norm divides behind the product, where a token is R numbers wide and not H.
        below = torch.bmm(taps, tapped) * _shrink(taps)
        top = torch.mm(final, last.squeeze(0)) * _shrink(final)
        downs = torch.cat((below, top.unsqueeze(0))) + self.down_bias.unsqueeze(1)
        return downs if mask is None else downs * mask

    def blocks(
        self, taps: Tensor, final: Tensor, mask: Tensor | None, modulation: Tensor | None
    ) -> Sequence[Block]:
        """Return a block a rung, and ``up`` as the last one."""
        rungs = []
        for place in range(len(taps) + 1):
            names = ("scale", "down", "down_bias", *_RUNG)
            places: dict[str, int | None] = {name: place for name in names}
            if place:
                places["gate"] = place - 1
            run = partial(_rung, (*taps, final)[place], None if mask is None else mask[place])
            rungs.append(Block(places, partial(run, modulation)))
        return *rungs, Block({"up_scale": None, "up": None}, partial(_up, final))


_RUNG = ("inner_scale", "inner", "inner_bias", "outer", "outer_bias")


def _rung(
    tap: Tensor, keep: Tensor | None, modulation: Tensor | None, own: Weights, side: Tensor
) -> Stages:
    """Read the tap (T, H) into the side (T, R); the first rung has no side yet, and no gate."""
    normed = tap * _shrink(tap)
    if modulation is not None:
        normed = normed + modulation
    down = yield Stage(("scale", "down", "down_bias"), _down, normed)
    if keep is not None:
        down = down * keep
    if "gate" in own:
        step = yield Stage(
            ("gate",), lambda own, way: torch.sigmoid(own["gate"]) * way, down - side
        )
        down = side + step
    side = down
    spread = yield Stage(("inner_scale", "inner", "inner_bias"), _inner, side * _shrink(side))
    move = yield Stage(("outer", "outer_bias"), _outer, functional.gelu(spread))
    return side + move


def _down(own: Weights, normed: Tensor) -> Tensor:
    return torch.addmm(own["down_bias"], normed, own["scale"].unsqueeze(1) * own["down"])


def _inner(own: Weights, normed: Tensor) -> Tensor:
    return torch.addmm(own["inner_bias"], normed, own["inner_scale"].unsqueeze(1) * own["inner"])


def _outer(own: Weights, spread: Tensor) -> Tensor:
    return torch.addmm(own["outer_bias"], spread, own["outer"])


def _up(final: Tensor, own: Weights, side: Tensor) -> Stages:
    correction = yield Stage(
        ("up_scale", "up"),
        lambda own, normed: torch.mm(normed, own["up_scale"].unsqueeze(1) * own["up"]),
        side * _shrink(side),
    )
    return final + correction


def _shrink(states: Tensor) -> Tensor:
    """Return the inverse root mean square along the last axis, (..., 1)."""
    return torch.rsqrt((states * states).mean(-1, keepdim=True) + _EPSILON)
