"""
Who may use the service: API keys in one SQLite file, which holds no key itself.

A key reads ``sideplug_ID_SECRET``. The secret is 256 random bits, so one SHA-256 is all it takes to
keep it: slow, salted hashes protect passwords, which people choose and others guess; nobody
guesses 2^256, and a slow hash at every step would cost more than the step.
"""

import hashlib
import hmac
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cloud_service.errors import BadSetting
from protocol.errors import KeyRevoked, KeyUnknown
from protocol.fields import is_file_name

LOCAL = "local"
"""Owner of what is opened without a key."""
_MARK = "sideplug"
_TABLE = """
CREATE TABLE IF NOT EXISTS keys (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    digest BLOB NOT NULL,
    sessions INTEGER,
    tokens_per_minute INTEGER,
    bytes_per_day INTEGER,
    created TEXT NOT NULL,
    revoked TEXT
) STRICT
"""
_NAMES_IN_USE = "CREATE UNIQUE INDEX IF NOT EXISTS names ON keys (name) WHERE revoked IS NULL"
_COLUMNS = "id, name, sessions, tokens_per_minute, bytes_per_day, created, revoked"


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """How much one key may use; None is no limit. ``BadSetting`` when one is below 1."""

    sessions: int | None = None
    """At a time."""
    tokens_per_minute: int | None = None
    """Read by the backbone."""
    bytes_per_day: int | None = None
    """Of bodies, in both directions."""

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise BadSetting(f"{name} must be at least 1, but is {value}")


@dataclass(frozen=True, slots=True)
class Key:
    """What is known of a key."""

    id: str
    """Part of the key that may be shown."""
    name: str
    """Who has it, in the words of whoever runs the service."""
    limits: KeyLimits
    created: str
    revoked: str | None
    """Times in ISO 8601, UTC."""


class KeyStore:
    """The file. Every question reads it, so that a revoked key ends at once."""

    def __init__(self, path: Path) -> None:
        """Open the file, or make it, readable by its owner alone."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        # Made in one thread, asked in that of the server.
        self._file = sqlite3.connect(path, check_same_thread=False)
        with self._file:
            self._file.execute(_TABLE)
            self._file.execute(_NAMES_IN_USE)

    def __bool__(self) -> bool:
        """Say whether a key was ever added: revoking the last one does not open the service."""
        with closing(self._file.execute("SELECT 1 FROM keys LIMIT 1")) as found:
            return found.fetchone() is not None

    def __iter__(self) -> Iterator[Key]:
        """Iterate over all keys, revoked ones too, oldest first."""
        rows = self._file.execute(f"SELECT {_COLUMNS} FROM keys ORDER BY created, rowid")
        return iter([_key(row) for row in rows])

    def add(self, name: str, limits: KeyLimits) -> str:
        """
        Make a key and return it; nobody can read it again.

        Raises:
            BadSetting: The name is none, or another key that is good has it.

        """
        if not is_file_name(name) or name == LOCAL:
            raise BadSetting(
                f"{name!r} is no name for a key", "Use lower-case letters, digits, . _ and -."
            )
        identity, secret = secrets.token_hex(4), secrets.token_urlsafe(32)
        row = (
            identity,
            name,
            _digest(secret),
            limits.sessions,
            limits.tokens_per_minute,
            limits.bytes_per_day,
            _now(),
        )
        try:
            with self._file:
                self._file.execute("INSERT INTO keys VALUES (?, ?, ?, ?, ?, ?, ?, NULL)", row)
        except sqlite3.IntegrityError:
            raise BadSetting(
                f"there is a key {name} already", f"Run: sideplug-cloud keys revoke {name}"
            ) from None
        return f"{_MARK}_{identity}_{secret}"

    def revoke(self, name: str) -> None:
        """End a key for good, or raise ``BadSetting`` when no good key has that name."""
        with self._file:
            change = self._file.execute(
                "UPDATE keys SET revoked = ? WHERE name = ? AND revoked IS NULL", (_now(), name)
            )
        if not change.rowcount:
            raise BadSetting(f"there is no key {name}", "Run: sideplug-cloud keys list")

    def find(self, key: str) -> Key:
        """
        Return what is known of a key that somebody sent.

        Raises:
            KeyUnknown: It is not one of this service.
            KeyRevoked: It was one.

        """
        mark, _, rest = key.partition("_")
        identity, _, secret = rest.partition("_")
        columns = f"SELECT {_COLUMNS}, digest FROM keys WHERE id = ?"
        with closing(self._file.execute(columns, (identity,))) as found:
            row = found.fetchone()
        # Compared in constant time: how long it takes must not tell how much of it was right.
        if mark != _MARK or row is None or not hmac.compare_digest(row[-1], _digest(secret)):
            raise KeyUnknown()
        known = _key(row[:-1])
        if known.revoked:
            raise KeyRevoked(key=known.id)
        return known

    def close(self) -> None:
        """Give the file back."""
        self._file.close()


def _key(row: tuple[str, str, int | None, int | None, int | None, str, str | None]) -> Key:
    identity, name, sessions, tokens, size, created, revoked = row
    return Key(identity, name, KeyLimits(sessions, tokens, size), created, revoked)


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
