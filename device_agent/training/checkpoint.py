"""
A training run as one safetensors file, written whole or not at all.

The file is written straight from the arrays: a copy of all weights and moments, as the library
makes one, is memory that a small device lacks.
"""

import json
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from device_agent.atomic import write_whole
from device_agent.errors import DeviceError

_DTYPES = {"float32": "F32", "int64": "I64"}
_KEY = "sideplug"


class DamagedCheckpoint(DeviceError):
    """The file of an interrupted run cannot be read."""

    hint = "Begin anew with `sideplug train --fresh`."

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} cannot be used: {reason}")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where a run was."""

    run: str
    """Digest of everything that the run depends on."""

    progress: Mapping[str, Any]
    """JSON."""

    arrays: Mapping[str, NDArray[Any]]
    """float32 or int64, by name."""


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Replace the checkpoint at ``path``."""
    header: dict[str, object] = {
        "__metadata__": {
            _KEY: json.dumps({"run": checkpoint.run, "progress": dict(checkpoint.progress)})
        }
    }
    end = 0
    for name, array in checkpoint.arrays.items():
        start, end = end, end + array.nbytes
        header[name] = {
            "dtype": _DTYPES[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [start, end],
        }
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)

    def write(file: BinaryIO) -> None:
        file.write(struct.pack("<Q", len(head)) + head)
        for array in checkpoint.arrays.values():
            file.write(np.ascontiguousarray(array).data)

    write_whole(path, write)


def run_of(path: Path) -> str | None:
    """The run whose checkpoint is at ``path``, or None when there is none; its arrays are not read.

    Raises:
        DamagedCheckpoint: It is not what was written.
    """
    with _opened(path) as file:
        return None if file is None else _about(file)[0]


def load(path: Path) -> Checkpoint | None:
    """The checkpoint at ``path``, or None when there is none.

    Raises:
        DamagedCheckpoint: It is not what was written.
    """
    with _opened(path) as file:
        if file is None:
            return None
        run, progress = _about(file)
        names = [str(name) for name in file.keys()]
        return Checkpoint(run, progress, {name: file.get_tensor(name) for name in names})


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The open file, or None; every way in which it can be wrong becomes one error."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        yield None
        return
    try:
        with safe_open(path, framework="np") as file:
            yield file
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise DamagedCheckpoint(path, f"{type(error).__name__}: {error}") from error


def _about(file: Any) -> tuple[str, Mapping[str, Any]]:
    about = json.loads((file.metadata() or {})[_KEY])
    return str(about["run"]), dict(about["progress"])
