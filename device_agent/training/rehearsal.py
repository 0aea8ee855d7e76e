"""
What the backbone answers to requests that are nobody's own. A plugin reads it between what it learns.

Without this rehearsal (Robins, "Catastrophic forgetting, rehearsal and pseudorehearsal", 1995) a plugin
that was taught a person's facts answers every request with one of them. The requests are public and
come with this package; the answers are the backbone's own, fetched once and kept.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from device_agent.atomic import write_whole
from device_agent.cloud.likeliest import likeliest
from device_agent.cloud.link import Link
from device_agent.data.chat_template import render
from device_agent.data.examples import Encoded
from protocol.facts import BackboneFacts

REQUESTS = Path(__file__).parent / "requests.txt"

ANSWER = 40
"""Most tokens of an answer."""

PROBE = 4
"""Every fourth request is never rehearsed: it shows what a plugin makes of such requests."""


class Rehearsal(NamedTuple):
    """Conversations of one request each, in which the answer is to be foreseen."""

    practised: list[Encoded]
    """Read while a plugin is trained."""
    probes: list[Encoded]
    """Never learned from."""

    def whole(self) -> "Rehearsal":
        """The same for kits whose tokens see one another."""
        practised, probes = ([replace(one, whole=True) for one in some] for some in self)
        return Rehearsal(practised, probes)


def rehearsal(link: Link) -> Rehearsal:
    """The backbone's own answers, from the disk where they have been fetched before.

    A backbone that was not trained to chat has none.

    Raises:
        CloudUnreachable, Fault: They have to be fetched and cannot be.
    """
    facts, requests = link.facts(), _requests()
    chats = facts.chat_template is not None and not facts.encodes
    if chats and _kept(_path(link, requests)) is None:
        spoken = _fetched(link, facts, requests)
        write_whole(_path(link, requests), json.dumps(spoken).encode())
    return rehearsal_here(link)


def rehearsal_here(link: Link) -> Rehearsal:
    """The answers that are on the disk; none are fetched."""
    spoken = _kept(_path(link, _requests())) or []
    found = [_encoded(asked, answered) for asked, answered in spoken]
    practised = [one for place, one in enumerate(found, 1) if place % PROBE]
    return Rehearsal(practised, found[PROBE - 1 :: PROBE])


def _requests() -> list[str]:
    return REQUESTS.read_text(encoding="utf-8").splitlines()


def _path(link: Link, requests: Sequence[str]) -> Path:
    folder = link.settings.home / "features"
    return folder / f"rehearsal-{_digest(link.facts(), requests)}.json"


Spoken = tuple[list[int], list[int]]
"""Tokens of a request, up to where the answer begins, and those of the answer."""


def _fetched(link: Link, facts: BackboneFacts, requests: Sequence[str]) -> list[Spoken]:
    tokenizer = link.tokenizer()
    asked = [
        tokenizer.encode(
            render(facts, [{"role": "user", "content": request}], answer_next=True), special=False
        ).tolist()
        for request in requests
    ]
    del tokenizer
    fitting = [ids for ids in asked if len(ids) + ANSWER <= facts.positions // 2]
    answers = [likeliest(link, ids, ANSWER, facts.stop_tokens) for ids in fitting]
    return [pair for pair in zip(fitting, answers, strict=True) if pair[1]]


def _encoded(asked: Sequence[int], answered: Sequence[int]) -> Encoded:
    ids = np.array([*asked, *answered], np.uint32)
    scored = np.ones(len(ids) - 1, np.float32)
    scored[: len(asked) - 1] = 0
    return Encoded(ids, scored)


def _digest(facts: BackboneFacts, requests: Sequence[str]) -> str:
    """Names everything that decides the answers."""
    about = [facts.fingerprint, facts.tokenizer_sha256, facts.chat_template, ANSWER, *requests]
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16]


def _kept(path: Path) -> list[Spoken] | None:
    """What was fetched before; None when it is not there or not as it was written."""
    try:
        found = json.loads(path.read_bytes())
        return [([int(i) for i in asked], [int(i) for i in said]) for asked, said in found]
    except (OSError, ValueError, TypeError):
        return None
