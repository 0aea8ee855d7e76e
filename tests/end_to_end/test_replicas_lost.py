"""Replicas behind Ray Serve: each device stays at one of them, and outlives the loss of any."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from cloud_service.pull import pull
from cloud_service.registry import Registry
from device_agent.cloud import CloudClient
from device_agent.session import RemoteSession
from protocol.messages import Wants
from tests.tiny import tiny_folder

ROOT = Path(__file__).parents[2]
WANTS = Wants(layers=(), final=True, log_z=False, candidates=1, codec="f32")
DEVICES = 6

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def served(tmp_path):
    """Two replicas on a free port: the process that runs them, and their address."""
    pytest.importorskip("ray")
    pull(str(tiny_folder("llama", tmp_path / "tiny-llama")), Registry(tmp_path), lambda _: None)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "cloud_service", "serve", "--json", "--replicas", "2"]
    command += ["--port", str(port), "--threads", "1", "--weights", "f32", "--kv", "64"]
    command += ["--cache", str(tmp_path), "--backbone", "tiny-llama"]
    environ = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    environ |= {"SIDEPLUG_CLOUD_RECIPE": "ladder", "RAY_ADDRESS": ""}
    with subprocess.Popen(command, cwd=ROOT, env=environ, stdout=subprocess.PIPE) as process:
        try:
            assert json.loads(process.stdout.readline())["event"] == "serving"
            yield process, json.loads(process.stdout.readline())["url"]
        finally:
            family = (
                psutil.Process(process.pid).children(recursive=True)
                if process.poll() is None
                else []
            )
            process.terminate()
            process.wait(60)
            for member in psutil.wait_procs(family, timeout=20)[1]:
                member.kill()


def replicas_of(process):
    family = psutil.Process(process.pid).children(recursive=True)
    return [
        one
        for one in family
        if one.name().startswith("ray::ServeRepl") or "ServeReplica" in " ".join(one.cmdline())
    ]


def go_on(sessions, texts, count):
    """Some greedy tokens more in every session."""
    for _ in range(count):
        for session, text in zip(sessions, texts, strict=True):
            fed = text[session.position :]
            text.append(int(session.step(fed).candidates.ids[-1, 0]))


def test_devices_stay_at_their_replica_and_outlive_its_loss(served):
    process, url = served
    clients = [CloudClient(url) for _ in range(DEVICES)]
    prompts = [[5, 6, 7, 8 + number] for number in range(DEVICES)]
    truth = [list(prompt) for prompt in prompts]
    go_on([RemoteSession(client, WANTS) for client in clients], truth, 24)
    sessions = [RemoteSession(client, WANTS) for client in clients]
    texts = [list(prompt) for prompt in prompts]
    names = [session._opened.session for session in sessions]
    go_on(sessions, texts, 8)
    # Not one was replayed: every step found its session.
    assert [session._opened.session for session in sessions] == names
    for lost in range(2):
        replicas_of(process)[0].kill()
        go_on(sessions, texts, 8)
        assert any(session._opened.session not in names for session in sessions) or lost == 0
        while len(replicas_of(process)) < 2:
            time.sleep(0.5)
    assert texts == truth
    for client in clients:
        client.close()
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
