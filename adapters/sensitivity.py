"""
Which blocks bear fewer bits: layer-wise unified compression (Edge-LLM, arXiv 2406.15758).

    error of block l    ‖s_l - s‖² / ‖s‖²     s what the head reads of a text, s_l the same with
                                              block l alone in 4 bits
    bits of block l     8 where its error is above the mean of all blocks, else 4

The publication compares the outputs of the block itself. Here it is what the head reads: the sizes
of states differ from block to block, and an error counts by what becomes of it.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from adapters.compression import dequantise, quantise
from adapters.targets.tail import Tail

FEW, MANY = 4, 8

_UNSEEN = -1e9


def bits_by_sensitivity(tail: Tail, texts: Tensor) -> dict[str, int]:
    """
    Return the bits of each frozen matrix by its name.

    Args:
        tail: Fresh.
        texts: States that enter its first block, one text of N tokens after another, (texts, N, H).

    """
    errors = output_errors(tail, texts)
    mean = sum(errors) / len(errors)
    return {
        name: MANY if errors[place] > mean else FEW
        for place in range(tail.count)
        for name in tail.matrices(place)
    }


def output_errors(tail: Tail, texts: Tensor) -> list[float]:
    """Return the error of each block; arguments as for ``bits_by_sensitivity``."""
    own = _outputs(tail, tail.frozen, texts)
    errors = []
    for place in range(tail.count):
        names = tail.matrices(place)
        stored = {name: _stored(tail.frozen[name]) for name in names}
        other = _outputs(tail, {**tail.frozen, **stored}, texts)
        errors.append(float((other - own).square().sum() / own.square().sum()))
    return errors


def _stored(matrix: Tensor) -> Tensor:
    return dequantise(quantise(matrix, FEW), matrix.shape[1])


def _outputs(tail: Tail, frozen: Mapping[str, Tensor], texts: Tensor) -> Tensor:
    """Return what the head reads of every text, (texts, N, H)."""
    count = texts.shape[1]
    sight = {
        "positions": torch.arange(count, dtype=torch.float32),
        "reach": torch.full((count, count), _UNSEEN).triu(1),
    }
    bound = tail.bound({**frozen, **sight})
    with torch.no_grad():
        return torch.stack([bound(text[None], text, None) for text in texts])
