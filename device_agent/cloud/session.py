"""A session with the backbone that outlives the cloud's memory of it."""

from collections.abc import Sequence
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from device_agent.closing import Closing
from device_agent.cloud.client import PATIENT_TRIES, TRIES, CloudClient, CloudUnreachable
from device_agent.cloud.traffic import StepKind
from protocol.basis import Basis
from protocol.errors import (
    ContextExceeded,
    Fault,
    MalformedMessage,
    PositionMismatch,
    PrefixNotFound,
    SessionNotFound,
)
from protocol.gate import Gate
from protocol.messages import SessionOpened, SessionRequest, States, Tokens, Wants

REPLAYS = 4
"""How often a step may find its session lost, or a session its prefix. Who is lost as often will be lost again."""


class RemoteSession(Closing):
    """Tokens in, states out, one request a step.

    When the cloud has forgotten the session, was started anew, or another address has to take over,
    a new session is opened and gets the same tokens again, its prefix first; the caller sees nothing of it. Within a
    session a cloud that is away is waited for longer than by who only begins.

    Args:
        cloud: Where the backbone is.
        wants: What every step brings.
        prefix: Tokens that it begins behind, which the cloud reads once for all sessions; they
            count among its tokens and cannot be cropped.
        basis: The one that the wants name, if they do.
        gate: Tells the cloud which tokens it may say by itself, in steps that let it.
    """

    def __init__(
        self,
        cloud: CloudClient,
        wants: Wants,
        prefix: Sequence[int] = (),
        basis: Basis | None = None,
        gate: Gate | None = None,
    ) -> None:
        self._cloud = cloud
        self._gate = gate
        self._wants, self._basis = wants, basis
        self._prefix = [int(i) for i in prefix]
        self._ids = list(self._prefix)
        self._loose = len(self._ids)
        self._source = 0
        self._steps = 0
        self._unsure = False
        self._opened = self._open()

    @property
    def position(self) -> int:
        """Tokens in the session so far."""
        return len(self._ids)

    @property
    def tokens(self) -> Sequence[int]:
        """The tokens in the session so far, drafted and said ones that nobody has cropped among them."""
        return self._ids

    @property
    def source(self) -> int:
        """How many of them, from the first on, are read by an encoder."""
        return self._source

    @property
    def limit(self) -> int:
        """Most tokens the session can hold."""
        return self._opened.limit

    @property
    def most(self) -> int:
        """Most tokens that one step can add."""
        return self._cloud.limits.tokens

    def step(
        self,
        ids: Sequence[int] | NDArray[np.uint32],
        wanted: int = 1,
        drafts: int = 0,
        kind: StepKind = "prompt",
        alone: int = 0,
    ) -> States:
        """Add tokens; get the states of the last ``wanted`` of them, and of those the cloud drafts.

        Through the gate: get the state of the last token alone, in front of which the cloud may have said some.

        Args:
            ids: (T,), at least one.
            wanted: 1 to T.
            drafts: How many tokens the cloud may continue with by itself, where it takes so many;
                they are in the session too.
            kind: What the tokens are, for the ledger.
            alone: How many tokens the cloud may say by itself, where it says so many; they are in
                the session too.

        Raises:
            ContextExceeded: The session is full; nothing was added.
        """
        new = [int(i) for i in ids]
        most = self._cloud.limits.drafts
        drafts, alone = min(drafts, most), min(alone, most)
        try:
            self._settle(PATIENT_TRIES)
            states = self._send(new, wanted, drafts, kind, alone)
        except (SessionNotFound, PositionMismatch):
            states = self._replay(new, wanted, drafts, alone)
        self._ids += [*new, *states.drafted.tolist(), *states.spoken.tolist()]
        self._loose = states.position + 1 - len(states.spoken)
        return states

    def begin(self, source: int) -> None:
        """Forget everything; of the tokens that are added next, the first ``source`` are for an encoder.

        Costs no request. They have to be added in one step.
        """
        self._ids.clear()
        self._source, self._loose, self._unsure = source, 0, False

    def crop(self, position: int) -> None:
        """Forget the tokens from ``position`` on, of a source none; see ``begin``.

        Behind the first row of the last answer this costs no request: the next step says it.
        """
        kept = len(self._prefix) or self._source
        if not kept <= position <= self.position:
            raise ValueError(
                f"cannot crop {self.position} tokens, {kept} of the prefix or source, to {position}"
            )
        if position < self.position:
            del self._ids[position:]
            if position >= self._loose:
                return
            self._unsure = True
            # The next step finds out as well, and brings back what is kept.
            with suppress(CloudUnreachable, SessionNotFound, PositionMismatch):
                self._settle(tries=1)

    def close(self) -> None:
        """Let the cloud forget the session, if it can be told; it forgets by itself in time."""
        with suppress(CloudUnreachable, Fault):
            self._cloud.close_session(self._opened.session)

    def _open(self, tries: int = TRIES) -> SessionOpened:
        if not self._prefix:
            return self._cloud.open_session(SessionRequest(self._wants, gate=self._gate), tries)
        lost = 0
        while True:
            kept = self._cloud.keep_prefix(self._prefix, tries)
            try:
                request = SessionRequest(self._wants, prefix=kept.prefix, gate=self._gate)
                opened = self._cloud.open_session(request, tries)
            except PrefixNotFound:
                lost += 1
                if lost == REPLAYS:
                    raise
                continue
            if opened.position != kept.position:
                raise MalformedMessage(
                    reason=f"a session behind {kept.position} tokens began at {opened.position}"
                )
            return opened

    def _settle(self, tries: int) -> None:
        """Bring the cloud to our position after a step that failed, perhaps on its way back."""
        if self._unsure:
            self._cloud.crop(self._opened.session, self.position, tries)
            self._unsure, self._loose = False, self.position

    def _replay(self, new: list[int], wanted: int, drafts: int, alone: int) -> States:
        past, lost = self._ids, 0
        while True:
            self._cloud.doubt()
            self._opened, self._ids = self._open(PATIENT_TRIES), list(self._prefix)
            try:
                again = past[len(self._prefix) :] + new
                return self._send(again, wanted, drafts, "replay", alone)
            except (SessionNotFound, PositionMismatch):
                lost += 1
                if lost == REPLAYS:
                    raise
            finally:
                self._ids = past

    def _send(self, new: list[int], wanted: int, drafts: int, kind: StepKind, alone: int) -> States:
        """Send ``new`` behind the session's tokens, in as few steps as the limits allow."""
        *parts, last = _parts(new, wanted, self._cloud.limits.tokens)
        position = self.position
        if not position and self._source > len((*parts, last)[0]):
            raise ContextExceeded(limit=self._cloud.limits.tokens, asked=self._source)
        self._unsure = True
        for part in parts:
            self._send_part(part, position, 1, kind)
            position += len(part)
        states = self._send_part(last, position, wanted, kind, drafts, alone)
        self._check(states)
        self._unsure = False
        return states

    def _send_part(
        self,
        ids: list[int],
        position: int,
        wanted: int,
        kind: StepKind,
        drafts: int = 0,
        alone: int = 0,
    ) -> States:
        self._steps += 1
        source = 0 if position else self._source
        tokens = Tokens(
            self._steps, position, wanted, np.array(ids, dtype=np.uint32), drafts, source, alone
        )
        return self._cloud.step(self._opened.session, tokens, PATIENT_TRIES, self._basis, kind)

    def _check(self, states: States) -> None:
        if states.layers != self._wants.layers or (states.final is None) == self._wants.final:
            raise MalformedMessage(
                reason=f"the session wants taps {list(self._wants.layers)},"
                f" the cloud sent {list(states.layers)}"
            )


def _parts(ids: list[int], wanted: int, most: int) -> list[list[int]]:
    """Cut ``ids`` into steps of at most ``most``; the last one holds every wanted token."""
    if not 1 <= wanted <= min(len(ids), most):
        raise ValueError(f"wanted must be 1 to {min(len(ids), most)}, but is {wanted}")
    parts, start = [], 0
    while len(ids) - start > most:
        # What is cut off in front must leave all the wanted ones for the last step.
        size = min(most, len(ids) - start - wanted)
        parts.append(ids[start : start + size])
        start += size
    return [*parts, ids[start:]]
