import json
from urllib.parse import urlsplit

import pytest

from device_agent.cli import main
from device_agent.cli.status import folder_bytes, in_words
from device_agent.cloud import connection
from device_agent.cloud.link import STORE
from device_agent.data.examples import Example
from device_agent.data.store import Store
from device_agent.egress.ledger import Entry, Ledger
from tests.device_agent.home import add_plugin, toy_home


@pytest.fixture
def toy(tmp_path, monkeypatch):
    with toy_home(tmp_path) as (cloud, settings):
        monkeypatch.setenv("SIDEPLUG_HOME", str(settings.home))
        monkeypatch.setenv("SIDEPLUG_CLOUD", settings.cloud)
        monkeypatch.setenv("SIDEPLUG_RECIPE", "small")
        monkeypatch.setattr(connection, "FIRST_PAUSE", 0)
        yield cloud, settings


def test_an_empty_home_is_told_as_such(toy, capsys):
    assert main(["status"]) == 0
    out = capsys.readouterr().out
    for part in ("toy", "none yet", "0 texts, 0 conversations"):
        assert part in out


def test_everything_that_is_there_is_told(toy, capsys):
    cloud, settings = toy
    add_plugin(settings, cloud.manifest, token=20)
    with Store(settings.home / STORE) as store:
        store.add_examples([Example(text="one"), Example(text="two")], "notes.md")
        ledger = Ledger(store, "chat")
        ledger.note(Entry(urlsplit(settings.cloud).netloc, "prompt", 10, 2000))
        ledger.note(Entry("elsewhere:1", "prompt", 5, 6))
        ledger.flush()
        job = store.begin_job("small")
        store.update_job(job, "done", {"epoch": 3})
    assert main(["status", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["cloud"] == {
        "url": cloud.url,
        "reachable": True,
        "backbone": "toy",
        "fingerprint": cloud.facts.fingerprint,
    }
    assert told["plugin"] == {"version": "1", "fingerprint": cloud.facts.fingerprint}
    assert told["examples"] == {"text": 2, "chat": 0}
    assert told["last_training"] == {"state": "done", "recipe": "small", "epoch": 3}
    assert told["bytes"]["plugins"] > 256
    step = {
        row["host"]: (row["up"], row["down"]) for row in told["traffic"] if row["kind"] == "prompt"
    }
    assert step == {urlsplit(settings.cloud).netloc: (10, 2000), "elsewhere:1": (5, 6)}
    assert main(["status"]) == 0
    out = capsys.readouterr().out
    for part in ("elsewhere:1", "2.0 KB", "2 texts", "done (small)"):
        assert part in out


def test_a_cloud_that_is_away_is_no_failure(toy, capsys):
    assert main(["status", "--json", "--cloud", "http://127.0.0.1:9"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["cloud"]["reachable"] is False
    assert "127.0.0.1:9" in told["cloud"]["problem"]
    assert main(["status", "--cloud", "http://127.0.0.1:9"]) == 0
    assert "not reachable" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("size", "words"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 KB"), (37_849_000, "37.8 MB"), (2.5e12, "2500.0 GB")],
)
def test_sizes_in_words(size, words):
    assert in_words(size) == words


def test_a_folder_weighs_what_its_files_weigh(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "one").write_bytes(b"x" * 10)
    (tmp_path / "a" / "b" / "two").write_bytes(b"x" * 5)
    assert folder_bytes(tmp_path) == 15
    assert folder_bytes(tmp_path / "missing") == 0
