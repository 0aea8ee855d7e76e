"""Replicas behind Ray Serve: each device stays at one of them, and outlives the loss of any."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest

from cloud_service.pull import pull
from cloud_service.registry import Registry
from device_agent.cloud.client import CloudClient
from device_agent.cloud.session import RemoteSession
from protocol.messages import SessionRequest, Wants
from tests.tiny import tiny_folder

ROOT = Path(__file__).parents[2]
WANTS = Wants(layers=(), final=True, log_z=False, candidates=1, codec="f32")
DEVICES = 6

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@contextmanager
def serving(cache, *flags):
    """Replicas on a free port: the process that runs them, and their address."""
    pytest.importorskip("ray")
    pull(str(tiny_folder("llama", cache / "tiny-llama")), Registry(cache), lambda _: None)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "cloud_service", "serve", "--json", *flags]
    command += ["--port", str(port), "--threads", "1", "--weights", "f32", "--kv", "64"]
    command += ["--cache", str(cache), "--backbone", "tiny-llama"]
    environ = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "RAY_ADDRESS": ""}
    with subprocess.Popen(command, cwd=ROOT, env=environ, stdout=subprocess.PIPE) as process:
        try:
            assert json.loads(process.stdout.readline())["event"] == "serving"
            yield process, json.loads(process.stdout.readline())["url"]
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
        finally:
            if process.poll() is None:
                for member in psutil.Process(process.pid).children(recursive=True):
                    member.kill()
                process.kill()


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


def test_devices_stay_at_their_replica_and_outlive_its_loss(tmp_path):
    with serving(tmp_path, "--replicas", "2") as (process, url), ExitStack() as stack:
        clients = [stack.enter_context(CloudClient(url)) for _ in range(DEVICES)]
        prompts = [[5, 6, 7, 8 + number] for number in range(DEVICES)]
        truth = [list(prompt) for prompt in prompts]
        go_on([RemoteSession(client, WANTS) for client in clients], truth, 24)
        sessions = [RemoteSession(client, WANTS) for client in clients]
        texts = [list(prompt) for prompt in prompts]
        names = [session._opened.session for session in sessions]
        go_on(sessions, texts, 8)
        # Not one was replayed: every step found its session.
        assert [session._opened.session for session in sessions] == names
        for _ in range(2):
            replicas_of(process)[0].kill()
            go_on(sessions, texts, 8)
            while len(replicas_of(process)) < 2:
                time.sleep(0.5)
        assert any(session._opened.session not in names for session in sessions)
        assert texts == truth


def test_more_sessions_bring_another_replica(tmp_path):
    flags = ("--replicas", "1", "--max-replicas", "2", "--sessions", "4")
    with serving(tmp_path, *flags) as (process, url), CloudClient(url) as cloud:
        assert len(replicas_of(process)) == 1
        for _ in range(4):
            cloud.open_session(SessionRequest(WANTS))
        while len(replicas_of(process)) < 2:
            time.sleep(0.5)
