"""What the device remembers in SQLite: examples, training jobs, and every byte that left or came."""

import json
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from device_agent.atomic import make_folder
from device_agent.errors import DeviceError
from device_agent.examples import Example

BUSY_SECONDS = 30.0
"""How long one process waits while another one writes."""

JobState = Literal["running", "stopped", "done", "failed"]

MIGRATIONS = (
    (
        """CREATE TABLE examples (
            id INTEGER PRIMARY KEY,
            kind TEXT NOT NULL CHECK (kind IN ('text', 'chat')),
            body TEXT NOT NULL,
            sha256 TEXT NOT NULL UNIQUE,
            source TEXT NOT NULL,
            created REAL NOT NULL
        ) STRICT""",
        """CREATE TABLE jobs (
            id INTEGER PRIMARY KEY,
            state TEXT NOT NULL CHECK (state IN ('running', 'stopped', 'done', 'failed')),
            recipe TEXT NOT NULL,
            created REAL NOT NULL,
            updated REAL NOT NULL,
            progress TEXT NOT NULL
        ) STRICT""",
        """CREATE TABLE egress (
            time INTEGER NOT NULL,
            host TEXT NOT NULL,
            kind TEXT NOT NULL,
            up INTEGER NOT NULL,
            down INTEGER NOT NULL,
            exchanges INTEGER NOT NULL,
            PRIMARY KEY (time, host, kind)
        ) STRICT, WITHOUT ROWID""",
    ),
)
"""Statements that bring a store from version i to i + 1. Released ones never change; a change is a new row."""


class StoreDamaged(DeviceError):
    """The store file cannot be read."""

    hint = "Move the file away and learn again from your files; plugins are kept elsewhere."

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} cannot be used: {reason}")


class StoreUnavailable(DeviceError):
    """The store file cannot be opened or written at the moment."""

    hint = (
        "Check that the disk has room, that the folder is yours, and that no other sideplug hangs."
    )

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")


class StoreTooNew(DeviceError):
    """A later release has written the store."""

    hint = "Update sideplug, or choose another home folder with --home."

    def __init__(self, path: Path, found: int, known: int) -> None:
        super().__init__(f"{path} has layout {found}; this release knows layouts up to {known}")


@dataclass(frozen=True, slots=True)
class StoredExample:
    """An example and where it came from."""

    id: int
    example: Example
    sha256: str
    source: str
    created: float
    """Seconds since 1970."""


@dataclass(frozen=True, slots=True)
class Job:
    """A training run, as ``status`` shows it."""

    id: int
    state: JobState
    recipe: str
    created: float
    updated: float
    progress: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class TrafficTotal:
    """What went to and came from one host in requests of one kind, in bytes of their bodies."""

    host: str
    kind: str
    up: int
    down: int
    exchanges: int


class Store:
    """One connection to the store; open one for each thread or process. A context manager."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        """Open the store, make it when it is missing, bring it to today's layout.

        Raises:
            StoreDamaged: The file is no SQLite database.
            StoreUnavailable: It cannot be opened, or is locked for long.
            StoreTooNew: A later release has written it.
        """
        make_folder(path.parent)
        self._path = path
        self._clock = clock
        with self._errors_mapped():
            # isolation_level None: transactions are opened and closed here, never by guess.
            self._db = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
        try:
            with self._errors_mapped():
                self._prepare()
        except BaseException:
            self._db.close()
            raise

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # --- examples ---

    def add_examples(self, examples: Iterable[Example], source: str) -> int:
        """Keep examples; those already there stay as they are. All or none.

        Returns:
            How many were new.
        """
        rows = [(e.kind, e.body, e.sha256, source, self._clock()) for e in examples]
        with self._writing():
            before = self._db.total_changes
            self._db.executemany(
                "INSERT INTO examples (kind, body, sha256, source, created) VALUES (?, ?, ?, ?, ?)"
                " ON CONFLICT (sha256) DO NOTHING",
                rows,
            )
            return self._db.total_changes - before

    def examples(self) -> list[StoredExample]:
        """Every example, in the order in which they came."""
        rows = self._db.execute(
            "SELECT id, kind, body, sha256, source, created FROM examples ORDER BY id"
        )
        return [
            StoredExample(number, Example.from_body(kind, body), sha256, source, created)
            for number, kind, body, sha256, source, created in rows
        ]

    def remove_examples(self, numbers: Iterable[int]) -> None:
        """Delete examples by number; their text is overwritten in the file, not only unlinked."""
        # Set here and not once: it is for the connection, and only deletions need it.
        self._db.execute("PRAGMA secure_delete = ON")
        with self._writing():
            self._db.executemany(
                "DELETE FROM examples WHERE id = ?", [(number,) for number in numbers]
            )

    def count_examples(self) -> dict[str, int]:
        """How many examples of each kind."""
        found = self._db.execute("SELECT kind, count(*) FROM examples GROUP BY kind")
        return {"text": 0, "chat": 0} | dict(found.fetchall())

    # --- jobs ---

    def begin_job(self, recipe: str) -> int:
        """Note a training run; what still counted as running has died and counts as failed.

        Call it only under ``training_lock``. Returns the job's number.
        """
        now = self._clock()
        with self._writing():
            self._db.execute(
                "UPDATE jobs SET state = 'failed', updated = ? WHERE state = 'running'", (now,)
            )
            made = self._db.execute(
                "INSERT INTO jobs (state, recipe, created, updated, progress)"
                " VALUES ('running', ?, ?, ?, '{}')",
                (recipe, now, now),
            )
            return int(made.lastrowid or 0)

    def update_job(self, job: int, state: JobState, progress: Mapping[str, object]) -> None:
        """Note how far a training run is."""
        with self._writing():
            self._db.execute(
                "UPDATE jobs SET state = ?, updated = ?, progress = ? WHERE id = ?",
                (state, self._clock(), json.dumps(progress), job),
            )

    def last_job(self) -> Job | None:
        """The newest training run."""
        row = self._db.execute(
            "SELECT id, state, recipe, created, updated, progress FROM jobs ORDER BY id DESC LIMIT 1"
        ).fetchone()
        if row is None:
            return None
        number, state, recipe, created, updated, progress = row
        return Job(number, state, recipe, created, updated, json.loads(progress))

    # --- egress ledger ---

    def record_traffic(self, host: str, kind: str, up: int, down: int) -> None:
        """Enter bytes that left and came into the ledger, added up by the minute."""
        minute = int(self._clock()) // 60 * 60
        with self._writing():
            self._db.execute(
                "INSERT INTO egress (time, host, kind, up, down, exchanges) VALUES (?, ?, ?, ?, ?, 1)"
                " ON CONFLICT (time, host, kind) DO UPDATE SET"
                " up = up + excluded.up, down = down + excluded.down, exchanges = exchanges + 1",
                (minute, host, kind, up, down),
            )

    def traffic(self) -> list[TrafficTotal]:
        """The ledger's totals by host and kind."""
        rows = self._db.execute(
            "SELECT host, kind, sum(up), sum(down), sum(exchanges) FROM egress"
            " GROUP BY host, kind ORDER BY host, kind"
        )
        return [TrafficTotal(*row) for row in rows]

    # --- inside ---

    def _prepare(self) -> None:
        # Writers do not block readers, and a killed process leaves a log that the next one replays.
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute("PRAGMA foreign_keys = ON")
        if self._version() == len(MIGRATIONS):
            return
        # Asked again inside the lock: another process may have migrated meanwhile.
        with self._writing():
            version = self._version()
            if version > len(MIGRATIONS):
                raise StoreTooNew(self._path, version, len(MIGRATIONS))
            for statements in MIGRATIONS[version:]:
                for statement in statements:
                    self._db.execute(statement)
            self._db.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")

    def _version(self) -> int:
        return int(self._db.execute("PRAGMA user_version").fetchone()[0])

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One transaction: committed at the end, undone by any error."""
        with self._errors_mapped():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                # A full disk has ended the transaction already.
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def _errors_mapped(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise StoreUnavailable(self._path, str(error)) from error
        except sqlite3.DatabaseError as error:
            raise StoreDamaged(self._path, str(error)) from error
