"""A federation of real processes: a server, devices, and what befalls them."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest
from safetensors.numpy import load_file

pytest.importorskip("flwr")

from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from device_agent.cloud.link import STORE
from device_agent.data.examples import Example
from device_agent.data.store import Store
from device_agent.egress.ledger import totals
from device_agent.federated.client_app import asked_of
from device_agent.federated.node import Meter as NodeMeter
from device_agent.federated.node import NotAdmitted, Server, connected, take_part
from device_agent.federated.shared import find
from protocol.federation import ARRAYS, EXAMPLES, METRICS
from tests.device_agent.serving import environ_of
from tests.device_agent.small_kit import HIDDEN
from tests.device_agent.teaching import ALPHABET, TeachingCloud, settings_of

ROOT = Path(__file__).parents[2]
SERVER = ROOT / "tests" / "end_to_end" / "federation_server.py"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


class World:
    """A cloud with the teaching kit, homes that know it, and a federation's folder."""

    def __init__(self, folder, life):
        self._life = life
        self._folder = folder
        self.cloud = TeachingCloud(folder / "cloud", 32)
        life.enter_context(self.cloud.serving())
        self.server_folder = folder / "server"
        shutil.copytree(folder / "cloud", self.server_folder)
        manifest = json.dumps(self.cloud.manifest.to_json())
        (self.server_folder / "manifest.json").write_text(manifest)

    def home(self, number):
        settings = settings_of(self._folder / f"home-{number}", self.cloud.url)
        settings = replace(settings, federated="on")
        if not (settings.home / STORE).exists():
            with Store(settings.home / STORE) as store:
                store.add_examples([Example(text=ALPHABET[number : number + 300])], "test")
        return settings

    def server(self, port=0, **plan):
        """The process, once it listens, and its address."""
        command = [sys.executable, str(SERVER), str(self.server_folder), str(port)]
        process = self._started([*command, json.dumps(plan)], {"PYTHONPATH": str(ROOT)})
        return process, json.loads(process.stdout.readline())["url"]

    def device(self, number, url, *words):
        settings = self.home(number)
        command = [sys.executable, "-m", "device_agent", "federate", "join", url, "--json"]
        return self._started([*command, "--wait", "300", *words], environ_of(settings))

    def state(self):
        arrays = load_file(self.server_folder / "record" / "state.safetensors")
        return arrays["weights.scale"]

    def log(self):
        path = self.server_folder / "record" / "rounds.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()]

    def _started(self, command, environ):
        process = subprocess.Popen(
            command,
            env=os.environ | environ | {"PYTHONPATH": str(ROOT)},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._life.callback(ended, process)
        return process


def ended(process):
    if process.poll() is None:
        process.kill()
    process.wait()
    process.stdout.close()
    process.stderr.close()


def answer_of(process):
    """What a process that ended well printed last, as JSON."""
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return json.loads(out.strip().splitlines()[-1])


@pytest.fixture
def world(tmp_path):
    with ExitStack() as life:
        yield World(tmp_path, life)


def wait_until(holds, seconds=300):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_devices_learn_together_and_what_moved_is_on_record(world):
    server, url = world.server(devices=3, rounds=2, rate=0.3)
    devices = [world.device(number, url) for number in range(3)]
    joined = [answer_of(device) for device in devices]
    told = answer_of(server)
    assert (told["rounds"], told["ending"]) == (2, "finished")
    assert [one["answered"] for one in told["log"]] == [3, 3]
    assert told["last"]["shared"] < told["last"]["frozen"]
    assert [one["rounds"] for one in joined] == [2, 2, 2]
    for number, one in enumerate(joined):
        shared = find(world.home(number).home)
        np.testing.assert_allclose(shared.weights["scale"], world.state(), rtol=2**-10)
        with Store(world.home(number).home / STORE) as store:
            rows = [row for row in totals(store) if row.group["kind"] == "federated"]
        assert sum(row.up for row in rows) >= one["bytes_up"] > 2 * 2 * HIDDEN
        assert sum(row.down for row in rows) == one["bytes_down"] > 3 * 2 * HIDDEN
    up = sum(one["bytes_up"] for one in told["log"])
    assert up <= sum(one["bytes_up"] for one in joined)


def test_a_device_that_may_not_takes_no_part(world):
    _, url = world.server(devices=1)
    settings = replace(world.home(0), federated="off")
    command = [sys.executable, "-m", "device_agent", "federate", "join", url]
    done = subprocess.run(
        command, env=environ_of(settings), capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 1
    assert "switched off" in done.stderr
    assert "--federated on" in done.stderr


def test_a_killed_device_costs_a_round_at_most(world):
    server, url = world.server(devices=3, rounds=3, least=2, round_seconds=60, rate=0.1)
    devices = [world.device(number, url) for number in range(3)]
    wait_until(lambda: (world.server_folder / "record" / "rounds.jsonl").exists())
    devices[0].send_signal(signal.SIGKILL)
    told = answer_of(server)
    for device in devices[1:]:
        assert answer_of(device)["rounds"] == 3
    assert told["rounds"] == 3
    assert all(not one["void"] and one["answered"] >= 2 for one in told["log"])
    assert told["log"][0]["answered"] == 3


def test_a_killed_server_goes_on_where_it_was(world):
    plan = {"devices": 2, "least": 2, "rounds": 4, "rate": 0.1, "strategy": "fedadamw"}
    server, url = world.server(**plan)
    devices = [world.device(number, url) for number in range(2)]
    log = world.server_folder / "record" / "rounds.jsonl"
    wait_until(lambda: log.exists() and len(world.log()) >= 2)
    server.send_signal(signal.SIGKILL)
    server.wait()
    done = len(world.log())
    again, _ = world.server(port=int(url.rsplit(":", 1)[1]), **plan)
    told = answer_of(again)
    assert told["rounds"] == 4
    assert [one["round"] for one in world.log()][:done] == list(range(1, done + 1))
    assert told["log"][0]["round"] in (done, done + 1)
    for device in devices:
        assert answer_of(device)["rounds"] >= 4


@contextmanager
def rogue(url, arrays_for, key=None):
    """A device in a process of this test's own making that answers with whatever it likes."""
    app = ClientApp()

    @app.train()
    def train(message, context):
        figures = {EXAMPLES: 5, "loss": 1.0, "held-out": 1.0}
        record = ArrayRecord({n: Array(a) for n, a in arrays_for(message).items()})
        return Message(
            RecordDict({ARRAYS: record, METRICS: MetricRecord(figures)}), reply_to=message
        )

    @app.evaluate()
    def evaluate(message, context):
        return Message(RecordDict({METRICS: MetricRecord({EXAMPLES: -1})}), reply_to=message)

    yield lambda: take_part(
        Server(url),
        app,
        key=key,
        wait=300,
        answered=lambda message, _: asked_of(message).last,
        leaving=lambda size: None,
        traffic=lambda up, down: None,
        note=lambda _: None,
    )


@pytest.mark.parametrize(
    "arrays",
    [
        {"scale": np.full(HIDDEN, np.nan, np.float16)},
        {"scale": np.zeros(HIDDEN + 1, np.float16)},
        {"of another kit": np.zeros(4, np.float16)},
    ],
    ids=["not a number", "another shape", "another kit"],
)
def test_a_device_that_sends_nonsense_is_refused_and_the_round_goes_on(world, arrays):
    server, url = world.server(devices=2, rounds=1, least=1, rate=0.3)
    device = world.device(0, url)
    with rogue(url, lambda _: arrays) as run:
        run()
    assert answer_of(device)["rounds"] == 1
    told = answer_of(server)
    (line,) = told["log"]
    assert (line["answered"], len(line["refused"]), line["void"]) == (1, 1, False)
    assert np.isfinite(world.state()).all()
    assert np.abs(world.state()).max() > 0
    # The rogue's figures are left out of the means too.
    assert told["last"]["shared"] < told["last"]["frozen"]


def test_a_straggler_is_not_waited_for(world):
    server, url = world.server(devices=2, rounds=2, least=1, round_seconds=15, rate=0.1)
    device = world.device(0, url)

    def late(_):
        time.sleep(20)
        return {"scale": np.full(HIDDEN, 9.0, np.float16)}

    with rogue(url, late) as run:
        run()
    told = answer_of(server)
    answer_of(device)
    assert [one["missing"] for one in told["log"]] == [1, 1]
    assert np.abs(world.state()).max() < 2


def test_a_private_federation_prints_its_budget_and_hears_no_figures(world):
    plan = {"devices": 2, "least": 2, "rounds": 2, "rate": 0.1, "noise": 1.0, "clip": 0.1}
    server, url = world.server(**plan)
    devices = [world.device(number, url) for number in range(2)]
    out, said = server.communicate(timeout=300)
    told = json.loads(out.strip().splitlines()[-1])
    assert [one["figures"] for one in told["log"]] == [{}, {}]
    assert 0 < told["log"][0]["epsilon"] < told["log"][1]["epsilon"] == told["epsilon"]
    assert f"epsilon {told['epsilon']:.3f} at delta 1e-05" in said
    for device in devices:
        assert answer_of(device)["rounds"] == 2


def test_only_admitted_devices_take_part(world):
    settings = world.home(0)
    command = [sys.executable, "-m", "device_agent", "federate", "key"]
    key = subprocess.run(
        command, env=environ_of(settings), capture_output=True, text=True, cwd=ROOT, check=True
    ).stdout
    assert key.startswith("-----BEGIN PUBLIC KEY-----")
    assert (settings.home / "federated" / "key.pem").stat().st_mode & 0o077 == 0
    (world.server_folder / "admitted.pem").write_text(key)
    server, url = world.server(devices=1, rounds=1, rate=0.1)
    with pytest.raises(NotAdmitted), connected(Server(url), None, NodeMeter()):
        pass
    assert answer_of(world.device(0, url))["rounds"] == 1
    assert answer_of(server)["rounds"] == 1


def test_the_server_offers_nothing_but_its_devices_interface(world):
    _, url = world.server(devices=1)
    headers = {"content-type": "application/protobuf"}
    for path in ("/v1/control/start-run", "/v1/runtime/get-nodes"):
        assert httpx.post(url + path, content=b"", headers=headers).status_code == 404
    for path in ("/docs", "/openapi.json", "/"):
        assert httpx.get(url + path).status_code == 404
    pull = f"{url}/v1/fleet/pull-messages"
    assert httpx.post(pull, content=b"", headers=headers).status_code == 401
    assert httpx.post(pull, content=b"x" * (2**20 + 1), headers=headers).status_code == 413
    assert httpx.post(pull, content=iter([b"x"]), headers=headers).status_code == 413
