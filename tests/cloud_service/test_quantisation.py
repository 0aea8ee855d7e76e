"""Weights in blocks: what was written with 4 bits comes back to the last bit."""

import numpy as np
import pytest

from cloud_service.backbones.lean.matrices import PANEL, code_panels, panels
from cloud_service.backbones.lean.quantisation import as_bytes, dequantise, is_lossless, quantise


def four_bit_weights(rng, rows=64, columns=96, lowest=0):
    """As a Q4_1 file stands for them: d * q + m, d and m float16, in float32."""
    blocks = (rows, columns // 32)
    codes = rng.integers(lowest, 16, (*blocks, 32)).astype(np.float32)
    codes[..., 0], codes[..., 1] = 0, 15
    d = (rng.random(blocks) * 0.01).astype(np.float16).astype(np.float32)
    m = (rng.standard_normal(blocks) * 0.05).astype(np.float16).astype(np.float32)
    return (d[..., None] * codes + m[..., None]).reshape(rows, columns)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("bits", [4, 8])
def test_four_bit_weights_lose_nothing(seed, bits):
    weights = four_bit_weights(np.random.default_rng(seed))
    assert is_lossless(weights)
    np.testing.assert_array_equal(dequantise(quantise(weights, bits)), weights)


def test_other_weights_are_off_by_half_a_step_and_the_rounding_of_float16():
    weights = np.random.default_rng(0).standard_normal((64, 96)).astype(np.float32)
    assert not is_lossless(weights)
    for bits, largest in ((4, 15), (8, 255)):
        blocks = quantise(weights, bits)
        grouped = weights.reshape(64, 3, 32)
        step = (grouped.max(2) - grouped.min(2)) / largest
        error = np.abs(dequantise(blocks) - weights).reshape(64, 3, 32).max(2)
        half = 0.5 * step + np.abs(grouped).max(2) * 2**-10 + largest * step * 2**-11
        assert (error <= half).all()


def test_a_matrix_of_both_kinds_of_blocks_keeps_the_exact_ones():
    rng = np.random.default_rng(0)
    weights = four_bit_weights(rng)
    weights[:, 32:64] = rng.standard_normal((64, 32))
    back = dequantise(quantise(weights, 8))
    np.testing.assert_array_equal(back[:, :32], weights[:, :32])
    np.testing.assert_array_equal(back[:, 64:], weights[:, 64:])
    assert 0 < np.abs(back[:, 32:64] - weights[:, 32:64]).max() < 0.02


def test_blocks_of_equal_weights_come_back():
    weights = np.full((32, 64), 0.5, np.float32)
    weights[1] = 0
    np.testing.assert_array_equal(dequantise(quantise(weights, 4)), weights)


def test_panels_hold_32_rows_column_by_column():
    rows = np.arange(2 * 64 * 5).reshape(2, 64, 5)
    flat = panels(rows)
    for layer, row, column in ((0, 0, 0), (0, 33, 2), (1, 63, 4)):
        place = ((layer * 2 + row // PANEL) * 5 + column) * PANEL + row % PANEL
        assert flat[place] == rows[layer, row, column]


def test_codes_of_four_bits_share_bytes_with_those_sixteen_rows_below():
    codes = np.random.default_rng(0).integers(0, 16, (1, 32, 64)).astype(np.uint8)
    flat = code_panels(codes, 4).reshape(2, 8, 16, 4)  # block, group, row, number
    for row, column in ((0, 0), (15, 63), (7, 37)):
        byte = flat[column // 32, column % 32 // 4, row, column % 4]
        assert byte & 15 == codes[0, row, column]
        assert byte >> 4 == codes[0, row + 16, column]


def test_codes_of_eight_bits_stand_alone():
    codes = np.random.default_rng(0).integers(0, 256, (1, 32, 64)).astype(np.uint8)
    flat = code_panels(codes, 8).view(np.uint8).reshape(2, 8, 2, 16, 4)
    for row, column in ((0, 0), (31, 63), (23, 37)):
        found = flat[column // 32, column % 32 // 4, row // 16, row % 16, column % 4]
        assert found == codes[0, row, column]


def test_rows_of_bytes_lose_nothing_or_are_left_alone():
    rng = np.random.default_rng(0)
    codes = rng.integers(-127, 128, (64, 3, 32)).astype(np.float32)
    codes[..., 5] = 127
    codes[3, 1] = 0
    scales = (rng.random((64, 3, 1)) * 0.01).astype(np.float16).astype(np.float32)
    weights = (codes * scales).reshape(64, 96)
    held, kept = as_bytes(weights)
    back = held.reshape(64, 3, 32) * kept[..., None].astype(np.float32)
    np.testing.assert_array_equal(back.reshape(64, 96), weights)
    weights[7, 7] += 1e-5
    assert as_bytes(weights) is None
