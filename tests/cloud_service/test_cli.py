import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from cloud_service import cli
from cloud_service.cli import main
from cloud_service.keys import KeyStore
from protocol import versions
from protocol.errors import Draining, KeyRevoked
from protocol.limits import Limits
from protocol.messages import SessionRequest, States
from protocol.stream import FrameReader
from tests.cloud_service.running import FINAL, fault_in, ids_of, put_kit, tokens_of

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch, tmp_path):
    monkeypatch.setattr("cloud_service.settings.user_config_dir", lambda *_, **__: str(tmp_path))
    for name in list(os.environ):
        if name.startswith("SIDEPLUG"):
            monkeypatch.delenv(name)


def test_help_teaches_the_first_two_steps(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert "sideplug-cloud pull smollm2-135m-instruct" in shown
    assert "sideplug-cloud serve" in shown
    assert "SIDEPLUG_CLOUD_<NAME>" in shown


@pytest.mark.parametrize("command", [command.name for command in cli.COMMANDS])
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert "--json" in shown
    assert "--cache" in shown


def test_a_wrong_call_is_2(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["sing"])
    assert ended.value.code == 2


def test_a_folder_is_pulled_and_listed(folder_of, tmp_path, capsys):
    cache = ["--cache", str(tmp_path / "cache")]
    assert main(["list", *cache]) == 0
    assert "Nothing has been pulled" in capsys.readouterr().out
    assert main(["pull", str(folder_of("llama")), "--name", "mine", *cache]) == 0
    assert "Next: sideplug-cloud serve --backbone mine" in capsys.readouterr().out
    assert main(["pull", str(folder_of("llama")), "--name", "mine", "--json", *cache]) == 0
    output = capsys.readouterr()
    pulled = json.loads(output.out)
    assert (pulled["name"], pulled["family"]) == ("mine", "llama")
    assert "already" in output.err
    assert main(["list", *cache]) == 0
    assert "mine" in capsys.readouterr().out
    assert main(["list", "--json", *cache]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["fingerprint"] == pulled["fingerprint"]
    assert row["bytes"] > 100_000


def test_a_key_is_shown_once_listed_and_revoked(tmp_path, capsys):
    cache = ["--cache", str(tmp_path)]
    assert main(["keys", "list", *cache]) == 0
    assert "There are no keys." in capsys.readouterr().out
    assert main(["keys", "add", "ada", "--sessions", "2", "--json", *cache]) == 0
    key = json.loads(capsys.readouterr().out)["key"]
    assert main(["keys", "list", *cache]) == 0
    shown = capsys.readouterr().out
    assert "2 sessions" in shown
    assert key not in shown
    assert main(["keys", "list", "--json", *cache]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert key.startswith(f"sideplug_{row['id']}_")
    assert row["limits"] == {"sessions": 2, "tokens_per_minute": None, "bytes_per_day": None}
    assert main(["keys", "revoke", "ada", *cache]) == 0
    capsys.readouterr()
    assert main(["keys", "list", *cache]) == 0
    assert "revoked" in capsys.readouterr().out
    store = KeyStore(tmp_path / "keys.sqlite")
    with pytest.raises(KeyRevoked):
        store.find(key)
    store.close()


def test_a_kit_that_is_there_is_compiled_in_no_time(cache, pulled_of, capsys, monkeypatch):
    put_kit(cache, pulled_of("llama"), "spa")
    nice = []
    monkeypatch.setattr(os, "nice", nice.append)
    name = pulled_of("llama").record.name
    call = ["compile", "spa", "--backbone", name, "--cache", str(cache), "--background"]
    assert main([*call, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["recipe"] == "spa"
    assert nice == [10]
    assert main(call[:-1]) == 0
    assert "of recipe spa" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("call", "code", "words"),
    [
        (["pull", "nothing-known"], 1, "neither a folder nor a hub id"),
        (["serve"], 1, "Run: sideplug-cloud pull smollm2-135m-instruct"),
        (["serve", "--host", "0.0.0.0"], 2, "--insecure"),
        (["keys", "add"], 2, "keys add needs the name of a key"),
        (["keys", "revoke", "nobody"], 2, "there is no key nobody"),
        (["keys", "add", "ada", "--sessions", "0"], 2, "sessions must be at least 1"),
        (["serve", "--port", "x"], 2, "port cannot be 'x'"),
        (["list", "--config", "absent.toml"], 2, "absent.toml"),
        (["compile", "ladder", "--backbone", "../x"], 2, "is no name"),
    ],
)
def test_errors_are_a_sentence_with_a_hint_and_a_code(call, code, words, tmp_path, capsys):
    assert main([*call, "--cache", str(tmp_path)]) == code
    output = capsys.readouterr()
    assert words in output.err
    assert "Traceback" not in output.err
    assert output.out == ""


def test_a_port_that_is_taken_is_named(cache, pulled_of, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        call = ["serve", "--backbone", pulled_of("llama").record.name, "--cache", str(cache)]
        assert main([*call, "--port", port]) == 2
    assert f"port {port} of 127.0.0.1 cannot be listened on" in capsys.readouterr().err


def test_a_disk_that_fails_is_one_sentence(monkeypatch, tmp_path, capsys):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("cloud_service.pull.pull", full)
    assert main(["pull", "smollm2-135m-instruct", "--cache", str(tmp_path)]) == 1
    assert capsys.readouterr().err == "sideplug-cloud: [Errno 28] No space left on device\n"


def test_ctrl_c_is_130(monkeypatch, tmp_path, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("cloud_service.pull.pull", interrupted)
    assert main(["pull", "smollm2-135m-instruct", "--cache", str(tmp_path)]) == 130
    assert "stopped" in capsys.readouterr().err


def serving(cache, name):
    """Start the command in a process of its own; return it with the events it prints."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith("SIDEPLUG")}
    process = subprocess.Popen(
        f"{sys.executable} -m cloud_service serve --json --port 0 --threads 1 "
        f"--cache {cache} --backbone {name}".split(),
        cwd=ROOT,
        env=environ | {"SIDEPLUG_CLOUD_RECIPE": "spa", "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    return process, (json.loads(line) for line in process.stdout)


@pytest.mark.slow
@pytest.mark.parametrize(("sign", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_service_is_stopped_cleanly(sign, code, cache, pulled_of):
    put_kit(cache, pulled_of("llama"), "spa")  # so that no compiler is started
    process, events = serving(cache, pulled_of("llama").record.name)
    with process:
        url = next(events)["url"]
        assert next(events) == {"event": "ready", "url": url}
        assert httpx.get(f"{url}/health").status_code == 200
        process.send_signal(sign)
        assert process.wait(60) == code
        assert "Traceback" not in process.stderr.read()


@pytest.mark.slow
def test_a_service_that_is_stopped_finishes_what_it_has_begun_and_begins_nothing(cache, pulled_of):
    put_kit(cache, pulled_of("llama"), "spa")
    process, events = serving(cache, pulled_of("llama").record.name)
    texts = [versions.encode(tokens_of(ids_of(60, seed))) for seed in range(2000)]
    query = {"wants": json.dumps(FINAL.to_json())}
    with process, httpx.Client(base_url=next(events)["url"], timeout=60) as other:
        next(events)
        assert other.get("/ready").status_code == 200
        with httpx.stream(
            "POST",
            f"{other.base_url}/v1/features",
            params=query,
            content=b"".join(texts),
            timeout=60,
        ) as answer:
            chunks = answer.iter_raw()
            reader = FrameReader(Limits())
            frames = list(reader.feed(next(chunks)))
            process.send_signal(signal.SIGTERM)
            while other.get("/ready").status_code == 200:
                pass
            asked = other.post("/v1/sessions", json=SessionRequest(FINAL).to_json())
            assert isinstance(fault_in(asked), Draining)
            assert asked.headers["retry-after"] == "5"
            for chunk in chunks:
                frames += reader.feed(chunk)
        assert len(frames) == len(texts)
        assert all(isinstance(versions.decode(frame), States) for frame in frames)
        assert process.wait(30) == 0


@pytest.mark.slow
def test_a_service_whose_backbone_is_broken_ends_with_a_sentence(folder_of, pull_into, tmp_path):
    pulled = pull_into(folder_of("llama"))
    put_kit(tmp_path / "cache", pulled, "spa")
    (pulled.folder / "model.safetensors").write_bytes(b"broken")
    process, _ = serving(tmp_path / "cache", "llama")
    with process:
        assert process.wait(100) == 1
        said = process.stderr.read()
        assert "cannot be read" in said
        assert "Traceback" not in said
