"""What is entered is what left: rows, batches, groups, days, and the layout before."""

import sqlite3
import time

import pytest

from device_agent.data.store import Store
from device_agent.egress.ledger import BATCH_SECONDS, Entry, Ledger, grouping, totals

NOON = time.mktime((2026, 3, 5, 12, 0, 0, 0, 0, -1))


class Clock:
    def __init__(self, now=NOON):
        self.now = now

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "store.sqlite") as opened:
        yield opened


def rows(store):
    return store.read("SELECT * FROM egress ORDER BY time, host, kind, purpose")


def sums(store, *by, since=0.0):
    return [
        (*total.group.values(), total.up, total.down, total.tokens, total.exchanges)
        for total in totals(store, since, by)
    ]


def test_a_minute_of_one_kind_is_one_row(store, clock):
    ledger = Ledger(store, "chat", clock)
    for clock.now in (NOON, NOON + 59, NOON + 60):
        ledger.note(Entry("h:1", "answer", 10, 100, 1, 1))
    ledger.flush()
    assert rows(store) == [
        (int(NOON), "h:1", "answer", "chat", 20, 200, 2, 2),
        (int(NOON) + 60, "h:1", "answer", "chat", 10, 100, 1, 1),
    ]


def test_a_chat_of_a_thousand_tokens_costs_a_few_writes_and_rows(store, clock):
    before = store.read("PRAGMA data_version")
    writes = 0
    with sqlite3.connect(store.read("PRAGMA database_list")[0][2]) as watching:
        seen = watching.execute("PRAGMA data_version").fetchone()
        ledger = Ledger(store, "api", clock)
        for _ in range(1000):
            clock.now += 0.02
            ledger.note(Entry("h:1", "answer", 300, 0, 1, 1))
            ledger.note(Entry("h:1", "answer", 0, 3000))
            now = watching.execute("PRAGMA data_version").fetchone()
            writes, seen = writes + (now != seen), now
        ledger.flush()
    watching.close()
    assert before == store.read("PRAGMA data_version"), "its own writes do not count for it"
    assert writes <= 20 / BATCH_SECONDS + 1
    assert len(rows(store)) == 1
    assert sums(store) == [(300_000, 3_000_000, 1000, 1000)]


def test_what_is_noted_is_entered_within_a_second_of_traffic(store, clock):
    ledger = Ledger(store, "chat", clock)
    ledger.note(Entry("h:1", "answer", 1))
    assert rows(store) == []
    clock.now += BATCH_SECONDS
    ledger.note(Entry("h:1", "answer", 1))
    assert sums(store) == [(2, 0, 0, 0)]
    ledger.note(Entry("h:1", "answer", 1))
    clock.now -= 3600  # somebody has set the clock back
    ledger.note(Entry("h:1", "answer", 1))
    assert sums(store) == [(4, 0, 0, 0)]


def test_totals_are_told_in_the_groups_that_are_asked_for(store, clock):
    for purpose in ("chat", "train"):
        ledger = Ledger(store, purpose, clock)
        for clock.now in (NOON, NOON + 86_400):
            ledger.note(Entry("a:1", "prompt", 10, 1, 5, 1))
            ledger.note(Entry("b:1", "facts", 1, 100, 0, 1))
        ledger.flush()
    assert sums(store, "host") == [("a:1", 40, 4, 20, 4), ("b:1", 4, 400, 0, 4)]
    assert sums(store, "day", "kind")[0] == ("2026-03-05", "facts", 2, 200, 0, 2)
    assert sums(store, "purpose", since=NOON + 3600) == [
        ("chat", 11, 101, 5, 2),
        ("train", 11, 101, 5, 2),
    ]
    (whole,) = totals(store, by=())
    assert (whole.first, whole.last) == (NOON, NOON + 86_400)
    assert totals(store, NOON + 90_000, ()) == []


def test_groups_are_known_by_name():
    assert grouping(["kind", "day"]) == ("kind", "day")
    with pytest.raises(ValueError, match="colour"):
        grouping(["colour"])


def test_a_cap_is_of_one_kind_and_of_one_day(store, clock):
    ledger = Ledger(store, "chat", clock)
    caps = {"prompt": 100}
    assert ledger.enter_within(Entry("h:1", "prompt", 60), caps) is None
    assert ledger.enter_within(Entry("h:1", "prompt", 41), caps) == ("prompt", 60)
    assert ledger.enter_within(Entry("h:1", "prompt", 40), caps) is None
    assert ledger.enter_within(Entry("h:1", "prefix", 1000), caps) is None
    clock.now += 12 * 3600 - 1  # a second before midnight
    assert ledger.enter_within(Entry("h:1", "prompt", 1), caps) == ("prompt", 100)
    clock.now += 1
    assert ledger.enter_within(Entry("h:1", "prompt", 100), caps) is None


def test_the_cap_of_all_counts_every_host_purpose_and_process(store, clock, tmp_path):
    caps = {"all": 10}
    Ledger(store, "chat", clock).enter_within(Entry("a:1", "facts", 4), caps)
    with Store(tmp_path / "store.sqlite") as other:
        Ledger(other, "train", clock).enter_within(Entry("b:1", "kit", 4), caps)
    assert Ledger(store, "run", clock).enter_within(Entry("c:1", "prompt", 3), caps) == ("all", 8)
    assert sums(store) == [(8, 0, 0, 0)], "what may not leave is not entered"


def test_what_has_left_is_entered_although_the_next_may_not_leave(store, clock):
    ledger = Ledger(store, "chat", clock)
    ledger.note(Entry("h:1", "answer", 9))
    assert ledger.enter_within(Entry("h:1", "answer", 2), {"all": 10}) == ("all", 9)
    assert sums(store) == [(9, 0, 0, 0)]


def test_what_could_not_be_entered_is_entered_later(store, clock, monkeypatch):
    ledger = Ledger(store, "chat", clock)
    ledger.note(Entry("h:1", "answer", 9))
    with monkeypatch.context() as broken:
        broken.setattr("device_agent.egress.ledger._ENTER", "INSERT INTO nowhere VALUES (?)")
        with pytest.raises(Exception, match="nowhere"):
            ledger.flush()
    ledger.flush()
    assert sums(store) == [(9, 0, 0, 0)]


SECOND_LAYOUT = """
CREATE TABLE examples (id INTEGER PRIMARY KEY, kind TEXT NOT NULL CHECK (kind IN ('text', 'chat')),
    body TEXT NOT NULL, sha256 TEXT NOT NULL UNIQUE, source TEXT NOT NULL, created REAL NOT NULL) STRICT;
CREATE TABLE egress (time INTEGER NOT NULL, host TEXT NOT NULL, kind TEXT NOT NULL, up INTEGER NOT NULL,
    down INTEGER NOT NULL, exchanges INTEGER NOT NULL, PRIMARY KEY (time, host, kind)) STRICT, WITHOUT ROWID;
CREATE TABLE "jobs" (id INTEGER PRIMARY KEY, state TEXT NOT NULL CHECK (state IN
    ('queued', 'running', 'paused', 'stopped', 'done', 'failed', 'cancelled')), recipe TEXT NOT NULL,
    created REAL NOT NULL, updated REAL NOT NULL, progress TEXT NOT NULL, options TEXT, problem TEXT) STRICT;
CREATE TABLE feedback (id INTEGER PRIMARY KEY, created REAL NOT NULL, model TEXT NOT NULL, messages TEXT NOT NULL,
    answer TEXT NOT NULL, rating TEXT CHECK (rating IN ('up', 'down')), correction TEXT) STRICT;
INSERT INTO examples VALUES (3, 'text', '"A note."', 'c0ffee', 'notes.md', 5.0);
INSERT INTO egress VALUES (60, 'cloud:1', 'step', 10, 100, 2), (120, 'cloud:1', 'facts', 1, 2, 1);
INSERT INTO jobs VALUES (7, 'done', 'ladder', 1.0, 2.0, '{"step": 3}', NULL, NULL);
INSERT INTO feedback VALUES (1, 4.0, 'me', '[]', 'so', 'up', NULL);
PRAGMA user_version = 2;
"""


def test_a_store_of_the_layout_before_keeps_all_it_has(tmp_path):
    with sqlite3.connect(tmp_path / "s") as db:
        db.executescript(SECOND_LAYOUT)
    db.close()
    with Store(tmp_path / "s") as store:
        (kept,) = store.examples()
        assert (kept.id, kept.example.text, kept.created) == (3, "A note.", 5.0)
        assert (store.last_job().id, store.count_feedback()["up"]) == (7, 1)
        assert [total.to_json() for total in totals(store)] == [
            {
                "host": "cloud:1",
                "kind": kind,
                "purpose": "unknown",
                "up": up,
                "down": down,
                "tokens": 0,
                "exchanges": exchanges,
                "first": minute,
                "last": minute,
            }
            for kind, up, down, exchanges, minute in (
                ("facts", 1, 2, 1, 120),
                ("step", 10, 100, 2, 60),
            )
        ]
        Ledger(store, "chat", Clock()).enter_within(Entry("cloud:1", "prompt", 1), {})
