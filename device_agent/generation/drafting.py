"""How many tokens are drafted, and by whom: by the cloud, or by the device out of texts it knows.

A draft is a guess. One request brings the states of the last token and of k drafted ones; the device
chooses as it would without them, and keeps a drafted token where it is the one that was chosen. With
a share a of drafted tokens accepted, a request brings a^0 + … + a^k tokens (Leviathan, Kalman and
Matias 2023, eq. 1) and takes ``request + k each`` seconds to answer and ``row (k + 1)`` to verify. Of
all k, the smallest is taken whose tokens a second come within 2 % of the best: a shorter draft streams more evenly
and leaves the cloud to others.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from device_agent.generation.costs import Costs
from device_agent.settings import AUTO, OFF

MOST = 31
"""Drafted tokens of one request: with the last token they are 32 rows."""

NEAR = 0.98
"""Share of the best rate that is good enough."""

MEMORY = 50
"""Drafted tokens that the share of accepted ones looks back on."""

PROBE = 32
"""Requests without a draft after which one token is drafted all the same, to see whether it pays again."""


@dataclass(frozen=True, slots=True)
class Tally:
    """Tokens that were drafted, those of them that were accepted, and those that the cloud said alone."""

    drafted: int = 0
    accepted: int = 0
    alone: int = 0

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(
            self.drafted + other.drafted,
            self.accepted + other.accepted,
            self.alone + other.alone,
        )

    def __sub__(self, other: "Tally") -> "Tally":
        return self + Tally(-other.drafted, -other.accepted, -other.alone)


@dataclass(frozen=True, slots=True)
class Draft:
    """What the next request brings along."""

    own: tuple[int, ...] = ()
    """Tokens of the device's own guess, sent to be verified."""

    asked: int = 0
    """How many tokens the cloud is to continue with."""


class Share:
    """The share of drafted tokens that are accepted, the last ``MEMORY`` counting most."""

    def __init__(self) -> None:
        # Two of three before anything is known: the first requests find out.
        self._accepted, self._tried = 2.0, 3.0

    def learn(self, accepted: int, refused: bool) -> None:
        """So many drafted tokens agreed, and whether there was one that did not."""
        kept: float = (1 - 1 / MEMORY) ** (accepted + refused)
        self._accepted = kept * self._accepted + accepted
        self._tried = kept * self._tried + accepted + refused

    @property
    def value(self) -> float:
        """From 0 to 1."""
        return self._accepted / self._tried


class Drafting:
    """The choice for one session, learned from what its requests took and brought.

    Args:
        choice: ``auto``; ``off``; or a number, which the cloud is always asked for.
    """

    def __init__(self, choice: str = AUTO) -> None:
        self.tally = Tally()
        self._fixed = None if choice == AUTO else 0 if choice == OFF else int(choice)
        # A drafted token takes the cloud a step without the way there; a sent one is read with others.
        self._request = Costs((1.0, 0.25, 0.1))
        self._rows = Costs((1.0, 0.25))
        self._cloud, self._own = Share(), Share()
        self._most = 1
        """Grows with the requests: so few measured ones must not ask for long drafts."""
        self._without = 0
        """Requests since the last one with a draft."""

    @property
    def adapts(self) -> bool:
        """Whether it is chosen anew for each request, and the device's own guesses are of use."""
        return self._fixed is None

    def next(self, room: int, guess: Sequence[int]) -> Draft:
        """What to draft.

        Args:
            room: Most tokens that can be of use.
            guess: The device's own.
        """
        if self._fixed is not None:
            return Draft(asked=max(0, min(self._fixed, room)))
        request, drafted, sent = self._request.each
        once, row = self._rows.each
        first = request + once + row
        asked, rate = _best(self._cloud.value, first, drafted + row, min(room, MOST, self._most))
        own, own_rate = _best(self._own.value, first, sent + row, min(room, MOST, len(guess)))
        if own and own_rate > rate:
            return Draft(own=tuple(guess[:own]))
        if not asked and room > 0 and self._without >= PROBE:
            asked = 1
        return Draft(asked=asked)

    def learn_request(self, draft: Draft, drafted: int, seconds: float) -> None:
        """A request for one token and ``draft`` came back with ``drafted`` ones after ``seconds``."""
        if self._fixed is not None:
            return
        self._request.learn((1, drafted, len(draft.own)), seconds)
        self._without = 0 if drafted else self._without + 1
        if drafted:
            self._most = min(MOST, 2 * self._most + 1)

    def learn_choices(
        self, draft: Draft, drafted: Sequence[int], chosen: Sequence[int], guess: Sequence[int]
    ) -> None:
        """What was chosen behind a request.

        Args:
            draft: What it brought along.
            drafted: Its own tokens, or the cloud's.
            chosen: The tokens up to the first that was not drafted, or to the answer's end.
            guess: The device's own, whether or not it was sent.
        """
        accepted = _agreed(drafted, chosen)
        self.tally += Tally(len(drafted), accepted)
        if self._fixed is not None:
            return
        if not draft.own:
            self._cloud.learn(accepted, accepted < min(len(drafted), len(chosen)))
        agreed = _agreed(guess, chosen)
        self._own.learn(agreed, agreed < min(len(guess), len(chosen)))

    def learn_rows(self, rows: int, seconds: float) -> None:
        """The device took ``seconds`` for so many rows."""
        if self._fixed is None:
            self._rows.learn((1, rows), seconds)


def _best(share: float, first: float, each: float, most: int) -> tuple[int, float]:
    """How many drafted tokens, at most ``most``, and the tokens a second that they bring.

    Args:
        share: Of drafted tokens that are accepted.
        first: Seconds of a request without any, and of its row.
        each: Seconds that a drafted token adds.
        most: How many at most.
    """
    rates, tokens, chance = [], 0.0, 1.0
    for count in range(max(most, 0) + 1):
        tokens += chance
        chance *= share
        rates.append(tokens / max(first + count * each, 1e-9))
    best = max(rates)
    count = next(count for count, rate in enumerate(rates) if rate >= NEAR * best)
    return count, rates[count]


def _agreed(guess: Sequence[int], chosen: Sequence[int]) -> int:
    """How many tokens of ``guess`` were chosen before the first other one."""
    longest = min(len(guess), len(chosen))
    return next((i for i in range(longest) if guess[i] != chosen[i]), longest)
