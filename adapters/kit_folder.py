"""A kit's folder on disk: published whole or not at all, and recognised again."""

import hashlib
import json
import os
from pathlib import Path

from adapters.errors import FolderTaken
from protocol.errors import MalformedMessage
from protocol.kit import KitFile, KitManifest

MANIFEST = "manifest.json"


def read_kit(folder: Path, identity: str) -> KitManifest:
    """
    Return the manifest of the kit in ``folder``.

    Raises:
        FolderTaken: The folder holds something else than kit ``identity``.

    """
    try:
        data = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        manifest = KitManifest.from_json(data)
    except (OSError, ValueError, MalformedMessage):
        raise FolderTaken(folder, identity) from None
    if manifest.id != identity:
        raise FolderTaken(folder, identity)
    return manifest


def describe(draft: Path) -> dict[str, KitFile]:
    """Return digest and size of every file in ``draft``, each safely on disk."""
    files = {}
    for path in sorted(draft.iterdir()):
        with path.open("rb+") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            os.fsync(file.fileno())
        files[path.name] = KitFile(digest, path.stat().st_size)
    return files


def publish(draft: Path, folder: Path, manifest: KitManifest) -> KitManifest:
    """
    Write the manifest into ``draft`` and let it become ``folder`` in one move.

    Returns:
        The manifest of the kit in ``folder``: another's, when another was faster.

    """
    with (draft / MANIFEST).open("w", encoding="utf-8") as file:
        json.dump(manifest.to_json(), file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    try:
        draft.rename(folder)
    except OSError:
        if not folder.exists():
            raise
        return read_kit(folder, manifest.id)
    return manifest
