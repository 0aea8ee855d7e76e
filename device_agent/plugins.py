"""Trained plugins on disk, version by version, laid out as PEFT lays out adapters.

    plugins/<name>/<version>/adapter_config.json         what it is and which backbone it belongs to
                             adapter_model.safetensors   its weights
                             prefix.json                 the personal prefix it was trained behind
                             memory.bin                  what it remembers word for word
                             card.json                   how well it did on text it was not trained on
                             history.json                the course of its training
    plugins/<name>/current.json                          which version speaks, which did before, and why

A version never changes once it is there, but for its memory, which learns and forgets; to switch is to replace ``current.json``, in one rename.
"""

import json
import os
import shutil
import zipfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from device_agent.atomic import make_folder, replace_folder, temporary_folder, write_whole
from device_agent.errors import DeviceError
from device_agent.memory.file import MemoryFile, source_of
from device_agent.memory.gate import Gates
from device_agent.runtime.kits import WrongBackbone
from device_agent.training.evaluate import PARTS, Part
from protocol.encoding import Encoding
from protocol.errors import Fault
from protocol.kit import KitManifest

NAME = "mine"
"""The plugin that commands use."""

CONFIG, WEIGHTS, PREFIX, CARD, HISTORY = (
    "adapter_config.json",
    "adapter_model.safetensors",
    "prefix.json",
    "card.json",
    "history.json",
)
MEMORY = "memory.bin"
POINTER = "current.json"


class NoSuchVersion(DeviceError):
    """There is no such version of the plugin."""

    hint = "`sideplug plugins list` shows the versions that there are."

    def __init__(self, version: str) -> None:
        super().__init__(f"there is no version {version}")


class DamagedPlugin(DeviceError):
    """A file of a version cannot be read."""

    hint = "Choose another version with `sideplug plugins use`, or train again."

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} cannot be used: {reason}")


class NothingBefore(DeviceError):
    """No version has spoken before the one that speaks now."""

    hint = "Choose a version with `sideplug plugins use`, or `base` for the frozen backbone."

    def __init__(self) -> None:
        super().__init__("there is no earlier version to go back to")


class ExportExists(DeviceError):
    """The place to export to is taken."""

    hint = "Name a file or folder that does not exist yet."

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} exists already")


@dataclass(frozen=True, slots=True)
class PluginVersion:
    """One version, read as far as its description."""

    version: str
    folder: Path
    config: Mapping[str, object]
    """``adapter_config.json``."""
    kit_id: str
    fingerprint: str
    """Of the backbone it was trained on."""

    @property
    def card(self) -> dict[str, object]:
        """Its evaluation. Raises DamagedPlugin."""
        return _read_json(self.folder / CARD)

    @property
    def prefix(self) -> NDArray[np.uint32]:
        """The personal prefix it was trained behind, (P,); empty without one. Raises DamagedPlugin."""
        found = _read_json(self.folder / PREFIX).get("tokens")
        try:
            return np.array(found, np.uint32).reshape(-1)
        except (TypeError, ValueError, OverflowError) as error:
            raise DamagedPlugin(self.folder / PREFIX, "no list of tokens") from error

    @property
    def gates(self) -> Gates:
        """How much its memory is believed. Raises DamagedPlugin."""
        about = self.config.get("sideplug")
        told = about.get("memory") if isinstance(about, dict) else None
        try:
            return Gates.from_json(told if isinstance(told, dict) else {})
        except ValueError as error:
            raise DamagedPlugin(self.folder / CONFIG, str(error)) from error

    @property
    def speaks(self) -> Part:
        """What of it speaks. Raises DamagedPlugin."""
        about = self.config.get("sideplug")
        told = about.get("speaks", "whole") if isinstance(about, dict) else "whole"
        for part in PARTS:
            if told == part:
                return part
        raise DamagedPlugin(self.folder / CONFIG, f"it has no part {told!r}")

    @property
    def encoding(self) -> Encoding | None:
        """Of the states it was trained on and reads; None when they come whole. Raises DamagedPlugin."""
        about = self.config.get("sideplug")
        told = about.get("encoding") if isinstance(about, dict) else None
        try:
            return None if told is None else Encoding.from_json(told)
        except Fault as error:
            raise DamagedPlugin(self.folder / CONFIG, str(error)) from error

    @property
    def examples(self) -> frozenset[str] | None:
        """sha256 of what it was trained on or judged by; None when it does not say, as old ones do not."""
        about = self.config.get("sideplug")
        told = about.get("examples") if isinstance(about, dict) else None
        return frozenset(map(str, told)) if isinstance(told, list) else None

    @property
    def memory_path(self) -> Path:
        """Where its memory is, if it has one."""
        return self.folder / MEMORY

    @property
    def memory_source(self) -> bytes:
        """What the keys of its memory are made of."""
        return source_of(self.fingerprint, self.prefix)

    def memory(self) -> MemoryFile | None:
        """Its memory, mapped; None when it has none or has forgotten everything.

        Raises:
            DamagedMemory, ForeignMemory: It cannot be used.
        """
        if not self.memory_path.is_file():
            return None
        found = MemoryFile.mapped(self.memory_path, self.memory_source)
        return found if len(found.tokens) else None

    @property
    def size(self) -> int:
        """Bytes of its weights."""
        return (self.folder / WEIGHTS).stat().st_size

    def weights(self) -> dict[str, NDArray[np.float32]]:
        """The weights by name, each in the shape that the kit's manifest gives.

        Raises:
            DamagedPlugin: The file is not what was written.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        path = self.folder / WEIGHTS
        try:
            found: dict[str, NDArray[np.float32]] = load_file(path)
        except (OSError, SafetensorError) as error:
            raise DamagedPlugin(path, str(error)) from error
        return found

    def require(self, fingerprint: str) -> None:
        """Refuse another backbone.

        Raises:
            WrongBackbone: The version was trained on another one than ``fingerprint`` names.
        """
        if self.fingerprint != fingerprint:
            raise WrongBackbone(expected=fingerprint, got=self.fingerprint)


class PluginStore:
    """The versions of one plugin in a home folder."""

    def __init__(self, home: Path, name: str = NAME) -> None:
        self._folder = home / "plugins" / name

    def versions(self) -> list[PluginVersion]:
        """Every version, oldest first."""
        numbers = [
            int(path.name)
            for path in self._folder.glob("*")
            if path.name.isdecimal() and (path / CONFIG).is_file()
        ]
        return [self.get(str(number)) for number in sorted(numbers)]

    def get(self, version: str) -> PluginVersion:
        """One version.

        Raises:
            NoSuchVersion: There is none of that name.
            DamagedPlugin: Its description cannot be read.
        """
        folder = self._folder / version
        if not version.isdecimal() or not (folder / CONFIG).is_file():
            raise NoSuchVersion(version)
        config = _read_json(folder / CONFIG)
        about = config.get("sideplug")
        kit, fingerprint = (
            (about.get("kit"), about.get("fingerprint"))
            if isinstance(about, dict)
            else (None, None)
        )
        if not isinstance(kit, str) or not isinstance(fingerprint, str):
            raise DamagedPlugin(folder / CONFIG, "it names no kit or no backbone")
        return PluginVersion(version, folder, config, kit, fingerprint)

    def current(self) -> PluginVersion | None:
        """The version that speaks; None when the frozen backbone does."""
        version, _ = self._pointer()
        return None if version is None else self.get(version)

    def add(
        self,
        manifest: KitManifest,
        weights: Mapping[str, NDArray[np.float32]],
        about: Mapping[str, object],
        prefix: NDArray[np.uint32],
        card: Mapping[str, object],
        history: Sequence[object],
        memory: Path | None = None,
    ) -> PluginVersion:
        """Keep a trained plugin as a new version, whole or not at all; it does not speak yet.

        Args:
            manifest: Of the kit that it was trained with.
            weights: By name.
            about: More for the ``sideplug`` part of its description, such as the codec.
            prefix: The personal prefix that it was trained behind, (P,).
            card: Its evaluation.
            history: The course of its training.
            memory: A file with its memory, which is copied; None for none.
        """
        from safetensors.numpy import save

        number = str(self._newest() + 1)
        files = {
            CONFIG: _json_bytes(_config(manifest, about)),
            WEIGHTS: save(dict(weights), metadata={"format": "np"}),
            PREFIX: _json_bytes({"tokens": prefix.tolist()}),
            CARD: _json_bytes(card),
            HISTORY: _json_bytes(history),
        }
        final = self._folder / number
        temporary = temporary_folder(final)
        try:
            for name, data in files.items():
                write_whole(temporary / name, data)
            if memory is not None:
                write_whole(temporary / MEMORY, _copying(memory))
            replace_folder(temporary, final)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return self.get(number)

    def use(self, version: str | None) -> None:
        """Let a version speak from now on, or the frozen backbone (None).

        Raises:
            NoSuchVersion: There is none of that name.
        """
        if version is not None:
            self.get(version)
        now, before = self._pointer()
        if version != now:
            self._point(version, [*before, now])

    def remove(self, versions: Collection[str]) -> None:
        """Delete versions for good. Where one of them speaks, the one before it that is left does from now on.

        Raises:
            NoSuchVersion: There is none of one of these names; nothing is deleted then.
        """
        folders = [self.get(version).folder for version in versions]
        now, before = self._pointer()
        *before, now = [one for one in [*before, now] if one not in versions] or [None]
        self._point(now, before)
        for folder in folders:
            # Renamed first: a version that is half deleted must not count as one.
            aside = temporary_folder(folder)
            os.replace(folder, aside / folder.name)
            shutil.rmtree(aside)

    def before(self) -> PluginVersion | None:
        """What spoke before; None for the frozen backbone.

        Raises:
            NothingBefore: Nothing else has spoken before.
        """
        _, before = self._pointer()
        if not before:
            raise NothingBefore()
        return None if before[-1] is None else self.get(before[-1])

    def rollback(self, reason: str | None = None) -> str | None:
        """Let the one speak that spoke before; gives its version, None for the frozen backbone.

        Args:
            reason: Why, in a sentence, when nobody has asked for it.

        Raises:
            NothingBefore: No other one has spoken before.
        """
        _, before = self._pointer()
        if not before:
            raise NothingBefore()
        *before, version = before
        self._point(version, before, reason)
        return version

    @property
    def reason(self) -> str | None:
        """Why the last switch was made, where nobody has asked for it."""
        path = self._folder / POINTER
        found = _read_json(path).get("reason") if path.is_file() else None
        return found if isinstance(found, str) else None

    def export(self, version: str, target: Path) -> None:
        """Copy a version to a folder, or into one file when ``target`` ends in ``.zip``.

        Raises:
            ExportExists: There is something at ``target``.
            NoSuchVersion: There is none of that name.
        """
        source = self.get(version).folder
        if target.exists():
            raise ExportExists(target)
        names = [CONFIG, WEIGHTS, PREFIX, CARD, HISTORY]
        names += [MEMORY] if (source / MEMORY).is_file() else []
        if target.suffix.lower() == ".zip":
            write_whole(target, lambda file: _zip(file, source, names))
            return
        temporary = temporary_folder(target)
        try:
            for name in names:
                shutil.copyfile(source / name, temporary / name)
            replace_folder(temporary, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _newest(self) -> int:
        """The highest number that a version has ever had: a name that answers carry is given once."""
        path = self._folder / POINTER
        told = _read_json(path).get("newest") if path.is_file() else None
        known = [int(version.version) for version in self.versions()]
        return max([*known, told if isinstance(told, int) else 0])

    def _pointer(self) -> tuple[str | None, list[str | None]]:
        """Which version speaks, and those before it, oldest first."""
        path = self._folder / POINTER
        if not path.is_file():
            return None, []
        data = _read_json(path)
        before = data.get("before")
        if not isinstance(before, list):
            raise DamagedPlugin(path, "it names no version")
        version, *earlier = (_version_in(path, one) for one in [data.get("version"), *before])
        return version, earlier

    def _point(
        self, version: str | None, before: Sequence[str | None], reason: str | None = None
    ) -> None:
        told: dict[str, object] = {"version": version, "before": list(before), "reason": reason}
        told["newest"] = self._newest()
        write_whole(make_folder(self._folder) / POINTER, _json_bytes(told))


def _copying(source: Path) -> Callable[[BinaryIO], None]:
    def write(file: BinaryIO) -> None:
        with source.open("rb") as opened:
            shutil.copyfileobj(opened, file)

    return write


def _config(manifest: KitManifest, about: Mapping[str, object]) -> dict[str, object]:
    return {
        "peft_type": "SIDEPLUG",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": manifest.backbone,
        "inference_mode": True,
        "sideplug": {
            "format": 1,
            "kit": manifest.id,
            "recipe": manifest.recipe,
            "fingerprint": manifest.fingerprint,
            "tokenizer_sha256": manifest.tokenizer_sha256,
            "taps": list(manifest.taps),
            **about,
        },
    }


def _version_in(path: Path, value: object) -> str | None:
    if value is None or (isinstance(value, str) and value.isdecimal()):
        return value
    raise DamagedPlugin(path, "it names no version")


def _json_bytes(data: object) -> bytes:
    return json.dumps(data, indent=2, ensure_ascii=False).encode() + b"\n"


def _read_json(path: Path) -> dict[str, object]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DamagedPlugin(path, str(error)) from error
    if not isinstance(found, dict):
        raise DamagedPlugin(path, "it is no JSON object")
    return found


def _zip(file: BinaryIO, source: Path, names: Sequence[str]) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.write(source / name, name)
