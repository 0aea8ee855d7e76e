"""What a person lets leave this device: ``policy.toml`` in the home folder. While anything in it is wrong, nothing may.

    text_hosts = ["127.0.0.1", "cloud.example.org:8471"]    no text goes to any other host
    never = ["prefix"]                                      kinds that never leave

    [bytes_per_day]                                         from midnight to midnight
    all = 200_000_000
    features = 50_000_000

A host without a port stands for all of its ports. The kinds are those of ``traffic.KINDS``.
"""

import os
import stat
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from urllib.parse import urlsplit

from device_agent.cloud.traffic import KINDS, Kind, Outgoing
from device_agent.errors import DeviceError

POLICY = "policy.toml"

KNOWN = ("text_hosts", "never", "bytes_per_day")
ALL = "all"


class BadPolicy(DeviceError):
    """The policy cannot be read or understood."""

    hint = "Nothing leaves this device until it is right; `sideplug policy` checks it."

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} {reason}")


class PolicyForbids(DeviceError):
    """The policy does not let something leave."""

    hint = "If it should, change policy.toml; `sideplug policy` shows what it says."

    def __init__(self, reason: str) -> None:
        super().__init__(f"policy.toml keeps this here: {reason}")


class CapReached(DeviceError):
    """As much as may leave in a day has left."""

    hint = "Wait until midnight, or raise the cap in policy.toml."

    def __init__(self, name: str, cap: int, spent: int, asked: int) -> None:
        what = "altogether" if name == ALL else f"of {name}"
        super().__init__(
            f"policy.toml lets {cap} bytes {what} leave in a day: {spent} have left today,"
            f" and this would be {asked} more"
        )


@dataclass(frozen=True, slots=True)
class Policy:
    """What may leave. Without a file, everything may."""

    text_hosts: tuple[str, ...] | None = None
    """``host`` or ``host:port`` to which text may go; None for any."""

    never: frozenset[Kind] = frozenset()
    """Kinds that stay here."""

    bytes_per_day: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    """Most bytes that leave, by kind, ``all`` for all together."""

    def require(self, out: Outgoing) -> None:
        """Let a request pass, but for its size.

        Raises:
            PolicyForbids: It may not leave.
        """
        words, text = KINDS[out.kind]
        if out.kind in self.never:
            raise PolicyForbids(f"{words} ({out.kind}) never leaves")
        for host in filter(None, (out.host, out.proxy)):
            if text and self.text_hosts is not None and not _is_of(host, self.text_hosts):
                raise PolicyForbids(f"no text may go to {host}")

    def to_json(self) -> dict[str, object]:
        """As ``sideplug policy --json`` prints it."""
        return {
            "text_hosts": self.text_hosts and list(self.text_hosts),
            "never": sorted(self.never),
            "bytes_per_day": dict(self.bytes_per_day),
        }


class PolicyFile:
    """The policy of a home, read again whenever its file has changed."""

    def __init__(self, home: Path) -> None:
        self.path = home / POLICY
        self._read: tuple[tuple[int, ...], Policy] | None = None

    def now(self) -> Policy:
        """What holds at this moment.

        Raises:
            BadPolicy: It cannot be read, or says something that is not understood.
        """
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return Policy()
        except OSError as error:
            raise BadPolicy(self.path, f"cannot be read: {error.strerror}") from error
        seen = (found.st_ino, found.st_size, found.st_mtime_ns, found.st_mode)
        if self._read is None or self._read[0] != seen:
            self._read = None  # should it fail, it fails the next time too
            self._read = seen, self._parsed(found.st_mode)
        return self._read[1]

    def _parsed(self, mode: int) -> Policy:
        if os.name == "posix" and stat.S_IMODE(mode) & 0o022:
            raise BadPolicy(self.path, f"can be changed by others; run: chmod go-w {self.path}")
        try:
            found = tomllib.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise BadPolicy(self.path, f"cannot be read: {error}") from error
        try:
            return policy_of(found)
        except ValueError as error:
            raise BadPolicy(self.path, f"cannot hold: {error}") from None


def policy_of(found: Mapping[str, object]) -> Policy:
    """A policy out of TOML. Raises ValueError with the reason."""
    for name in found:
        if name not in KNOWN:
            raise ValueError(f"{name} is unknown; known are {', '.join(KNOWN)}")
    hosts = found.get("text_hosts")
    never = _texts("never", found.get("never", []))
    return Policy(
        None if hosts is None else tuple(map(_host, _texts("text_hosts", hosts))),
        frozenset(_kind("never", name) for name in never),
        _caps(found.get("bytes_per_day", {})),
    )


def _texts(name: str, value: object) -> Sequence[str]:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise ValueError(f"{name} must be a list of texts, but is {value!r}")
    return value


def _host(text: str) -> str:
    try:
        parts = urlsplit(f"//{text}")
        good = parts.netloc == text and parts.hostname and "@" not in text
        good = bool(good) and (parts.port is not None or not text.endswith(":"))
    except ValueError:
        good = False
    if not good:
        raise ValueError(f"text_hosts has {text!r}, which is no host or host:port")
    return text.lower()


def _kind(place: str, name: str) -> Kind:
    for kind in KINDS:
        if kind == name:
            return kind
    raise ValueError(f"{place} has {name!r}, which is no kind; kinds are {', '.join(KINDS)}")


def _caps(value: object) -> Mapping[str, int]:
    if not isinstance(value, dict):
        raise ValueError(f"bytes_per_day must be a table, but is {value!r}")
    for name, cap in value.items():
        if name != ALL:
            _kind("bytes_per_day", name)
        if isinstance(cap, bool) or not isinstance(cap, int) or cap < 0:
            raise ValueError(f"bytes_per_day.{name} must be a number of bytes, but is {cap!r}")
    return MappingProxyType(dict(value))


def _is_of(host: str, allowed: Sequence[str]) -> bool:
    """Whether ``host:port`` is one of hosts, with a port or for all of them."""
    return host in allowed or host.rpartition(":")[0] in allowed
