"""The agent as a process of its own, as a person starts it."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields

import httpx

from device_agent.daemon.instance import token_of
from device_agent.settings import Settings, variable


@dataclass(frozen=True)
class Served:
    process: subprocess.Popen[str]
    url: str
    token: str
    settings: Settings

    def http(self, **options: object) -> httpx.Client:
        headers = {"authorization": f"Bearer {self.token}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=60, **options)


def environ_of(settings: Settings, **changed: object) -> dict[str, str]:
    told = {field.name: str(getattr(settings, field.name)) for field in fields(Settings)}
    told |= {name: str(value) for name, value in changed.items()}
    return {**os.environ, **{variable(name): value for name, value in told.items()}}


def start(settings: Settings, *words: str, **changed: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "device_agent", *words],
        env=environ_of(settings, **changed),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextmanager
def served(settings: Settings, **changed: object) -> Iterator[Served]:
    process = start(settings, "up", "--port", "0", "--json", **changed)
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        line = process.stdout.readline()
        assert line, process.stderr.read()
        yield Served(process, json.loads(line)["url"], token_of(settings.home), settings)
    finally:
        process.terminate()
        process.communicate(timeout=30)
