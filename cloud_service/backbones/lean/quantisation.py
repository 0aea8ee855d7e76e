"""Weights as codes of 4 or 8 bits in blocks of 32, each block with a scale and a low in float16."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cloud_service.backbones.lean.matrices import BLOCK
from protocol.messages import Floats

LARGEST_CODE = {4: 15, 8: 255}
"""By bits."""


@dataclass(frozen=True, slots=True, eq=False)
class Blocks:
    """
    A matrix as scale * code + low.

    Attributes:
        codes: uint8 (N, K).
        scales: float16 (N, K / 32).
        lows: float16 (N, K / 32).

    """

    codes: NDArray[np.uint8]
    scales: NDArray[np.float16]
    lows: NDArray[np.float16]


def quantise(weights: Floats, bits: int) -> Blocks:
    """
    Round a matrix (N, K) to codes of 4 or 8 bits.

    A block that was written with 4 bits before, scale * code + low in float16, gets the same
    codes again and loses nothing, whichever number of bits is asked for: the lowest of its
    weights has code 0 and the highest code 15. All others are rounded to the nearest code.
    """
    grouped = weights.reshape(len(weights), -1, BLOCK)
    exact, losses = _coded(grouped, LARGEST_CODE[4])
    if bits == 4 or not losses.any():
        return exact
    rounded, _ = _coded(grouped, LARGEST_CODE[bits])
    keep = ~losses
    codes = rounded.codes.reshape(grouped.shape)
    codes[keep] = exact.codes.reshape(grouped.shape)[keep]
    rounded.scales[keep], rounded.lows[keep] = exact.scales[keep], exact.lows[keep]
    return rounded


def as_bytes(weights: Floats) -> tuple[NDArray[np.int8], NDArray[np.float16]] | None:
    """
    Return a matrix (N, K) as codes (N, K) and scales (N, K / 32), if that loses nothing.

    That is so where it was written as such blocks before: the largest of a block has code 127.
    """
    grouped = weights.reshape(len(weights), -1, BLOCK)
    scales = (np.abs(grouped).max(2) / np.float32(127)).astype(np.float16)
    scale = scales[..., None].astype(np.float32)
    codes = np.rint(grouped / np.where(scale > 0, scale, np.float32(1)))
    if not np.array_equal(codes * scale, grouped):
        return None
    return codes.astype(np.int8).reshape(weights.shape), scales


def dequantise(blocks: Blocks) -> Floats:
    """Return the weights that blocks stand for, float32 (N, K)."""
    codes = blocks.codes.reshape(*blocks.scales.shape, BLOCK).astype(np.float32)
    values: Floats = codes * blocks.scales[..., None].astype(np.float32)
    values += blocks.lows[..., None].astype(np.float32)
    weights: Floats = values.reshape(blocks.codes.shape)
    return weights


def is_lossless(weights: Floats) -> bool:
    """Say whether 4 bits hold a matrix (N, K) to the last bit."""
    return bool(np.array_equal(dequantise(quantise(weights, 4)), weights))


def _coded(grouped: Floats, largest: int) -> tuple[Blocks, NDArray[np.bool_]]:
    """Return blocks of weights (N, B, 32) in codes up to ``largest``, and which lost something."""
    low = grouped.min(2)
    lows = low.astype(np.float16)
    scales = ((grouped.max(2) - low) / np.float32(largest)).astype(np.float16)
    scale, low = scales[..., None].astype(np.float32), lows[..., None].astype(np.float32)
    # A block of equal weights has no scale; any code stands for them.
    steps = (grouped - low) / np.where(scale > 0, scale, np.float32(1))
    codes = np.rint(steps).clip(0, largest)
    losses = (codes * scale + low != grouped).any(2)
    flat = codes.astype(np.uint8).reshape(len(grouped), -1)
    return Blocks(flat, scales, lows), losses
