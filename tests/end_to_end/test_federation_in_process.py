"""A whole federation in one process, over real sockets: a server, and a thread for each device."""

import threading
from contextlib import ExitStack, suppress
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("flwr")

from safetensors.numpy import load_file

from cloud_service.federated.plan import Plan
from cloud_service.federated.record import Record
from cloud_service.federated.rounds import Federation
from cloud_service.federated.superlink import Address, CannotListen, serving
from device_agent.cloud.link import STORE, Link
from device_agent.data.examples import Example
from device_agent.data.store import Store
from device_agent.egress.ledger import totals
from device_agent.egress.policy import PolicyForbids
from device_agent.federated.joining import join
from device_agent.federated.node import ServerAway
from device_agent.federated.shared import find
from device_agent.training.watcher import Watcher
from tests.device_agent.teaching import ALPHABET, TeachingCloud, settings_of

MOST = 2**20


@pytest.fixture
def cloud(tmp_path):
    cloud = TeachingCloud(tmp_path / "cloud", 32)
    with cloud.serving():
        yield cloud


def home(tmp_path, cloud, number):
    settings = settings_of(tmp_path / f"home-{number}", cloud.url)
    with Store(settings.home / STORE) as store:
        store.add_examples([Example(text=ALPHABET[number : number + 300])], "test")
    return replace(settings, federated="on")


class Device(threading.Thread):
    """``sideplug federate join`` on a thread."""

    def __init__(self, settings, url):
        super().__init__(daemon=True)
        self.settings, self.url, self.said, self.joined = settings, url, [], None
        self.start()

    def run(self):
        # One that is refused asks again, and the test's server may be gone by then.
        with suppress(ServerAway), Link(self.settings) as link:
            self.joined = join(link, self.url, 60, Watcher(), self.said.append)


def federate(tmp_path, cloud, plan, homes):
    initial = load_file(tmp_path / "cloud" / "initial.safetensors")
    record, said = Record(tmp_path / "record", cloud.manifest.id, plan), []
    with serving(Address("127.0.0.1", 0), None, MOST) as link:
        federation = Federation(link, cloud.manifest, initial, plan, record, said.append)
        devices = [Device(settings, link.url) for settings in homes]
        told = federation.run()
        for device in devices:
            device.join(60)
    return told, devices, federation.state, said


def test_shared_weights_come_of_everybodys_updates(tmp_path, cloud):
    homes = [home(tmp_path, cloud, number) for number in range(2)]
    plan = Plan(devices=2, least=2, rounds=2, rate=0.3)
    told, devices, state, said = federate(tmp_path, cloud, plan, homes)
    assert [one["answered"] for one in told["log"]] == [2, 2]
    assert told["last"]["shared"] < told["last"]["frozen"]
    assert any("round 2 of 2: 2 of 2 updates" in one for one in said)
    for device in devices:
        assert device.joined.rounds == 2
        assert "ended after 2 rounds" in device.said[-1]
        shared = find(device.settings.home)
        np.testing.assert_allclose(shared.weights["scale"], state.weights["scale"], rtol=2**-10)
        with Store(device.settings.home / STORE) as store:
            rows = [row for row in totals(store) if row.group["kind"] == "federated"]
        assert sum(row.up for row in rows) >= device.joined.up > 0
        assert sum(row.down for row in rows) == device.joined.down > 0

    # Begun again with more rounds, it goes on where it was.
    more = replace(plan, rounds=3)
    again, _, _, said = federate(tmp_path, cloud, more, homes)
    assert [one["round"] for one in again["log"]] == [3]
    assert "going on after round 2" in said


def test_sparse_updates_lead_as_far_and_move_less(tmp_path, cloud):
    homes = [home(tmp_path, cloud, number) for number in range(2)]
    plan = Plan(devices=2, least=2, rounds=3, rate=0.3, kept=0.25)
    told, devices, state, _ = federate(tmp_path, cloud, plan, homes)
    assert [one["answered"] for one in told["log"]] == [2, 2, 2]
    assert told["last"]["shared"] < told["last"]["frozen"]
    # One round's share of each device, and no more, was moved in the first; all together more.
    assert np.count_nonzero(state.weights["scale"]) > 16
    for device in devices:
        assert (device.settings.home / "federated" / "residual.safetensors").is_file()
        assert find(device.settings.home) is not None


def test_a_device_that_may_not_now_is_refused_and_learns_nothing(tmp_path, cloud):
    homes = [home(tmp_path, cloud, number) for number in range(2)]
    homes[1] = replace(homes[1], train_hours="03:00-03:00")
    plan = Plan(devices=2, least=1, rounds=1, rate=0.3)
    with ExitStack() as life:
        initial = load_file(tmp_path / "cloud" / "initial.safetensors")
        link = life.enter_context(serving(Address("127.0.0.1", 0), None, MOST))
        record = Record(tmp_path / "record", cloud.manifest.id, plan)
        federation = Federation(link, cloud.manifest, initial, plan, record, lambda _: None)
        devices = [Device(settings, link.url) for settings in homes]
        told = federation.run()
        devices[0].join(60)
        (line,) = told["log"]
        assert (line["answered"], line["void"]) == (1, False)
        assert "NotNow" in line["refused"][0]["reason"]
        assert devices[0].joined.rounds == 1
        assert any(one.startswith("refused: this device trains at") for one in devices[1].said)
        assert find(homes[1].home) is None


def test_a_policy_keeps_updates_here(tmp_path, cloud):
    settings = home(tmp_path, cloud, 0)
    (settings.home / "policy.toml").write_text('never = ["federated"]\n')
    with Link(settings) as link, pytest.raises(PolicyForbids, match="federated"):
        join(link, "http://127.0.0.1:9", 0, Watcher(), lambda _: None)


def test_a_server_that_never_answers_is_told(tmp_path, cloud):
    with Link(home(tmp_path, cloud, 0)) as link, pytest.raises(ServerAway):
        join(link, "http://127.0.0.1:9", 0, Watcher(), lambda _: None)


def test_an_address_that_is_taken_is_told():
    with serving(Address("127.0.0.1", 0), None, MOST) as link:
        port = int(link.url.rsplit(":", 1)[1])
        with pytest.raises(CannotListen), serving(Address("127.0.0.1", port), None, MOST):
            pass
