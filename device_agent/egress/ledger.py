"""The ledger of what left this device and what came to it, in the store: a row a minute, host, kind and purpose."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from device_agent.cloud.traffic import Kind, Purpose
from device_agent.data.store import Store

BATCH_SECONDS = 1.0
"""What is noted is entered after so long at the latest, if there is traffic at all."""

By = Literal["day", "host", "kind", "purpose", "minute"]

_GROUPS: dict[By, str] = {
    "day": "date(time, 'unixepoch', 'localtime')",
    "host": "host",
    "kind": "kind",
    "purpose": "purpose",
    "minute": "time",
}
USUAL: tuple[By, ...] = ("host", "kind", "purpose")

_ENTER = """
    INSERT INTO egress (time, host, kind, purpose, up, down, tokens, exchanges)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (time, host, kind, purpose) DO UPDATE SET up = up + excluded.up,
    down = down + excluded.down, tokens = tokens + excluded.tokens,
    exchanges = exchanges + excluded.exchanges"""


@dataclass(frozen=True, slots=True)
class Entry:
    """What is added to a row; negative numbers take back what did not leave after all."""

    host: str
    kind: Kind
    up: int = 0
    down: int = 0
    tokens: int = 0
    exchanges: int = 0


@dataclass(frozen=True, slots=True)
class Total:
    """What several rows come to."""

    group: dict[str, str | int]
    """What they have in common."""
    up: int
    """Bytes that left, heads and bodies."""
    down: int
    """Bytes that came, the same."""
    tokens: int
    """Of somebody's text, that left."""
    exchanges: int
    first: int
    last: int
    """Minutes of the first and the last row, in seconds since 1970."""

    def to_json(self) -> dict[str, object]:
        """One flat object."""
        numbers = ("up", "down", "tokens", "exchanges", "first", "last")
        return {**self.group, **{name: getattr(self, name) for name in numbers}}


class Ledger:
    """Writes for one purpose, over one connection to the store.

    Entries are added up in memory for a second where the caller allows it: a row for each token of an
    answer would cost the disk more than the answer.

    Args:
        store: Where it is kept.
        purpose: Of everything that is entered.
        clock: Seconds since 1970.
    """

    def __init__(
        self, store: Store, purpose: Purpose, clock: Callable[[], float] = time.time
    ) -> None:
        self._store, self._purpose, self._clock = store, purpose, clock
        self._noted: dict[tuple[int, str, Kind], list[int]] = {}
        self._since = clock()

    def note(self, entry: Entry) -> None:
        """Enter it within a second of traffic, or with the next flush."""
        now = self._clock()
        if not self._noted:
            self._since = now
        numbers = (entry.up, entry.down, entry.tokens, entry.exchanges)
        sums = self._noted.setdefault((_minute(now), entry.host, entry.kind), [0] * len(numbers))
        for place, number in enumerate(numbers):
            sums[place] += number
        if not 0 <= now - self._since < BATCH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Enter what is noted."""
        if self._noted:
            self.enter_within(None, {})

    def enter_within(self, entry: Entry | None, caps: Mapping[str, int]) -> tuple[str, int] | None:
        """Enter it now, with all that is noted, unless today's bytes would pass a cap then.

        The caps are looked at in the transaction that enters: no two processes can use the same room.

        Args:
            entry: What is about to leave; None for what is noted alone, which has left already.
            caps: Most bytes that may leave from midnight to midnight, by kind, ``all`` for all together.

        Returns:
            The cap that is in the way and the bytes that have left under it today; None when it was entered.
        """
        rows = [
            (minute, host, kind, self._purpose, *numbers)
            for (minute, host, kind), numbers in self._noted.items()
        ]
        now, reached = self._clock(), None
        with self._store.writing() as db:
            db.executemany(_ENTER, rows)
            if entry is not None:
                reached = self._reached(entry, caps, now)
            if entry is not None and reached is None:
                numbers = (entry.up, entry.down, entry.tokens, entry.exchanges)
                db.execute(_ENTER, (_minute(now), entry.host, entry.kind, self._purpose, *numbers))
        self._noted.clear()
        return reached

    def _reached(self, entry: Entry, caps: Mapping[str, int], now: float) -> tuple[str, int] | None:
        for name in sorted(caps.keys() & {"all", entry.kind}):
            spent = self._spent(now, name)
            if spent + entry.up > caps[name]:
                return name, spent
        return None

    def _spent(self, now: float, name: str) -> int:
        kinds, values = ("", []) if name == "all" else (" AND kind = ?", [name])
        query = f"SELECT coalesce(sum(up), 0) FROM egress WHERE time >= ?{kinds}"
        (row,) = self._store.read(query, [_midnight(now), *values])
        return int(row[0])


def totals(store: Store, since: float = 0.0, by: Sequence[By] = USUAL) -> list[Total]:
    """What left and what came from the minute of ``since`` on (seconds since 1970), in groups.

    Args:
        store: Of the home.
        since: Rows before it are left out.
        by: What the rows of a group have in common, in this order; without any all are one group.
    """
    groups = [_GROUPS[name] for name in by]
    behind = f" GROUP BY {', '.join(groups)} ORDER BY {', '.join(groups)}" if groups else ""
    columns = "sum(up), sum(down), sum(tokens), sum(exchanges), min(time), max(time)"
    query = f"SELECT {', '.join([*groups, columns])} FROM egress WHERE time >= ?{behind}"
    found = store.read(query, [_minute(since)])
    width = len(groups)
    return [
        Total(dict(zip(by, row[:width], strict=True)), *row[width:])
        for row in found
        if row[-1] is not None
    ]


def grouping(words: Collection[str]) -> tuple[By, ...]:
    """Names of groups, if they are. Raises ValueError."""
    for word in words:
        if word not in _GROUPS:
            raise ValueError(f"by must be of {', '.join(_GROUPS)}, but is {word!r}")
    return tuple(name for word in words for name in _GROUPS if name == word)


def _minute(seconds: float) -> int:
    return int(seconds) // 60 * 60


def _midnight(now: float) -> int:
    """Seconds since 1970 at the last midnight here."""
    today = time.localtime(now)
    return int(time.mktime((*today[:3], 0, 0, 0, 0, 0, -1)))
