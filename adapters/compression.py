"""How a target's frozen weights are stored: as they are, or matrices in codes of 8 or 4 bits."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from adapters.ports import Codes, Constant

BLOCK = 32
"""Numbers that share a scale."""

BITS: Mapping[str, int] = {"int8": 8, "int4": 4}
"""Bits of every matrix's numbers by the recipe's word."""

BACK_BITS = 8
"""Of the transposes that gradients go through: blocks lie along rows, so one copy cannot serve both ways."""


def constants(
    frozen: Mapping[str, Tensor], bits: Mapping[str, int], *, training: bool
) -> tuple[Constant, ...]:
    """
    Return a target's frozen weights as a graph holds them.

    Args:
        frozen: By name, float32.
        bits: Of a matrix's numbers, by its name; those that are not named stay as they are.
        training: Whether gradients go through them; compressed matrices then have a second copy,
            ``<name>.back``.

    """
    return tuple(_constants(frozen, bits, training))


def _constants(
    frozen: Mapping[str, Tensor], bits: Mapping[str, int], training: bool
) -> Iterator[Constant]:
    for name, value in frozen.items():
        if name not in bits:
            yield Constant(name, value)
            continue
        codes = quantise(value, bits[name])
        near = dequantise(codes, value.shape[1])
        yield Constant(name, near, codes)
        if training:
            back = quantise(near.t(), BACK_BITS)
            yield Constant(f"{name}.back", dequantise(back, near.shape[0]), back)


def quantise(matrix: Tensor, bits: int) -> Codes:
    """
    Return the codes of ``matrix`` (out, in), each off by half its block's scale at most.

    The lowest number of a block or zero, whichever is less, is code 0; the highest or zero is the
    last code, up to the rounding of the code that is to stand for zero.
    """
    out, inputs = matrix.shape
    blocks, last = -(-inputs // BLOCK), 2**bits - 1
    filled = torch.nn.functional.pad(matrix, (0, blocks * BLOCK - inputs))
    grouped = filled.view(out, blocks, BLOCK)
    low, high = grouped.amin(2).clamp(max=0), grouped.amax(2).clamp(min=0)
    # A block of zeros would divide by zero; any scale maps it to the code of zero.
    scales = torch.where(high > low, (high - low) / last, torch.ones_like(low))
    zeros = torch.round(-low / scales)
    values = torch.round(grouped / scales.unsqueeze(2)) + zeros.unsqueeze(2)
    codes = values.clamp(0, last).to(torch.uint8)
    return Codes(bits, _packed(codes, bits), scales, _packed(zeros.to(torch.uint8), bits))


def dequantise(codes: Codes, inputs: int) -> Tensor:
    """Return the matrix that the codes stand for, float32 (out, in)."""
    values, zeros = codes.codes, codes.zeros
    if codes.bits == 4:
        values, zeros = (_unpacked(each) for each in (values, zeros))
    zeros = zeros[:, : codes.scales.shape[1], None].float()
    matrix = (values.float() - zeros) * codes.scales.unsqueeze(2)
    return matrix.flatten(1)[:, :inputs].contiguous()


def _packed(codes: Tensor, bits: int) -> Tensor:
    """Return codes of 4 bits two a byte, the lower half first."""
    if bits == 8:
        return codes.contiguous()
    even = torch.nn.functional.pad(codes, (0, codes.shape[-1] % 2))
    return even[..., ::2] | (even[..., 1::2] << 4)


def _unpacked(codes: Tensor) -> Tensor:
    return torch.stack((codes & 15, codes >> 4), -1).flatten(-2)
