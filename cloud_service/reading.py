"""Tokens that somebody wants read behind a cache, in as many passes as it takes."""

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace

import numpy as np

from cloud_service.backbones.base import Span
from cloud_service.backbones.pages import Cache
from protocol.gate import Gate
from protocol.messages import Candidates, Floats, Ids, States, Wants, no_tokens

BRIEF = 16
"""Tokens of a step that is never cut."""


class Dropped(Exception):
    """Whoever asked went away before the model had read it."""


@dataclass(slots=True)
class Waiter:
    """Who waits for an answer.

    Attributes:
        owner: Whose share of the model it takes.
        gone: Whether they have gone away.
    """

    owner: str
    gone: bool = False


@dataclass(frozen=True, slots=True)
class Alone:
    """
    Until when the backbone may speak by itself.

    Attributes:
        gate: Says which token needs the device.
        most: Tokens, 1 or more.
        stops: Tokens that are left to the device whatever the gate says: they end a text.
    """

    gate: Gate
    most: int
    stops: frozenset[int]

    def goes_on(self, states: States) -> bool:
        """Say whether the backbone says the token behind the last row, whose candidates are there."""
        if states.candidates is None or int(states.candidates.ids[-1, 0]) in self.stops:
            return False
        likeliest = 0.0
        if states.log_z is not None:
            likeliest = float(states.candidates.logits[-1, 0]) - float(states.log_z[-1])
        return not self.gate.opens(None if states.final is None else states.final[-1], likeliest)


class Reading:
    """
    A step, a prefix or a text. From ``Runner.submit`` to its future's end it has its cache to itself.

    Attributes:
        waiter: Who asks.
        purpose: "step", "prefix", or "features" of a text, which is read when nothing else is and
            forgotten when it is answered.
        cache: What the tokens stand behind. When reading fails, it is as it was.
        ids: The tokens (T,).
        wanted: Of how many of the last there is an answer, 0 to T.
        wants: What the answer holds.
        drafts: How many tokens are to be read behind them, each the likeliest by the head; one
            token at least is wanted then, and each of them is.
        source: How many of the tokens, from the first on, an encoder reads, in one pass.
        alone: Until when the backbone speaks by itself behind them; then one token is wanted, there
            are no drafts, and the answer is of the last token that was read. None for not at all.
        arrived: What final states (T, H) become on their way. Tokens are drafted by that, so that
            whoever reads it with the same head finds the same ones likeliest.
        future: Has the answer, None where nothing is wanted; or ``Dropped``, or what went wrong.
        since: When it was submitted, in seconds.

    """

    __slots__ = (
        "_answers",
        "_own",
        "_start",
        "alone",
        "arrived",
        "cache",
        "done",
        "drafts",
        "future",
        "ids",
        "purpose",
        "since",
        "source",
        "waiter",
        "wanted",
        "wants",
    )

    def __init__(
        self,
        waiter: Waiter,
        purpose: str,
        cache: Cache,
        ids: Ids,
        wanted: int,
        wants: Wants,
        drafts: int = 0,
        source: int = 0,
        alone: Alone | None = None,
        arrived: Callable[[Floats], Floats] | None = None,
    ) -> None:
        self.waiter = waiter
        self.purpose = purpose
        self.cache = cache
        self.ids = ids
        self.wanted = wanted
        self.wants = wants
        self.drafts = drafts
        self.source = source
        self.alone = alone
        self.arrived = arrived
        self.future: Future[States | None] = Future()
        self.since = 0.0
        self.done = 0
        """Tokens that have been read."""
        self._start = cache.position
        self._answers: list[States] = []
        self._own: list[int] = []
        """Tokens that the backbone has gone on with, drafted or said."""

    @property
    def left(self) -> int:
        """Tokens that have not been read."""
        return len(self.ids) - self.done

    @property
    def least(self) -> int:
        """Tokens that can only be read together."""
        return max(self.source - self.done, 1)

    @property
    def bulk(self) -> bool:
        """Whether it waits until nobody else does."""
        return self.purpose == "features"

    @property
    def brief(self) -> bool:
        """Whether it is never cut: a few tokens, or nothing but the backbone's own left."""
        return not self.bulk and (len(self.ids) <= BRIEF or bool(self._own))

    def span(self, count: int) -> Span:
        """Return the next ``count`` tokens, for a pass."""
        end = self.done + count
        wanted = max(0, min(count, end - len(self.ids) + self.wanted))
        ids, wants = self.ids[self.done : end], self.wants
        source = 0 if self.done else self.source
        if self.alone is not None:
            sums = wants.log_z or self.alone.gate.row is None
            wants = replace(wants, candidates=max(wants.candidates, 1), log_z=sums)
            return Span(self.cache, ids, wanted, wants, source)
        if not self.drafts or wants.candidates:
            return Span(self.cache, ids, wanted, wants, source)
        # Where log Z is wanted too, the head is read once, of the states themselves.
        arrived = None if wants.log_z else self.arrived
        return Span(self.cache, ids, wanted, replace(wants, candidates=1), source, arrived)

    def take(self, count: int, states: States | None) -> None:
        """Note that ``count`` tokens have been read, with their answer."""
        self.done += count
        if states is None:
            return
        if self.alone is not None:
            self._answers.clear()
        self._answers.append(states)
        if not self.left and self._goes_on(states):
            self._go_on(states)

    def _goes_on(self, states: States) -> bool:
        if self.alone is not None:
            return len(self._own) < self.alone.most and self.alone.goes_on(states)
        return len(self._own) < self.drafts

    def _go_on(self, states: States) -> None:
        """Read the likeliest token behind the last row next."""
        if states.candidates is None:
            raise ValueError("whoever goes on needs candidates")
        likeliest = states.candidates.ids[-1, :1]
        self._own.append(int(likeliest[0]))
        self.ids = np.concatenate([self.ids, likeliest])
        self.wanted += self.alone is None

    def shorten(self) -> bool:
        """Leave out a token of its own that could not be read; whether that leaves a whole answer."""
        if not self._own:
            return False
        self._own.pop()
        self.ids = self.ids[: self.done]
        return True

    def finish(self) -> None:
        """Give the whole answer."""
        if self.bulk:
            self.cache.release()
        if self.future.set_running_or_notify_cancel():
            self.future.set_result(self._answer())

    def _answer(self) -> States | None:
        if not self._answers:
            return None
        states = joined(self._answers)
        if not self.drafts and self.alone is None:
            return states
        own, none = np.array(self._own, np.uint32), no_tokens()
        return replace(
            states,
            log_z=states.log_z if self.wants.log_z else None,
            candidates=states.candidates if self.wants.candidates else None,
            drafted=own if self.alone is None else none,
            spoken=none if self.alone is None else own,
        )

    def fail(self, error: BaseException) -> None:
        """Give the cache back as it was, and say why."""
        self.cache.crop(0 if self.bulk else self._start)
        if self.future.set_running_or_notify_cancel():
            self.future.set_exception(error)


def joined(parts: list[States]) -> States:
    """Return the answers to neighbouring tokens as one."""
    first = parts[0]
    if len(parts) == 1:
        return first
    candidates = [part.candidates for part in parts if part.candidates is not None]
    return States(
        position=first.position,
        layers=first.layers,
        taps=np.concatenate([part.taps for part in parts], axis=1),
        final=_rows([part.final for part in parts]),
        log_z=_rows([part.log_z for part in parts]),
        candidates=Candidates(
            np.concatenate([each.ids for each in candidates]),
            np.concatenate([each.logits for each in candidates]),
        )
        if candidates
        else None,
    )


def _rows(parts: list[Floats | None]) -> Floats | None:
    there = [part for part in parts if part is not None]
    return np.concatenate(there) if there else None
