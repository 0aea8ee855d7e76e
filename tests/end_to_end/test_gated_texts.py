"""Gates between real processes: the backbone's own text where they are closed, the person's where they are open."""

import json
import os

import pytest

from benchmarks.services import Device, cloud, pull
from device_agent.cloud.link import Link
from device_agent.generation.sampling import Sampling
from device_agent.generation.speaker import Speaker
from device_agent.plugins import PluginStore
from device_agent.settings import Settings
from tests.tiny import TRAINING_TEXT, tiny_folder

pytestmark = pytest.mark.slow

NEW = 40
RECIPE = "ladder-gate-errors"


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """A tiny random backbone behind a process of its own."""
    before = os.environ.get("SIDEPLUG_CACHE")
    os.environ["SIDEPLUG_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    try:
        pulled = pull(str(tiny_folder("llama", tmp_path_factory.mktemp("models") / "tiny")))
        with cloud(pulled, "f32", 1, ("--port", "0", "--recipe", RECIPE)) as found:
            yield found
    finally:
        os.environ.pop("SIDEPLUG_CACHE")
        if before is not None:
            os.environ["SIDEPLUG_CACHE"] = before


@pytest.fixture(scope="module")
def home(service, tmp_path_factory):
    """A home with a plugin that has learned its text nearly by heart, with a classifier."""
    folder = tmp_path_factory.mktemp("device")
    notes = folder / "notes.jsonl"
    documents = [f"{TRAINING_TEXT[i % 3]} Note {i}. " * 4 for i in range(12)]
    notes.write_text("\n".join(json.dumps({"text": one}) for one in documents))
    device = Device(folder / "home", service.url, 1, prefix=24)
    device.run("learn", str(notes))
    device.run("train", "--epochs", "12", "--rate", "0.01", "--recipe", RECIPE)
    return device.home


def write(home, url, gate, by="confidence", *, memory="off"):
    """Tokens of an answer, how many of them the cloud said, and what came down."""
    settings = Settings(
        home=home, cloud=url, threads=1, codec="f32", wire_kl=0, memory=memory,
        drafts="off", gate=gate, gate_by=by, recipe=RECIPE,
    )  # fmt: skip
    version = PluginStore(home).versions()[-1]
    with Link(settings) as link, Speaker(link, version) as speaker:
        pieces = list(speaker.answer(speaker.read("The lamp in"), Sampling(), NEW))
        return [piece.token for piece in pieces], speaker.drafts.alone, link.down


@pytest.mark.parametrize("by", ["confidence", "classifier"])
def test_at_0_the_text_is_that_without_a_gate(service, home, by):
    expected, none, _ = write(home, service.url, "off")
    got, alone, _ = write(home, service.url, "0", by)
    assert got == expected
    assert none == alone == 0


def test_at_1_the_text_is_the_backbones_own(service, home):
    got, alone, down = write(home, service.url, "1")
    _, _, ungated = write(home, service.url, "off")
    version = PluginStore(home).versions()[-1]
    settings = Settings(
        home=home, cloud=service.url, threads=1, codec="f32", wire_kl=0, recipe=RECIPE
    )
    with Link(settings) as link, Speaker(link, None) as base:
        # The same prefix in front, and nobody who corrects.
        prompt = [*version.prefix.tolist(), *base.read("The lamp in")]
        expected = [piece.token for piece in base.answer(prompt, Sampling(), NEW)]
    assert got == expected
    assert alone == NEW
    assert down < ungated / 4


@pytest.mark.parametrize("by", ["confidence", "classifier"])
@pytest.mark.parametrize("memory", ["on", "off"])
def test_in_between_both_speak(service, home, by, memory):
    low, high = 0.0, 1.0
    for _ in range(24):
        gate = (low + high) / 2
        got, alone, _ = write(home, service.url, f"{gate:.9f}", by, memory=memory)
        assert len(got) == NEW
        if 0 < alone < NEW:
            return
        low, high = (low, gate) if alone else (gate, high)
    pytest.fail("at each threshold one of them speaks all the time")
