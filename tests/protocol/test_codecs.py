import struct

import numpy as np
import pytest

from protocol.codecs import CODEC_NAMES, CODECS, codec_named, codec_numbered
from protocol.errors import NotFinite, TensorMismatch, UnknownCodec
from tests.protocol.samples import numbers

EVERY_CODEC = pytest.mark.parametrize("codec", CODECS.values(), ids=lambda codec: codec.name)
SHAPES = [(1,), (64,), (65,), (3, 64), (3, 130), (5, 1, 576), (2, 3, 70), (0, 4, 64), (0, 4, 70)]

RELATIVE_ERROR = {
    "f32": 0.0,
    "f16": 2.0**-11,
    "bf16": 2.0**-8,
    "int8": 0.0,
    "int4": 0.0,
    "int6": 0.0,
}
"""Of each number."""
BLOCK_ERROR = {
    "f32": 0.0,
    "f16": 2.0**-25,
    "bf16": 0.0,
    "int8": 0.5001 / 127,
    "int4": 0.504 / 7,
    "int6": 0.504 / 31,
}
"""Of the largest magnitude in its block; for f16 of 1, below which numbers lose bits."""


BLOCKS = {"int8": 64, "int4": 32, "int6": 32}
"""Numbers that share a scale."""


def bits(*patterns: int) -> np.ndarray:
    return np.array(patterns, np.uint32).view(np.float32)


def written(name: str, array: np.ndarray) -> bytes:
    return codec_named(name).encode(np.asarray(array, np.float32))


def test_the_table_has_the_codecs_of_version_1():
    assert [(codec.number, codec.name) for codec in CODECS.values()] == [
        (0, "f32"),
        (1, "f16"),
        (2, "bf16"),
        (3, "int8"),
        (4, "int4"),
        (5, "int6"),
    ]
    assert CODEC_NAMES == ("f32", "f16", "bf16", "int8", "int4", "int6")


@EVERY_CODEC
def test_a_codec_is_found_by_name_and_number(codec):
    assert codec_named(codec.name) is codec_numbered(codec.number) is codec


@pytest.mark.parametrize("name", ["", "f64", "F32", "0"])
def test_an_unknown_name_is_refused(name):
    with pytest.raises(UnknownCodec):
        codec_named(name)


def test_an_unknown_number_is_refused():
    with pytest.raises(UnknownCodec, match="no codec 200"):
        codec_numbered(200)


@EVERY_CODEC
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_comes_back_as_close_as_promised(codec, shape):
    array = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    array[..., ::17] *= 300  # the huge channels that hidden states have
    back = codec.decode(codec.encode(array), shape)
    peak = np.ones_like(array)
    if size := BLOCKS.get(codec.name):
        for start in range(0, shape[-1], size):
            block = np.s_[..., start : start + size]
            peak[block] = np.abs(array[block]).max(-1, keepdims=True)
    allowed = np.abs(array) * RELATIVE_ERROR[codec.name] + peak * BLOCK_ERROR[codec.name]
    assert (back.dtype, back.shape) == (np.float32, shape)
    assert (np.abs(back - array) <= allowed).all()


@EVERY_CODEC
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_takes_the_bytes_it_says(codec, shape):
    assert len(codec.encode(np.ones(shape, np.float32))) == codec.size(shape)


@EVERY_CODEC
def test_what_was_read_is_written_as_the_same_bytes(codec):
    data = codec.encode(numbers(2, 3, 70))
    assert codec.encode(codec.decode(data, (2, 3, 70))) == data


@EVERY_CODEC
def test_any_layout_in_memory_is_written_the_same(codec):
    array = numbers(4, 6, 70)
    turned = np.asfortranarray(array)
    assert codec.encode(turned) == codec.encode(array)
    assert codec.encode(array[::2, ::-1]) == codec.encode(array[::2, ::-1].copy())


@EVERY_CODEC
def test_writing_leaves_the_tensor_alone(codec):
    array = numbers(3, 64) * np.float32(1e6)
    before = array.copy()
    codec.encode(array)
    assert np.array_equal(array, before)


@EVERY_CODEC
@pytest.mark.parametrize("offset", [0, 1, 2, 3])
def test_bytes_may_begin_anywhere(codec, offset):
    data = codec.encode(numbers(3, 70))
    back = codec.decode(memoryview(b"\xff" * offset + data)[offset:], (3, 70))
    assert np.array_equal(back, codec.decode(data, (3, 70)))
    assert back.flags.aligned


def test_float32_is_a_view_of_the_bytes():
    data = written("f32", numbers(3, 70))
    assert np.shares_memory(codec_named("f32").decode(data, (3, 70)), np.frombuffer(data, np.uint8))


@EVERY_CODEC
@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_not_written(codec, value):
    array = numbers(2, 70)
    array[1, 69] = value
    with pytest.raises(NotFinite, match="final holds"):
        codec.encode(array, "final")


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("f32", struct.pack("<f", np.nan)),
        ("f32", struct.pack("<f", -np.inf)),
        ("f32", b"\x01\x00\x80\x7f"),  # a signalling NaN
        ("f16", struct.pack("<H", 0x7C00)),
        ("f16", struct.pack("<H", 0xFC00)),
        ("f16", struct.pack("<H", 0x7C01)),
        ("f16", struct.pack("<H", 0x7E00)),
        ("bf16", struct.pack("<H", 0x7F80)),
        ("bf16", struct.pack("<H", 0xFF80)),
        ("bf16", struct.pack("<H", 0x7F81)),
        ("int8", struct.pack("<fb", np.nan, 1)),
        ("int8", struct.pack("<fb", np.nan, 0)),
        ("int8", struct.pack("<fb", np.inf, 1)),
        ("int8", struct.pack("<fb", np.inf, 0)),
        ("int8", struct.pack("<fb", 3e38, 127)),
        ("int8", struct.pack("<fb", -3e38, -128)),
        ("int4", struct.pack("<HB", 0x7FC0, 0x90)),
        ("int4", struct.pack("<HB", 0x7FC0, 0x80)),
        ("int4", struct.pack("<HB", 0x7F80, 0x90)),
        ("int4", struct.pack("<HB", 0xFF80, 0x80)),
        ("int4", struct.pack("<HB", 0x7F00, 0xF0)),
        ("int6", struct.pack("<HB", 0x7FC0, 0x84)),
        ("int6", struct.pack("<HB", 0x7F00, 0xFC)),
    ],
)
def test_what_is_not_finite_is_not_read(name, data):
    with pytest.raises(NotFinite, match="taps holds"):
        codec_named(name).decode(data, (1,), "taps")


def test_a_whole_block_with_an_overflowing_scale_is_not_read():
    with pytest.raises(NotFinite):
        codec_named("int8").decode(struct.pack("<f", 3e38) + b"\x7f" * 64, (64,))


@EVERY_CODEC
@pytest.mark.parametrize("extra", [-1, 1])
def test_another_length_than_the_shape_needs_is_refused(codec, extra):
    data = bytes(codec.size((2, 70)) + extra)
    with pytest.raises(TensorMismatch, match="taps must be"):
        codec.decode(data, (2, 70), "taps")


@EVERY_CODEC
@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int32, ">f4"])
def test_another_dtype_is_refused(codec, dtype):
    with pytest.raises(TensorMismatch, match="final must be float32"):
        codec.encode(np.ones((1, 64), dtype), "final")


def test_float16_saturates():
    array = np.array([65504, 65519, 65520, 1e30, -65520, -3e38], np.float32)
    back = codec_named("f16").decode(written("f16", array), (6,))
    assert back.tolist() == [65504, 65504, 65504, 65504, -65504, -65504]


def test_float16_equals_the_ieee_table():
    patterns = np.arange(2**16, dtype=np.uint16)
    finite = patterns[(patterns & 0x7C00) != 0x7C00]
    values = codec_named("f16").decode(finite.astype("<u2").tobytes(), finite.shape)
    exponent, fraction = (finite >> 10) & 31, (finite & 1023).astype(np.float64)
    scale = 2.0 ** (np.maximum(exponent, 1).astype(np.float64) - 25)
    expected = (fraction + 1024 * (exponent > 0)) * scale * np.where(finite >> 15, -1, 1)
    assert np.array_equal(values, expected)
    assert written("f16", values) == finite.astype("<u2").tobytes()


def test_every_finite_bfloat16_comes_back():
    patterns = np.arange(2**16, dtype=np.uint16)
    finite = patterns[(patterns & 0x7F80) != 0x7F80].astype("<u2").tobytes()
    values = codec_named("bf16").decode(finite, (len(finite) // 2,))
    assert written("bf16", values) == finite


@pytest.mark.parametrize(
    ("pattern", "upper"),
    [
        (0x3F800000, 0x3F80),
        (0x3F807FFF, 0x3F80),  # below the middle
        (0x3F808000, 0x3F80),  # in the middle, the lower one is even
        (0x3F808001, 0x3F81),
        (0x3F818000, 0x3F82),  # in the middle, the upper one is even
        (0xBF818000, 0xBF82),
        (0x3FFFFFFF, 0x4000),  # carries into the exponent
        (0x7F7FFFFF, 0x7F7F),  # would be an infinity
        (0xFF7FFFFF, 0xFF7F),
        (0x00000001, 0x0000),
        (0x80000000, 0x8000),
    ],
)
def test_bfloat16_rounds_to_the_nearest_even(pattern, upper):
    assert codec_named("bf16").encode(bits(pattern)) == struct.pack("<H", upper)


def test_int8_writes_the_scales_first_and_then_the_codes():
    array = np.zeros((1, 65), np.float32)
    array[0, :3] = [127, -64.5, 0.5]
    array[0, 64] = -254
    scales, codes = struct.pack("<2f", 1.0, 2.0), [127, -64, 0] + 61 * [0] + [-127]
    assert written("int8", array) == scales + struct.pack("65b", *codes)


def test_a_huge_channel_does_not_drown_the_other_blocks():
    array = np.full((1, 128), 0.01, np.float32)
    array[0, 0] = 10_000
    back = codec_named("int8").decode(written("int8", array), (1, 128))
    assert back[0, 64:] == pytest.approx(0.01)


@pytest.mark.parametrize("width", [64, 70])
def test_an_all_zero_block_stays_zero(width):
    back = codec_named("int8").decode(written("int8", np.zeros((2, width))), (2, width))
    assert not back.any()


@pytest.mark.parametrize("value", [3.4028235e38, 1e-37, 1e-43, 1.4e-45])
def test_int8_holds_the_ends_of_the_range(value):
    array = np.array([value, -value], np.float32)
    back = codec_named("int8").decode(written("int8", array), (2,))
    assert np.abs(back - array).max() <= max(abs(value) * 0.008, 1e-43)


@pytest.mark.parametrize("name", CODEC_NAMES)
def test_extreme_numbers_stay_finite(name):
    array = bits(0x7F7FFFFF, 0xFF7FFFFF, 1, 0x80000001, 0, 0x80000000, 0x00800000)
    assert np.isfinite(codec_named(name).decode(written(name, array), array.shape)).all()
