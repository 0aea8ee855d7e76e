"""What a person may choose: flags, then SIDEPLUG_* variables, then config.toml, then these defaults."""

import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from datetime import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import platformdirs

from device_agent.errors import DeviceError

CONFIG = "config.toml"
"""Name of the settings file inside the home folder."""


MOST_PREFIX = 2**20
"""Tokens; the backbone's context sets the real bound."""


AUTO, OFF = "auto", "off"
"""Words of the settings ``drafts`` and ``gate``."""

CONFIDENCE, CLASSIFIER = "confidence", "classifier"
"""Words of the setting ``gate_by``."""

MOST_DRAFTS = 64

CHOICES = {
    "codec": ("f32", "f16", "bf16", "int8"),
    "memory": ("on", "off"),
    "gate_by": (CONFIDENCE, CLASSIFIER),
    "train_when": ("idle", "always"),
    "federated": ("off", "on"),
}
"""Settings that take one of a few words."""

RANGES = {
    "threads": (0, 1024),
    "prefix": (0, MOST_PREFIX),
    "port": (0, 65535),
    "train_cpu": (1, 100),
    "train_memory": (0, 2**20),
}
"""Least and most of the settings that count something."""


class BadSetting(DeviceError):
    """A setting has a value that cannot work."""

    hint = "Correct the flag, the SIDEPLUG_* variable, or the line of config.toml that sets it."

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"setting {name} {reason}")
        self.name = name


def _cores() -> int:
    """Cores this process may use, four at most: the graphs are too small for more."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(4, usable or 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Refused at birth when a value cannot work."""

    home: Path
    """Folder with everything the device keeps: store, kits, plugins, features."""

    cloud: str = "http://127.0.0.1:8471"
    """Address of the cloud, or several separated by commas: the next takes over when one is away."""

    key: str = field(default="", repr=False)
    """Key of the cloud; from SIDEPLUG_KEY or config.toml, as anybody can read a command line."""

    ca: str = ""
    """PEM file of the authority behind the cloud's certificate; the system's ones when empty."""

    recipe: str = "ladder"
    """Recipe of the plugins trained here, as the cloud names it."""

    threads: int = 0
    """Threads for arithmetic; 0 stands for every usable core, four at most, and is replaced at birth."""

    codec: str = "f16"
    """How hidden states travel whole: f32, f16, bf16 or int8."""

    wire_kl: float = 0.001
    """Most nats of divergence that a smaller encoding of states may cost; 0: they travel whole. A plugin keeps to what it was trained with."""

    prefix: int = 1024
    """Tokens of your own text that go before everything the backbone reads; 0: none are sent."""

    memory: str = "on"
    """Whether the memory of your texts takes part where it helps: on or off."""

    drafts: str = AUTO
    """Tokens that one request drafts and the device verifies: auto, off, or how many the cloud is asked for."""

    gate: str = OFF
    """Below which need of a token the backbone says it alone: a threshold from 0 to 1, or off."""

    gate_by: str = CONFIDENCE
    """What tells the need: the backbone's own confidence, or the plugin's classifier, whose weights leave then."""

    federated: str = "off"
    """Whether this device may learn together with others: on or off. Weights leave it then, see README."""

    patience: float = 300.0
    """Seconds to wait for one answer of the cloud."""

    host: str = "127.0.0.1"
    """Where the agent listens."""

    port: int = 8472
    """The agent's port; 0 takes any that is free."""

    train_when: str = "idle"
    """When the agent trains: idle, while nobody chats, or always."""

    train_hours: str = ""
    """Hours of the day in which the agent trains, such as 22:00-07:00; all of them when empty."""

    train_cpu: int = 100
    """Percent of the time for which the agent's training may compute."""

    train_memory: int = 0
    """Megabytes that the agent's training may take; 0 for no limit."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "cloud", ",".join(map(_address, self.cloud.split(","))))
        if self.threads == 0:
            object.__setattr__(self, "threads", _cores())
        if not (self.key.isascii() and self.key.isprintable()):
            raise BadSetting("key", "must be as the cloud gave it: letters, digits, - and _")
        if not self.recipe:
            raise BadSetting("recipe", "must not be empty")
        for name, choices in CHOICES.items():
            _require_one_of(name, choices, getattr(self, name))
        _require_drafts(self.drafts)
        _require_gate(self.gate)
        hours_of(self.train_hours)
        for name, (least, most) in RANGES.items():
            _require_within(name, least, most, getattr(self, name))
        if not 0 <= self.wire_kl < float("inf"):
            raise BadSetting("wire_kl", f"must be 0 or a number of nats, but is {self.wire_kl}")
        if not 0 < self.patience < float("inf"):
            raise BadSetting("patience", f"must be a number of seconds, but is {self.patience}")

    @property
    def gate_threshold(self) -> float | None:
        """The gate's; None without one."""
        return None if self.gate == OFF else float(self.gate)


def hours_of(text: str) -> tuple[time, time] | None:
    """The first and the last moment of hours such as ``22:00-07:00``; None for all day.

    Raises:
        BadSetting: They are not written like that.
    """
    if not text:
        return None
    try:
        begin, end = (time.fromisoformat(part.strip()) for part in text.split("-"))
    except ValueError:
        raise BadSetting("train_hours", f"must look like 22:00-07:00, but is {text!r}") from None
    return begin, end


def _address(text: str) -> str:
    url = text.strip().rstrip("/")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BadSetting("cloud", f"must look like http://host:port, but is {url!r}")
    return url


def _require_one_of(name: str, choices: Sequence[str], value: str) -> None:
    if value not in choices:
        *most, last = choices
        raise BadSetting(name, f"must be {', '.join(most)} or {last}, but is {value!r}")


def _require_drafts(value: str) -> None:
    if value not in (AUTO, OFF) and not (value.isdecimal() and 1 <= int(value) <= MOST_DRAFTS):
        reason = f"must be {AUTO}, {OFF}, or 1 to {MOST_DRAFTS}, but is {value!r}"
        raise BadSetting("drafts", reason)


def _require_gate(value: str) -> None:
    try:
        good = value == OFF or 0 <= float(value) <= 1
    except ValueError:
        good = False
    if not good:
        raise BadSetting("gate", f"must be {OFF}, or a threshold from 0 to 1, but is {value!r}")


def _require_within(name: str, least: int, most: int, value: int) -> None:
    if not least <= value <= most:
        raise BadSetting(name, f"must be {least} to {most}, but is {value}")


def load(flags: Mapping[str, object], environ: Mapping[str, str]) -> Settings:
    """Join the four sources.

    Args:
        flags: By field name; None stands for a flag that was not given.
        environ: Usually ``os.environ``; ``SIDEPLUG_<FIELD>`` is read for each field.

    Raises:
        BadSetting: A value cannot work, or config.toml is no TOML or names an unknown setting.
    """
    given: dict[str, object] = {
        item.name: environ[variable(item.name)]
        for item in fields(Settings)
        if environ.get(variable(item.name))
    }
    given |= {name: value for name, value in flags.items() if value is not None}
    home = Path(str(given.get("home") or platformdirs.user_data_dir("sideplug", appauthor=False)))
    merged = _from_file(home / CONFIG) | given | {"home": home.expanduser().absolute()}
    return Settings(
        **{f.name: _typed(f, merged[f.name]) for f in fields(Settings) if f.name in merged}
    )


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return f"SIDEPLUG_{name.upper()}"


def _from_file(path: Path) -> dict[str, Any]:
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadSetting("file", f"{path} cannot be read: {error}") from error
    known = {item.name for item in fields(Settings)} - {"home"}
    for name in found:
        if name not in known:
            raise BadSetting(name, f"in {path} is unknown; known are {', '.join(sorted(known))}")
    if "key" in found and os.name == "posix" and path.stat().st_mode & 0o077:
        raise BadSetting("key", f"stands in {path}, which others can read; run: chmod 600 {path}")
    return found


def _typed(field: Field[Any], value: Any) -> Any:
    """``value`` as the field's type; what came as text may have to become a number."""
    kind: type = Path if field.default is MISSING else type(field.default)
    if isinstance(value, str) and kind is not str:
        try:
            return kind(value)
        except ValueError:
            raise BadSetting(field.name, f"must be a number, but is {value!r}") from None
    if kind is float and type(value) is int:
        return float(value)
    if (field.name == "drafts" and type(value) is int) or (
        field.name == "gate" and type(value) in (int, float)
    ):
        return str(value)
    if type(value) is not kind and not isinstance(value, Path):
        raise BadSetting(field.name, f"must be of type {kind.__name__}, but is {value!r}")
    return value
