"""A home goes into one file and comes out the same, or nothing has happened."""

import json
import os
import stat
import subprocess
import sys

import pytest

from device_agent.cloud.link import STORE
from device_agent.data.examples import Example
from device_agent.data.moving import (
    STAYING,
    CannotMove,
    HomeNotEmpty,
    TargetTaken,
    _Entry,
    _tell,
    export_home,
    home_bytes,
    import_home,
)
from device_agent.data.sealed import CutOff, SealingWriter, Tampered, WrongPassphrase
from device_agent.data.store import Store
from device_agent.egress.ledger import Entry, Ledger
from device_agent.plugins import PluginStore
from device_agent.training.lock import AlreadyTraining, training_lock
from tests.device_agent.home import add_plugin

SECRET = "correct horse battery"


@pytest.fixture
def home(sideplug):
    """A home in use: a store that is open, a kit with its links, a plugin, features, settings."""
    settings = sideplug.settings
    assert sideplug("run", "abc", "--raw", "--max-tokens", "2")[0] == 0
    add_plugin(settings, sideplug.cloud.manifest, token=20, prefix=(1, 2))
    (settings.home / "features" / "ab").mkdir(parents=True)
    (settings.home / "features" / "ab" / "one.taps").write_bytes(os.urandom(3_000_000))
    os.utime(settings.home / "features" / "ab" / "one.taps", ns=(5_000, 1_600_000_000_123_456_789))
    (settings.home / "config.toml").write_text('key = "secret"\n')
    (settings.home / "config.toml").chmod(0o600)
    (settings.home / "daemon.log").write_text("of this machine")
    (settings.home / "features" / ".ab.x1.part").write_text("unfinished")
    with Store(settings.home / STORE) as store:
        store.add_examples([Example(text="A private note.")], "notes.md")
        yield settings.home


def contents(home):
    return {
        path.relative_to(home).as_posix(): path.read_bytes()
        for path in home.rglob("*")
        if path.is_file() and not path.name.startswith(STORE) and not path.name.startswith(".")
    }


def test_a_home_is_the_same_on_the_other_device(home, tmp_path):
    file, there = tmp_path / "ada.sideplug", tmp_path / "there" / "home"
    out = export_home(home, file, SECRET)
    assert import_home(file, there, SECRET) == out
    expected = {name: data for name, data in contents(home).items() if name not in STAYING}
    assert contents(there) == expected
    assert "daemon.log" not in expected
    assert out.bytes == pytest.approx(home_bytes(home), rel=0.1)
    with Store(there / STORE) as store:
        assert [one.example.text for one in store.examples()] == ["A private note."]
        Ledger(store, "chat").enter_within(Entry("h:1", "prompt", 1), {})
    assert PluginStore(there).current().prefix.tolist() == [1, 2]
    times = [(one / "features" / "ab" / "one.taps").stat().st_mtime_ns for one in (home, there)]
    assert times[0] == times[1] == 1_600_000_000_123_456_789
    folders = [one / "plugins" / "mine" / "1" for one in (home, there)]
    assert folders[0].stat().st_mtime_ns == folders[1].stat().st_mtime_ns
    assert not list(tmp_path.glob("**/.*.part"))[1:], "only the one that was there before"


def test_files_that_share_their_bytes_do_so_again(home, tmp_path):
    file, there = tmp_path / "ada.sideplug", tmp_path / "there"
    export_home(home, file, SECRET)
    import_home(file, there, SECRET)
    (kit,) = (there / "kits").iterdir()
    shared = [path for path in kit.iterdir() if path.stat().st_nlink == 2]
    assert len(shared) == len(list((there / "blobs").iterdir())) > 3


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such bits")
def test_everything_is_its_owners_alone(home, tmp_path):
    file, there = tmp_path / "ada.sideplug", tmp_path / "there"
    export_home(home, file, SECRET)
    import_home(file, there, SECRET)
    for path in (file, there, *there.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_nothing_of_it_can_be_read_in_the_file(home, tmp_path):
    file = tmp_path / "ada.sideplug"
    export_home(home, file, SECRET)
    data = file.read_bytes()
    for word in (b"private", b"secret", b"plugins", b"SQLite", b"adapter"):
        assert word not in data


@pytest.mark.parametrize(
    ("damage", "secret", "error"),
    [
        (lambda data: data, "another passphrase", WrongPassphrase),
        (lambda data: data[:-3000], SECRET, CutOff),
        (lambda data: data[:-3000] + b"x" + data[-2999:], SECRET, Tampered),
        (lambda data: data[:100_000] + b"x" + data[100_001:], SECRET, Tampered),
    ],
    ids=["passphrase", "cut", "changed at the end", "changed in the middle"],
)
def test_what_cannot_be_opened_is_one_error_and_changes_nothing(
    home, tmp_path, damage, secret, error
):
    file = tmp_path / "ada.sideplug"
    export_home(home, file, SECRET)
    file.write_bytes(damage(file.read_bytes()))
    place = tmp_path / "place"
    place.mkdir()
    with pytest.raises(error):
        import_home(file, place / "there", secret)
    assert list(place.iterdir()) == []
    (place / "empty").mkdir()
    with pytest.raises(error):
        import_home(file, place / "empty", secret)
    assert [path.name for path in place.iterdir()] == ["empty"]


def test_a_home_that_is_not_empty_is_not_written_over(home, tmp_path):
    file = tmp_path / "ada.sideplug"
    export_home(home, file, SECRET)
    before = contents(home)
    with pytest.raises(HomeNotEmpty):
        import_home(file, home, SECRET)
    assert contents(home) == before


def test_an_export_writes_over_nothing_and_not_into_the_home(home, tmp_path):
    (tmp_path / "taken").write_text("mine")
    for target in (tmp_path / "taken", home / "deep" / "inside"):
        with pytest.raises(TargetTaken):
            export_home(home, target, SECRET)
    assert (tmp_path / "taken").read_text() == "mine"


def test_while_somebody_trains_nothing_is_exported(home, tmp_path):
    script = (
        "import sys, pathlib\n"
        "from device_agent.training.lock import training_lock\n"
        "with training_lock(pathlib.Path(sys.argv[1])):\n"
        "    print('held', flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, home], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        other.stdout.readline()
        with pytest.raises(AlreadyTraining):
            export_home(home, tmp_path / "file", SECRET)
        other.stdin.close()
    assert not (tmp_path / "file").exists()
    with training_lock(home):
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_a_link_in_the_home_is_refused_and_not_followed(home, tmp_path):
    (home / "features" / "out").symlink_to("/etc")
    with pytest.raises(CannotMove, match="out"):
        export_home(home, tmp_path / "file", SECRET)
    assert not (tmp_path / "file").exists()


@pytest.mark.parametrize(
    "entry",
    [
        _Entry("../out", "file"),
        _Entry("/tmp/out", "file"),
        _Entry("a/../../out", "file"),
        _Entry("a\\..\\out", "file"),
        _Entry("C:out", "file"),
        _Entry("a//b", "file"),
        _Entry("a/./b", "file"),
        _Entry("", "folder"),
        _Entry("two", "link", same="../secret"),
        _Entry("two", "link", same="none"),
        _Entry("one", "file"),
        _Entry("two", "device"),
        _Entry("two", "file", size=-1),
        _Entry("two", "file", size=99),
        _Entry("two", "file", size="1"),
        _Entry(7, "file"),
    ],
    ids=lambda entry: f"{entry.kind} {entry.path} {entry.same}",
)
def test_whoever_knows_the_passphrase_still_cannot_write_elsewhere(tmp_path, entry):
    with (tmp_path / "file").open("wb") as file:
        writer = SealingWriter(file, SECRET)
        _tell(writer, _Entry("one", "file"))
        _tell(writer, entry)
        writer.write(bytes(4))
        writer.close()
    (tmp_path / "place").mkdir()
    with pytest.raises(Tampered):
        import_home(tmp_path / "file", tmp_path / "place" / "home", SECRET)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "place"]


@pytest.mark.parametrize(
    "told", [b"", b"\xff\xff\xff\x7f", b"\x02\0\0\0[]", b"\x01\0\0\0{", bytes(5)]
)
def test_a_row_of_entries_that_is_none_is_refused(tmp_path, told):
    with (tmp_path / "file").open("wb") as file:
        writer = SealingWriter(file, SECRET)
        writer.write(told)
        writer.close()
    with pytest.raises(Tampered):
        import_home(tmp_path / "file", tmp_path / "home", SECRET)
    assert not (tmp_path / "home").exists()


def test_a_big_home_needs_little_memory(tmp_path):
    """The peak of a process that moves 60 MB is that of one that moves nothing, and some more."""
    script = (
        "import sys, resource, pathlib\n"
        "from device_agent.data.moving import export_home, import_home\n"
        "home, file, there = map(pathlib.Path, sys.argv[1:])\n"
        "export_home(home, file, 'correct horse'); import_home(file, there, 'correct horse')\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )
    peaks = []
    for size in (0, 60):
        home = tmp_path / f"home{size}"
        home.mkdir()
        (home / "blob").write_bytes(bytes(size * 1_000_000))
        words = [home, tmp_path / f"file{size}", tmp_path / f"there{size}"]
        ran = subprocess.run(
            [sys.executable, "-c", script, *words], capture_output=True, check=True
        )
        peaks.append(int(ran.stdout))
    assert peaks[1] - peaks[0] < 10_000, "kilobytes on Linux"


def test_the_commands_take_the_passphrase_from_a_file(sideplug, home, tmp_path, monkeypatch):
    secret, file = tmp_path / "secret", tmp_path / "ada.sideplug"
    secret.write_text(f"{SECRET}\n")
    words = ("--passphrase-file", str(secret), "--json")
    code, out, _ = sideplug("export", str(file), *words)
    assert (code, json.loads(out)["bytes"]) == (0, file.stat().st_size)
    code, _, err = sideplug("import", str(file), *words)
    assert (code, "is not empty" in err) == (1, True)
    there = tmp_path / "there"
    assert sideplug("import", str(file), *words, "--home", str(there))[0] == 0
    assert contents(there)
    secret.write_text("wrong passphrase")
    code, _, err = sideplug("import", str(file), *words, "--home", str(tmp_path / "other"))
    assert (code, "this is not the passphrase" in err) == (1, True)
    secret.write_text("short")
    code, _, err = sideplug("export", str(tmp_path / "new"), *words)
    assert (code, "8 characters" in err) == (1, True)
    code, _, err = sideplug("export", str(tmp_path / "new"))
    assert (code, "no terminal" in err) == (1, True)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such terminal")
def test_at_a_terminal_the_passphrase_is_asked_for_twice(sideplug, home, tmp_path):
    from tests.device_agent.desk import Terminal

    for second, code in ((SECRET, 0), ("something else", 1)):
        terminal = Terminal(sideplug, "export", str(tmp_path / f"file{code}"))
        terminal.wait_for("passphrase: ")
        terminal.type(f"{SECRET}\n")
        terminal.wait_for("once more: ")
        terminal.type(f"{second}\n")
        terminal.wait_for("on the other device" if code == 0 else "typed differently")
        assert terminal.end() == code
    assert (tmp_path / "file0").exists()
    assert not (tmp_path / "file1").exists()
