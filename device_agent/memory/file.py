"""
The memory as one file, little-endian, the same for the same examples in whatever order they came:

    offset  size  field
         0     4  magic, b"SPMM"
         4     4  version, 1
         8     4  hidden size, H
        12     4  key width, D
        16     4  examples, E
        20     4  CRC-32 of everything after the header
        24     8  rows of all examples, N
        32    32  sha256 of what the keys are made of: backbone and personal prefix
        64     -  basis: shift f32 (H,), directions f32 (H, D)
         -     -  index: sha256 and number of rows, 32 + 4 bytes an example, ascending
         -     -  tokens u32 (N,), then keys int8 (N, D), example after example

It is mapped, and pages that were read are handed back: a device has little memory of its own kind.
"""

import hashlib
import math
import mmap
import struct
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from device_agent.atomic import write_whole
from device_agent.errors import DeviceError
from device_agent.memory.basis import Basis, Codes

_HEADER = struct.Struct("<4sIIIIIQ32s")
_MAGIC, _VERSION = b"SPMM", 1
_ENTRY = np.dtype([("sha256", "V32"), ("rows", "<u4")])
_CHUNK = 1 << 20

Ids = NDArray[np.uint32]


class DamagedMemory(DeviceError):
    """The memory's file is not what was written."""

    hint = "Make it anew with `sideplug train`; until then `--memory off` does without."

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} cannot be used: {reason}")


class ForeignMemory(DeviceError):
    """The memory was made of the states of another backbone, or behind another prefix."""

    hint = "Make it anew with `sideplug train`; until then `--memory off` does without."

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} was made for another backbone or another personal prefix")


class Part(NamedTuple):
    """What is remembered of one example."""

    tokens: Ids
    """What came next, (n,)."""

    keys: Iterable[Codes]
    """Where it came, in blocks that together are (n, D)."""


def source_of(fingerprint: str, prefix: Ids) -> bytes:
    """Digest of what decides a state besides the text: the backbone, and the prefix (P,) before it."""
    digest = hashlib.sha256(f"{fingerprint}\0".encode())
    digest.update(prefix.astype("<u4").tobytes())
    return digest.digest()


class MemoryFile:
    """The memory as it lies in a file.

    Attributes:
        basis: In which the keys are written.
        examples: Rows of each example by sha256, ascending.
        tokens: What came next, (N,).
        keys: Where, (N, D).
    """

    def __init__(self, data: bytes | mmap.mmap, path: Path, source: bytes, checksum: int) -> None:
        """Check and divide it.

        Args:
            data: All of the file.
            path: Its name, for errors.
            source: What its keys have to be made of, as ``source_of`` gives it.
            checksum: CRC-32 of what follows the header.

        Raises:
            DamagedMemory: It is not what was written.
            ForeignMemory: Its keys are made of something else.
        """
        magic, version, hidden, width, examples, expected, rows, found = _HEADER.unpack_from(data)
        if (magic, version) != (_MAGIC, _VERSION):
            raise DamagedMemory(path, "it begins like no memory")
        size = _HEADER.size + 4 * hidden * (1 + width) + _ENTRY.itemsize * examples
        size += rows * (4 + width)
        if len(data) != size:
            raise DamagedMemory(path, f"{size} bytes expected, {len(data)} found")
        if checksum != expected:
            raise DamagedMemory(path, "its bytes have changed")
        if found != source:
            raise ForeignMemory(path)
        self._data, self._at = data, _HEADER.size
        shift = self._array("<f4", hidden)
        self.basis = Basis(shift.copy(), self._array("<f4", hidden, width).copy())
        entries = self._array(_ENTRY, examples)
        names, counts = entries["sha256"], entries["rows"]
        self.examples = {
            name.tobytes().hex(): int(count) for name, count in zip(names, counts, strict=True)
        }
        self.tokens: Ids = self._array("<u4", rows)
        self.keys: Codes = self._array("i1", rows, width)

    @classmethod
    def mapped(cls, path: Path, source: bytes) -> Self:
        """The file, mapped for as long as this object lives.

        Raises:
            DamagedMemory, ForeignMemory: As above.
            FileNotFoundError: There is none.
        """
        with path.open("rb") as file:
            checksum = _checksum(file, path)
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return cls(data, path, source, checksum)

    def trim(self) -> None:
        """Hand the pages that were read back to the system, whose cache keeps them."""
        if isinstance(self._data, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
            self._data.madvise(mmap.MADV_DONTNEED)

    def parts(self) -> dict[str, Part]:
        """Each example's part, as views."""
        found, start = {}, 0
        for sha256, count in self.examples.items():
            rows = slice(start, start + count)
            found[sha256] = Part(self.tokens[rows], [self.keys[rows]])
            start += count
        return found

    def _array(self, kind: Any, *shape: int) -> NDArray[Any]:
        """The next array of the file."""
        count = math.prod(shape)
        found = np.frombuffer(self._data, kind, count, self._at).reshape(shape)
        self._at += found.nbytes
        return found


def write_memory(path: Path, source: bytes, basis: Basis, parts: Mapping[str, Part]) -> None:
    """Replace the memory at ``path`` whole, or leave it as it is.

    Args:
        path: The file.
        source: What the keys are made of.
        basis: In which they are written.
        parts: By sha256 of the example.
    """
    ordered = sorted(parts)
    index = np.array(
        [(bytes.fromhex(sha256), len(parts[sha256].tokens)) for sha256 in ordered], _ENTRY
    )
    hidden, width = basis.directions.shape

    def write(file: BinaryIO) -> None:
        file.write(bytes(_HEADER.size))
        checksum = 0
        for array in _arrays(basis, index, [parts[sha256] for sha256 in ordered]):
            data = array.tobytes()
            checksum = zlib.crc32(data, checksum)
            file.write(data)
        file.seek(0)
        rows = int(index["rows"].sum())
        header = (_MAGIC, _VERSION, hidden, width, len(ordered), checksum, rows, source)
        file.write(_HEADER.pack(*header))

    write_whole(path, write)


def _arrays(basis: Basis, index: NDArray[Any], parts: Sequence[Part]) -> Iterator[NDArray[Any]]:
    """What follows the header, in order."""
    yield basis.shift.astype("<f4")
    yield basis.directions.astype("<f4")
    yield index
    for part in parts:
        yield part.tokens.astype("<u4")
    for part in parts:
        yield from part.keys


def remember(path: Path, source: bytes, parts: Mapping[str, Part]) -> None:
    """Add examples to the memory at ``path``; those that it knows already are replaced.

    Raises:
        DamagedMemory, ForeignMemory, FileNotFoundError: As ``MemoryFile.mapped`` does.
    """
    file = _read(path, source)
    write_memory(path, source, file.basis, {**file.parts(), **parts})


def forget(path: Path, source: bytes, examples: Collection[str]) -> int:
    """Drop examples by sha256, as if they had never been there; gives how many rows went.

    Raises:
        DamagedMemory, ForeignMemory, FileNotFoundError: As ``MemoryFile.mapped`` does.
    """
    file = _read(path, source)
    gone = [sha256 for sha256 in file.examples if sha256 in examples]
    if gone:
        kept = {sha256: part for sha256, part in file.parts().items() if sha256 not in gone}
        write_memory(path, source, file.basis, kept)
    return sum(file.examples[sha256] for sha256 in gone)


def _read(path: Path, source: bytes) -> MemoryFile:
    """The file in memory: one that is mapped cannot be replaced on every platform."""
    with path.open("rb") as file:
        checksum = _checksum(file, path)
        file.seek(0)
        return MemoryFile(file.read(), path, source, checksum)


def _checksum(file: BinaryIO, path: Path) -> int:
    """CRC-32 of what follows the header; read, not mapped, because mapped pages count as memory."""
    if len(file.read(_HEADER.size)) < _HEADER.size:
        raise DamagedMemory(path, "the header is cut")
    found = 0
    while chunk := file.read(_CHUNK):
        found = zlib.crc32(chunk, found)
    return found
