"""
Packed models on disk: made once, read whole, checked, and made again when they are damaged.

    offset  size  field
    0       32    sha256 of what follows
    32      -     the arrays, as safetensors

A pack is called by what it was made of: fingerprint of the backbone, kind of weights, version.
"""

import hashlib
import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.numpy
from numpy.typing import NDArray

from cloud_service.backbones.lean.packing import Arrays

VERSION = 2
"""Of the arrays' names and layouts; older packs are left alone."""
_DIGEST = hashlib.sha256().digest_size

log = logging.getLogger("sideplug.cloud")


class Packs:
    """The packed models in a cache folder."""

    def __init__(self, cache: Path) -> None:
        self.root = cache / "packs"

    def file(self, fingerprint: str, weights: str) -> Path:
        """Return where the pack of a backbone is, or would be."""
        name = hashlib.sha256(f"{VERSION} {weights} {fingerprint}".encode()).hexdigest()
        return self.root / f"{name}.pack"

    def get(
        self, fingerprint: str, weights: str, make: Callable[[], dict[str, NDArray[Any]]]
    ) -> Arrays:
        """Return a backbone's arrays; ``make`` is called when there is no sound pack."""
        file = self.file(fingerprint, weights)
        if not file.is_file():
            log.info("packing the backbone as %s, once", weights)
            self._write(file, make())
        arrays = _read(file)
        if arrays is None:
            log.warning("the packed backbone %s is damaged and is made again", file.name)
            self._write(file, make())
            arrays = _read(file)
        if arrays is None:
            raise OSError(f"{file} cannot be read back as it was written")
        return arrays

    def _write(self, file: Path, arrays: dict[str, NDArray[Any]]) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        data = safetensors.numpy.save(arrays)
        with tempfile.NamedTemporaryFile(dir=self.root, prefix=".", delete=False) as made:
            try:
                made.write(hashlib.sha256(data).digest())
                made.write(data)
                made.flush()
                os.fsync(made.fileno())
                os.replace(made.name, file)
            except BaseException:
                os.unlink(made.name)
                raise


def _read(file: Path) -> Arrays | None:
    """Return the arrays of a pack, or None when it is damaged."""
    with file.open("rb") as opened:
        digest, data = opened.read(_DIGEST), opened.read()
    if hashlib.sha256(data).digest() != digest:
        return None
    arrays: Arrays = safetensors.numpy.load(data)
    return arrays
