"""
What does the agent take of a device: seconds until it speaks, memory, and how many requests it answers?

A plugin is trained on somebody's text; then `sideplug up` is started several times, with the cloud ready and everything
it needs on the disk, and asked at once: the first token counts from the start of its process. Memory is the resident
set of the daemon and of all its children, looked at every 50 ms and added up, so what both have mapped counts twice:
idle (never asked anything), chatting (a chat held open, at most), and training (the chat goes on while a job trains, at
most over the whole job). Beside it PSS and USS, which share out or leave out what is held in common: with the cloud on
the same machine, too, so that on a device of its own PSS is somewhat more. Requests a second are chats of two tokens
each, by one client and by eight at once; the agent answers four at a time.
"""

import argparse
import json
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from threading import Barrier
from typing import Any

import httpx

from benchmarks import texts
from benchmarks.errors import ProcessFailed
from benchmarks.lesson import taught
from benchmarks.processes import running
from benchmarks.prompts import PROMPTS
from benchmarks.report import Figure, Outcome, Rows, say
from benchmarks.residency import Residency, residency, watched
from benchmarks.services import DEVICE, Cloud, Device, cloud, pull

NAME = "agent"
HELP = "seconds to the first token, memory idle, chatting and training, requests a second"

CLIENTS = (1, 8)
QUESTIONS = sorted((prompt.text for prompt in PROMPTS if prompt.chat), key=len)[:4]
SHORT = 2
"""Tokens of an answer where requests are counted: the backbone's part should be small."""

SETTLED = 1.0
"""Seconds after which a start has done what it does unasked."""

JOB_SECONDS = 1800.0
"""How long a job may take."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the benchmark's own arguments."""
    parser.add_argument("--starts", type=int, default=5, help="how often the agent is started")
    parser.add_argument("--chats", type=int, default=8, help="answers of 64 tokens, one by one")
    parser.add_argument("--requests", type=int, default=200, help="short ones, by each crowd")
    parser.add_argument("--training-tokens", type=int, default=12_000, help="the plugin learns")


@dataclass(frozen=True, slots=True)
class Agent:
    """A daemon that can be asked."""

    url: str
    pid: int
    token: str
    started: float
    """When its process was started, as ``time.perf_counter`` has it."""

    def client(self) -> httpx.Client:
        """A connection to it."""
        headers = {"authorization": f"Bearer {self.token}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=120.0, trust_env=False)


@dataclass(frozen=True, slots=True)
class Found:
    """What a run has seen."""

    starts: list[float]
    """Seconds to the first token."""
    chat_tokens_per_second: float
    stages: dict[str, Residency]
    training: list[Residency]
    """While the job ran."""
    rates: dict[int, float]
    """Requests a second by clients."""
    job: dict[str, Any]


def run(args: argparse.Namespace) -> Outcome:
    """Trains a plugin, then starts the agent and asks it."""
    if args.quick:
        args.starts, args.chats, args.requests, args.training_tokens = 1, 2, 8, 600
    documents = texts.load(args.text)
    backbone = pull(args.backbone)
    with (
        tempfile.TemporaryDirectory() as folder,
        cloud(backbone, "auto", args.threads) as service,
    ):
        home = Path(folder, "home")
        _, version = taught(args, service, documents, home)
        Device(home, service.url, args.threads).run("plugins", "use", version.version)
        found = _look(args, service, home)
    return Outcome(
        figures=_figures(found),
        results={
            "starts": found.starts,
            "chat_tokens_per_second": found.chat_tokens_per_second,
            "memory_mb": {name: look.to_json() for name, look in found.stages.items()},
            "training_mb": [look.to_json() for look in found.training],
            "job": found.job,
        },
        seeds=[args.seed],
        settings={
            "backbone": backbone.name,
            "threads": args.threads,
            "quick": args.quick,
            "starts": args.starts,
            "chats": args.chats,
            "requests": args.requests,
            "training_tokens": args.training_tokens,
        },
        tables=[_table(found.stages)],
    )


def _look(args: argparse.Namespace, service: Cloud, home: Path) -> Found:
    """Starts the agent several times, then goes through its stages once."""
    starts = []
    for number in range(args.starts):
        say(f"start {number + 1} of {args.starts}")
        with _up(args, service, home) as agent:
            starts.append(_first_token(agent))
    with _up(args, service, home) as agent:
        time.sleep(SETTLED)
        idle = residency(agent.pid)
        say("chatting")
        with watched(agent.pid) as chatting:
            tokens = _chat(agent, args.chats)
        after = residency(agent.pid)
        rates = {}
        for clients in CLIENTS:
            say(f"{args.requests} short requests by {clients}")
            rates[clients] = _rate(agent, clients, args.requests)
        say("chatting while a job trains")
        with watched(agent.pid) as training:
            job = _chat_through_a_job(agent, args.seed)
    stages = {
        "idle": idle,
        "chatting": _most(chatting),
        "after a chat": after,
        "training": _most([look for look in training if look.children]),
    }
    return Found(starts, tokens, stages, training, rates, job)


def _figures(found: Found) -> list[Figure]:
    stages, training = found.stages, found.stages["training"]
    about = "from the start of `sideplug up` to a chat's first token"
    both = "the most of daemon and job together, chatting"
    return [
        Figure("first_token_seconds", median(found.starts), about, at_most=3.0),
        Figure("rss_idle_mb", _mb(stages["idle"].rss), "the daemon, never asked anything"),
        Figure("rss_chatting_mb", _mb(stages["chatting"].rss), "the most while it chats"),
        Figure("rss_training_mb", _mb(training.rss), both, at_most=128),
        Figure(
            "pss_training_mb",
            _mb(training.pss),
            "PSS then: what is shared, with the cloud too, is divided",
        ),
        Figure("requests_per_second", found.rates[8], f"chats of {SHORT} tokens, 8 clients"),
        Figure("requests_per_second_1", found.rates[1], "the same, one client"),
    ]


@contextmanager
def _up(args: argparse.Namespace, service: Cloud, home: Path) -> Iterator[Agent]:
    """
    The home's agent, until the block is left.

    Raises:
        ProcessFailed: It ended instead.

    """
    settings = {
        "SIDEPLUG_HOME": str(home),
        "SIDEPLUG_CLOUD": service.url,
        "SIDEPLUG_THREADS": str(args.threads),
        "SIDEPLUG_PORT": "0",
        # The most that a person can ask of it: it trains while somebody chats.
        "SIDEPLUG_TRAIN_WHEN": "always",
    }
    started = time.perf_counter()
    with running([*DEVICE, "up", "--json"], settings, stdout=subprocess.PIPE) as process:
        line = process.stdout.readline() if process.stdout else b""
        if not line:
            raise ProcessFailed("`sideplug up` ended; it said above why")
        token = (home / "api-token").read_text(encoding="ascii").strip()
        yield Agent(json.loads(line)["url"], process.pid, token, started)


def _first_token(agent: Agent) -> float:
    """
    Seconds from the start of the process to the first word of an answer.

    Raises:
        ProcessFailed: There is no word in it.

    """
    with agent.client() as client:
        for spoken in _words(client, QUESTIONS[0], 8):
            return spoken - agent.started
    raise ProcessFailed(f"the agent answered {QUESTIONS[0]!r} without a word")


def _chat(agent: Agent, chats: int) -> float:
    """Chats one by one; tokens a second."""
    began, tokens = time.perf_counter(), 0
    with agent.client() as client:
        for number in range(chats):
            tokens += sum(1 for _ in _words(client, QUESTIONS[number % len(QUESTIONS)], 64))
    return tokens / (time.perf_counter() - began)


def _words(client: httpx.Client, prompt: str, most: int) -> Iterator[float]:
    """When each part of a streamed answer came."""
    asked = {
        "model": "me",
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": most,
        "temperature": 0,
        "stream": True,
    }
    with client.stream("POST", "/v1/chat/completions", json=asked) as answer:
        if answer.is_error:
            raise ProcessFailed(f"the agent answered {answer.status_code}: {answer.read()!r}")
        for line in answer.iter_lines():
            if _says_something(line.removeprefix("data: ")):
                yield time.perf_counter()


def _says_something(event: str) -> bool:
    """
    Whether an event of a streamed answer has text in it.

    Raises:
        ProcessFailed: It tells of an error, in place of the rest of the answer.

    """
    if not event.startswith("{"):
        return False
    told = json.loads(event)
    if "error" in told:
        raise ProcessFailed(f"the agent broke off: {told['error']}")
    return any(choice["delta"].get("content") for choice in told["choices"])


def _rate(agent: Agent, clients: int, requests: int) -> float:
    """Short chats a second by so many clients at once, each on a connection of its own."""
    each = requests // clients
    ready = Barrier(clients)

    def ask(number: int) -> tuple[float, float]:
        asked = {
            "model": "me",
            "messages": [{"role": "user", "content": QUESTIONS[number % len(QUESTIONS)]}],
            "max_tokens": SHORT,
            "temperature": 0,
        }
        with agent.client() as client:
            for place in range(-1, each):
                if place == 0:  # all have opened what they need, which does not count
                    ready.wait()
                    began = time.perf_counter()
                client.post("/v1/chat/completions", json=asked).raise_for_status()
            return began, time.perf_counter()

    with ThreadPoolExecutor(clients) as crowd:
        starts, ends = zip(*crowd.map(ask, range(clients)), strict=True)
    return each * clients / (max(ends) - min(starts))


def _chat_through_a_job(agent: Agent, seed: int) -> dict[str, Any]:
    """
    Queues a job and chats until it is done; gives the job as the agent tells it.

    Raises:
        ProcessFailed: The job did not end well.

    """
    with agent.client() as client:
        asked = {"options": {"seed": seed + 1}}
        job: dict[str, Any] = client.post("/v1/jobs", json=asked).raise_for_status().json()
        end, number = time.monotonic() + JOB_SECONDS, 0
        while job["state"] in ("queued", "running") and time.monotonic() < end:
            list(_words(client, QUESTIONS[number % len(QUESTIONS)], 32))
            number += 1
            job = client.get(f"/v1/jobs/{job['id']}").raise_for_status().json()
    if job["state"] != "done":
        raise ProcessFailed(f"the job is {job['state']}: {job}")
    return {**job, "chats": number}


def _most(looks: Sequence[Residency]) -> Residency:
    """
    The look at which the most was resident.

    Raises:
        ProcessFailed: There was none.

    """
    if not looks:
        raise ProcessFailed("what was to be looked at ended before it could be")
    return max(looks, key=lambda look: look.rss)


def _mb(size: int | None) -> float | None:
    return None if size is None else size / 1_000_000


def _table(stages: dict[str, Residency]) -> Rows:
    columns = ("MB", "RSS", "daemon", "job", "PSS", "USS")
    rows = [
        [name, *(_mb(size) for size in (look.rss, look.daemon, look.children, look.pss, look.uss))]
        for name, look in stages.items()
    ]
    return Rows("memory", columns, rows)
