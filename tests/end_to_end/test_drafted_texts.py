"""Drafts between real processes: the same text as without them, whatever becomes of the cloud meanwhile."""

import json
import os
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from benchmarks.processes import measured
from benchmarks.prompts import PROMPTS
from benchmarks.services import CLOUD, Device, cloud, pull
from device_agent.cloud.link import Link
from device_agent.generation.sampling import Sampling
from device_agent.generation.speaker import Speaker
from device_agent.plugins import PluginStore
from device_agent.settings import Settings
from tests.tiny import TRAINING_TEXT, tiny_folder

pytestmark = pytest.mark.slow

NEW = 40


class Mortal:
    """A cloud at one address that can be killed and started anew."""

    def __init__(self, backbone):
        self._backbone, self._life = backbone, ExitStack()
        self.cloud = self._start("0")

    def kill(self):
        self.cloud.process.kill()
        self._life.close()
        self.cloud = self._start(self.cloud.url.rsplit(":", 1)[1])

    def close(self):
        self._life.close()

    def _start(self, port):
        return self._life.enter_context(cloud(self._backbone, "f32", 1, ("--port", port)))


@pytest.fixture(scope="module")
def mortal(tmp_path_factory):
    """A tiny random backbone behind a process of its own, with a compiled kit."""
    before = os.environ.get("SIDEPLUG_CACHE")
    os.environ["SIDEPLUG_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    try:
        pulled = pull(str(tiny_folder("llama", tmp_path_factory.mktemp("models") / "tiny")))
        measured([*CLOUD, "compile", "ladder", "--backbone", pulled.name])
        found = Mortal(pulled)
        yield found
        found.close()
    finally:
        os.environ.pop("SIDEPLUG_CACHE")
        if before is not None:
            os.environ["SIDEPLUG_CACHE"] = before


@pytest.fixture(scope="module")
def home(mortal, tmp_path_factory):
    """A home with a plugin that has learned its text nearly by heart, and remembers it."""
    folder = tmp_path_factory.mktemp("device")
    notes = folder / "notes.jsonl"
    documents = [f"{TRAINING_TEXT[i % 3]} Note {i}. " * 4 for i in range(12)]
    notes.write_text("\n".join(json.dumps({"text": one}) for one in documents))
    device = Device(folder / "home", mortal.cloud.url, 1, prefix=24)
    device.run("learn", str(notes))
    device.run("train", "--epochs", "12", "--rate", "0.01")
    return device.home


def speaking(home, url, drafts, me):
    version = PluginStore(home).versions()[-1] if me else None
    # Of rounded states the device makes another text than the cloud, now and then.
    whole = Settings(home=home, cloud=url, threads=1, codec="f32", drafts=drafts, wire_kl=0)
    link = Link(whole)
    return link, Speaker(link, version)


def write(home, url, drafts, *, me=True, sampling=Sampling(), disturb=None, prompt="The lamp in", new=NEW):  # fmt: skip # noqa: B008 - frozen
    """Tokens of an answer, and how many were drafted and accepted."""
    link, speaker = speaking(home, url, drafts, me)
    with link, speaker:
        tokens = []
        for piece in speaker.answer(speaker.read(prompt), sampling, new):
            tokens.append(piece.token)
            if disturb is not None:
                disturb(len(tokens))
        return tokens, speaker.drafts


@pytest.mark.parametrize("drafts", ["auto", "5", "64"])
@pytest.mark.parametrize(
    "sampling", [Sampling(), Sampling(0.8, top_p=0.95, repetition=1.1, seed=4)]
)
@pytest.mark.parametrize("me", [False, True])
def test_a_text_is_the_same_with_drafts(mortal, home, drafts, sampling, me):
    expected, none = write(home, mortal.cloud.url, "off", me=me, sampling=sampling)
    got, tally = write(home, mortal.cloud.url, drafts, me=me, sampling=sampling)
    assert got == expected
    assert none.drafted == 0
    assert tally.drafted > 0
    assert tally.accepted <= len(got)


def test_the_backbones_own_text_is_accepted(mortal, home):
    tokens, tally = write(home, mortal.cloud.url, "7", me=False)
    assert tally.accepted == tally.drafted >= len(tokens) * 3 // 4


@pytest.mark.parametrize("me", [False, True])
def test_a_cloud_killed_in_the_middle_of_a_draft_goes_on_with_the_same_text(mortal, home, me):
    expected, _ = write(home, mortal.cloud.url, "off", me=me)
    killing = []

    def disturb(count):
        if count == 9:
            killing.append(threading.Thread(target=lambda: (time.sleep(0.003), mortal.kill())))
            killing[0].start()

    got, _ = write(home, mortal.cloud.url, "8", me=me, disturb=disturb)
    killing[0].join()
    assert got == expected


@pytest.mark.parametrize("weights", ["auto", "f32"])
def test_the_default_backbones_texts_are_the_same_with_drafts(tmp_path, weights):
    with cloud(pull("smollm2-135m-instruct"), weights, 2) as service:
        for prompt in PROMPTS[1:8:2]:
            texts = {
                drafts: write(Path(tmp_path), service.url, drafts, me=False, prompt=prompt.text)
                for drafts in ("off", "auto", "9")
            }
            assert texts["auto"][0] == texts["9"][0] == texts["off"][0]
            assert texts["9"][1].accepted >= 0.9 * texts["9"][1].drafted
