"""A backbone simple enough to foresee, behind the real protocol: it wants to count upwards.

The final state of token t is the head's row direction of token t + 1, so greedy decoding counts.
Taps are t everywhere. It keeps sessions as a cloud does, checks positions, and can forget.
"""

import itertools
import json
from dataclasses import replace
from urllib.parse import urlsplit

import numpy as np

from protocol import versions
from protocol.errors import (
    ContextExceeded,
    Fault,
    PositionMismatch,
    PrefixNotFound,
    SessionNotFound,
)
from protocol.gate import Gate
from protocol.limits import Limits
from protocol.messages import SessionRequest, States, Tokens, Wants
from tests.device_agent.scripted_cloud import Answer, Request, json_answer
from tests.device_agent.small_kit import BLOCK, HIDDEN, VOCABULARY, SmallHead


def counting_head() -> SmallHead:
    """Row t is one-hot at t for t below H; the tokens above have rows of zeros."""
    values = np.full((VOCABULARY, HIDDEN), 128, np.uint8)
    values[np.arange(HIDDEN), np.arange(HIDDEN)] = 228
    codes = values.reshape(VOCABULARY, HIDDEN // BLOCK, BLOCK)
    scales = np.full(codes.shape[:2], 0.1, np.float32)
    return SmallHead(codes, scales, np.zeros(VOCABULARY, np.float32), None)


class ToyBackbone:
    """``reply`` of a ``ScriptedCloud``; ``other`` answers what is no session."""

    def __init__(self, limit: int = 64, other: dict[str, Answer] | None = None) -> None:
        self.limit = limit
        self.sessions: dict[str, tuple[list[int], Wants]] = {}
        self.prefixes: dict[str, list[int]] = {}
        self.read: list[list[int]] = []
        """The prefixes that were read, each as often as that."""
        self.other = other or {}
        self.steps: list[Tokens] = []
        self._last: tuple[int, int, Answer] | None = None
        """The last step of all: its session's list of tokens, its own id, and what was answered."""
        self.gates: list[Gate | None] = []
        """Of each session that was opened, in order."""
        self._gate_of: dict[int, Gate | None] = {}
        """Of each session, by its list of tokens."""
        self._loose: dict[int, int] = {}
        """Of each session, by its list of tokens: how many at the end a step may begin in front of."""
        self._names = (f"s{number}" for number in itertools.count())

    def __call__(self, request: Request) -> Answer:
        path = urlsplit(request.path).path
        try:
            if path in self.other:
                return self.other[path]
            if path == "/v1/prefixes":
                return self._prefix(request.body)
            return self._session(request.method, path.split("/")[3:], request.body)
        except Fault as fault:
            return json_answer(fault.to_json(), fault.status)

    def forget(self) -> None:
        self.sessions.clear()
        self.prefixes.clear()
        self._last = None

    def require_prefix(self, name: str) -> list[int]:
        if name not in self.prefixes:
            raise PrefixNotFound(prefix=name)
        return self.prefixes[name]

    def _prefix(self, body: bytes) -> Answer:
        tokens = versions.decode(body, Limits())
        assert isinstance(tokens, Tokens)
        ids = tokens.ids.tolist()
        name = "p" + "-".join(map(str, ids))
        if name not in self.prefixes:
            self.prefixes[name] = ids
            self.read.append(ids)
        return json_answer({"prefix": name, "position": len(ids), "idle_seconds": 60}, 201)

    def _session(self, method: str, place: list[str], body: bytes) -> Answer:
        if not place:
            name = next(self._names)
            self._last = None
            asked = SessionRequest.from_json(json.loads(body))
            ids = [] if asked.prefix is None else list(self.require_prefix(asked.prefix))
            self.sessions[name] = (ids, asked.wants)
            self.gates.append(asked.gate)
            self._gate_of[id(ids)] = asked.gate
            opened = {
                "session": name,
                "position": len(ids),
                "limit": self.limit,
                "idle_seconds": 60,
            }
            return json_answer(opened, 201)
        if place[0] not in self.sessions:
            raise SessionNotFound(session=place[0])
        ids, wants = self.sessions[place[0]]
        if method == "DELETE":
            del self.sessions[place[0]]
            return Answer(status=204)
        if place[1] == "crop":
            position = json.loads(body)["position"]
            if position > len(ids):
                raise PositionMismatch(expected=len(ids), got=position)
            del ids[position:]
            self._last, self._loose[id(ids)] = None, 0
            return json_answer({"position": position})
        return self._step(ids, wants, body)

    def _step(self, ids: list[int], wants: Wants, body: bytes) -> Answer:
        tokens = versions.decode(body, Limits())
        assert isinstance(tokens, Tokens)
        if self._last is not None and self._last[:2] == (id(ids), tokens.step):
            return self._last[2]
        if not len(ids) - self._loose.get(id(ids), 0) <= tokens.position <= len(ids):
            raise PositionMismatch(expected=len(ids), got=tokens.position)
        if tokens.position + len(tokens.ids) > self.limit:
            raise ContextExceeded(limit=self.limit, asked=tokens.position + len(tokens.ids))
        ids[tokens.position :] = tokens.ids.tolist()
        self.steps.append(tokens)
        drafted = self._drafted(ids, min(tokens.drafts, self.limit - len(ids)))
        spoken = self._spoken(ids, min(tokens.alone, self.limit - len(ids)))
        first = len(ids) + len(spoken) - tokens.wanted
        ids += [*drafted, *spoken]
        states = replace(
            toy_states(ids, first, wants),
            drafted=np.array(drafted, np.uint32),
            spoken=np.array(spoken, np.uint32),
        )
        self._loose[id(ids)] = len(ids) - first - 1 + len(spoken)
        self._last = (id(ids), tokens.step, Answer(versions.encode(states, wants.codec)))
        return self._last[2]

    def _spoken(self, ids: list[int], most: int) -> list[int]:
        """What it says by itself: it is not sure of what comes before every fifth letter."""
        gate, spoken, token = self._gate_of[id(ids)], list[int](), ids[-1]
        while len(spoken) < most:
            assert gate is not None
            token = (token + 1) % HIDDEN
            if need_of(token) >= gate.threshold:
                break
            spoken.append(token)
        return spoken

    def _drafted(self, ids: list[int], count: int) -> list[int]:
        """What it wants to go on with."""
        return [(ids[-1] + number) % HIDDEN for number in range(1, count + 1)]


def need_of(token: int) -> float:
    """How much the toy's next token needs the device."""
    return 0.9 if token % 5 == 0 else 0.1


def toy_states(ids: list[int], first: int, wants: Wants) -> States:
    """What the backbone makes of ``ids``, from position ``first`` on."""
    rows = ids[first:]
    final = np.zeros((len(rows), HIDDEN), np.float32)
    for place, token in enumerate(rows):
        final[place, (token + 1) % HIDDEN] = 1
    plain = np.array(rows, np.float32)[None, :, None]
    taps = np.broadcast_to(plain, (len(wants.layers), len(rows), HIDDEN)).copy()
    return States(first, wants.layers, taps, final if wants.final else None)
