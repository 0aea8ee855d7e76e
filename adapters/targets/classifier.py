"""
A plain network of linear layers on the final state, with nothing around it.

    h_1 = relu(final W_1 + b_1);  h_2 = relu(h_1 W_2 + b_2);  state = h_2 W_3 + b_3

The head's rows are its classes. With the identity as head, ``state`` holds the class scores: the
network on which learning rules are compared in the literature.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from adapters.targets.base import uniform, zeros
from adapters.targets.chain import Block, Chain, Stage, Stages, Weights, state_of


class Classifier(Chain):
    """Two hidden layers of width R; the taps are not read."""

    undecayed = frozenset({"first_bias", "inner_bias", "last_bias"})

    def __init__(self, hidden: int, width: int, generator: torch.Generator) -> None:
        super().__init__()
        self.mask = (2, width)
        self.first = uniform((hidden, width), hidden, generator)
        self.first_bias = zeros(width)
        self.inner = uniform((width, width), width, generator)
        self.inner_bias = zeros(width)
        self.last = uniform((width, hidden), width, generator)
        self.last_bias = zeros(hidden)

    def forward(self, taps: Tensor, final: Tensor, mask: Tensor | None) -> Tensor:
        """Return the scores, or what a head makes scores of, (T, H)."""
        weights = dict(self.named_parameters())
        return state_of(self.blocks(taps, final, mask, None), weights, final)

    def blocks(
        self, taps: Tensor, final: Tensor, mask: Tensor | None, modulation: Tensor | None
    ) -> Sequence[Block]:
        """Return a block a layer."""
        keep = (None, None) if mask is None else mask.unbind(0)
        return (
            Block(_whole("first"), partial(_hidden, "first", keep[0], modulation)),
            Block(_whole("inner"), partial(_hidden, "inner", keep[1], None)),
            Block(_whole("last"), _last),
        )


def _whole(name: str) -> dict[str, None]:
    """Return the places of a layer's weights: they are not stacked."""
    return {name: None, f"{name}_bias": None}


def _hidden(
    name: str, keep: Tensor | None, modulation: Tensor | None, own: Weights, state: Tensor
) -> Stages:
    if modulation is not None:
        state = state + modulation
    state = torch.relu((yield _linear(name, state)))
    return state if keep is None else state * keep


def _last(own: Weights, state: Tensor) -> Stages:
    return (yield _linear("last", state))


def _linear(name: str, state: Tensor) -> Stage:
    bias = f"{name}_bias"
    return Stage((name, bias), lambda own, x: torch.addmm(own[bias], x, own[name]), state)
