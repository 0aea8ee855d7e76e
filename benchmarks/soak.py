"""
What is left when everybody has behaved badly for a while?

Some clients at once open sessions, use, crop, close and abandon them, send malformed frames and
claims that no memory could hold, hang up in the middle of a body, and ask for what is not there.
Nothing of it may be the service's fault: no status 5xx but the 503 that says to come again; and
when all are gone, no session is left and the memory is what it was. Keys and values have a budget,
and the system gives that memory when it is first written: it is filled once before anything counts.
"""

import argparse
import json
import socket
import statistics
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from random import Random
from urllib.parse import urlsplit

import httpx
import numpy as np
import psutil

from benchmarks import malformed, texts
from benchmarks.report import Figure, Outcome, Rows, say
from benchmarks.services import Cloud, cloud, pull
from protocol import versions
from protocol.messages import SessionRequest, Tokens, Wants

NAME = "soak"
HELP = "clients that abandon, crop, flood and lie for minutes: what breaks, what is left"

CLIENTS = 6
IDLE = 10
"""Seconds after which the service ends an abandoned session."""
KV_MEGABYTES = 192
SESSIONS = 48
WARM = 0.25
"""Share of the time after which the memory counts as what it is in use."""
MEGABYTE = 2**20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the benchmark's own arguments."""
    parser.add_argument("--minutes", type=float, default=10.0, help="how long (default 10)")


def run(args: argparse.Namespace) -> Outcome:
    """Lets the clients loose on one service, and looks at it afterwards."""
    minutes = min(args.minutes, 0.5) if args.quick else args.minutes
    texts.load(args.text)  # a wrong one is told here as in every benchmark
    backbone = pull(args.backbone)
    flags = ("--idle", str(IDLE), "--sessions", str(SESSIONS), "--kv", str(KV_MEGABYTES))
    flags += ("--port", "0")
    with cloud(backbone, "auto", args.threads, flags) as service:
        say(f"{CLIENTS} clients for {minutes:g} minutes")
        crowd = [_Client(service.url, args.seed + number) for number in range(CLIENTS)]
        crowd[0].fill()
        memory = _loose(crowd, service, minutes * 60)
        time.sleep(IDLE + 6)  # the abandoned sessions expire, and are swept every 5 seconds
        left = _metric(service.url, "sideplug_sessions")
        after = _rss(service)
    counted = sum((client.counted for client in crowd), Counter())
    statuses = sum((client.statuses for client in crowd), Counter())
    errors = sum(n for status, n in statuses.items() if status >= 500 and status != 503)
    growth = (statistics.median([*memory[-3:], after]) - memory[0]) / MEGABYTE
    return Outcome(
        figures=[
            Figure("errors_5xx", errors, "answers that blame the service, 503 apart", at_most=0),
            Figure("rss_growth_mb", growth, "MB more than after the warm-up", at_most=20),
            Figure("sessions_left", int(left), "sessions nobody uses any more", at_most=0),
            Figure("requests", sum(statuses.values()), "requests answered"),
        ],
        results={
            "behaviours": dict(counted),
            "statuses": {str(status): n for status, n in sorted(statuses.items())},
            "rss_mb": [round(size / MEGABYTE, 1) for size in [*memory, after]],
            "unanswered": sum(client.unanswered for client in crowd),
        },
        seeds=[client.seed for client in crowd],
        settings={"backbone": args.backbone, "minutes": minutes, "threads": args.threads}
        | {"quick": args.quick, "clients": CLIENTS, "idle": IDLE},
        tables=[Rows("statuses", ("status", "answers"), sorted(statuses.items()))],
    )


def _loose(crowd: list["_Client"], service: Cloud, seconds: float) -> list[int]:
    """Run all clients for so long; give the memory from the warm-up on, looked at now and then."""
    end = time.monotonic() + seconds
    with ThreadPoolExecutor(len(crowd)) as threads:
        running = [threads.submit(client.run, end) for client in crowd]
        try:
            time.sleep(seconds * WARM)
            memory = [_rss(service)]
            while (left := end - time.monotonic()) > 0:
                time.sleep(min(left, max(1.0, seconds / 20)))
                memory.append(_rss(service))
        finally:
            for client in crowd:
                client.stopped = True
        for one in running:
            one.result()  # a client that failed would have proved nothing
    return memory


class _Client:
    """One client, which does whatever comes to its mind."""

    def __init__(self, url: str, seed: int) -> None:
        self.seed = seed
        self.statuses: Counter[int] = Counter()
        self.counted: Counter[str] = Counter()
        self.unanswered = 0
        self.stopped = False
        self._url = url
        self._rng = Random(seed)
        self._http = httpx.Client(base_url=url, timeout=60, trust_env=False)
        facts = self._http.get("/v1/backbone").json()
        self._vocabulary, self._layers = facts["vocabulary"], facts["layers"]
        self._positions = min(facts["positions"], 400)

    def run(self, end: float) -> None:
        """Behave badly until then."""
        with closing(self._http):
            while time.monotonic() < end and not self.stopped:
                behaviour = self._rng.choice(BEHAVIOURS)
                self.counted[behaviour.__name__.strip("_")] += 1
                try:
                    behaviour(self)
                except (httpx.TransportError, OSError):
                    self.unanswered += 1  # cut off while it was still sending, as it should be

    def fill(self) -> None:
        """Have the service hold as much at once as it can."""
        opened = []
        while len(opened) < SESSIONS and (session := self._open()):
            opened.append(session)
            if not self._step(session, 0, self._positions - 1):
                break
        for session in opened:
            self._ask("DELETE", f"/v1/sessions/{session}")

    def _ask(self, method: str, path: str, **options: object) -> httpx.Response:
        answer = self._http.request(method, path, **options)  # type: ignore[arg-type]
        self.statuses[answer.status_code] += 1
        if answer.status_code in (429, 503):
            time.sleep(0.1)
        return answer

    def _open(self, prefix: str | None = None) -> str | None:
        taps = tuple(sorted(self._rng.sample(range(self._layers + 1), 2)))
        wants = Wants(taps, True, self._rng.random() < 0.5, 1, "f16")
        asked = SessionRequest(wants, prefix=prefix)
        answer = self._ask("POST", "/v1/sessions", json=asked.to_json())
        return str(answer.json()["session"]) if answer.status_code == 201 else None

    def _step(self, session: str, position: int, count: int) -> bool:
        ids = np.array([self._rng.randrange(self._vocabulary) for _ in range(count)], np.uint32)
        content = versions.encode(Tokens(position, position, 1, ids))
        return self._ask("POST", f"/v1/sessions/{session}/step", content=content).is_success

    def _walk(self, session: str, position: int = 0) -> int:
        """A prompt and some tokens; gives the position."""
        for count in (self._rng.randint(1, self._positions // 8), 1, 1, 1):
            if not self._step(session, position, count):
                break
            position += count
        return position

    def _polite(self) -> None:
        if session := self._open():
            self._walk(session)
            self._ask("DELETE", f"/v1/sessions/{session}")

    def _abandon(self) -> None:
        if session := self._open():
            self._walk(session)

    def _behind_a_prefix(self) -> None:
        """One of a few, which all clients share."""
        ids = np.arange(self._rng.choice((40, 64, 100)), dtype=np.uint32)
        content = versions.encode(Tokens(0, 0, 1, ids))
        answer = self._ask("POST", "/v1/prefixes", content=content)
        if answer.is_success and (session := self._open(answer.json()["prefix"])):
            self._walk(session, len(ids))
            self._ask("DELETE", f"/v1/sessions/{session}")

    def _crop(self) -> None:
        if session := self._open():
            position = self._walk(session)
            asked = {"position": self._rng.choice((0, position // 2, position, position + 9))}
            self._ask("POST", f"/v1/sessions/{session}/crop", json=asked)
            self._walk(session)
            self._ask("DELETE", f"/v1/sessions/{session}")

    def _flood(self) -> None:
        session = self._open() or "none"
        for _ in range(20):
            frame = malformed.frame(self._rng, self._vocabulary)
            self._ask("POST", f"/v1/sessions/{session}/step", content=frame)
        self._ask("DELETE", f"/v1/sessions/{session}")

    def _flood_features(self) -> None:
        wants = json.dumps(Wants((0,), True, False, 0, "f16").to_json())
        for _ in range(5):
            frames = [malformed.frame(self._rng, self._vocabulary) for _ in range(3)]
            params = {"wants": self._rng.choice((wants, wants[:-1], "{}"))}
            self._ask("POST", "/v1/features", params=params, content=b"".join(frames))

    def _claim(self) -> None:
        """Announces more than any body may have, or sends it."""
        if self._rng.random() < 0.5:
            with self._connected() as raw:
                raw.sendall(_head("/v1/features?wants={}", self._rng.choice(malformed.EXTREMES)))
                raw.recv(1000)
            return
        content = bytes(2 * MEGABYTE)  # more than JSON may have
        self._ask("POST", "/v1/sessions", content=content)

    def _hang_up(self) -> None:
        with self._connected() as raw:
            raw.sendall(_head("/v1/sessions", 500) + b'{"wants"')

    def _wander(self) -> None:
        path = self._rng.choice(("/", "/v1/kits/none", "/v1/sessions/none/step", "/v2/x", "/ready"))
        self._ask(self._rng.choice(("GET", "POST", "PUT", "DELETE")), path)

    def _connected(self) -> socket.socket:
        address = urlsplit(self._url)
        return socket.create_connection((address.hostname or "", address.port or 0), timeout=30)


BEHAVIOURS: tuple[Callable[[_Client], None], ...] = (
    _Client._polite,
    _Client._abandon,
    _Client._behind_a_prefix,
    _Client._crop,
    _Client._flood,
    _Client._flood_features,
    _Client._claim,
    _Client._hang_up,
    _Client._wander,
)
"""What a client may do next, each as likely. To add one: a method and a row."""


def _head(path: str, length: int) -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n".encode()


def _rss(service: Cloud) -> int:
    size: int = psutil.Process(service.process.pid).memory_info().rss
    return size


def _metric(url: str, name: str) -> float:
    for line in httpx.get(f"{url}/metrics", trust_env=False).text.splitlines():
        if line.startswith(f"{name} "):
            return float(line.split()[1])
    raise ValueError(f"the service counts no {name}")
