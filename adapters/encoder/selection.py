"""
Which weights of an encoder learn.

FAR, freeze and reconfigure (arXiv 2205.01541): after a short priming, in which everything learns, the
nodes of each feed-forward linear (its rows) that moved most go on, and the others stay. Attention,
norms, embeddings and head learn whole.

As published, each such linear becomes a learner linear and a frozen one, whose outputs are joined and
permuted back. Here it stays whole: a step reads its learner rows out of it and writes them back in
place, so nothing is permuted, there is nothing to merge, and inference is that of the weights as they
are. What learns has a gradient and moments; what is frozen has neither.

Nodes are ranked in each linear by itself, so every linear has the same share of learners whatever
they are. Who they are is an input of the graph: one graph serves everybody, where a ranking over all
linears together would give each person's text a graph of its own.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from adapters.encoder.network import EncoderShape, Weights

PRIMING = 0.01
"""Share of the steps in which everything learns."""


@dataclass(frozen=True, slots=True)
class Selection:
    """What learns."""

    whole: frozenset[str]
    """Weights that learn whole."""

    learners: Mapping[str, int]
    """Learner rows of each linear that learns in part."""


def everything(shape: EncoderShape) -> Selection:
    """Return full fine-tuning."""
    return Selection(frozenset(shape.weights()), {})


def biases(shape: EncoderShape) -> Selection:
    """Return BitFit (arXiv 2106.10199): biases and the head."""
    return Selection(
        frozenset(n for n in shape.weights() if n.endswith("_bias") or n == "head"), {}
    )


def far(shape: EncoderShape, share: float) -> Selection:
    """
    Return learners for ``share`` of the nodes of each feed-forward linear, at least one.

    Raises:
        ValueError: ``share`` is not above 0 and at most 1.

    """
    if not 0 < share <= 1:
        raise ValueError(f"the share of learners must be above 0 and at most 1, but is {share}")
    sizes = shape.weights()
    counts = {name: math.ceil(share * sizes[name][0]) for name in shape.feed_forward()}
    apart = {part for name in counts for part in (name, f"{name}_bias")}
    return Selection(frozenset(sizes) - apart, counts)


def node_scores(shape: EncoderShape, before: Weights, after: Weights) -> dict[str, Tensor]:
    """Return how far each node of each feed-forward linear moved, the L1 norm of its row, (out,)."""
    return {name: (after[name] - before[name]).abs().sum(1) for name in shape.feed_forward()}


def chosen(selection: Selection, scored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the learners' rows by linear, rising, int64 (n,): those with the highest scores."""
    return {
        name: scored[name].topk(count).indices.sort().values
        for name, count in selection.learners.items()
    }


def drawn(selection: Selection, shape: EncoderShape, seed: int) -> dict[str, Tensor]:
    """Return as many rows by linear, drawn: what the scores have to be better than."""
    generator = torch.Generator().manual_seed(seed)
    sizes = shape.weights()
    even = {name: torch.rand(sizes[name][0], generator=generator) for name in selection.learners}
    return chosen(selection, even)
