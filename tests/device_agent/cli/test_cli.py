import json
import os
import signal
import subprocess
import sys
import time

import pytest

from device_agent import cli
from device_agent.cloud import connection
from device_agent.settings import Settings
from tests.device_agent.scripted_cloud import Answer


def test_help_lists_every_command(sideplug, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    for name in cli.COMMANDS:
        assert f"\n    {name}" in shown


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_help_of_a_command_teaches_it_and_its_settings(name, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([name, "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    for part in ("--json", "--home", "SIDEPLUG_CLOUD"):
        assert part in shown


@pytest.mark.parametrize("words", [[], ["dance"], ["run"], ["run", "a", "--max-tokens", "0"]])
def test_wrong_usage_exits_with_2(words, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    assert ended.value.code == 2
    assert "usage" in capsys.readouterr().err


def test_a_setting_that_cannot_work_exits_with_2(sideplug):
    code, _, err = sideplug("run", "a", "--cloud", "there")
    assert code == 2
    assert "cloud" in err
    assert sideplug("run", "a", "--top-p", "7")[0] == 2


def test_a_failure_is_one_sentence_with_the_next_thing_to_do(sideplug):
    code, out, err = sideplug("run", "a", "--plugin", "9")
    assert (code, out) == (1, "")
    assert err == (
        "sideplug: there is no version 9."
        " `sideplug plugins list` shows the versions that there are.\n"
    )


def test_a_failure_is_json_too_when_json_is_asked_for(sideplug):
    code, out, _ = sideplug("run", "a", "--plugin", "9", "--json")
    assert code == 1
    assert json.loads(out)["error"]["code"] == "NoSuchVersion"


def test_a_fault_of_the_cloud_is_told_with_its_hint(sideplug):
    sideplug.cloud.backbone.limit = 2
    code, _, err = sideplug("run", "abcdef")
    assert code == 1
    assert "Shorten" in err


def test_nobody_at_the_address_is_told(sideplug, monkeypatch):
    monkeypatch.setattr(connection, "FIRST_PAUSE", 0)
    code, _, err = sideplug("run", "a", "--cloud", "http://127.0.0.1:9")
    assert code == 1
    assert "sideplug-cloud serve" in err


def test_a_reader_that_goes_away_ends_the_command_quietly(sideplug):
    with sideplug.start(
        "run", "--raw", "c", "--max-tokens", "40", stderr=subprocess.PIPE
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait() == 1


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C cannot be sent to one process there")
def test_ctrl_c_ends_with_130_and_closes_the_session(sideplug):
    slow = sideplug.cloud.backbone._step

    def wait(*args):
        time.sleep(0.05)
        return slow(*args)

    sideplug.cloud.backbone._step = wait
    with sideplug.start(
        "run", "--raw", "c", "--max-tokens", "50", stderr=subprocess.PIPE
    ) as process:
        process.stdout.read(1)
        process.send_signal(signal.SIGINT)
        assert process.stderr.read() == "stopped\n"
        assert process.wait() == 130
    assert sideplug.cloud.backbone.sessions == {}


def test_text_that_the_console_cannot_show_is_no_crash(sideplug):
    environ = {**os.environ, **sideplug.environ(), "PYTHONIOENCODING": "ascii"}
    sideplug.cloud.backbone.other["/v1/tokenizer"] = Answer(b"")
    shown = subprocess.run(
        [
            sys.executable,
            "-m",
            "device_agent",
            "status",
            "--home",
            str(sideplug.settings.home / "ü"),
        ],
        capture_output=True,
        env=environ,
        check=True,
    )
    assert "ü".encode() in shown.stdout


FORBIDDEN = ("torch", "transformers", "onnx", "adapters", "cloud_service", "fastapi")


@pytest.mark.parametrize(
    ("words", "unused"),
    [
        (["run", "--raw", "c", "--max-tokens", "2"], ("tqdm",)),
        (["status"], ("onnxruntime", "tokenizers", "safetensors")),
        (["learn", "--help"], ("onnxruntime", "tokenizers")),
    ],
    ids=lambda words: words[0],
)
def test_a_command_imports_what_it_needs_and_never_what_the_cloud_needs(sideplug, words, unused):
    script = f"""
import sys
from device_agent.cli import main
try:
    main({words!r})
except SystemExit:
    pass
print([name for name in {FORBIDDEN + unused!r} if name in sys.modules])
"""
    environ = {**os.environ, **sideplug.environ()}
    shown = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, env=environ, text=True, check=True
    )
    assert shown.stdout.splitlines()[-1] == "[]"


def test_flags_beat_variables(sideplug, tmp_path):
    told = json.loads(sideplug("status", "--json", "--home", str(tmp_path / "other"))[1])
    assert told["home"] == str(tmp_path / "other")


def test_settings_and_their_flags_are_the_same(sideplug):
    # Everybody on a machine can read a command line, so a key has no place there.
    flags = cli.SETTINGS_HELP | cli.AGENT_SETTINGS_HELP
    assert set(flags) == set(Settings.__dataclass_fields__) - {"key"}
