"""The whole way on the device, against a cloud on a real socket."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from device_agent.cloud.client import CloudUnreachable
from device_agent.cloud.link import LAST_FACTS, STORE, Link
from device_agent.data.examples import Encoded, Example
from device_agent.data.prefix import NO_PREFIX
from device_agent.data.store import Store
from device_agent.plugins import PluginStore
from device_agent.runtime.head import Head
from device_agent.runtime.kits import WrongBackbone
from device_agent.runtime.side_plugin import SidePlugin
from device_agent.training.checkpoint import load
from device_agent.training.evaluate import evaluate
from device_agent.training.hold_out import hold_out
from device_agent.training.learning import NothingToLearn, learn
from device_agent.training.lock import AlreadyTraining, training_lock
from device_agent.training.watcher import Watcher
from tests.device_agent.home import LETTERS
from tests.device_agent.teaching import ALPHABET, settings_of, teaching_home

NOBODY = "http://127.0.0.1:9"


class Noting(Watcher):
    """Keeps what it sees; stops after some steps."""

    def __init__(self, steps=None):
        self.notes, self.steps, self.fetched = [], [], []
        self._left = steps

    def note(self, sentence):
        self.notes.append(sentence)

    def fetching(self, done, total):
        self.fetched.append((done, total))

    def training(self, progress):
        self.steps.append(progress.step)

    def stop(self):
        return self._left is not None and len(self.steps) >= self._left


@pytest.fixture
def world(tmp_path):
    with teaching_home(tmp_path) as (cloud, settings):
        yield cloud, settings


def give(settings, *texts):
    with Store(settings.home / STORE) as store:
        store.add_examples([Example(text=text) for text in texts], "test")


def train(settings, watcher=None, fresh=False, **chosen):
    with Link(settings, sleep=lambda _: None) as link:
        return learn(link, {"threads": 1, **chosen}, watcher or Noting(), fresh=fresh)


def is_held_out(text):
    """Whether this text, among many others, is one that is never trained on."""
    own, other = (Encoded(np.zeros(2, np.uint32), np.ones(1, np.float32)) for _ in range(2))
    others = [(str(number), [other]) for number in range(200)]
    split = hold_out([(Example(text=text).sha256, [own]), *others])
    return any(window is own for window in split.validation)


def weights(settings):
    return PluginStore(settings.home).versions()[-1].weights()["scale"]


def test_what_was_learned_is_foreseen_better_and_speaks(world):
    _, settings = world
    give(settings, ALPHABET)
    lesson = train(settings)
    current = PluginStore(settings.home).current()
    assert lesson.promoted
    assert current.version == lesson.version.version == "1"
    assert lesson.after < lesson.evaluation.base - 0.5
    told = json.loads(json.dumps(lesson.to_json()))
    assert told["validation"]["after"] == lesson.after
    assert told["features"]["bytes_down"] > told["features"]["sent_tokens"] * 64 * 3 * 2
    assert told["features"]["tokens"] == told["features"]["sent_tokens"]
    assert told["plugin_bytes"] == current.size
    assert current.card["evaluation"]["plugin"]["nll"] == lesson.after
    assert current.config["sideplug"]["codec"] == "f16"
    with Store(settings.home / STORE) as store:
        assert store.last_job().state == "done"
        assert (
            store.last_job().progress["validation"]
            == lesson.trained.course.history[-1]["validation"]
        )
    assert not (settings.home / "runs" / "checkpoint.safetensors").exists()


def test_conversations_are_learned(world):
    _, settings = world
    chats = [
        Example(
            messages=(("user", LETTERS[i : i + 3]), ("assistant", LETTERS[i + 3 : i + 9] + "z"))
        )
        for i in range(16)
    ]
    with Store(settings.home / STORE) as store:
        store.add_examples(chats, "test")
    lesson = train(settings)
    assert lesson.after < lesson.evaluation.base


def test_a_second_training_asks_the_cloud_for_no_features(world):
    cloud, settings = world
    give(settings, ALPHABET)
    train(settings)
    read = len(cloud.read)
    watcher = Noting()
    again = train(settings, watcher, seed=1)
    assert len(cloud.read) == read == len(set(cloud.read))
    assert watcher.fetched == []
    assert again.to_json()["features"]["sent_tokens"] == 0
    assert again.before is not None


def test_once_features_are_there_the_network_may_be_off(world):
    _, settings = world
    give(settings, ALPHABET)
    online = train(settings)
    offline = train(replace(settings, cloud=NOBODY), seed=0)
    assert offline.after == online.after
    give(settings, LETTERS[::-1] * 3)
    with pytest.raises(CloudUnreachable):
        train(replace(settings, cloud=NOBODY))


def test_what_is_not_better_does_not_speak(world):
    _, settings = world
    give(settings, ALPHABET)
    first = train(settings)
    worse = train(settings, epochs=1, rate=0.01)
    assert worse.before == pytest.approx(first.after)
    assert worse.after > worse.before
    assert not worse.promoted
    assert worse.version.version == "2"
    assert PluginStore(settings.home).current().version == "1"


def test_what_is_worse_than_the_backbone_does_not_speak(world):
    """What is held out has one letter for ever, and what is trained on always the next one."""
    _, settings = world
    held_out = next(text for n in range(40, 60) if is_held_out(text := "a" * n))
    taught = [text for n in range(20) if not is_held_out(text := (LETTERS * 4)[n:])]
    give(settings, held_out, *taught[:4])
    lesson = train(settings)
    assert lesson.after > lesson.evaluation.base
    assert not lesson.promoted
    assert PluginStore(settings.home).current() is None


def test_a_version_that_may_have_seen_what_is_held_out_is_no_measure(world):
    _, settings = world
    give(settings, ALPHABET)
    train(settings)
    give(settings, *(LETTERS[i:] + LETTERS[:i] + LETTERS for i in range(1, 26)))
    assert train(settings).before is None


def test_stopping_keeps_the_best_and_training_goes_on_from_there(world, tmp_path):
    _, settings = world
    give(settings, ALPHABET)
    stopped = train(settings, Noting(steps=7))
    assert (stopped.trained.ending, stopped.trained.steps) == ("stopped", 7)
    assert stopped.version is not None
    with Store(settings.home / STORE) as store:
        assert store.last_job().state == "stopped"
    watcher = Noting()
    finished = train(settings, watcher)
    assert watcher.steps[0] == 8
    assert "going on" in watcher.notes[0]
    whole = settings_of(tmp_path / "other", settings.cloud)
    give(whole, ALPHABET)
    train(whole)
    assert finished.trained.resumed
    assert (weights(settings) == weights(whole)).all()


@pytest.mark.parametrize("change", ["examples", "options", "kit", "fresh"])
def test_a_run_that_is_another_begins_anew_and_says_so(world, change):
    cloud, settings = world
    give(settings, ALPHABET)
    train(settings, Noting(steps=3))
    watcher = Noting()
    if change == "examples":
        give(settings, LETTERS * 5)
    if change == "kit":
        changed = replace(cloud.manifest, id="teaching-2", dropout=0.5)
        cloud.offer(changed)
        settings = replace(settings, recipe="teaching-2")
    chosen = {"epochs": 2} if change == "options" else {}
    lesson = train(settings, watcher, fresh=change == "fresh", **chosen)
    assert watcher.steps[0] == 1
    assert not lesson.trained.resumed
    assert ("from the beginning" in watcher.notes[0]) == (change != "fresh")


def test_two_trainings_in_one_home_are_refused(world):
    _, settings = world
    give(settings, ALPHABET)
    with training_lock(settings.home), pytest.raises(AlreadyTraining):
        train(settings)


def test_a_kit_of_another_backbone_is_refused_although_the_cloud_is_away(world):
    _, settings = world
    give(settings, ALPHABET)
    train(settings)
    facts = settings.home / LAST_FACTS
    facts.write_text(facts.read_text().replace("f" * 64, "e" * 64))
    with pytest.raises(WrongBackbone):
        train(replace(settings, cloud=NOBODY))


def test_no_more_is_scored_after_an_epoch_than_was_asked_for(world):
    _, settings = world
    give(settings, ALPHABET * 4)
    few = train(settings, validation_tokens=1)
    many = train(settings, validation_tokens=10**6)
    first, all_of_it = few.trained.course.history[0], many.trained.course.history[0]
    assert first["loss"] == all_of_it["loss"]
    assert first["validation"] != all_of_it["validation"]
    with Link(settings) as link:
        kit = link.kit()
    plugin = SidePlugin(kit, many.version.weights(), 1)
    rows = many.corpus.held_out(10**6, NO_PREFIX)
    found = evaluate(kit.manifest, Head(kit, 1), plugin, rows)
    assert many.trained.course.history[-1]["validation"] == pytest.approx(found.plugin)


def test_without_examples_there_is_nothing_to_learn(world):
    _, settings = world
    with pytest.raises(NothingToLearn):
        train(settings)


def test_a_training_that_fails_is_noted(world):
    _, settings = world
    give(settings, ALPHABET)

    class Failing(Noting):
        def training(self, progress):
            raise RuntimeError("out of paper")

    with pytest.raises(RuntimeError):
        train(settings, Failing())
    with Store(settings.home / STORE) as store:
        assert store.last_job().state == "failed"


def test_behind_a_prefix_everything_is_learned_as_well(tmp_path):
    with teaching_home(tmp_path, positions=96) as (cloud, settings):
        give(settings, ALPHABET)
        lesson = train(replace(settings, prefix=64))
    assert len(lesson.version.prefix) == 48, "never more than half of the context"
    assert lesson.after < lesson.evaluation.base
    assert lesson.to_json()["validation"]["prefix"] == lesson.evaluation.prefix
    assert lesson.version.card["evaluation"]["prefix"]["nll"] == lesson.evaluation.prefix
    assert len(cloud.sessions.read) == 2, "each half of the text has its own"
    assert lesson.version.prefix.tolist() in cloud.sessions.read


def test_a_prefix_that_is_switched_off_is_sent_by_no_training(tmp_path):
    with teaching_home(tmp_path, positions=96) as (cloud, settings):
        give(settings, ALPHABET)
        first = train(replace(settings, prefix=64))
        assert first.promoted
        cloud.requests.clear()
        second = train(settings)
        assert not [path for path in cloud.paths() if "prefix" in path]
    assert len(second.version.prefix) == 0
    assert second.before is not None, "the version before is compared as it speaks now"


# --- killed ---


def start(settings, *more):
    words = ["train", "--json", "--epochs", "30", "--patience-epochs", "0"]
    words += ["--checkpoint-seconds", "0", *more]
    environ = {
        **os.environ,
        "SIDEPLUG_HOME": str(settings.home),
        "SIDEPLUG_CLOUD": settings.cloud,
        "SIDEPLUG_RECIPE": "teaching",
        "SIDEPLUG_PREFIX": "0",
        "SIDEPLUG_THREADS": "1",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "device_agent", *words]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, env=environ, text=True)


def steps_in(path):
    found = load(path)
    return 0 if found is None else found.progress["epoch"] * 1000 + found.progress["step"]


def wait_for(process, path, beyond):
    """Wait until the checkpoint is beyond some place, or the process has ended."""
    deadline = time.monotonic() + 60
    while process.poll() is None and steps_in(path) <= beyond:
        assert time.monotonic() < deadline, "no progress"
        time.sleep(0.005)


def test_a_training_that_is_killed_again_and_again_ends_as_if_it_had_not_been(world, tmp_path):
    _, settings = world
    other = settings_of(tmp_path / "other", settings.cloud)
    path = settings.home / "runs" / "checkpoint.safetensors"
    pause = random.Random(0)
    for home in (settings, other):
        give(home, ALPHABET)
    reached = 0
    for _ in range(3):
        process = start(settings)
        wait_for(process, path, reached)
        time.sleep(pause.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        reached = steps_in(path)
        assert PluginStore(settings.home).versions() == []
    out, err = start(settings).communicate(timeout=120)
    told = json.loads(out)
    assert told["resumed"], err
    assert told["cpu_seconds"] >= told["cpu_seconds_to_best"]
    assert told["seconds"] >= told["history"][-1]["seconds"]
    plain, _ = start(other).communicate(timeout=120)
    expected = json.loads(plain)
    assert (weights(settings) == weights(other)).all()
    for ours, theirs in zip(told["history"], expected["history"], strict=True):
        assert ours["loss"] == theirs["loss"]
        assert ours["validation"] == theirs["validation"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signal for one process")
def test_ctrl_c_keeps_the_best_so_far_as_a_version(world):
    _, settings = world
    give(settings, ALPHABET)
    process = start(settings, "--epochs", "100000")
    wait_for(process, settings.home / "runs" / "checkpoint.safetensors", 0)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    told = json.loads(out)
    assert (told["ending"], told["version"]) == ("stopped", "1")
    assert "the best so far is kept" in err
    assert np.isfinite(told["validation"]["after"])
    assert len(PluginStore(settings.home).versions()) == 1


def test_a_kill_while_features_come_loses_none_that_came(world):
    _, settings = world
    give(settings, ALPHABET)
    process = start(settings)
    deadline = time.monotonic() + 60
    while not list(settings.home.glob("features/*/*/*.taps")):
        assert time.monotonic() < deadline
        time.sleep(0.002)
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGKILL)
    process.communicate()
    lesson = train(settings)
    assert lesson.promoted
    assert not list(settings.home.rglob("*.part.taps"))
