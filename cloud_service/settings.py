"""How the service is to run. A flag overrules the environment, which overrules the TOML file."""

import ipaddress
import math
import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

from platformdirs import user_cache_dir, user_config_dir

from cloud_service.errors import BadSetting

PREFIX = "SIDEPLUG_CLOUD_"
CACHE_VARIABLE = "SIDEPLUG_CACHE"
DTYPES = ("auto", "f32", "bf16")

_WORDS = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


def _setting(default: Any, help: str) -> Any:
    """A field with the line that ``--help`` shows for it."""
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can be set. ``BadSetting`` when it makes no sense."""

    cache: Path
    """Where pulled backbones and compiled kits are kept."""
    backbone: str = _setting("smollm2-135m-instruct", "name of the pulled backbone to serve")
    host: str = _setting(
        "127.0.0.1", "address to listen on; anything but loopback needs --insecure"
    )
    port: int = _setting(8471, "port to listen on; 0 takes a free one")
    insecure: bool = _setting(
        False, "listen to the network without keys and TLS: anyone may use it"
    )
    dtype: str = _setting(
        "auto",
        "numbers the backbone computes in: f32, bf16 (rounded), or auto: bf16 where it is faster",
    )
    threads: int = _setting(0, "threads of the model; 0 takes one a core")
    recipe: tuple[str, ...] = _setting(("ladder",), "recipe whose kit is offered; may be repeated")
    sessions: int = _setting(64, "sessions at a time")
    kv: int = _setting(2048, "megabytes for keys and values of all sessions together")
    idle: float = _setting(900.0, "seconds without a step after which a session ends")
    queue: int = _setting(256, "requests that may wait for the model")

    def __post_init__(self) -> None:
        _at_least("port", self.port, 0)
        _at_least("threads", self.threads, 0)
        for name in ("sessions", "kv", "queue"):
            _at_least(name, getattr(self, name), 1)
        if self.port > 65535:
            raise BadSetting(f"port must be at most 65535, but is {self.port}")
        if not (math.isfinite(self.idle) and self.idle >= 1):
            raise BadSetting(f"idle must be at least 1 second, but is {self.idle}")
        if self.dtype not in DTYPES:
            raise BadSetting(f"dtype must be one of {', '.join(DTYPES)}, but is {self.dtype}")

    @property
    def model_threads(self) -> int:
        """Threads the model may use."""
        return self.threads or os.cpu_count() or 1

    def require_safe_address(self) -> None:
        """Refuse to serve the network by accident."""
        if not self.insecure and not _is_loopback(self.host):
            raise BadSetting(
                f"{self.host} can be reached from the network, and there are neither keys nor TLS",
                "Listen on 127.0.0.1 behind a proxy that has both, or add --insecure.",
            )


def load(
    flags: Mapping[str, Any], environ: Mapping[str, str], file: Path | None = None
) -> Settings:
    """
    Put the settings together.

    Args:
        flags: What the command line says, by field; None where it says nothing.
        environ: SIDEPLUG_CACHE and SIDEPLUG_CLOUD_<FIELD>; lists are separated by commas.
        file: A TOML file with the fields at its top; by default cloud.toml in the user's
            configuration folder, when it is there.

    Raises:
        BadSetting: A value is of the wrong type or out of range, or a name is not known.

    """
    merged: dict[str, Any] = {"cache": user_cache_dir("sideplug", appauthor=False)}
    merged |= _from_toml(file) | _from_environment(environ)
    merged |= {name: value for name, value in flags.items() if value is not None}
    return Settings(**{name: _typed(name, value) for name, value in merged.items()})


def default_file() -> Path:
    """Return where the TOML file is looked for."""
    return Path(user_config_dir("sideplug", appauthor=False)) / "cloud.toml"


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    variables = {PREFIX + item.name.upper(): item.name for item in fields(Settings)}
    variables[CACHE_VARIABLE] = "cache"
    return {name: environ[key] for key, name in variables.items() if environ.get(key)}


def _from_toml(file: Path | None) -> dict[str, Any]:
    path = file or default_file()
    if file is None and not path.is_file():
        return {}
    try:
        read = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadSetting(f"the settings in {path} cannot be read: {error}") from None
    unknown = sorted(set(read) - {item.name for item in fields(Settings)})
    if unknown:
        raise BadSetting(f"{path} sets {', '.join(unknown)}, which is not known")
    return read


def _typed(name: str, value: Any) -> Any:
    try:
        return _READERS[name](value)
    except (TypeError, ValueError):
        raise BadSetting(f"{name} cannot be {value!r}") from None


def _flag(value: Any) -> bool:
    word = str(value).lower()
    if word not in _WORDS:
        raise ValueError(value)
    return _WORDS[word]


def _names(value: Any) -> tuple[str, ...]:
    items = value.split(",") if isinstance(value, str) else value
    return tuple(str(item).strip() for item in items)


_READERS: dict[str, Callable[[Any], Any]] = {
    "cache": lambda value: Path(value).expanduser(),
    "recipe": _names,
    "insecure": _flag,
} | {
    item.name: type(item.default)
    for item in fields(Settings)
    if item.default is not MISSING and not isinstance(item.default, bool | tuple)
}


def _at_least(name: str, value: int, lowest: int) -> None:
    if value < lowest:
        raise BadSetting(f"{name} must be at least {lowest}, but is {value}")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
