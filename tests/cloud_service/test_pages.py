"""The tables of pages, against the numbers that stand on the pages of a store as small as possible."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cloud_service.backbones.pages import PAGE, Cache, PagePool, growing
from protocol.errors import Overloaded


class Store:
    """One number a position, written as an engine writes keys and values."""

    def __init__(self, pages: int) -> None:
        self.slots = [None] * (pages * PAGE)
        self.pool = PagePool(pages, 10, self.copy)

    def copy(self, source: int, target: int) -> None:
        at, to = source * PAGE, target * PAGE
        self.slots[to : to + PAGE] = self.slots[at : at + PAGE]

    def write(self, cache: Cache, numbers: list[int]) -> None:
        with growing([cache], [len(numbers)]):
            for place, number in enumerate(numbers, cache.position):
                self.slots[cache.pages[place // PAGE] * PAGE + place % PAGE] = number

    def read(self, cache: Cache) -> list[int]:
        return [
            self.slots[cache.pages[place // PAGE] * PAGE + place % PAGE]
            for place in range(cache.position)
        ]


@pytest.fixture
def store() -> Store:
    return Store(4)


def filled(store: Store, count: int) -> Cache:
    cache = Cache(store.pool)
    store.write(cache, list(range(count)))
    return cache


def test_a_new_cache_holds_no_memory(store):
    cache = Cache(store.pool)
    assert (cache.position, cache.capacity, cache.bytes, store.pool.used) == (0, 0, 0, 0)


@pytest.mark.parametrize("count", [1, PAGE - 1, PAGE, PAGE + 1, 3 * PAGE])
def test_what_is_held_is_less_than_a_page_ahead_of_what_was_read(store, count):
    cache = filled(store, count)
    assert 0 <= cache.capacity - cache.position < PAGE
    assert cache.bytes == 10 * store.pool.used == 10 * len(cache.pages)
    assert store.pool.used + store.pool.free == 4


def test_a_crop_gives_pages_back_and_goes_on_from_there(store):
    cache = filled(store, 3 * PAGE)
    cache.crop(PAGE + 1)
    assert (cache.position, store.pool.used) == (PAGE + 1, 2)
    store.write(cache, [7])
    assert store.read(cache) == [*range(PAGE + 1), 7]


def test_a_crop_beyond_the_end_changes_nothing(store):
    cache = filled(store, 5)
    cache.crop(9)
    assert cache.position == 5


def test_a_fork_takes_no_memory_until_it_writes(store):
    cache = filled(store, PAGE + 5)
    forked = cache.fork()
    assert (forked.position, store.pool.used) == (PAGE + 5, 2)
    store.write(forked, [70])
    assert store.pool.used == 3  # the torn page, not the full one
    assert forked.pages[0] == cache.pages[0]
    assert store.read(forked) == [*range(PAGE + 5), 70]
    assert store.read(cache) == list(range(PAGE + 5))


def test_neither_of_two_forks_sees_what_the_other_writes(store):
    cache = filled(store, 5)
    one, two = cache.fork(), cache.fork()
    store.write(one, [10])
    store.write(two, [20])
    store.write(cache, [30])
    assert [store.read(each)[5:] for each in (one, two, cache)] == [[10], [20], [30]]


def test_what_a_fork_crops_stays_with_the_others(store):
    cache = filled(store, 2 * PAGE)
    forked = cache.fork()
    forked.crop(3)
    store.write(forked, [-1] * PAGE)
    assert store.read(cache) == list(range(2 * PAGE))
    assert store.read(forked) == [0, 1, 2, *[-1] * PAGE]


def test_a_page_is_free_when_its_last_holder_lets_it_go(store):
    cache = filled(store, 5)
    forked = cache.fork()
    cache.release()
    assert store.pool.used == 1
    assert store.read(forked) == list(range(5))
    forked.release()
    assert store.pool.used == 0


def test_more_than_there_is_is_refused_and_changes_nothing(store):
    cache, other = filled(store, 3 * PAGE), Cache(store.pool)
    with pytest.raises(Overloaded):
        store.write(other, list(range(PAGE + 1)))
    assert (other.position, other.capacity, store.pool.used) == (0, 0, 3)
    assert store.read(cache) == list(range(3 * PAGE))


def test_a_torn_page_that_cannot_be_copied_stays_shared(store):
    cache = filled(store, 4 * PAGE - 1)
    forked = cache.fork()
    with pytest.raises(Overloaded):
        store.write(forked, [1])
    assert forked.pages == cache.pages


def test_of_many_caches_all_grow_or_none(store):
    one, two = Cache(store.pool), filled(store, 5)
    with pytest.raises(Overloaded), growing([one, two], [3 * PAGE, PAGE]):
        raise AssertionError("there are no pages for both")
    assert (one.position, one.capacity, two.position, two.capacity) == (0, 0, 5, PAGE)


def test_what_fails_in_between_leaves_every_cache_as_it_was(store):
    one, two = Cache(store.pool), filled(store, 5)
    with pytest.raises(ZeroDivisionError), growing([one, two], [PAGE, PAGE]):
        raise ZeroDivisionError
    assert (one.position, one.capacity, two.position, two.capacity) == (0, 0, 5, PAGE)


def test_missing_pages_are_asked_back_before_anybody_is_refused(store):
    kept, asked = filled(store, 3 * PAGE), []

    def reclaim(missing: int) -> None:
        asked.append(missing)
        kept.release()

    store.pool.reclaim = reclaim
    filled(store, 2 * PAGE)
    assert asked == [1]


class Machine(RuleBasedStateMachine):
    """Any order of writes, crops and forks: each cache holds what a list in its place would."""

    @initialize()
    def begin(self):
        self.store = Store(12)
        self.held: list[tuple[Cache, list[int]]] = [(Cache(self.store.pool), [])]
        self.number = 0

    @rule(which=st.integers(0, 99), count=st.integers(1, 2 * PAGE))
    def write(self, which, count):
        cache, expected = self.held[which % len(self.held)]
        numbers = list(range(self.number, self.number + count))
        self.number += count
        try:
            self.store.write(cache, numbers)
        except Overloaded:
            return
        expected += numbers

    @rule(which=st.integers(0, 99), share=st.floats(0, 1))
    def crop(self, which, share):
        cache, expected = self.held[which % len(self.held)]
        position = int(share * len(expected))
        cache.crop(position)
        del expected[position:]

    @rule(which=st.integers(0, 99))
    def fork(self, which):
        cache, expected = self.held[which % len(self.held)]
        self.held.append((cache.fork(), list(expected)))

    @precondition(lambda self: len(self.held) > 1)
    @rule(which=st.integers(0, 99))
    def release(self, which):
        cache, _ = self.held.pop(which % len(self.held))
        cache.release()

    @invariant()
    def every_cache_holds_what_was_written_into_it(self):
        for cache, expected in self.held:
            assert self.store.read(cache) == expected

    @invariant()
    def pages_are_held_or_free(self):
        held = {page for cache, _ in self.held for page in cache.pages}
        assert self.store.pool.used == len(held)


TestAnyOrder = Machine.TestCase
TestAnyOrder.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
