import multiprocessing
import sqlite3
import stat
import sys

import pytest

from device_agent.data import store as store_module
from device_agent.data.examples import Example
from device_agent.data.store import (
    MIGRATIONS,
    Job,
    Store,
    StoreDamaged,
    StoreTooNew,
    StoreUnavailable,
)

TEXT = Example(text="A note.")
CHAT = Example(messages=(("user", "Hi?"), ("assistant", "Hi!")))


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "store.sqlite", clock=lambda: 1000.0) as opened:
        yield opened


def test_an_example_comes_back_as_it_was(store):
    assert store.add_examples([TEXT, CHAT], "notes.md") == 2
    first, second = store.examples()
    assert (first.example, first.source, first.created) == (TEXT, "notes.md", 1000.0)
    assert (second.example, second.sha256) == (CHAT, CHAT.sha256)
    assert store.count_examples() == {"text": 1, "chat": 1}


def test_an_example_is_kept_once(store):
    store.add_examples([TEXT], "a")
    assert store.add_examples([TEXT, CHAT, CHAT], "b") == 1
    assert [row.source for row in store.examples()] == ["a", "b"]


def test_text_and_chat_of_the_same_words_are_two_examples():
    assert Example(text=CHAT.body).sha256 != CHAT.sha256


def test_examples_are_added_all_or_none(store):
    with pytest.raises(AttributeError):
        store.add_examples([TEXT, None], "a")
    assert store.examples() == []


def test_a_job_that_died_is_failed_when_the_next_begins(store):
    died = store.begin_job("ladder")
    store.update_job(died, "running", {"step": 3})
    assert store.last_job().progress == {"step": 3}
    number = store.begin_job("spa")
    assert store.last_job().state == "running"
    store.update_job(number, "done", {"step": 9})
    last = store.last_job()
    assert (last.id, last.state, last.recipe, last.progress) == (number, "done", "spa", {"step": 9})


def test_no_job_yet(store):
    assert store.last_job() is None


def test_everything_is_there_again_after_reopening(tmp_path):
    with Store(tmp_path / "s") as store:
        store.add_examples([TEXT], "a")
    with Store(tmp_path / "s") as store:
        assert [row.example for row in store.examples()] == [TEXT]


def test_a_migration_keeps_what_was_there(tmp_path, monkeypatch):
    with Store(tmp_path / "s") as store:
        store.add_examples([TEXT], "a")
    more = (*MIGRATIONS, ("ALTER TABLE examples ADD COLUMN mood TEXT",))
    monkeypatch.setattr(store_module, "MIGRATIONS", more)
    with Store(tmp_path / "s") as store:
        assert [row.example for row in store.examples()] == [TEXT]
    monkeypatch.undo()
    with pytest.raises(StoreTooNew, match=f"layout {len(more)}"):
        Store(tmp_path / "s")


def test_a_migration_that_fails_changes_nothing(tmp_path, monkeypatch):
    with Store(tmp_path / "s"):
        pass
    broken = ("CREATE TABLE half (id INTEGER) STRICT", "CREATE TABLE examples (id INTEGER)")
    monkeypatch.setattr(store_module, "MIGRATIONS", (*MIGRATIONS, broken))
    with pytest.raises(StoreUnavailable, match="examples"):
        Store(tmp_path / "s")
    monkeypatch.undo()
    with Store(tmp_path / "s") as store:
        assert store.add_examples([TEXT], "a") == 1
    with sqlite3.connect(tmp_path / "s") as db:
        tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master")]
    db.close()
    assert "half" not in tables


def test_another_file_is_no_store(tmp_path):
    (tmp_path / "s").write_bytes(b"something else, and long enough to be looked at" * 100)
    with pytest.raises(StoreDamaged):
        Store(tmp_path / "s")


def test_a_folder_is_no_store(tmp_path):
    with pytest.raises(StoreUnavailable):
        Store(tmp_path)


def test_strict_tables_refuse_other_types(store, tmp_path):
    with sqlite3.connect(tmp_path / "store.sqlite") as db, pytest.raises(sqlite3.IntegrityError):
        db.execute("INSERT INTO egress VALUES ('soon', 'h', 'k', 'p', 1, 1, 1, 1)")
    db.close()


def add_many(path, number):
    with Store(path) as store:
        for place in range(20):
            store.add_examples([Example(text=f"{number} {place}"), TEXT], str(number))


def test_processes_may_open_and_write_at_the_same_time(tmp_path):
    spawned = multiprocessing.get_context("spawn")
    writers = [spawned.Process(target=add_many, args=(tmp_path / "s", n)) for n in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0] * 4
    with Store(tmp_path / "s") as store:
        assert len(store.examples()) == 4 * 20 + 1


def test_jobs_of_the_first_layout_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "MIGRATIONS", MIGRATIONS[:1])
    Store(tmp_path / "s").close()
    with sqlite3.connect(tmp_path / "s") as db:
        db.execute("INSERT INTO jobs VALUES (7, 'done', 'ladder', 1.0, 2.0, '{\"step\": 3}')")
    db.close()
    monkeypatch.undo()
    with Store(tmp_path / "s") as store:
        assert store.last_job() == Job(7, "done", "ladder", 1.0, 2.0, {"step": 3}, None, None)
        assert store.queue_job("ladder", {}) == 8


def test_the_state_of_a_job_changes_only_from_where_it_may(tmp_path):
    with Store(tmp_path / "s") as store:
        number = store.queue_job("ladder", {"epochs": 2})
        assert store.next_job().options == {"epochs": 2}
        assert not store.move_job(number, ("running",), "done")
        assert store.move_job(number, ("queued",), "running")
        assert store.begin_job("spa", number) == number
        store.move_job(number, ("running",), "cancelled")
        store.update_job(number, "done", {"step": 1})
        assert (store.job(number).state, store.job(number).progress) == ("cancelled", {})
        assert not store.has_open_jobs()


def test_what_died_while_it_ran_waits_again_or_has_failed(tmp_path):
    with Store(tmp_path / "s") as store:
        queued = store.queue_job("ladder", {})
        store.move_job(queued, ("queued",), "running")
        by_hand = store.begin_job("ladder")
        assert (store.job(queued).state, store.job(by_hand).state) == ("queued", "running")
        store.bury_jobs()
        assert store.job(by_hand).state == "failed"


def write_one(path):
    with Store(path) as store:
        store.add_examples([Example(text="from elsewhere")], "x")


def test_a_second_connection_leaves_the_locks_of_the_first(tmp_path):
    """POSIX drops a process's locks on a file when any of its handles is closed."""
    path = tmp_path / "s"
    with Store(path) as store:
        with store.writing():
            Store(path).close()
            other = multiprocessing.get_context("spawn").Process(target=write_one, args=(path,))
            other.start()
            other.join(3)
            assert other.is_alive(), "it waits for this transaction"
        other.join()
        assert other.exitcode == 0
        assert len(store.examples()) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such bits")
def test_the_store_and_what_lies_beside_it_are_the_owners_alone(tmp_path):
    (tmp_path / "s").touch(mode=0o644)
    with Store(tmp_path / "s") as store:
        store.add_examples([TEXT], "a")
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {"s": 0o600, "s-wal": 0o600, "s-shm": 0o600}
