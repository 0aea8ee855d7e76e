"""Tensor codecs, by wire number. To add one: a module, a row, a golden file."""

from protocol.codecs.base import Codec
from protocol.codecs.bf16 import BFloat16
from protocol.codecs.f16 import Float16
from protocol.codecs.f32 import Float32
from protocol.codecs.int8 import Int8Blocks
from protocol.codecs.packed import Int4Blocks, Int6Blocks
from protocol.errors import UnknownCodec

_ALL: tuple[Codec, ...] = (
    Float32(),
    Float16(),
    BFloat16(),
    Int8Blocks(),
    Int4Blocks(),
    Int6Blocks(),
)

CODECS: dict[int, Codec] = {codec.number: codec for codec in _ALL}
_BY_NAME: dict[str, Codec] = {codec.name: codec for codec in _ALL}
CODEC_NAMES: tuple[str, ...] = tuple(_BY_NAME)


def codec_named(name: str) -> Codec:
    """Return the codec of that name, or raise ``UnknownCodec``."""
    try:
        return _BY_NAME[name]
    except KeyError:
        raise UnknownCodec(codec=name) from None


def codec_numbered(number: int) -> Codec:
    """Return the codec of that wire number, or raise ``UnknownCodec``."""
    try:
        return CODECS[number]
    except KeyError:
        raise UnknownCodec(codec=number) from None
