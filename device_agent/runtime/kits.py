"""Compiled kits on this device: fetched once, checked by sha256, shared file by file."""

import hashlib
import json
import mmap
import os
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from device_agent.atomic import make_folder, replace_folder, temporary_folder, write_whole
from device_agent.cloud.client import CloudClient, CloudUnreachable
from device_agent.errors import DeviceError
from protocol.basis import FILE as BASIS
from protocol.basis import Basis
from protocol.errors import Fault, KitNotReady, TensorMismatch
from protocol.fields import is_file_name
from protocol.kit import KitFile, KitManifest

MANIFEST = "manifest.json"

COMPILE_PAUSE = 3.0
COMPILE_TRIES = 200
"""How long a kit may take to compile: ten minutes, asked for every three seconds."""

Progress = Callable[[str, int, int], None]
"""Told the file's name, the bytes it has so far, and its size."""


class WrongBackbone(DeviceError):
    """Something was made for another backbone than the one that the cloud runs."""

    hint = "Connect to a cloud with that backbone, or train anew on this one with `sideplug train`."

    def __init__(self, expected: str, got: str) -> None:
        super().__init__(f"made for backbone {got[:12]}, but the cloud runs {expected[:12]}")
        self.expected = expected
        self.got = got


class DamagedKit(DeviceError):
    """A file of a kit is not what its manifest says."""

    hint = "Run the command again; if it happens again, the cloud's copy is damaged."

    def __init__(self, file: str, reason: str) -> None:
        super().__init__(f"kit file {file} {reason}")


class Kit:
    """A compiled recipe on disk, whole and checked."""

    def __init__(self, manifest: KitManifest, folder: Path) -> None:
        self.manifest = manifest
        self.folder = folder

    def path(self, name: str) -> Path:
        """Where a file of the kit is.

        Raises:
            DamagedKit: The kit has no such file.
        """
        if name not in self.manifest.files:
            raise DamagedKit(name, "is not in the kit")
        return self.folder / name

    def basis(self) -> Basis | None:
        """The public basis, mapped; None when the kit has none.

        Raises:
            DamagedKit: The file has another size than the manifest's widths need.
        """
        manifest = self.manifest
        if manifest.basis is None:
            return None
        with self.path(BASIS).open("rb") as file:
            pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        widths = (manifest.basis.final, manifest.basis.taps)
        try:
            return Basis.from_bytes(memoryview(pages), manifest.taps, manifest.hidden, widths)
        except TensorMismatch as error:
            raise DamagedKit(BASIS, str(error)) from error

    def initial(self) -> dict[str, NDArray[np.float32]]:
        """Weights to begin training with, by name, in the manifest's order and shapes.

        Raises:
            DamagedKit: They are not the weights that the manifest names.
        """
        from safetensors.numpy import load_file

        found = load_file(self.path("initial.safetensors"))
        expected = {weight.name: weight.shape for weight in self.manifest.weights}
        if {name: array.shape for name, array in found.items()} != expected:
            raise DamagedKit("initial.safetensors", "holds other weights than the manifest names")
        return {name: found[name].astype(np.float32, copy=False) for name in expected}


class KitStore:
    """Kits under ``home``: files by sha256 in ``blobs/``, linked under their names in ``kits/<id>/``."""

    def __init__(self, home: Path, sleep: Callable[[float], None] = time.sleep) -> None:
        self._kits = home / "kits"
        self._blobs = home / "blobs"
        self._sleep = sleep

    def obtain(self, cloud: CloudClient, recipe: str, on_progress: Progress | None = None) -> Kit:
        """The kit of a recipe, fetched when it is not here yet.

        Without the cloud, a kit that is here already will do.

        Args:
            cloud: Where kits come from.
            recipe: Name of a recipe, or id of a kit.
            on_progress: Told of every chunk that arrives.

        Raises:
            WrongBackbone: The kit was compiled for another backbone than the cloud's.
            DamagedKit: A file is not what the manifest says, also after fetching it again.
            CloudUnreachable: The cloud does not answer and no such kit is here.
        """
        try:
            facts = cloud.facts()
        except CloudUnreachable:
            known = self.find(recipe)
            if known is None:
                raise
            return known
        here = self._kept(recipe)
        manifest = here.manifest if here else self._wait_for(cloud, recipe)
        if manifest.fingerprint != facts.fingerprint:
            raise WrongBackbone(expected=facts.fingerprint, got=manifest.fingerprint)
        return here or self._kept(manifest.id) or self._fetch(cloud, manifest, on_progress)

    def find(self, recipe: str) -> Kit | None:
        """The newest kit on this device that has this id or this recipe's name."""
        exact = self._kept(recipe)
        if exact is not None:
            return exact
        kits = [kit for kit in self._all() if kit.manifest.recipe == recipe]
        return max(kits, key=lambda kit: (kit.folder / MANIFEST).stat().st_mtime, default=None)

    def recipes(self) -> list[str]:
        """Names of the recipes whose kits are on this device."""
        return sorted({kit.manifest.recipe for kit in self._all()})

    def check(self, kit: Kit) -> list[str]:
        """Names of the files whose bytes are not what the manifest says; reads all of them."""
        return [
            name
            for name, file in kit.manifest.files.items()
            if not _matches(kit.folder / name, file)
        ]

    def _all(self) -> list[Kit]:
        names = [path.parent.name for path in self._kits.glob(f"*/{MANIFEST}")]
        return [kit for name in names if (kit := self._kept(name))]

    def _kept(self, kit_id: str) -> Kit | None:
        """A kit that is here; one whose manifest cannot be read counts as not here."""
        if not is_file_name(kit_id):
            return None
        folder = self._kits / kit_id
        try:
            data = json.loads((folder / MANIFEST).read_bytes())
            return Kit(KitManifest.from_json(data), folder)
        except (OSError, ValueError, Fault):
            return None

    def _wait_for(self, cloud: CloudClient, recipe: str) -> KitManifest:
        for _ in range(COMPILE_TRIES - 1):
            try:
                return cloud.kit(recipe)
            except KitNotReady:
                self._sleep(COMPILE_PAUSE)
        return cloud.kit(recipe)

    def _fetch(
        self, cloud: CloudClient, manifest: KitManifest, on_progress: Progress | None
    ) -> Kit:
        for name, file in manifest.files.items():
            if not _matches(self._blobs / file.sha256, file):
                cloud.retry(partial(self._download, cloud, manifest.id, name, file, on_progress))
        final = make_folder(self._kits) / manifest.id
        temporary = temporary_folder(final)
        try:
            for name, file in manifest.files.items():
                _link(self._blobs / file.sha256, temporary / name)
            write_whole(temporary / MANIFEST, json.dumps(manifest.to_json()).encode())
            return self._install(manifest, temporary, final)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _install(self, manifest: KitManifest, temporary: Path, final: Path) -> Kit:
        """Put the folder in its place, unless another process was faster."""
        try:
            if self._kept(manifest.id) is None:
                replace_folder(temporary, final)
        except OSError:
            if self._kept(manifest.id) is None:
                raise
        return Kit(manifest, final)

    def _download(
        self,
        cloud: CloudClient,
        kit_id: str,
        name: str,
        file: KitFile,
        on_progress: Progress | None,
    ) -> None:
        """One file into ``blobs/``, where it appears only when its bytes are right."""

        def write(out: BinaryIO) -> None:
            digest, size = hashlib.sha256(), 0
            for chunk in cloud.kit_file(kit_id, name):
                size += len(chunk)
                if size > file.size:
                    raise DamagedKit(name, f"is longer than the {file.size} bytes announced")
                digest.update(chunk)
                out.write(chunk)
                if on_progress is not None:
                    on_progress(name, size, file.size)
            if size != file.size or digest.hexdigest() != file.sha256:
                raise DamagedKit(name, "arrived with another sha256 than announced")

        write_whole(self._blobs / file.sha256, write)


def _matches(path: Path, file: KitFile) -> bool:
    """Whether the file is there with the right bytes."""
    if not path.is_file() or path.stat().st_size != file.size:
        return False
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest() == file.sha256


def _link(source: Path, target: Path) -> None:
    """A second name for the same bytes; a copy on file systems that have no hard links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
