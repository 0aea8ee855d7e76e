"""Devices that share thresholds alone: a compiled kit, features from the real service, rounds by hand."""

import logging
from dataclasses import replace
from datetime import time

import numpy as np
import pytest
import torch

from adapters.compile import compile_kit
from adapters.plan import kit_id
from adapters.recipe import Recipe
from adapters.targets.sparse_ladder import PRUNED
from cloud_service.backbones.head_weights import head_weights
from cloud_service.pull import pull
from cloud_service.registry import Registry
from device_agent.cloud.link import STORE, Link
from device_agent.data.examples import Example
from device_agent.data.store import Store
from device_agent.federated.participant import OtherKit, Participant
from device_agent.federated.shared import OWN, find, forget_own, of_kit, own_weights
from device_agent.plugins import PluginStore
from device_agent.settings import Settings
from device_agent.training.learning import learn
from device_agent.training.watcher import Watcher
from protocol.federation import Round
from tests.cloud_service.running import running, service_for
from tests.tiny import TRAINING_TEXT, tiny_folder

pytestmark = pytest.mark.slow

RECIPE = Recipe(
    name="sparse", target="sparse_ladder", taps=(0.5, 1.0), width=16, loss="full", rate=1e-2
)
THRESHOLDS = {f"{name}_threshold" for name in PRUNED}


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """Address of a service, and the manifest of its kit."""
    torch.set_num_threads(1)
    cache = tmp_path_factory.mktemp("cache")
    folder = tiny_folder("llama", tmp_path_factory.mktemp("models") / "tiny")
    pulled = pull(str(folder), Registry(cache), logging.debug)
    facts, head = pulled.record.facts(), head_weights(pulled.folder)
    kits = cache / "kits" / kit_id(RECIPE, facts)
    manifest = compile_kit(RECIPE, facts, head, kits, logging.debug)
    with running(service_for(cache, pulled)) as service:
        service.wait()
        yield str(service.http.base_url), manifest


@pytest.fixture
def links(served, tmp_path):
    """Two homes with texts of their own."""
    url, manifest = served
    found = []
    for number in range(2):
        home = tmp_path / f"home-{number}"
        settings = Settings(
            home=home, cloud=url, recipe=manifest.id, threads=1, prefix=0, memory="off"
        )
        with Store(home / STORE) as store:
            text = " ".join(TRAINING_TEXT[number : number + 2] * 30)
            store.add_examples([Example(text=text)], "test")
        found.append(Link(replace(settings, federated="on")))
    yield found
    for link in found:
        link.close()


def asked(manifest, number, **changed):
    told = {
        "kit": manifest.id,
        "fingerprint": manifest.fingerprint,
        "number": number,
        "rounds": 3,
        "rate": 1e-2,
        "epochs": 4,
        "private": False,
        "last": False,
    }
    return Round(**(told | changed))


def participant(link):
    return Participant(link, Watcher(), lambda: time(12))


def test_thresholds_travel_and_everything_else_stays(served, links):
    _, manifest = served
    devices = [participant(link) for link in links]
    shared = {
        one.name: np.zeros(one.shape, np.float32)
        for one in manifest.weights
        if one.name in THRESHOLDS
    }
    for number in (1, 2, 3):
        question = asked(manifest, number)
        updates = [device.train(question, shared) for device in devices]
        sent = [device.wire(question, one) for device, one in zip(devices, updates, strict=True)]
        assert [wire.keys() for wire in sent] == [THRESHOLDS] * 2
        shared = {
            name: (one + (sent[0][name].astype(np.float32) + sent[1][name]) / 2).astype(np.float32)
            for name, one in shared.items()
        }
    last = asked(manifest, 3, last=True)
    received = [device.receive(last, shared) for device in devices]
    assert [one.shared < one.base for one in received] == [True, True], received
    kept = [of_kit(link.settings.home, manifest).weights for link in links]
    for name, one in shared.items():
        assert np.abs(one).max() > 0
        for weights in kept:
            np.testing.assert_array_equal(weights[name], one)
    # Each has weights of its own, which its own training goes on with.
    assert np.abs(kept[0]["up"] - kept[1]["up"]).max() > 1e-3
    home = links[0].settings.home
    learn(links[0], {"threads": 1, "rate": 1e-9}, Watcher())
    begun = PluginStore(home).versions()[-1].weights()
    for name, one in kept[0].items():
        np.testing.assert_allclose(begun[name], one, atol=1e-5)

    forget_own(home)
    assert not (home / "federated" / OWN).exists()
    assert find(home) is not None
    assert of_kit(home, manifest) is None


def test_own_weights_follow_what_came_once_however_often_a_round_is_asked_for(served, links):
    _, manifest = served
    device, home = participant(links[0]), links[0].settings.home
    initial = links[0].kit(manifest.id).initial()
    zero = {name: initial[name] for name in THRESHOLDS}
    device.train(asked(manifest, 1), zero)
    trained = own_weights(home, manifest).latest()
    came = {name: one + np.float32(0.25) for name, one in zero.items()}
    # A rate so small that training hides nothing.
    still = asked(manifest, 2, rate=1e-9)
    for _ in range(2):
        device.train(still, came)
        moved = own_weights(home, manifest).latest()
        for name in PRUNED:
            weight = trained[name]
            way = 0.25 * np.sign(weight.sum(1, keepdims=True)) / weight.shape[1]
            np.testing.assert_allclose(moved[name], weight - way, atol=1e-5)


def test_a_federation_over_whole_weights_is_refused(served, links):
    _, manifest = served
    device = participant(links[0])
    with pytest.raises(OtherKit):
        device.train(asked(manifest, 1, kit="another"), {})
    assert not (links[0].settings.home / "federated").exists()
