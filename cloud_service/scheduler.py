"""
Who is read next, and how much of it: one flat pass after another out of everything that waits.

Brief steps, decode above all, go into every pass. What every second pass may hold beside them is set
by how long passes take here: long prefills come in chunks beside which the steps of others never
take much longer than by themselves. Features of texts are read when no step waits, in chunks too, for
a step may come. Within each kind, owners take turns.
"""

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from cloud_service.backbones.pages import Cache
from cloud_service.pass_times import PassTimes
from cloud_service.reading import Reading

STRETCH = 2.0
"""How many times as long as one of brief steps only a pass may take while somebody decodes. Whose step
comes just after such a pass has begun waits for that one, and for a brief one: three times in all."""
CALM_SECONDS = 0.25
"""How long a pass may take while nobody decodes: what the first step after the calm may wait."""
RECENT_SECONDS = 2.0
"""For so long after a brief step, or a prompt's last token, the session's next step is expected."""
SMALLEST_CHUNK = 8
"""Tokens of the first reading in turn that go into a pass which holds a chunk, however slow."""
MOST_TOKENS = 2048
"""Tokens of a pass, for the memory that its states take."""
FAR = 700
"""A token with so many positions before it takes twice as long as one with none, as measured with the
default backbone in int4. With another backbone chunks come out somewhat too long or too short."""


@dataclass(frozen=True, slots=True)
class Portion:
    """
    Some tokens of one reading.

    Attributes:
        reading: Whose.
        count: How many.
        work: What they take, in tokens with nothing before them.

    """

    reading: Reading
    count: int
    work: float


class Scheduler:
    """Everything that waits for the model. For one thread at a time."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._steps = Turns()
        self._bulk = Turns()
        self._times = PassTimes()
        self._decoding: WeakKeyDictionary[Cache, float] = WeakKeyDictionary()
        """When each session last had all that it asked for planned."""
        self._stretched = False
        """Whether the last pass held some of what is not brief."""

    def __len__(self) -> int:
        """Return how many readings wait, those that have begun included."""
        return len(self._steps) + len(self._bulk)

    def __iter__(self) -> Iterator[Reading]:
        """Iterate over all that wait."""
        return itertools.chain(self._steps, self._bulk)

    def add(self, reading: Reading) -> None:
        """Let a reading wait."""
        self._turns_of(reading).add(reading)

    def remove(self, reading: Reading) -> None:
        """Let a reading wait no longer."""
        self._turns_of(reading).remove(reading)

    def plan(self) -> list[Portion]:
        """Return the next pass; empty when nothing waits."""
        turns = self._steps or self._bulk
        waiting = list(turns)
        turns.rotate()
        portions, total = [], 0
        for reading in waiting:
            if reading.brief and total + reading.left <= MOST_TOKENS:
                portions.append(_portion(reading, reading.left))
                total += reading.left
        # Those who waited for a chunk are not to wait beside another.
        rest = self._stretched and bool(portions)
        long = [] if rest else [reading for reading in waiting if not reading.brief]
        self._stretched = bool(long)
        room = self._limit(long) - sum(portion.work for portion in portions)
        least = SMALLEST_CHUNK
        for reading in long:
            count = min(max(int(room / _work(reading)), least), reading.left)
            if not count:
                break
            # An encoder reads its source in one piece, whatever there is room for.
            portions.append(_portion(reading, max(count, reading.least)))
            room -= portions[-1].work
            least = 0
        self._expect(portions)
        return portions

    def learn(self, portions: list[Portion], seconds: float) -> None:
        """Note how long a pass took."""
        work = sum(portion.work for portion in portions)
        brief = all(portion.reading.brief for portion in portions)
        self._times.learn(work, seconds, brief)

    def _expect(self, portions: list[Portion]) -> None:
        """Note whose next step comes soon: of all that this pass reads to their end, texts apart."""
        now = self._clock()
        for portion in portions:
            if portion.count == portion.reading.left and not portion.reading.bulk:
                self._decoding[portion.reading.cache] = now

    def _limit(self, long: list[Reading]) -> int:
        """Return the work that a pass with these long readings may be."""
        recent = self._clock() - RECENT_SECONDS
        own = {reading.cache for reading in long}
        others = any(at > recent and cache not in own for cache, at in self._decoding.items())
        brief = self._times.brief
        seconds = CALM_SECONDS if brief is None or not others else STRETCH * brief
        return min(self._times.tokens_within(seconds), MOST_TOKENS)

    def _turns_of(self, reading: Reading) -> "Turns":
        return self._bulk if reading.bulk else self._steps


def _portion(reading: Reading, count: int) -> Portion:
    return Portion(reading, count, count * _work(reading))


def _work(reading: Reading) -> float:
    """Return what its next token takes, in tokens with nothing before them."""
    return 1 + reading.cache.position / FAR


class Turns:
    """Readings of several owners, one of each owner after another."""

    def __init__(self) -> None:
        self._queues: dict[str, list[Reading]] = {}

    def __len__(self) -> int:
        """Return how many there are."""
        return sum(map(len, self._queues.values()))

    def __iter__(self) -> Iterator[Reading]:
        """Iterate over the first of each owner, then the second of each, and so on."""
        for rank in itertools.zip_longest(*self._queues.values()):
            yield from (reading for reading in rank if reading is not None)

    def add(self, reading: Reading) -> None:
        """Append a reading to its owner's."""
        self._queues.setdefault(reading.waiter.owner, []).append(reading)

    def remove(self, reading: Reading) -> None:
        """Take a reading out."""
        queue = self._queues[reading.waiter.owner]
        queue.remove(reading)
        if not queue:
            del self._queues[reading.waiter.owner]

    def rotate(self) -> None:
        """Let the owner who was first be last the next time."""
        if self._queues:
            owner = next(iter(self._queues))
            self._queues[owner] = self._queues.pop(owner)
