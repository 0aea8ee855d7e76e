"""The whole way between two real processes; the device's environment has neither torch nor transformers."""

import json
import os
import subprocess
import venv
from pathlib import Path

import pytest

from benchmarks.processes import measured
from benchmarks.services import CLOUD, Device, cloud, pull
from tests.tiny import TRAINING_TEXT, tiny_folder

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
CHATS = [
    {
        "messages": [
            {"role": "user", "content": f"Lamp number {number}?"},
            {"role": "assistant", "content": "It burns until the last boat is in."},
        ]
    }
    for number in range(12)
]


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """The interpreter of an environment with the device's own dependencies alone."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    constraints = ROOT / "constraints.txt"
    install = [python, "-m", "pip", "install", "--quiet", "--constraint", constraints]
    subprocess.run([*install, f"{ROOT}[device]"], check=True)
    return str(python)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A tiny backbone behind a cloud that is a process of its own."""
    before = os.environ.get("SIDEPLUG_CACHE")
    os.environ["SIDEPLUG_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    try:
        pulled = pull(str(tiny_folder("llama", tmp_path_factory.mktemp("models") / "tiny")))
        measured([*CLOUD, "compile", "ladder", "--backbone", pulled.name])
        with cloud(pulled, "f32", 1) as found:
            yield found
    finally:
        os.environ.pop("SIDEPLUG_CACHE")
        if before is not None:
            os.environ["SIDEPLUG_CACHE"] = before


@pytest.fixture(scope="module")
def device(python, served, tmp_path_factory):
    home = tmp_path_factory.mktemp("device")
    return Device(home, served.url, 1, command=(python, "-m", "device_agent"))


@pytest.mark.parametrize("module", ["torch", "transformers", "onnx", "fastapi"])
def test_the_environment_lacks(python, module):
    found = subprocess.run([python, "-c", f"import {module}"], capture_output=True, check=False)
    assert b"ModuleNotFoundError" in found.stderr


def test_a_device_learns_trains_and_chats(device, tmp_path):
    text, chats = tmp_path / "notes.md", tmp_path / "chats.jsonl"
    text.write_text(" ".join(TRAINING_TEXT[:3] * 40), encoding="utf-8")
    chats.write_text("".join(json.dumps(chat) + "\n" for chat in CHATS), encoding="utf-8")
    assert device.run("learn", str(text), str(chats)).answer["added"] == 1 + len(CHATS)

    trained = device.run("train", "--rate", "0.01").answer
    assert trained["promoted"]
    assert trained["validation"]["after"] < trained["validation"]["base"]
    assert trained["history"][-1]["loss"] < trained["history"][0]["loss"]

    assert [version["current"] for version in device.run("plugins", "list").answer["versions"]] == [
        True
    ]
    spoken = device.run("run", "Lamp number 3?", "--max-tokens", "8").answer
    assert spoken["tokens"] == 8
    assert spoken["plugin"] == trained["version"]
    frozen = device.run("run", "Lamp number 3?", "--max-tokens", "8", "--base").answer
    assert frozen["plugin"] is None
    assert frozen["text"] != spoken["text"]


def test_the_page_is_installed_with_the_agent(python, tmp_path):
    """Away from the source tree, so that it is the wheel's."""
    asked = "from device_agent.api.page import ASSETS, FOLDER; print(FOLDER, *ASSETS)"
    command = [python, "-I", "-c", asked]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    folder, *assets = found.stdout.split()
    assert "site-packages" in folder
    sources = {path.name for path in (ROOT / "device_agent" / "page").iterdir()}
    assert {path.removeprefix("/page/") for path in assets} | {"index.html"} == sources


def test_chat_answers_from_a_pipe(device):
    settings = {"SIDEPLUG_HOME": str(device.home), "SIDEPLUG_CLOUD": device.url}
    said = subprocess.run(
        [*device.command, "chat", "--max-tokens", "4"],
        input="Lamp number 5?\n/quit\n",
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        check=True,
    )
    # Whatever it is, a plugin or the backbone: the same as when it is asked once.
    spoken = device.run("run", "Lamp number 5?", "--max-tokens", "4").answer
    assert spoken["tokens"] == 4
    assert said.stdout == spoken["text"] + "\n"
