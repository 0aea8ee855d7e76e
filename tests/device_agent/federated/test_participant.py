"""A device's part in a round, against a cloud on a real socket."""

from dataclasses import replace
from datetime import time

import numpy as np
import pytest

from device_agent.cloud.link import STORE, Link
from device_agent.data.examples import Example
from device_agent.data.store import Store
from device_agent.federated.participant import NotAllowed, NotNow, OtherKit, Participant
from device_agent.federated.shared import Shared, find, keep
from device_agent.plugins import PluginStore
from device_agent.training.learning import NothingToLearn, learn
from device_agent.training.lock import AlreadyTraining, training_lock
from device_agent.training.watcher import Watcher
from protocol.federation import Round
from tests.device_agent.small_kit import HIDDEN
from tests.device_agent.teaching import ALPHABET, teaching_home

ZERO = {"scale": np.zeros(HIDDEN, np.float32)}


@pytest.fixture
def world(tmp_path):
    with teaching_home(tmp_path) as (cloud, settings):
        settings = replace(settings, federated="on")
        with Store(settings.home / STORE) as store:
            store.add_examples([Example(text=ALPHABET)], "test")
        yield cloud, settings


def asked(cloud, **changed):
    told = {
        "kit": cloud.manifest.id,
        "fingerprint": cloud.manifest.fingerprint,
        "number": 1,
        "rounds": 3,
        "rate": 0.5,
        "epochs": 1,
        "private": False,
        "last": False,
    }
    return Round(**(told | changed))


def participant(link, now=time(12)):
    return Participant(link, Watcher(), lambda: now)


def test_nothing_happens_unless_the_person_allows_it(world):
    cloud, settings = world
    with Link(replace(settings, federated="off")) as link, pytest.raises(NotAllowed):
        participant(link)
    assert cloud.read == []


def test_a_device_without_texts_has_no_part(world, tmp_path):
    _, settings = world
    with Link(replace(settings, home=tmp_path / "empty")) as link, pytest.raises(NothingToLearn):
        participant(link)


def test_an_update_is_what_training_added(world):
    cloud, settings = world
    begun = {"scale": np.full(HIDDEN, 0.25, np.float32)}
    with Link(settings) as link:
        device = participant(link)
        update = device.train(asked(cloud), begun)
        better = {"scale": begun["scale"] + update.added["scale"]}
        before, after = (
            device.receive(asked(cloud, last=True), weights).shared for weights in (begun, better)
        )
    assert np.abs(update.added["scale"]).max() > 0
    assert after == pytest.approx(update.held_out)
    assert after < before
    assert update.tokens > 300
    assert not (settings.home / "federated" / "round.safetensors").exists()


def test_the_same_round_gives_the_same_update(world):
    cloud, settings = world
    with Link(settings) as link:
        device = participant(link)
        one, same = (device.train(asked(cloud), ZERO).added["scale"] for _ in range(2))
        other = device.train(asked(cloud, number=2), ZERO).added["scale"]
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 0


def test_the_proximal_weight_holds_an_update_back(world):
    cloud, settings = world
    with Link(settings) as link:
        device = participant(link)
        norms = [
            np.linalg.norm(device.train(asked(cloud, proximal=mu), ZERO).added["scale"])
            for mu in (0.0, 1.0, 100.0)
        ]
    assert norms[0] > norms[1] > norms[2] > 0


def test_what_is_not_this_devices_is_refused(world):
    cloud, settings = world
    with Link(replace(settings, train_hours="22:00-07:00")) as link:
        device = participant(link)
        with pytest.raises(NotNow):
            device.train(asked(cloud), ZERO)
        night = participant(link, time(23))
        for changed in ({"kit": "other"}, {"fingerprint": "0" * 64}):
            with pytest.raises(OtherKit):
                night.train(asked(cloud, **changed), ZERO)
        with training_lock(settings.home), pytest.raises(AlreadyTraining):
            night.train(asked(cloud), ZERO)
    assert find(settings.home) is None


class Dying(Watcher):
    """Ends the process's work after some steps, as a kill would."""

    def __init__(self, steps):
        self.left = steps

    def training(self, progress):
        self.left -= 1
        if self.left == 0:
            raise SystemExit


def test_a_round_that_was_killed_goes_on_and_gives_the_same_update(world, monkeypatch):
    cloud, settings = world
    with Link(settings) as link:
        whole = participant(link).train(asked(cloud, epochs=2), ZERO)
        dying = Participant(link, Dying(12), lambda: time(12))
        # Every step is written down, as the kill may come after any.
        dying._options = replace(dying._options, checkpoint_seconds=0.0)
        with pytest.raises(SystemExit):
            dying.train(asked(cloud, epochs=2), ZERO)
        assert (settings.home / "federated" / "round.safetensors").exists()
        again = participant(link).train(asked(cloud, epochs=2), ZERO)
    np.testing.assert_array_equal(again.added["scale"], whole.added["scale"])


def test_training_begins_with_the_shared_weights_and_leaves_them_alone(world):
    cloud, settings = world
    shared = Shared(cloud.manifest.id, 3, 3, {"scale": np.full(HIDDEN, 0.5, np.float32)})
    keep(settings.home, shared)
    with Link(settings) as link:
        # A rate so small that what is learned cannot hide where it began.
        lesson = learn(link, {"threads": 1, "rate": 1e-7}, Watcher())
    version = PluginStore(settings.home).versions()[-1]
    np.testing.assert_allclose(version.weights()["scale"], 0.5, atol=1e-4)
    assert version.config["sideplug"]["shared"] == {"round": 3, "digest": shared.digest}
    assert find(settings.home).digest == shared.digest
    assert lesson.evaluation.plugin < lesson.evaluation.base


def test_shared_weights_that_training_does_not_better_stay(world):
    cloud, settings = world
    weights = np.full(HIDDEN, 2.0, np.float32)
    keep(settings.home, Shared(cloud.manifest.id, 1, 1, {"scale": weights}))
    with Link(settings) as link:
        lesson = learn(link, {"threads": 1, "rate": 1e-30}, Watcher())
    assert lesson.trained.course.best_epoch == 0
    assert lesson.trained.course.best == lesson.trained.course.history[0]["validation"]
    np.testing.assert_array_equal(lesson.version.weights()["scale"], weights)


def test_shared_weights_of_another_kit_are_not_begun_with(world):
    _, settings = world
    keep(settings.home, Shared("other", 1, 1, {"scale": np.full(HIDDEN, 9.0, np.float32)}))
    with Link(settings) as link:
        learn(link, {"threads": 1, "rate": 1e-7}, Watcher())
    version = PluginStore(settings.home).versions()[-1]
    assert version.config["sideplug"]["shared"] is None
    assert np.abs(version.weights()["scale"]).max() < 1e-3
