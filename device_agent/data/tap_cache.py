"""
Features that were bought once, on disk: a file for each text, named by everything it depends on.

A file, little-endian:

    offset  size  field
         0     4  magic, b"SPTC"
         4     1  version, 1
         5     1  codec number: 1 f16, 3 int8
         6     2  taps, K
         8     4  rows, T
        12     4  hidden size, H
        16     4  CRC-32 of the body
        20    32  sha256 of what the file is about: its own name
        52     -  body: taps and, last, the final state (K + 1, T, H) in the codec, then log Z, float32 (T,)

A file is mapped while rows are read from it and released at once: mapped pages count as memory.
"""

import contextlib
import hashlib
import json
import math
import mmap
import os
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from device_agent.atomic import write_whole
from device_agent.closing import Closing
from device_agent.errors import DeviceError
from protocol.basis import Basis
from protocol.codecs import codec_named
from protocol.errors import TensorMismatch
from protocol.messages import States, Wants

_HEADER = struct.Struct("<4sBBHIII32s")
_MAGIC, _VERSION = b"SPTC", 1
_CODECS = {1: "f16", 3: "int8"}
_NUMBERS = {name: number for number, name in _CODECS.items()}
_BLOCK = 64
"""Values that share a scale in the int8 codec."""
_CHUNK = 1 << 20

Floats = NDArray[np.float32]
Rows = slice | NDArray[np.intp]


class DamagedFeatures(DeviceError):
    """A file of the cache is not what was once written."""

    hint = "Run the command again: what is damaged will be fetched anew."

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} is damaged: {reason}")


class _Shape(NamedTuple):
    codec: str
    taps: int
    rows: int
    hidden: int

    @property
    def states(self) -> tuple[int, int, int]:
        return self.taps + 1, self.rows, self.hidden

    @property
    def body(self) -> int:
        return codec_named(self.codec).size(self.states) + 4 * self.rows


class CachedFeatures(Closing):
    """The features of one text, mapped until it is left. A context manager.

    Attributes:
        rows: How many positions are kept, T.
    """

    def __init__(self, path: Path, key: bytes) -> None:
        """Map a file.

        Raises:
            DamagedFeatures: Its header or its size is wrong; the body is not looked at.
            FileNotFoundError: There is none.
        """
        with path.open("rb") as file:
            shape, _ = _read_header(file, path, key)
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._shape = shape
        self.rows = shape.rows

    def close(self) -> None:
        """Unmap the file."""
        self._map.close()

    def read(self, rows: Rows, taps: Floats | None, final: Floats) -> None:
        """Decode some rows, and touch no others.

        Args:
            rows: n of the T rows.
            taps: Filled, (K, n, H); None when they are not needed.
            final: Filled, (n, H).
        """
        wanted = {self._shape.taps: final}
        if taps is not None:
            wanted |= dict(enumerate(taps))
        _READERS[self._shape.codec](self._map, self._shape, rows, wanted)

    def log_z(self) -> Floats:
        """Log-sum-exp of the base logits, (T,)."""
        start = _HEADER.size + codec_named(self._shape.codec).size(self._shape.states)
        return np.frombuffer(self._map[start:], "<f4").astype(np.float32)

    def states(self, layers: tuple[int, ...], rows: Rows) -> States:
        """Some rows as the message in which they came."""
        log_z = self.log_z()[rows]
        taps = np.empty((self._shape.taps, len(log_z), self._shape.hidden), np.float32)
        final = np.empty(taps.shape[1:], np.float32)
        self.read(rows, taps, final)
        return States(position=0, layers=layers, taps=taps, final=final, log_z=log_z)


class TapCache:
    """Features by content. Safe to use from several processes: files appear whole or not at all."""

    def __init__(
        self, folder: Path, fingerprint: str, wants: Wants, basis: Basis | None = None
    ) -> None:
        """Nothing is read yet.

        Args:
            folder: Where the files are.
            fingerprint: Of the backbone that the features are taken from.
            wants: What is read of each token. int8 is kept as int8, every other codec as f16.
            basis: In which it comes, where the wants name one; it is kept as the states it stands for.
        """
        self.wants, self.basis = wants, basis
        self._codec = "int8" if wants.codec == "int8" else "f16"
        about: dict[str, object] = {"fingerprint": fingerprint, "layers": wants.layers}
        about["codec"] = self._codec
        if wants.encoding is not None:
            about |= {"basis": wants.basis, "encoding": wants.encoding.to_json()}
        self._about = json.dumps(about, sort_keys=True).encode()
        self._folder = folder / hashlib.sha256(self._about).hexdigest()[:16]

    def path(self, ids: NDArray[np.uint32], first: int = 0, source: int = 0) -> Path:
        """The file for the rows of ``ids`` (T,) from position ``first`` on, whose first ``source`` are a source."""
        name = self._key(ids, first, source).hex()
        return self._folder / name[:2] / f"{name}.taps"

    def holds(self, ids: NDArray[np.uint32], first: int = 0, source: int = 0) -> bool:
        """Whether the features are there and sound, from now on used anew; a damaged file is deleted."""
        path, key = self.path(ids, first, source), self._key(ids, first, source)
        try:
            with path.open("rb") as file:
                _, checksum = _read_header(file, path, key)
                found = 0
                while chunk := file.read(_CHUNK):
                    found = zlib.crc32(chunk, found)
            os.utime(path)
        except FileNotFoundError:
            return False
        except DamagedFeatures:
            found, checksum = 0, 1
        if found != checksum:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
        return found == checksum

    def get(
        self, ids: NDArray[np.uint32], first: int = 0, source: int = 0
    ) -> CachedFeatures | None:
        """The features, mapped; None when they are not there.

        Raises:
            DamagedFeatures: The file is not what was written.
        """
        try:
            return CachedFeatures(self.path(ids, first, source), self._key(ids, first, source))
        except FileNotFoundError:
            return None

    def put(self, ids: NDArray[np.uint32], states: States, first: int = 0, source: int = 0) -> None:
        """Keep the rows of ``states`` from position ``first`` on, up to the last token of ``ids``.

        Raises:
            TensorMismatch: The states do not reach from ``first`` to the end, or lack a part.
        """
        skip, rows = first - states.position, len(ids) - first
        if states.final is None or states.log_z is None or states.layers != self.wants.layers:
            raise TensorMismatch(
                part="features", expected=str(self.wants.layers), got="other parts"
            )
        if skip < 0 or states.taps.shape[1] - skip != rows:
            raise TensorMismatch(
                part="features", expected=f"{rows} rows", got=f"{states.taps.shape[1] - skip}"
            )
        whole = np.concatenate([states.taps[:, skip:], states.final[None, skip:]])  # (K + 1, T, H)
        log_z = states.log_z[skip:].astype("<f4").tobytes()
        body = codec_named(self._codec).encode(whole) + log_z
        header = _HEADER.pack(
            _MAGIC, _VERSION, _NUMBERS[self._codec], len(states.layers), rows, whole.shape[2],
            zlib.crc32(body), self._key(ids, first, source),
        )  # fmt: skip
        write_whole(self.path(ids, first, source), header + body)

    def sweep(self, before: float) -> int:
        """Delete what was last used before a time, in seconds since 1970; gives how many files.

        Features of texts that changed, or that stood behind another prefix, are of no use any more.
        """
        old = [path for path in self._folder.glob("*/*") if path.stat().st_mtime < before]
        for path in old:
            path.unlink(missing_ok=True)
        return len(old)

    def keep_only(self, texts: Iterable[tuple[NDArray[np.uint32], int, int]]) -> int:
        """Delete every file but those of some texts, of other backbones and codecs too; gives how many.

        Args:
            texts: Ids (T,), the first row and the tokens of the source, as ``path`` takes them.
        """
        kept = {self.path(ids, first, source) for ids, first, source in texts}
        files = [path for path in self._folder.parent.glob("*/*/*") if path.is_file()]
        gone = [path for path in files if path not in kept]
        for path in gone:
            path.unlink(missing_ok=True)
        return len(gone)

    def _key(self, ids: NDArray[np.uint32], first: int, source: int) -> bytes:
        digest = hashlib.sha256(self._about)
        digest.update(struct.pack("<I", first))
        if source:
            digest.update(b"source" + struct.pack("<I", source))
        digest.update(ids.astype("<u4").tobytes())
        return digest.digest()


def _read_header(file: BinaryIO, path: Path, key: bytes) -> tuple[_Shape, int]:
    """Shape and checksum; leaves ``file`` at the body."""
    head = file.read(_HEADER.size)
    if len(head) < _HEADER.size:
        raise DamagedFeatures(path, "the header is cut")
    magic, version, number, taps, rows, hidden, checksum, found = _HEADER.unpack(head)
    if (magic, version) != (_MAGIC, _VERSION) or number not in _CODECS or found != key:
        raise DamagedFeatures(path, "the header belongs to something else")
    shape = _Shape(_CODECS[number], taps, rows, hidden)
    size = path.stat().st_size
    if size != _HEADER.size + shape.body:
        raise DamagedFeatures(path, f"{_HEADER.size + shape.body} bytes expected, {size} found")
    return shape, checksum


def _read_f16(mapped: mmap.mmap, shape: _Shape, rows: Rows, wanted: dict[int, Floats]) -> None:
    stored = np.frombuffer(mapped, "<f2", math.prod(shape.states), _HEADER.size)
    stored = stored.reshape(shape.states)  # (K + 1, T, H)
    for place, out in wanted.items():
        out[:] = stored[place, rows]


def _read_int8(mapped: mmap.mmap, shape: _Shape, rows: Rows, wanted: dict[int, Floats]) -> None:
    blocks = -(-shape.hidden // _BLOCK)
    count = (shape.taps + 1) * shape.rows * blocks
    scales = np.frombuffer(mapped, "<f4", count, _HEADER.size)
    scales = scales.reshape(shape.taps + 1, shape.rows, blocks)
    codes = np.frombuffer(mapped, np.int8, math.prod(shape.states), _HEADER.size + 4 * count)
    codes = codes.reshape(shape.states)
    for place, out in wanted.items():
        spread = np.repeat(scales[place, rows], _BLOCK, axis=-1)[:, : shape.hidden]  # (n, H)
        np.multiply(codes[place, rows], spread, out=out)


_READERS = {"f16": _read_f16, "int8": _read_int8}
