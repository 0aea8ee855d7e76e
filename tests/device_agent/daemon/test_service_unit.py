import configparser
import json
import plistlib
import sys
from pathlib import Path

import pytest

from device_agent import cli
from device_agent.daemon.service_unit import NoServices, NotInstalled, command_of, unit_for
from device_agent.settings import Settings

HOME = Path("/people/ada/my %h $models")


def test_the_command_has_what_is_not_the_default_and_never_the_key():
    settings = Settings(home=HOME, cloud="https://cloud.example", key="secret", train_cpu=50)
    command = command_of(settings)
    assert command[:4] == [sys.executable, "-m", "device_agent", "up"]
    assert command[4:] == [
        *("--home", str(HOME)),
        *("--cloud", "https://cloud.example"),
        *("--train-cpu", "50"),
    ]


def test_a_systemd_unit_keeps_every_word_whole():
    unit = unit_for(Settings(home=HOME), "linux", Path("/people/ada"))
    assert unit.path == Path("/people/ada/.config/systemd/user/sideplug.service")
    read = configparser.ConfigParser(interpolation=None)
    read.optionxform = str
    read.read_string(unit.content.decode())
    assert read["Service"]["ExecStart"].endswith('"--home" "/people/ada/my %%h $$models"')
    assert read["Install"]["WantedBy"] == "default.target"
    assert unit.start[-1] == ("systemctl", "--user", "enable", "--now", "sideplug.service")


def test_a_launchd_file_starts_the_same_command():
    settings = Settings(home=HOME)
    unit = unit_for(settings, "darwin", Path("/Users/ada"))
    read = plistlib.loads(unit.content)
    assert read["ProgramArguments"] == command_of(settings)
    assert unit.path.parent == Path("/Users/ada/Library/LaunchAgents")


def test_other_systems_are_told_what_to_do_instead():
    with pytest.raises(NoServices, match="plan9"):
        unit_for(Settings(home=HOME), "plan9", Path("/"))


def test_a_unit_is_written_and_removed(tmp_path):
    unit = unit_for(Settings(home=HOME), "linux", tmp_path)
    unit.install()
    assert unit.path.read_bytes() == unit.content
    unit.uninstall()
    with pytest.raises(NotInstalled):
        unit.uninstall()


@pytest.mark.skipif(sys.platform != "linux", reason="systemd")
def test_the_command_writes_and_prints_and_starts_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    path = tmp_path / ".config/systemd/user/sideplug.service"
    home = ("--home", str(tmp_path / "home"))

    assert cli.main(["service", "show", *home]) == 0
    assert "ExecStart" in capsys.readouterr().out
    assert not path.exists()

    assert cli.main(["service", "install", *home, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["path"], told["content"]) == (str(path), path.read_text())
    assert told["commands"][-1][:3] == ["systemctl", "--user", "enable"]

    assert cli.main(["service", "uninstall", *home]) == 0
    assert "disable" in capsys.readouterr().out
    assert not path.exists()
    assert cli.main(["service", "uninstall", *home]) == 1
