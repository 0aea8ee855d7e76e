"""Files that are there whole or not at all, and that their owner alone may read."""

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

Content = bytes | Callable[[BinaryIO], None]
"""The bytes of a file, or what writes them into an open one."""


def make_folder(path: Path) -> Path:
    """Make ``path`` and what is missing above it, for the owner alone; gives ``path`` back."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    # One by one: mkdir gives its mode to the last of them only.
    for folder in reversed(missing):
        folder.mkdir(mode=0o700, exist_ok=True)
    path.mkdir(exist_ok=True)  # says what is wrong when it is a file
    return path


def make_private(path: Path) -> None:
    """Have a file there that its owner alone may read, for who opens files by their names; it may be empty.

    Raises:
        OSError: It cannot be made.
    """
    make_folder(path.parent)
    # One that is there is not opened: closing it would drop every lock that this process has on it.
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    if others_may(path):
        # Some file systems know no modes; what is there is as private as it can be.
        with contextlib.suppress(OSError):
            path.chmod(0o600)


def others_may(path: Path) -> bool:
    """Whether anybody but the owner may read or change a file or folder."""
    return sys.platform != "win32" and path.stat().st_mode & 0o077 != 0


def write_whole(path: Path, data: Content) -> None:
    """Write a file so that a reader sees the old one or the new one, at any moment and after any crash.

    Args:
        path: Where it goes; its folder is made when missing.
        data: The bytes, or a function that writes them into the open file.

    Raises:
        OSError: The disk is full or the folder is not ours; nothing is left behind.
    """
    make_folder(path.parent)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            if callable(data):
                data(file)
            else:
                file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def temporary_folder(final: Path) -> Path:
    """An empty folder beside ``final``, to be filled and handed to ``replace_folder``."""
    make_folder(final.parent)
    return Path(tempfile.mkdtemp(dir=final.parent, prefix=f".{final.name}.", suffix=".part"))


def replace_folder(temporary: Path, final: Path) -> None:
    """Put a finished folder in its place by renaming it.

    A full folder cannot be renamed over: an older ``final`` steps aside first and is deleted last.
    Between the two renames there is none, so what must never be missing goes under a name of its own.
    """
    sync_folder(temporary)
    if final.exists():
        aside = Path(tempfile.mkdtemp(dir=final.parent, prefix=f".{final.name}.", suffix=".old"))
        os.replace(final, aside / final.name)
        try:
            os.replace(temporary, final)
        except OSError:
            os.replace(aside / final.name, final)
            raise
        finally:
            shutil.rmtree(aside)
    else:
        os.replace(temporary, final)
    sync_folder(final.parent)


def sync_folder(path: Path) -> None:
    """Make renames inside ``path`` survive a power cut, where folders can be synchronised."""
    if sys.platform == "win32":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
