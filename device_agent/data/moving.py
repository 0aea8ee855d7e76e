"""
A whole home as one sealed file, and back. What is sealed is a row of entries and an empty one:

    size  field
       4  bytes of the description, little-endian; 0 after the last entry
       -  description, JSON: path, kind (folder, file, or link: the same bytes as an earlier file), size, time
       -  bytes of the file
"""

import json
import os
import shutil
import sqlite3
import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Literal

from device_agent.atomic import make_folder, replace_folder, temporary_folder, write_whole
from device_agent.cloud.link import STORE
from device_agent.daemon.instance import LOCK as AGENT_LOCK
from device_agent.daemon.instance import LOG, RECORD
from device_agent.data.sealed import SealedReader, SealingWriter, Tampered
from device_agent.errors import DeviceError
from device_agent.training.lock import LOCK as TRAINING_LOCK
from device_agent.training.lock import training_lock

STAYING = {AGENT_LOCK, TRAINING_LOCK, RECORD, LOG}
"""Names in the home that belong to its processes and not to its person."""

BESIDE = ("-wal", "-shm", "-journal")
"""Ends of files that SQLite keeps beside a database, of which a copy is taken."""

UNFINISHED = (".part", ".old")
"""Ends of hidden files and folders that a killed process has left."""

MOST_TOLD = 1 << 16
"""Bytes of a description."""

_SIZE = struct.Struct("<I")
_BLOCK = 1 << 20

OnBytes = Callable[[int], None]
"""Told of each number of bytes that has been read or written."""


class TargetTaken(DeviceError):
    """There is something where the export should go."""

    hint = "Name a file outside of the home that does not exist yet."

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} {reason}")


class CannotMove(DeviceError):
    """Something in the home is no file that could be moved."""

    hint = "Put files in its place, or take it out of the home."

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} is neither a file nor a folder")


class HomeNotEmpty(DeviceError):
    """There is something in the home already."""

    hint = "Choose another folder with --home, or move what is there away: nothing is written over."

    def __init__(self, home: Path) -> None:
        super().__init__(f"{home} is not empty")


@dataclass(frozen=True, slots=True)
class Moved:
    """What was moved."""

    files: int
    bytes: int


@dataclass(frozen=True, slots=True)
class _Entry:
    path: str
    """Inside the home, with slashes."""
    kind: Literal["folder", "file", "link"]
    size: int = 0
    time: int = 0
    """Of the last change, nanoseconds since 1970."""
    same: str = ""
    """Path of the earlier file that a link has the bytes of."""


def export_home(
    home: Path, target: Path, passphrase: str, on_bytes: OnBytes = lambda _: None
) -> Moved:
    """Seal everything of a home into one file; the agent may be up meanwhile.

    Raises:
        TargetTaken: There is something at ``target``, or it is inside the home.
        AlreadyTraining: Another process trains here.
        CannotMove: There is a link or something stranger in the home.
    """
    if target.exists() or target.is_symlink():
        raise TargetTaken(target, "exists already")
    if home.resolve() in target.resolve().parents:
        raise TargetTaken(target, "is inside the home")
    moved = [0, 0]

    def write(file: BinaryIO) -> None:
        sealing = SealingWriter(file, passphrase)
        for path, source in _sources(home, store):
            moved[0] += source.is_file()
            moved[1] += _put(sealing, path, source, seen, on_bytes)
        sealing.write(_SIZE.pack(0))
        sealing.close()

    seen: dict[tuple[int, int], str] = {}
    with training_lock(home), _copied(home / STORE) as store:
        write_whole(target, write)
    return Moved(*moved)


def import_home(
    source: Path, home: Path, passphrase: str, on_bytes: OnBytes = lambda _: None
) -> Moved:
    """Make a home of an export: whole, or not at all.

    Raises:
        HomeNotEmpty: There is something in ``home``.
        NotSealed, CutOff, Tampered, WrongPassphrase: The export cannot be used.
        OSError: There is no such file, or no room.
    """
    if home.exists() and (not home.is_dir() or any(home.iterdir())):
        raise HomeNotEmpty(home)
    with source.open("rb") as file:
        sealed = SealedReader(file, source, passphrase)
        temporary = temporary_folder(home)
        try:
            moved = _take_all(sealed, source, temporary, on_bytes)
            if home.exists():
                home.rmdir()
            replace_folder(temporary, home)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return moved


# --- out of the home ---


def home_bytes(home: Path) -> int:
    """About how many bytes an export of the home has."""
    return sum(path.stat().st_size for _, path in _sources(home, home / STORE) if path.is_file())


@contextmanager
def _copied(store: Path) -> Iterator[Path]:
    """A copy of the store as it is at one moment, whoever writes into it meanwhile."""
    if not store.is_file():
        yield store
        return
    handle, name = tempfile.mkstemp(dir=store.parent, prefix=f".{store.name}.", suffix=".part")
    os.close(handle)
    copy = Path(name)
    try:
        with closing(sqlite3.connect(store)) as here, closing(sqlite3.connect(copy)) as there:
            here.backup(there)
        yield copy
    finally:
        for path in (copy, *(copy.with_name(copy.name + end) for end in BESIDE)):
            path.unlink(missing_ok=True)


def _sources(home: Path, store: Path) -> Iterator[tuple[str, Path]]:
    """What is to be moved, folders before what is in them: its path in the home, and where it is read."""
    for path in sorted(home.rglob("*")):
        inside = path.relative_to(home)
        if inside.name in STAYING and len(inside.parts) == 1:
            continue
        if any(part.startswith(".") and part.endswith(UNFINISHED) for part in inside.parts):
            continue
        if any(inside.name.endswith(end) for end in BESIDE):
            continue
        yield inside.as_posix(), store if str(inside) == STORE else path


def _put(
    sealing: SealingWriter,
    path: str,
    source: Path,
    seen: dict[tuple[int, int], str],
    on_bytes: OnBytes,
) -> int:
    """Write one entry; gives the file's bytes."""
    if source.is_symlink() or not (source.is_dir() or source.is_file()):
        if not source.exists() and not source.is_symlink():
            return 0  # it was there a moment ago
        raise CannotMove(source)
    if source.is_dir():
        _tell(sealing, _Entry(path, "folder", time=source.stat().st_mtime_ns))
        return 0
    with source.open("rb") as file:
        found = os.fstat(file.fileno())
        earlier = seen.setdefault((found.st_dev, found.st_ino), path)
        if earlier != path:
            _tell(sealing, _Entry(path, "link", same=earlier))
            return 0
        _tell(sealing, _Entry(path, "file", found.st_size, found.st_mtime_ns))
        left = found.st_size
        while left:
            block = file.read(min(_BLOCK, left))
            if not block:
                raise OSError(f"{source} became shorter while it was read")
            sealing.write(block)
            on_bytes(len(block))
            left -= len(block)
    return found.st_size


def _tell(sealing: SealingWriter, entry: _Entry) -> None:
    told = json.dumps(asdict(entry)).encode()
    sealing.write(_SIZE.pack(len(told)) + told)


# --- into a home ---


def _take_all(sealed: SealedReader, source: Path, folder: Path, on_bytes: OnBytes) -> Moved:
    files = total = 0
    times: dict[Path, int] = {}
    while (entry := _told(sealed, source)) is not None:
        target = folder / entry.path
        if entry.kind == "folder":
            times[make_folder(target)] = entry.time
            continue
        make_folder(target.parent)
        files += 1
        if entry.kind == "link":
            _same(folder / entry.same, target, source)
            continue
        total += entry.size
        _fill(sealed, target, entry, source, on_bytes)
    if sealed.read(1):
        raise Tampered(source)
    for path, changed in times.items():
        os.utime(path, ns=(changed, changed))
    return Moved(files, total)


def _told(sealed: SealedReader, source: Path) -> _Entry | None:
    """The next description, if it is one; None after the last."""
    start = sealed.read(_SIZE.size)
    size = _SIZE.unpack(start)[0] if len(start) == _SIZE.size else MOST_TOLD + 1
    if size == 0:
        return None
    try:
        entry = _Entry(**json.loads(sealed.read(size) if size <= MOST_TOLD else b""))
    except (ValueError, TypeError):
        raise Tampered(source) from None
    if not _is_good(entry):
        raise Tampered(source)
    return entry


def _is_good(entry: _Entry) -> bool:
    """Whether a description that came from outside can be followed."""
    known = entry.kind in ("folder", "file", "link")
    inside = _is_inside(entry.path) and (entry.kind != "link" or _is_inside(entry.same))
    return (
        known
        and inside
        and all(type(n) is int and 0 <= n < 2**63 for n in (entry.size, entry.time))
    )


def _is_inside(path: object) -> bool:
    """Whether a path leads to something in the folder that it starts from, on every system."""
    if not isinstance(path, str) or not path or any(sign in path for sign in "\\:\0"):
        return False
    parts = path.split("/")
    return PurePosixPath(path).parts == tuple(parts) and not {"", ".", ".."} & set(parts)


def _same(earlier: Path, target: Path, source: Path) -> None:
    """A second name for the same bytes; a copy on file systems that have no hard links."""
    if not earlier.is_file() or target.exists():
        raise Tampered(source)
    try:
        os.link(earlier, target)
    except OSError:
        shutil.copyfile(earlier, target)
        target.chmod(0o600)


def _fill(
    sealed: SealedReader, target: Path, entry: _Entry, source: Path, on_bytes: OnBytes
) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    try:
        handle = os.open(target, flags, 0o600)
    except FileExistsError:
        raise Tampered(source) from None
    with os.fdopen(handle, "wb") as file:
        left = entry.size
        while left:
            block = sealed.read(min(_BLOCK, left))
            if not block:
                raise Tampered(source)
            file.write(block)
            on_bytes(len(block))
            left -= len(block)
        file.flush()
        os.fsync(file.fileno())
    os.utime(target, ns=(entry.time, entry.time))
