"""Sessions: what each has read, what it last answered, and how long it may stay."""

import asyncio
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from cloud_service.backbones.pages import Cache
from cloud_service.checks import check_answer, check_gate, check_ids, check_source, check_wants
from cloud_service.frames import arrived, frame_of
from cloud_service.keys import LOCAL
from cloud_service.metrics import Metrics
from cloud_service.prefixes import Prefixes
from cloud_service.reading import Alone, Dropped, Reading, Waiter
from cloud_service.runner import Runner
from protocol.basis import Basis
from protocol.errors import (
    ContextExceeded,
    Fault,
    MalformedMessage,
    PositionMismatch,
    SessionNotFound,
    SessionQuota,
    TooManySessions,
)
from protocol.facts import BackboneFacts
from protocol.gate import Gate
from protocol.messages import SessionOpened, SessionRequest, Tokens, Wants


@dataclass(frozen=True, slots=True)
class Answer:
    """
    A step and what was answered to it, in case it is sent again.

    Attributes:
        asked: The step.
        frame: The answer's bytes.
        said: Tokens in it that the backbone has said by itself.

    """

    asked: Tokens
    frame: bytes
    said: int

    def fits(self, tokens: Tokens) -> bool:
        """Say whether ``tokens`` is the same step."""
        mine, theirs = (
            (each.step, each.position, each.wanted, each.drafts, each.source, each.alone)
            for each in (self.asked, tokens)
        )
        return mine == theirs and np.array_equal(self.asked.ids, tokens.ids)


class Session:
    """One device's place in the backbone."""

    def __init__(
        self,
        name: str,
        owner: str,
        wants: Wants,
        cache: Cache,
        now: float,
        basis: Basis | None = None,
        gate: Gate | None = None,
    ) -> None:
        self.name = name
        self.owner = owner
        """Name of the key it was opened with; nobody else can see it."""
        self.wants = wants
        self.basis = basis
        """In which its answers are written, if one is wanted."""
        self.gate = gate
        """Says which tokens need the device, in steps that ask for it."""
        self.cache = cache
        self.last: Answer | None = None
        self.loose = 0
        """Positions at the end that the next step may begin in front of: the last answer's rows but the first,
        and what was said."""
        self.turn = asyncio.Lock()
        """Held by the one request that may look at the cache or change it."""
        self.closed = False
        self.busy = 0
        """Requests that are using it."""
        self.seen = now
        """When it was last used."""
        self.answered: float | None = None
        """When its last step was answered."""

    def close(self) -> None:
        """Give the memory back, at once or after the request whose turn it is."""
        self.closed = True
        if not self.turn.locked():
            self.cache.release()


class Sessions:
    """All sessions, with limits on their number and on what they hold together."""

    def __init__(
        self,
        facts: BackboneFacts,
        runner: Runner,
        prefixes: Prefixes,
        metrics: Metrics,
        *,
        limit: int,
        idle: float,
        bases: Callable[[Wants], Basis | None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            facts: Of the backbone.
            runner: Reads the steps.
            prefixes: Those that sessions begin behind.
            metrics: Is told of sessions and what they hold.
            limit: Sessions at a time.
            idle: Seconds without a request after which a session ends.
            bases: Gives the basis that is wanted, or refuses it.
            clock: Seconds that only grow.

        """
        self._facts = facts
        self._runner = runner
        self._prefixes = prefixes
        self._metrics = metrics
        self._limit = limit
        self._idle = idle
        self._bases = bases
        self._clock = clock
        self._open: dict[str, Session] = {}
        metrics.sessions.set_function(lambda: len(self._open))

    def __iter__(self) -> Iterator[Session]:
        """Iterate over a copy: the model thread and the server both look at sessions."""
        return iter(list(self._open.values()))

    def __len__(self) -> int:
        """Return how many are open."""
        return len(self._open)

    @property
    def room(self) -> int:
        """Positions that one session can hold; ``Loading`` while there is no backbone."""
        return min(self._facts.positions, self._runner.require_ready().pool.positions)

    def open(
        self, asked: SessionRequest, owner: str = LOCAL, most: int | None = None
    ) -> SessionOpened:
        """
        Open a session of ``owner``, who may have ``most`` at a time.

        Raises:
            Loading: There is no backbone yet.
            KitNotFound, MalformedMessage: The basis that is wanted is not there.
            MalformedMessage, TensorMismatch: The gate cannot be read off what is wanted.
            PrefixNotFound: The prefix that it is to begin behind is not there.
            SessionQuota: The owner has as many already.
            TapOutOfRange, LimitExceeded: The backbone cannot answer with what is wanted.
            TooManySessions: Every place is taken, and no session has been idle for long enough.

        """
        room = self.room
        check_wants(asked.wants, self._facts)
        check_gate(asked.gate, asked.wants, self._facts)
        basis = self._bases(asked.wants)
        self.expire()
        if most is not None and sum(session.owner == owner for session in self) >= most:
            raise SessionQuota(limit=most)
        if len(self._open) >= self._limit:
            raise TooManySessions(limit=self._limit)
        cache = self._prefixes.place(owner, asked.prefix)
        # Whoever knows the name may use the session, so nobody can guess it.
        name = secrets.token_urlsafe(18)
        session = Session(name, owner, asked.wants, cache, self._clock(), basis, asked.gate)
        self._open[name] = session
        return SessionOpened(
            session=name,
            position=session.cache.position,
            limit=room,
            idle_seconds=self._idle,
        )

    def use(self, name: str, owner: str = LOCAL) -> "Use":
        """
        Return a context manager within which the session cannot expire.

        Raises:
            SessionNotFound: It never was, has been closed, was idle too long, or is another's.

        """
        self.expire()
        return Use(self._find(name, owner), self._clock)

    def close(self, name: str, owner: str = LOCAL) -> None:
        """End a session, or raise ``SessionNotFound``."""
        session = self._find(name, owner)
        del self._open[name]
        session.close()

    def _find(self, name: str, owner: str) -> Session:
        session = self._open.get(name)
        if session is None or session.owner != owner:
            raise SessionNotFound(session=name)
        return session

    def expire(self) -> None:
        """End the sessions that were idle too long."""
        now = self._clock()
        for session in self:
            if not session.busy and now - session.seen >= self._idle:
                self._open.pop(session.name, None)
                session.close()

    async def step(self, waiter: Waiter, session: Session, tokens: Tokens) -> Answer:
        """
        Read a step's tokens and return what answers it.

        The same step again gives the same answer and reads nothing.

        Raises:
            Dropped: The waiter was gone before it was read; nothing has been read.
            PositionMismatch: The step does not begin where the session stands.
            ContextExceeded: It does not fit into the session.
            Overloaded: Too much waits, or it does not fit into the memory that all share.
            TokenOutOfRange: A token does not exist.
            MalformedMessage: There is a source where none is read, or none where one is; or drafts
                or a gate where there are none.
            FrameTooLarge: The answer would not fit into a frame.
            NotFinite: The model overflowed.

        """
        async with Turn(session):
            if session.last is not None and session.last.fits(tokens):
                return session.last
            if waiter.gone:
                raise Dropped()
            drafts, alone = self._check(session, tokens, session.wants)
            session.cache.crop(tokens.position)
            session.loose = 0
            reading = Reading(
                waiter,
                "step",
                session.cache,
                tokens.ids,
                tokens.wanted,
                session.wants,
                drafts,
                tokens.source,
                alone,
                partial(arrived, wants=session.wants, basis=session.basis),
            )
            self._runner.submit(reading)
            states = await self._runner.answer(reading)
            try:
                frame = await frame_of(states, session.wants, session.basis)
            except Fault:
                # What could not be answered has not been read.
                session.cache.crop(tokens.position)
                raise
            said = len(states.spoken)
            session.last = Answer(tokens, frame, said)
            behind = session.cache.position - session.cache.source
            session.loose = min(tokens.wanted + len(states.drafted) + said - 1, behind)
            return session.last

    async def crop(self, session: Session, position: int) -> int:
        """
        Forget what was read from ``position`` on.

        Raises:
            PositionMismatch: The session has not come that far.
            MalformedMessage: A part of its source would be left.

        """
        async with Turn(session):
            if position > session.cache.position:
                raise PositionMismatch(expected=session.cache.position, got=position)
            if 0 < position < session.cache.source:
                raise MalformedMessage(reason="a source is kept whole or forgotten whole")
            session.cache.crop(position)
            session.last, session.loose = None, 0
            return session.cache.position

    def _check(self, session: Session, tokens: Tokens, wants: Wants) -> tuple[int, Alone | None]:
        """Refuse what cannot be read; return how many drafts there is room for, and how the backbone speaks alone."""
        stands = session.cache.position
        check_source(tokens, wants, self._facts)
        if not tokens.source and not stands - session.loose <= tokens.position <= stands:
            raise PositionMismatch(expected=stands, got=tokens.position)
        asked = tokens.position + len(tokens.ids)
        if asked > self.room:
            raise ContextExceeded(limit=self.room, asked=asked)
        if (tokens.drafts or tokens.alone) and wants.depth is not None:
            raise MalformedMessage(
                reason="a session that wants taps alone has no drafts and no gate"
            )
        if tokens.alone and session.gate is None:
            raise MalformedMessage(reason="the session was opened without a gate")
        drafts, said = (min(own, self.room - asked) for own in (tokens.drafts, tokens.alone))
        check_ids(tokens.ids, self._facts)
        check_answer(tokens.wanted, wants, self._facts, drafts, said)
        if session.gate is None or not said:
            return drafts, None
        return drafts, Alone(session.gate, said, frozenset(self._facts.stop_tokens))


class Turn:
    """Holds a session's cache for one request; the others wait in the order in which they came."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def __aenter__(self) -> None:
        """Wait for the turn, or raise ``SessionNotFound`` when the session was closed meanwhile."""
        await self._session.turn.acquire()
        if self._session.closed:
            self._session.turn.release()
            raise SessionNotFound(session=self._session.name)

    async def __aexit__(self, *_: object) -> None:
        """Let the next one have it."""
        self._session.turn.release()
        if self._session.closed:
            self._session.cache.release()


class Use:
    """Holds a session for the length of a request."""

    def __init__(self, session: Session, clock: Callable[[], float]) -> None:
        self._session = session
        self._clock = clock

    def __enter__(self) -> Session:
        """Return the session."""
        self._session.busy += 1
        return self._session

    def __exit__(self, *_: object) -> None:
        """Let it go."""
        self._session.busy -= 1
        self._session.seen = self._clock()
