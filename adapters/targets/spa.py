"""
Side plugin adaption as its authors released it (arXiv 2403.07088).

    s = D_0 h_0
    s = relu(s);  s = D_i h_i + A_i(s)     for every layer i
    o = W relu(s)                          A_i(s) = s + V_i dropout(relu(U_i s))

``o`` replaces the backbone's final state, and no norm follows. A fresh plugin therefore knows
nothing: what it says is learnt from zero.
"""

import torch
from torch import Tensor

from adapters.targets.base import Target, uniform, zeros


class Spa(Target):
    """One small side block a layer, reading every state from 0 to L."""

    undecayed = frozenset({"down_bias", "inner_bias", "outer_bias", "up_bias"})

    def __init__(
        self, taps: int, hidden: int, width: int, inner: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        layers = taps - 1  # tap 0 is what enters the first layer
        self.mask = (layers, inner)
        self.down = uniform((taps, hidden, width), hidden, generator)
        self.down_bias = zeros(taps, width)
        self.inner = uniform((layers, width, inner), width, generator)
        self.inner_bias = zeros(layers, inner)
        self.outer = uniform((layers, inner, width), inner, generator)
        self.outer_bias = zeros(layers, width)
        self.up = uniform((width, hidden), width, generator)
        self.up_bias = zeros(hidden)

    def forward(self, taps: Tensor, final: Tensor, mask: Tensor | None) -> Tensor:
        """Return the state that replaces ``final``, (T, H)."""
        downs = torch.bmm(taps, self.down) + self.down_bias.unsqueeze(1)  # (L + 1, T, R)
        side, *downs_of_layers = downs.unbind(0)  # each (T, R)
        blocks = zip(
            downs_of_layers,
            self.inner.unbind(0),
            self.inner_bias.unbind(0),
            self.outer.unbind(0),
            self.outer_bias.unbind(0),
            [None] * len(downs_of_layers) if mask is None else mask.unbind(0),
            strict=True,
        )
        for down, inner, inner_bias, outer, outer_bias, keep in blocks:
            side = torch.relu(side)
            spread = torch.relu(torch.addmm(inner_bias, side, inner))  # (T, inner)
            if keep is not None:
                spread = spread * keep
            side = down + side + torch.addmm(outer_bias, spread, outer)  # (T, R)
        return torch.addmm(self.up_bias, torch.relu(side), self.up)
