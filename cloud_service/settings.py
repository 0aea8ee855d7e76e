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
from cloud_service.logs import LEVELS

PREFIX = "SIDEPLUG_CLOUD_"
CACHE_VARIABLE = "SIDEPLUG_CACHE"
ENGINES = ("auto", "general", "lean")
WEIGHTS = ("auto", "f32", "bf16", "int8", "int4")
_RANGES: Mapping[str, tuple[int, int | None]] = {
    "port": (0, 65535),
    "threads": (0, None),
    "sessions": (1, None),
    "kv": (1, None),
    "queue": (1, None),
    "context": (0, None),
    "replicas": (1, None),
    "max_replicas": (0, None),
    "body_bytes": (2**12, 2**31),
}
"""Lowest and highest value, None for any."""
_CHOICES = (("engine", ENGINES), ("weights", WEIGHTS), ("log_level", LEVELS))

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
        "127.0.0.1", "address to listen on; anything but loopback needs keys and TLS"
    )
    port: int = _setting(8471, "port to listen on; 0 takes a free one")
    insecure: bool = _setting(
        False, "listen to the network without keys or TLS, as behind a proxy that has them"
    )
    tls_cert: str = _setting("", "PEM file with the certificate and its chain; switches TLS on")
    tls_key: str = _setting("", "PEM file with the certificate's private key")
    engine: str = _setting(
        "auto",
        "what runs the backbone: lean (fast, the Llama shape only), general, or auto: lean if it can",
    )
    weights: str = _setting(
        "auto",
        "what weights are kept in: f32 (exact), bf16, int8, int4 (lean engine only), or auto: the "
        "fastest that leaves perplexity within 0.5 percent",
    )
    threads: int = _setting(0, "threads of the model; 0 takes one a core")
    recipe: tuple[str, ...] = _setting(("ladder",), "recipe whose kit is offered; may be repeated")
    sessions: int = _setting(64, "sessions at a time")
    kv: int = _setting(2048, "megabytes for keys and values of sessions and prefixes")
    idle: float = _setting(900.0, "seconds without a step after which a session ends")
    prefix_idle: float = _setting(3600.0, "seconds without use after which a prefix is forgotten")
    queue: int = _setting(256, "requests that may wait for the model")
    context: int = _setting(0, "most positions of one session or text; 0: what the backbone has")
    body_bytes: int = _setting(2**26, "most bytes of one request or answer")
    replicas: int = _setting(1, "services behind the address; more than one need sideplug[ray]")
    max_replicas: int = _setting(0, "most of them when sessions grow in number; 0: no more")
    log_level: str = _setting("info", "least that is logged: debug (every request), info, warning")

    def __post_init__(self) -> None:
        for name, (lowest, highest) in _RANGES.items():
            _within(name, getattr(self, name), lowest, highest)
        for name in ("idle", "prefix_idle"):
            seconds = getattr(self, name)
            if not (math.isfinite(seconds) and seconds >= 1):
                raise BadSetting(f"{name} must be at least 1 second, but is {seconds}")
        for name, choices in _CHOICES:
            if getattr(self, name) not in choices:
                raise BadSetting(
                    f"{name} must be one of {', '.join(choices)}, but is {getattr(self, name)}"
                )
        if 0 < self.max_replicas < self.replicas:
            raise BadSetting(
                f"max_replicas must be at least replicas, {self.replicas}, but is {self.max_replicas}"
            )
        if bool(self.tls_cert) != bool(self.tls_key):
            raise BadSetting("tls_cert and tls_key need each other")

    @property
    def model_threads(self) -> int:
        """Threads the model may use."""
        return self.threads or os.cpu_count() or 1

    @property
    def keys_file(self) -> Path:
        """Where the digests of the API keys are kept."""
        return self.cache / "keys.sqlite"

    def require_safe_address(self, has_keys: bool) -> None:
        """Refuse to serve the network by accident."""
        if self.insecure or _is_loopback(self.host) or (has_keys and self.tls_cert):
            return
        lacks = [name for name, there in (("keys", has_keys), ("TLS", self.tls_cert)) if not there]
        raise BadSetting(
            f"{self.host} can be reached from the network, and there is no {' and no '.join(lacks)}",
            "Make a key (sideplug-cloud keys add NAME) and give --tls-cert and --tls-key; or listen "
            "on 127.0.0.1 behind a proxy that has both; or add --insecure.",
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


def _within(name: str, value: int, lowest: int, highest: int | None) -> None:
    if value < lowest:
        raise BadSetting(f"{name} must be at least {lowest}, but is {value}")
    if highest is not None and value > highest:
        raise BadSetting(f"{name} must be at most {highest}, but is {value}")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
