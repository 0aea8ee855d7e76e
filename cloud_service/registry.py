"""The backbones that have been pulled: one folder each in the cache, with a note of what it is."""

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from cloud_service.errors import BackboneDamaged, BackboneNotPulled, BadSetting
from protocol.codecs import CODEC_NAMES
from protocol.errors import Fault
from protocol.facts import (
    MOST_HIDDEN,
    MOST_LAYERS,
    MOST_TOKENS,
    BackboneFacts,
    encoder_fields,
)
from protocol.fields import Fields, is_file_name, read_json
from protocol.limits import Limits
from protocol.versions import SPOKEN

NOTE = "backbone.json"
TOKENIZER = "tokenizer.json"
_LARGEST_NOTE = 4 * 2**20
_MOST_STOPS = 64


@dataclass(frozen=True, slots=True)
class Record:
    """What a pulled backbone is, whatever it is served in."""

    name: str
    """Folder in the cache, and how people call it."""
    display_name: str
    """How results call it."""
    source: str
    """Where it came from."""
    fingerprint: str
    family: str
    layers: int
    hidden: int
    vocabulary: int
    positions: int
    tokenizer_sha256: str
    chat_template: str | None
    bos_token: str | None
    eos_token: str | None
    stop_tokens: tuple[int, ...]
    logit_softcap: float | None
    decoder_start: tuple[int, ...] = ()
    encoder_layers: int = 0

    def facts(self, dtype: str = "f32", limits: Limits | None = None) -> BackboneFacts:
        """Return what a device is told when the backbone is served in ``dtype``."""
        shared = {k: v for k, v in asdict(self).items() if k not in ("display_name", "source")}
        return BackboneFacts(
            **shared, dtype=dtype, protocol=SPOKEN, codecs=CODEC_NAMES, limits=limits or Limits()
        )

    @classmethod
    def from_json(cls, data: object) -> "Record":
        """Read the fields by name, or raise ``protocol.errors.MalformedMessage``."""
        read = Fields(data, "backbone record")
        return cls(
            name=read.file_name("name"),
            display_name=read.label("display_name"),
            source=read.text("source"),
            fingerprint=read.digest("fingerprint"),
            family=read.label("family"),
            layers=read.integer("layers", 1, MOST_LAYERS),
            hidden=read.integer("hidden", 1, MOST_HIDDEN),
            vocabulary=read.integer("vocabulary", 1, MOST_TOKENS),
            positions=read.integer("positions", 1),
            tokenizer_sha256=read.digest("tokenizer_sha256"),
            chat_template=read.maybe("chat_template", read.text),
            bos_token=read.maybe("bos_token", read.text),
            eos_token=read.maybe("eos_token", read.text),
            stop_tokens=read.integers("stop_tokens", _MOST_STOPS, 0, MOST_TOKENS),
            logit_softcap=read.maybe("logit_softcap", read.positive),
            **encoder_fields(read),
        )


@dataclass(frozen=True, slots=True)
class Pulled:
    """A backbone in the cache."""

    record: Record
    folder: Path
    """Config, safetensors and tokenizer."""

    @property
    def tokenizer(self) -> Path:
        """The tokenizer's file, whose digest the record names."""
        return self.folder / TOKENIZER

    @property
    def bytes(self) -> int:
        """Bytes on disk."""
        return sum(file.stat().st_size for file in self.folder.iterdir())


class Registry:
    """The folder of pulled backbones."""

    def __init__(self, cache: Path) -> None:
        self.root = cache / "backbones"

    def folder(self, name: str) -> Path:
        """
        Return where a backbone of that name is, or would be.

        Raises:
            BadSetting: The name is none for a folder.

        """
        if not is_file_name(name):
            raise BadSetting(
                f"{name!r} is no name for a backbone", "Use lower-case letters, digits, . _ and -."
            )
        return self.root / name

    def find(self, name: str) -> Pulled:
        """
        Return a pulled backbone.

        Raises:
            BackboneNotPulled: There is none of that name.
            BackboneDamaged: Its record cannot be read.

        """
        folder = self.folder(name)
        if not (folder / NOTE).is_file():
            raise BackboneNotPulled(name, [pulled.record.name for pulled in self])
        return _read(folder)

    def __iter__(self) -> Iterator[Pulled]:
        """Iterate over what has been pulled, by name."""
        for note in sorted(self.root.glob(f"*/{NOTE}")):
            # While it is being put together it has a hidden name.
            if is_file_name(note.parent.name):
                yield _read(note.parent)

    def admit(self, made: Path, record: Record) -> Pulled:
        """
        Write the record into a finished folder and give it its name, in one move.

        Raises:
            BackboneDamaged: A folder of that name is there and holds no backbone.

        """
        note = made / NOTE
        note.write_text(json.dumps(asdict(record), indent=1, ensure_ascii=False), "utf-8")
        for file in made.iterdir():
            _to_disk(file)
        final = self.folder(record.name)
        try:
            os.replace(made, final)
        except OSError:
            # Somebody else has pulled it meanwhile, or something is in the way.
            found = _read(final)
            shutil.rmtree(made)
            return found
        return Pulled(record, final)


def _to_disk(file: Path) -> None:
    with file.open("rb+") as opened:
        os.fsync(opened.fileno())


def _read(folder: Path) -> Pulled:
    try:
        data = read_json((folder / NOTE).read_bytes(), _LARGEST_NOTE)
        return Pulled(Record.from_json(data), folder)
    except (OSError, Fault) as error:
        raise BackboneDamaged(str(folder), str(error)) from None
