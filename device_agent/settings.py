"""What a person may choose: flags, then SIDEPLUG_* variables, then config.toml, then these defaults."""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import platformdirs

from device_agent.errors import DeviceError

CONFIG = "config.toml"
"""Name of the settings file inside the home folder."""


MOST_PREFIX = 2**20
"""Tokens; the backbone's context sets the real bound."""


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
    """Address of the cloud."""

    recipe: str = "ladder"
    """Recipe of the plugins trained here, as the cloud names it."""

    threads: int = 0
    """Threads for arithmetic; 0 stands for every usable core, four at most, and is replaced at birth."""

    codec: str = "f16"
    """How hidden states travel: f32, f16, bf16 or int8."""

    prefix: int = 1024
    """Tokens of your own text that go before everything the backbone reads; 0: none are sent."""

    patience: float = 300.0
    """Seconds to wait for one answer of the cloud."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "cloud", self.cloud.rstrip("/"))
        if self.threads == 0:
            object.__setattr__(self, "threads", _cores())
        address = urlsplit(self.cloud)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise BadSetting("cloud", f"must look like http://host:port, but is {self.cloud!r}")
        if not self.recipe:
            raise BadSetting("recipe", "must not be empty")
        if not 1 <= self.threads <= 1024:
            raise BadSetting("threads", f"must be 0 to 1024, but is {self.threads}")
        if self.codec not in ("f32", "f16", "bf16", "int8"):
            raise BadSetting("codec", f"must be f32, f16, bf16 or int8, but is {self.codec!r}")
        if not 0 <= self.prefix <= MOST_PREFIX:
            raise BadSetting("prefix", f"must be 0 to {MOST_PREFIX}, but is {self.prefix}")
        if not 0 < self.patience < float("inf"):
            raise BadSetting("patience", f"must be a number of seconds, but is {self.patience}")

    @property
    def host(self) -> str:
        """``host:port`` of the cloud, as the egress ledger names it."""
        return urlsplit(self.cloud).netloc


def load(flags: Mapping[str, object], environ: Mapping[str, str]) -> Settings:
    """Join the four sources.

    Args:
        flags: By field name; None stands for a flag that was not given.
        environ: Usually ``os.environ``; ``SIDEPLUG_<FIELD>`` is read for each field.

    Raises:
        BadSetting: A value cannot work, or config.toml is no TOML or names an unknown setting.
    """
    given: dict[str, object] = {
        field.name: environ[variable(field.name)]
        for field in fields(Settings)
        if environ.get(variable(field.name))
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
    known = {field.name for field in fields(Settings)} - {"home"}
    for name in found:
        if name not in known:
            raise BadSetting(name, f"in {path} is unknown; known are {', '.join(sorted(known))}")
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
    if type(value) is not kind and not isinstance(value, Path):
        raise BadSetting(field.name, f"must be of type {kind.__name__}, but is {value!r}")
    return value
