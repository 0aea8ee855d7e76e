"""
Does a text go on when its cloud is killed?

Each generation is killed once: at a random moment of a random token the cloud's process gets
SIGKILL, and is started anew at the same address. The device's session waits, opens another, sends
its tokens again, and goes on. The text has to be the one that came when nobody was killed. In f32,
as there a pass over the whole text and one over its last token give the same numbers.
"""

import argparse
import random
import statistics
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil

from benchmarks import texts
from benchmarks.prompts import PROMPTS
from benchmarks.report import Figure, Outcome, say
from benchmarks.services import Backbone, Cloud, cloud, pull
from device_agent.cloud.client import CloudUnreachable
from device_agent.cloud.link import Link
from device_agent.cloud.session import RemoteSession
from device_agent.data.tokenizer import Tokenizer
from device_agent.settings import Settings
from protocol.errors import Fault
from protocol.messages import Wants

NAME = "survive"
HELP = "generations whose cloud is killed in the middle: the same tokens all the same"

WEIGHTS = "f32"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the benchmark's own arguments."""
    parser.add_argument("--generations", type=int, default=100, help="how many, each killed once")
    parser.add_argument("--new-tokens", type=int, default=64, help="tokens generated in each")


def run(args: argparse.Namespace) -> Outcome:
    """Generates each prompt undisturbed, then again and again with a kill in the middle."""
    count, new = args.generations, args.new_tokens
    if args.quick:
        count, new = min(count, 4), min(new, 8)
    texts.load(args.text)  # a wrong one is told here as in every benchmark
    rng = random.Random(args.seed)
    with TemporaryDirectory() as home, _Mortal(pull(args.backbone), args.threads) as mortal:
        settings = Settings(home=Path(home), cloud=mortal.url, threads=args.threads, codec="f32")
        with Link(settings) as link:
            tokenizer = link.tokenizer()
            prompts = [_ids(tokenizer, number) for number in range(min(count, len(PROMPTS)))]
            say("generating undisturbed")
            undisturbed = [_generate(link, ids, new, None) for ids in prompts]
            step = statistics.median(gap for text in undisturbed for gap in text.gaps[1:])
            killed = []
            for number in range(count):
                say(f"generation {number + 1} of {count}")
                kill = _Kill(mortal, rng.randrange(new), rng.uniform(0, step))
                killed.append(_generate(link, prompts[number % len(prompts)], new, kill))
                kill.join()
    return _outcome(args, undisturbed, killed, mortal.starts)


@dataclass(frozen=True, slots=True)
class _Text:
    """What one generation brought."""

    tokens: list[int]
    gaps: list[float]
    """Seconds each token was waited for."""
    error: str | None
    """Why it ended early."""
    killed_at: int | None
    """Token in which the cloud was killed."""


class _Mortal:
    """A cloud at one address that can be killed and started anew."""

    def __init__(self, backbone: Backbone, threads: int) -> None:
        self._backbone, self._threads = backbone, threads
        self._life = ExitStack()
        self.starts: list[float] = []
        """Seconds from each start to an answer."""
        self.url = ""

    def __enter__(self) -> "_Mortal":
        self._cloud = self._start(0)
        self.url = self._cloud.url
        return self

    def __exit__(self, *_: object) -> None:
        self._life.close()

    def kill(self) -> None:
        """End it and what it has started without a word, and start it anew; returns when ready."""
        family = psutil.Process(self._cloud.process.pid).children(recursive=True)
        self._cloud.process.kill()
        for member in family:
            member.kill()
        self._life.close()
        self._cloud = self._start(int(self.url.rsplit(":", 1)[1]))

    def _start(self, port: int) -> Cloud:
        began = time.perf_counter()
        words = ("--port", str(port))
        started = self._life.enter_context(cloud(self._backbone, WEIGHTS, self._threads, words))
        self.starts.append(time.perf_counter() - began)
        return started


class _Kill:
    """One death, at a token, so many seconds after it was asked for."""

    def __init__(self, mortal: _Mortal, token: int, delay: float) -> None:
        self.token, self._delay = token, delay
        self._mortal = mortal
        self._thread = threading.Thread(target=self._run)

    def begin(self) -> None:
        """Let it come, beside whatever goes on."""
        self._thread.start()

    def join(self) -> None:
        """Wait until the cloud is there again."""
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        time.sleep(self._delay)
        self._mortal.kill()


def _generate(link: Link, ids: list[int], new: int, kill: _Kill | None) -> _Text:
    """The ``new`` likeliest tokens after ``ids``, one after the other."""
    tokens: list[int] = []
    gaps: list[float] = []
    at = None if kill is None else kill.token
    wants = Wants(layers=(), final=True, log_z=False, candidates=1, codec="f32")
    try:
        with RemoteSession(link.cloud, wants) as session:
            fed = ids
            while len(tokens) < new:
                if kill is not None and kill.token == len(tokens):
                    kill.begin()
                began = time.perf_counter()
                states = session.step(fed)
                gaps.append(time.perf_counter() - began)
                assert states.candidates is not None
                fed = [int(states.candidates.ids[-1, 0])]
                tokens += fed
            if kill is not None:
                kill.join()  # a death at the last token must not come when the session is closed
    except (CloudUnreachable, Fault) as error:
        return _Text(tokens, gaps, repr(error), at)
    return _Text(tokens, gaps, None, at)


def _ids(tokenizer: Tokenizer, number: int) -> list[int]:
    return [int(i) for i in tokenizer.encode(PROMPTS[number].text)]


def _outcome(
    args: argparse.Namespace, undisturbed: list[_Text], killed: list[_Text], starts: list[float]
) -> Outcome:
    pairs = [(text, undisturbed[n % len(undisturbed)]) for n, text in enumerate(killed)]
    identical = sum(text.tokens == truth.tokens for text, truth in pairs)
    lost = [text.error for text in killed if text.error is not None]
    results: dict[str, Any] = {
        "errors": lost,
        "differences": [
            {"generation": n, "killed_at": text.killed_at, "tokens": text.tokens, "gaps": text.gaps}
            for n, (text, truth) in enumerate(pairs)
            if text.tokens != truth.tokens
        ],
        "start_seconds": starts,
        "longest_gaps": [max(text.gaps, default=None) for text in killed],
    }
    gaps = [gap for gap in results["longest_gaps"] if gap is not None]
    return Outcome(
        figures=[
            Figure("identical", identical, "killed generations alike", at_least=len(killed)),
            Figure("lost", len(lost), "generations that ended early", at_most=0),
            Figure("generations", len(killed), "generations, each killed once"),
            Figure("start_seconds_median", statistics.median(starts), "from start to ready"),
            Figure("gap_seconds_median", statistics.median(gaps), "a killed text stood still"),
        ],
        results=results,
        seeds=[args.seed],
        settings={"weights": WEIGHTS, "threads": args.threads, "quick": args.quick}
        | {"backbone": args.backbone, "new_tokens": len(undisturbed[0].tokens)},
    )
