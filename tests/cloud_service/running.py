"""A real service on a real socket, in a thread, with a client that knows the protocol."""

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import uvicorn

from adapters.plan import kit_id
from adapters.recipe import RECIPES
from cloud_service.app import create_app
from cloud_service.registry import Pulled
from cloud_service.serve import listen, server_for, url_of
from cloud_service.service import Service, build
from cloud_service.settings import Settings
from protocol import versions
from protocol.errors import Fault, fault_from_json
from protocol.gate import Gate
from protocol.kit import KitFile, KitManifest
from protocol.messages import Ids, PrefixKept, SessionOpened, SessionRequest, States, Tokens, Wants
from tests.protocol.samples import KIT

FINAL = Wants(layers=(), final=True, log_z=False, candidates=0, codec="f32")
EVERYTHING = Wants(layers=(0, 2, 4), final=True, log_z=True, candidates=5, codec="f32")


def ids_of(count: int, seed: int = 0) -> Ids:
    return np.random.default_rng(seed).integers(3, 500, count).astype(np.uint32)


def tokens_of(
    ids: Ids,
    position: int = 0,
    wanted: int | None = None,
    step: int = 0,
    drafts: int = 0,
    alone: int = 0,
) -> Tokens:
    array = np.asarray(ids, np.uint32)
    return Tokens(step, position, wanted or len(ids), array, drafts, alone=alone)


@dataclass
class Running:
    service: Service
    http: httpx.Client
    server: uvicorn.Server

    def wait(self) -> None:
        """Return when the backbone is in memory; kernels may have to be compiled for that."""
        for _ in range(3000):
            if self.http.get("/health").status_code == 200:
                return
            time.sleep(0.02)
        raise TimeoutError

    def keep(self, tokens: Tokens) -> PrefixKept:
        answer = self.http.post("/v1/prefixes", content=versions.encode(tokens))
        assert answer.status_code in (200, 201), answer.text
        return PrefixKept.from_json(answer.json())

    def open(
        self, wants: Wants = FINAL, prefix: str | None = None, gate: Gate | None = None
    ) -> SessionOpened:
        request = SessionRequest(wants, prefix=prefix, gate=gate).to_json()
        answer = self.http.post("/v1/sessions", json=request)
        assert answer.status_code == 201, answer.text
        return SessionOpened.from_json(answer.json())

    def post(self, session: str, tokens: Tokens) -> httpx.Response:
        return self.http.post(f"/v1/sessions/{session}/step", content=versions.encode(tokens))

    def step(self, session: str, tokens: Tokens) -> States:
        answer = self.post(session, tokens)
        assert answer.status_code == 200, answer.text
        states = versions.decode(answer.content)
        assert isinstance(states, States)
        return states


def fault_in(answer: httpx.Response) -> Fault:
    """Return the fault that an answer carries, whose status must be the answer's."""
    fault = fault_from_json(answer.json())
    assert answer.status_code == fault.status
    assert answer.headers["content-type"] == "application/json"
    return fault


def service_for(cache: Path, pulled: Pulled, **settings: Any) -> Service:
    name = pulled.record.name
    chosen: dict[str, Any] = {
        "recipe": (),
        "threads": 1,
        "weights": "f32",
        **settings,
    }
    return build(Settings(cache=cache, backbone=name, port=0, **chosen))


def put_kit(cache: Path, pulled: Pulled, recipe: str) -> KitManifest:
    """Write a kit as the compiler would, but for what is in its files."""
    facts = pulled.record.facts()
    contents = {"infer.onnx": bytes(range(256)) * 3, "train.onnx": b"train", "head.codes": b""}
    manifest = replace(
        KIT,
        id=kit_id(RECIPES[recipe], facts),
        recipe=recipe,
        fingerprint=facts.fingerprint,
        tokenizer_sha256=facts.tokenizer_sha256,
        files={
            name: KitFile(hashlib.sha256(data).hexdigest(), len(data))
            for name, data in contents.items()
        },
    )
    folder = cache / "kits" / manifest.id
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    (folder / "manifest.json").write_text(json.dumps(manifest.to_json()))
    return manifest


@contextmanager
def running(service: Service, **client: Any) -> Iterator[Running]:
    """The service with a client of it; ``client`` are further arguments of ``httpx.Client``."""
    with listen("127.0.0.1", 0) as opened:
        server = server_for(create_app(service), service.settings, service.admission)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [opened]})
        thread.start()
        try:
            url = url_of(opened, bool(service.settings.tls_cert))
            with httpx.Client(base_url=url, timeout=30, **client) as http:
                yield Running(service, http, server)
        finally:
            server.should_exit = True
            thread.join()
