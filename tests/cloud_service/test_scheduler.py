"""Who is read next, on a clock of the test's own: no model, no threads."""

from itertools import pairwise

import pytest

from cloud_service.backbones.pages import Cache, PagePool
from cloud_service.pass_times import PassTimes
from cloud_service.reading import Reading, Waiter
from cloud_service.scheduler import (
    CALM_SECONDS,
    FAR,
    MOST_TOKENS,
    RECENT_SECONDS,
    SMALLEST_CHUNK,
    STRETCH,
    Scheduler,
)
from tests.cloud_service.running import FINAL, ids_of

POOL = PagePool(1000, 1, lambda _source, _target: None)
FIXED, EACH = 0.020, 0.001
"""Seconds of a pass of the machine that the tests imagine, and of each token in it at position 0."""


class Machine:
    """Runs what is planned, in no time but that of the clock."""

    def __init__(self):
        self.now = 0.0
        self.scheduler = Scheduler(lambda: self.now)

    def add(self, count, owner="one", purpose="step", cache=None):
        cache = cache or Cache(POOL)
        reading = Reading(Waiter(owner), purpose, cache, ids_of(count), 0, FINAL)
        self.scheduler.add(reading)
        return reading

    def run(self):
        """One pass; gives its portions and how long it took."""
        portions = self.scheduler.plan()
        work = sum(p.count * (1 + p.reading.cache.position / FAR) for p in portions)
        seconds = FIXED + EACH * work
        self.now += seconds
        self.scheduler.learn(portions, seconds)
        for portion in portions:
            portion.reading.take(portion.count, None)
            if not portion.reading.left:
                self.scheduler.remove(portion.reading)
        return portions, seconds

    def decode(self, caches, passes):
        """Let sessions decode, a step in each pass; gives the seconds of the passes."""
        times = []
        for _ in range(passes):
            for cache in caches:
                self.add(1, cache=cache)
            times.append(self.run()[1])
        return times


@pytest.fixture
def machine():
    return Machine()


def test_nothing_waits_and_nothing_is_planned(machine):
    assert machine.scheduler.plan() == []
    assert len(machine.scheduler) == 0


def test_every_brief_step_goes_into_the_next_pass(machine):
    steps = [machine.add(1 + n % 5, owner=str(n % 3)) for n in range(64)]
    portions, _ = machine.run()
    assert {id(portion.reading) for portion in portions} == set(map(id, steps))
    assert all(not portion.reading.left for portion in portions)


def test_a_long_prefill_never_stretches_the_steps_of_others_beyond_three_times(machine):
    caches = [Cache(POOL) for _ in range(8)]
    alone = sorted(machine.decode(caches, 20))[10]
    prefill = machine.add(2000)
    during = []
    while prefill.left:
        during += machine.decode(caches, 1)
    # A step that comes when a pass has just begun waits for that one and for a brief one.
    assert max(during) <= STRETCH * alone * 1.05
    assert max(map(sum, pairwise(during))) <= (STRETCH + 1) * alone * 1.05
    assert max(during) > 1.2 * alone


def test_a_chunk_is_as_large_as_the_measured_times_allow(machine):
    caches = [Cache(POOL) for _ in range(8)]
    machine.decode(caches, 20)
    prefill = machine.add(2000)
    sizes = []
    while prefill.left:
        before = prefill.left
        machine.decode(caches, 1)
        sizes.append(before - prefill.left)
    # 20 + 8 ms alone, 56 ms allowed: 36 tokens, of which 8 are steps; a power of two in all
    assert max(sizes) == 32 - 8
    assert not any(map(min, sizes, sizes[1:]))  # a pass of steps alone between two chunks
    assert len(sizes) < 300


def test_a_chunk_far_from_its_beginning_is_smaller(machine):
    caches = [Cache(POOL) for _ in range(8)]
    machine.decode(caches, 20)
    cache = Cache(POOL)
    cache.position = FAR
    prefill = machine.add(2000, cache=cache)
    machine.decode(caches, 10)
    before = prefill.left
    machine.decode(caches, 2)
    assert before - prefill.left == (32 - 8) // 2


def test_a_prefill_that_nobody_is_disturbed_by_comes_in_large_chunks(machine):
    cache = Cache(POOL)
    machine.decode([cache], 20)
    prefill = machine.add(2000, cache=cache)  # its own steps wait for it anyway
    sizes = []
    while prefill.left:
        portions, seconds = machine.run()
        sizes.append(portions[0].count)
        assert seconds <= CALM_SECONDS
    assert max(sizes) >= 128


def test_however_slow_the_machine_a_prefill_gets_on(machine):
    machine.decode([Cache(POOL)], 5)
    machine.scheduler._times._seconds = {1: 10.0}
    prefill = machine.add(100)
    machine.decode([Cache(POOL)], 1)
    assert 100 - prefill.left == SMALLEST_CHUNK


def test_a_pass_has_no_more_tokens_than_there_is_memory_for(machine):
    for _ in range(300):
        machine.add(16)
    machine.scheduler._times.learn(4096, 1e-6, brief=False)
    portions, _ = machine.run()
    assert sum(portion.count for portion in portions) == MOST_TOKENS


def test_features_wait_until_no_step_does(machine):
    text = machine.add(40, purpose="features")
    machine.add(3)
    machine.add(100)
    while len(machine.scheduler) > 1:
        portions, _ = machine.run()
        assert all(portion.reading is not text for portion in portions)
    assert machine.run()[0][0].reading is text


def test_several_texts_share_a_pass_and_none_is_brief(machine):
    machine.scheduler._times.learn(1, 0.001, brief=False)
    machine.scheduler._times.learn(1024, 0.1, brief=False)
    texts = [machine.add(5, purpose="features"), machine.add(300, purpose="features")]
    portions, _ = machine.run()
    assert [(portion.reading, portion.count) for portion in portions] == [
        (texts[0], 5),
        (texts[1], 300),
    ]


def test_texts_come_in_small_chunks_while_somebody_decodes(machine):
    cache = Cache(POOL)
    alone = machine.decode([cache], 20)[-1]
    machine.add(1000, purpose="features")
    assert machine.run()[1] <= STRETCH * alone * 1.05
    machine.now += RECENT_SECONDS
    assert machine.run()[1] > STRETCH * alone * 1.05


def test_whose_prompt_has_just_been_read_is_waited_for(machine):
    alone = machine.decode([Cache(POOL) for _ in range(8)], 20)[-1]
    machine.now += RECENT_SECONDS
    cache = Cache(POOL)
    machine.add(60, cache=cache)
    machine.run()
    machine.add(2000)
    assert machine.run()[1] <= STRETCH * alone * 1.05


def test_a_session_that_ended_counts_no_more(machine):
    machine.decode([Cache(POOL)], 20)
    machine.add(1000)
    assert max(machine.run()[0][0].count for _ in range(4)) >= 128


def test_owners_take_turns_whatever_each_of_them_asks_for(machine):
    machine.scheduler._times.learn(64, CALM_SECONDS, brief=False)
    mine = [machine.add(400, owner="many") for _ in range(5)]
    yours = machine.add(400, owner="one")
    served = {"many": 0, "one": 0}
    while yours.left:
        for portion in machine.run()[0]:
            served[portion.reading.waiter.owner] += portion.count
    assert served["many"] <= served["one"] + 128
    assert all(reading.left for reading in mine[1:])


def test_within_an_owner_the_first_is_finished_first(machine):
    first, second = machine.add(300), machine.add(300)
    while first.left:
        machine.run()
    assert second.left > 150


def test_times_of_other_sizes_follow_from_those_that_are_known():
    times = PassTimes()
    assert times.tokens_within(1.0) == PassTimes.FIRST
    times.learn(13, 0.1, brief=True)  # counted as 16
    assert times.brief == 0.1
    assert times.tokens_within(0.1) == 16
    assert times.tokens_within(0.25) == 32
    assert times.tokens_within(0.05) == 1
    times.learn(64, 0.2, brief=False)
    assert times.tokens_within(0.25) == 64


def test_larger_passes_are_foreseen_from_what_a_token_more_has_cost():
    times = PassTimes()
    times.learn(8, 0.028, brief=True)
    times.learn(16, 0.036, brief=False)
    assert times.tokens_within(0.053) == 32
    assert times.tokens_within(0.051) == 24
    assert times.tokens_within(0.043) == 16


def test_one_slow_pass_does_not_keep_its_size_away_for_ever():
    times = PassTimes()
    times.learn(64, 60.0, brief=False)
    times.learn(32, 0.1, brief=False)
    assert times.tokens_within(0.25) == 64


def test_a_size_that_is_known_to_be_slow_is_not_taken_for_a_fast_one():
    times = PassTimes()
    times.learn(32, 0.030, brief=True)
    times.learn(64, 0.028, brief=False)  # it answered fewer of its tokens
    times.learn(512, 0.250, brief=False)
    assert times.tokens_within(0.040) == 64
    assert times.tokens_within(0.251) == 512


def test_bad_luck_is_forgotten():
    times = PassTimes()
    times.learn(16, 0.025, brief=False)
    times.learn(64, 0.070, brief=False)
    for _ in range(PassTimes._FORGOTTEN - 1):
        times.learn(32, 0.030, brief=False)
    assert times.tokens_within(0.042) == 32
    times.learn(16, 0.025, brief=False)
    times.learn(32, 0.030, brief=False)
    assert times.tokens_within(0.042) == 64


def test_times_follow_a_machine_that_became_slower():
    times = PassTimes()
    for seconds in (0.1, 0.4):
        for _ in range(30):
            times.learn(32, seconds, brief=False)
    assert times.tokens_within(0.25) < 32
    assert times.tokens_within(0.41) == 32
