"""What the device remembers in SQLite: examples, feedback, training jobs."""

import json
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from device_agent.atomic import make_private
from device_agent.closing import Closing
from device_agent.data.examples import Example
from device_agent.data.store_layout import MIGRATIONS
from device_agent.errors import DeviceError

BUSY_SECONDS = 30.0
"""How long one process waits while another one writes."""

JobState = Literal["queued", "running", "paused", "stopped", "done", "failed", "cancelled"]

OPEN: tuple[JobState, ...] = ("queued", "running", "paused")
"""States of jobs that are not over."""


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
    options: Mapping[str, object] | None
    """Training options of a job that was queued for the agent; None for one that a person runs."""
    problem: str | None
    """Why it failed, or what it waits for, in a sentence."""


_JOB = "id, state, recipe, created, updated, progress, options, problem"


def _job(row: tuple[Any, ...]) -> Job:
    number, state, recipe, created, updated, progress, options, problem = row
    chosen = None if options is None else json.loads(options)
    return Job(number, state, recipe, created, updated, json.loads(progress), chosen, problem)


class Store(Closing):
    """One connection to the store; open one for each thread or process. A context manager."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        """Open the store, make it when it is missing, bring it to today's layout.

        Raises:
            StoreDamaged: The file is no SQLite database.
            StoreUnavailable: It cannot be opened, or is locked for long.
            StoreTooNew: A later release has written it.
        """
        self._path = path
        self._clock = clock
        try:
            # SQLite gives its log and its index the mode of this file.
            make_private(path)
        except OSError as error:
            raise StoreUnavailable(path, error.strerror or str(error)) from error
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

    # --- examples ---

    def add_examples(self, examples: Iterable[Example], source: str) -> int:
        """Keep examples; those already there stay as they are. All or none.

        Returns:
            How many were new.
        """
        now = self._clock()
        with self.writing():
            before = self._db.total_changes
            self._insert_examples([(example, source, now) for example in examples])
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

    def forget(self, examples: Iterable[int], feedback: Iterable[int]) -> None:
        """Delete examples and feedback by number, so that none of their bytes are left in the store's files.

        Raises:
            StoreUnavailable: They are deleted, but another connection reads and keeps the log from being
                emptied.
        """
        with self.writing() as db:
            db.executemany("DELETE FROM examples WHERE id = ?", [(one,) for one in examples])
            db.executemany("DELETE FROM feedback WHERE id = ?", [(one,) for one in feedback])
        with self._errors_mapped():
            # Pages that were split or freed keep what they held, so all are written anew; not by
            # way of a file elsewhere. The log keeps the pages of before, until it is cut.
            self._db.execute("PRAGMA temp_store = MEMORY")
            self._db.execute("VACUUM")
            (busy, *_) = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise StoreUnavailable(self._path, "somebody reads it; forget again in a moment")

    def count_examples(self) -> dict[str, int]:
        """How many examples of each kind."""
        found = self._db.execute("SELECT kind, count(*) FROM examples GROUP BY kind")
        return {"text": 0, "chat": 0} | dict(found.fetchall())

    # --- jobs ---

    def queue_job(self, recipe: str, options: Mapping[str, object]) -> int:
        """Note a training run for the agent to do; gives its number."""
        now = self._clock()
        with self.writing():
            made = self._db.execute(
                "INSERT INTO jobs (state, recipe, created, updated, progress, options)"
                " VALUES ('queued', ?, ?, ?, '{}', ?)",
                (recipe, now, now, json.dumps(options)),
            )
            return int(made.lastrowid or 0)

    def begin_job(self, recipe: str, queued: int | None = None) -> int:
        """Note a training run that begins.

        Call it only under ``training_lock``: see ``bury_jobs``.

        Args:
            recipe: Of what is trained.
            queued: The queued job that this is; a new one when None.

        Returns:
            The job's number.
        """
        self.bury_jobs(queued)
        now = self._clock()
        with self.writing():
            if queued is not None:
                self._db.execute("UPDATE jobs SET recipe = ? WHERE id = ?", (recipe, queued))
                return queued
            made = self._db.execute(
                "INSERT INTO jobs (state, recipe, created, updated, progress)"
                " VALUES ('running', ?, ?, ?, '{}')",
                (recipe, now, now),
            )
            return int(made.lastrowid or 0)

    def bury_jobs(self, alive: int | None = None) -> None:
        """What still counts as running has died: queued jobs wait again, others have failed.

        Call it only under ``training_lock``, which a living run holds.

        Args:
            alive: One that is running nevertheless.
        """
        with self.writing():
            self._db.execute(
                "UPDATE jobs SET state = CASE WHEN options IS NULL THEN 'failed' ELSE 'queued' END,"
                " updated = ? WHERE state = 'running' AND id IS NOT ?",
                (self._clock(), alive),
            )

    def update_job(self, job: int, state: JobState, progress: Mapping[str, object]) -> None:
        """Note how far a running training run is; one that was paused or cancelled meanwhile stays so."""
        with self.writing():
            self._db.execute(
                "UPDATE jobs SET state = ?, updated = ?, progress = ?"
                " WHERE id = ? AND state = 'running'",
                (state, self._clock(), json.dumps(progress), job),
            )

    def move_job(
        self, job: int, before: tuple[JobState, ...], state: JobState, problem: str | None = None
    ) -> bool:
        """Change the state of a job.

        Args:
            job: Its number.
            before: States out of which it may go; in another one it stays.
            state: The new one.
            problem: Why, in a sentence.

        Returns:
            Whether it has changed.
        """
        marks = ", ".join("?" for _ in before)
        with self.writing():
            changed = self._db.execute(
                "UPDATE jobs SET state = ?, problem = ?, updated = ?"
                f" WHERE id = ? AND state IN ({marks})",
                (state, problem, self._clock(), job, *before),
            )
            return changed.rowcount > 0

    def jobs(self) -> list[Job]:
        """Every training run, the oldest first."""
        rows = self._db.execute(f"SELECT {_JOB} FROM jobs ORDER BY id")
        return [_job(row) for row in rows]

    def job(self, number: int) -> Job | None:
        """The training run of that number."""
        row = self._db.execute(f"SELECT {_JOB} FROM jobs WHERE id = ?", (number,)).fetchone()
        return None if row is None else _job(row)

    def has_open_jobs(self) -> bool:
        """Whether any job waits or runs."""
        found = self._db.execute("SELECT 1 FROM jobs WHERE state IN ('queued', 'running') LIMIT 1")
        return found.fetchone() is not None

    def next_job(self) -> Job | None:
        """The queued job that has waited for longest."""
        row = self._db.execute(
            f"SELECT {_JOB} FROM jobs WHERE state = 'queued' ORDER BY id LIMIT 1"
        ).fetchone()
        return None if row is None else _job(row)

    def last_job(self) -> Job | None:
        """The newest training run."""
        row = self._db.execute(f"SELECT {_JOB} FROM jobs ORDER BY id DESC LIMIT 1").fetchone()
        return None if row is None else _job(row)

    # --- feedback ---

    def add_feedback(
        self,
        model: str,
        turns: Sequence[tuple[str, str]],
        answer: str,
        rating: str | None,
        correction: str | None,
    ) -> int:
        """Keep what a person thinks of an answer; a better one becomes an example. Both or none.

        Args:
            model: Who answered.
            turns: (role, content) of what was asked.
            answer: What was answered.
            rating: up, down, or None.
            correction: What should have been answered.

        Returns:
            The feedback's number.
        """
        asked = json.dumps([{"role": role, "content": said} for role, said in turns])
        now = self._clock()
        with self.writing():
            if correction is not None:
                example = Example(messages=(*turns, ("assistant", correction)))
                self._insert_examples([(example, "feedback", now)])
            made = self._db.execute(
                "INSERT INTO feedback (created, model, messages, answer, rating, correction)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (now, model, asked, answer, rating, correction),
            )
            return int(made.lastrowid or 0)

    def ratings(self, model: str) -> tuple[int, int]:
        """How many thumbs up and down the answers of one model got."""
        row = self._db.execute(
            "SELECT count(*) FILTER (WHERE rating = 'up'), count(*) FILTER (WHERE rating = 'down')"
            " FROM feedback WHERE model = ?",
            (model,),
        ).fetchone()
        return int(row[0]), int(row[1])

    def count_feedback(self) -> dict[str, int]:
        """How much feedback of each kind."""
        row = self._db.execute(
            "SELECT count(*) FILTER (WHERE rating = 'up'), count(*) FILTER (WHERE rating = 'down'),"
            " count(correction) FROM feedback"
        ).fetchone()
        return dict(zip(("up", "down", "corrections"), row, strict=True))

    # --- for accounts that have tables of their own ---

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction: committed at the end, undone by any error."""
        with self._errors_mapped():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                # A full disk has ended the transaction already.
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def read(self, query: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """All rows that a query gives."""
        with self._errors_mapped():
            return self._db.execute(query, values).fetchall()

    # --- inside ---

    def _insert_examples(self, examples: Sequence[tuple[Example, str, float]]) -> None:
        self._db.executemany(
            "INSERT INTO examples (kind, body, sha256, source, created) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT (sha256) DO NOTHING",
            [(e.kind, e.body, e.sha256, source, created) for e, source, created in examples],
        )

    def _prepare(self) -> None:
        # Writers do not block readers, and a killed process leaves a log that the next one replays.
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute("PRAGMA foreign_keys = ON")
        if self._version() == len(MIGRATIONS):
            return
        # Asked again inside the lock: another process may have migrated meanwhile.
        with self.writing():
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
    def _errors_mapped(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise StoreUnavailable(self._path, str(error)) from error
        except sqlite3.DatabaseError as error:
            raise StoreDamaged(self._path, str(error)) from error
