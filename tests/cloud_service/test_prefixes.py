"""Prefixes: read once, kept within their share of the memory, shared by sessions and texts."""

import asyncio
import json

import numpy as np
import pytest

from cloud_service.backbones.causal import CausalBackbone
from cloud_service.backbones.loading import load_model
from cloud_service.backbones.pages import PAGE, Cache
from cloud_service.metrics import Metrics
from cloud_service.prefixes import Prefixes
from cloud_service.reading import Waiter
from cloud_service.sessions import Sessions
from protocol import versions
from protocol.errors import (
    ContextExceeded,
    InternalFault,
    Loading,
    Overloaded,
    PositionMismatch,
    PrefixNotFound,
    TokenOutOfRange,
)
from protocol.limits import Limits
from protocol.messages import SessionRequest
from protocol.stream import FrameReader
from tests import tiny
from tests.cloud_service.reading import Held, loaded, read
from tests.cloud_service.running import EVERYTHING, FINAL, fault_in, ids_of, tokens_of

PREFIX, TEXTS = ids_of(20, seed=1), [ids_of(9, seed=2), ids_of(14, seed=3)]
LONG = ids_of(PAGE + 30, seed=4)
PAGES = 12
PAGE_BYTES = 4 * 2 * PAGE * 2 * 16 * 4


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def small(pulled_of):
    """A backbone with memory for twelve pages, six of them for prefixes."""
    pulled = pulled_of("llama")
    model = load_model(pulled.folder, "f32")
    return CausalBackbone(model, pulled.record.facts(), kv_bytes=PAGES * PAGE_BYTES)


@pytest.fixture
def runner(small):
    made = loaded(small)
    yield made
    made.stop()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def prefixes(small, runner, clock):
    made = Prefixes(small.facts, runner, Metrics(), idle=60.0, clock=clock)
    small.pool.reclaim = made.reclaim
    return made


def kept(prefixes, ids, owner="ada"):
    """Keep a prefix; gives its id."""
    return asyncio.run(prefixes.keep(owner, tokens_of(ids)))[0].prefix


def there(prefixes, name, owner="ada"):
    try:
        prefixes.position(owner, name)
    except PrefixNotFound:
        return False
    return True


def counted(cloud, name, **labels):
    return cloud.service.metrics.registry.get_sample_value(f"sideplug_{name}", labels) or 0.0


def ask(cloud, prefix, texts):
    return cloud.http.post(
        "/v1/features",
        params={"wants": json.dumps(EVERYTHING.to_json()), "prefix": prefix},
        content=b"".join(versions.encode(text) for text in texts),
    )


def close(states, expected, first):
    assert states.position == first
    np.testing.assert_allclose(states.taps, expected.taps[:, first:], atol=1e-4)
    np.testing.assert_allclose(states.final, expected.final[first:], atol=1e-4)
    np.testing.assert_allclose(states.log_z, expected.log_z[first:], atol=1e-4)


def whole(cloud, prefix, text):
    """Prefix and text in one step of a session of their own."""
    return cloud.step(cloud.open(EVERYTHING).session, tokens_of(np.concatenate([prefix, text])))


def test_the_same_tokens_are_read_once_and_have_the_same_id(cloud):
    tokens = tokens_of(ids_of(20, seed=50))
    before = counted(cloud, "tokens_total", purpose="prefix")
    first = cloud.http.post("/v1/prefixes", content=versions.encode(tokens))
    again = cloud.http.post("/v1/prefixes", content=versions.encode(tokens))
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    assert first.json()["position"] == 20
    assert counted(cloud, "tokens_total", purpose="prefix") == before + 20
    other = cloud.keep(tokens_of(ids_of(20, seed=51)))
    assert other.prefix != first.json()["prefix"]


@pytest.mark.parametrize("prefix", [PREFIX, LONG, ids_of(PAGE, seed=7)], ids=len)
def test_a_session_behind_a_prefix_goes_on_as_if_it_had_read_it(cloud, prefix):
    kept = cloud.keep(tokens_of(prefix))
    sessions = [cloud.open(EVERYTHING, kept.prefix) for _ in TEXTS]
    assert [opened.position for opened in sessions] == [len(prefix)] * 2
    for opened, text in zip(sessions, TEXTS, strict=True):
        states = cloud.step(opened.session, tokens_of(text, position=len(prefix)))
        close(states, whole(cloud, prefix, text), len(prefix))


def test_a_session_on_a_prefix_costs_no_prefill_of_it(cloud):
    kept = cloud.keep(tokens_of(LONG))
    names = ("step", "prefix", "features")
    before = {name: counted(cloud, "tokens_total", purpose=name) for name in names}
    hits, used = counted(cloud, "prefix_hits_total"), cloud.service.runner.require_ready().pool.used
    sessions = [cloud.open(EVERYTHING, kept.prefix) for _ in range(5)]
    assert cloud.service.runner.require_ready().pool.used == used
    for opened in sessions:
        cloud.step(opened.session, tokens_of([5], position=len(LONG)))
    spent = {name: counted(cloud, "tokens_total", purpose=name) - before[name] for name in names}
    assert spent == {"step": 5, "prefix": 0, "features": 0}
    assert counted(cloud, "prefix_hits_total") == hits + 5
    # The torn page alone is a copy of each session's own.
    assert cloud.service.runner.require_ready().pool.used == used + 5
    for opened in sessions:
        cloud.http.delete(f"/v1/sessions/{opened.session}")
    assert cloud.service.runner.require_ready().pool.used == used


def test_what_one_session_reads_or_crops_no_other_sees(cloud):
    kept = cloud.keep(tokens_of(LONG))
    one, two = (cloud.open(EVERYTHING, kept.prefix).session for _ in range(2))
    cloud.step(one, tokens_of(TEXTS[0], position=len(LONG)))
    cloud.http.post(f"/v1/sessions/{one}/crop", json={"position": 10})
    cloud.step(one, tokens_of(TEXTS[0], position=10, step=1))
    states = cloud.step(two, tokens_of(TEXTS[1], position=len(LONG)))
    close(states, whole(cloud, LONG, TEXTS[1]), len(LONG))


@pytest.mark.parametrize("prefix", [PREFIX, LONG], ids=len)
def test_texts_behind_a_prefix_have_the_states_of_both_in_one(cloud, prefix):
    kept = cloud.keep(tokens_of(prefix))
    before = counted(cloud, "tokens_total", purpose="features")
    answer = ask(cloud, kept.prefix, [tokens_of(text, position=len(prefix)) for text in TEXTS])
    frames = [versions.decode(frame) for frame in FrameReader(Limits()).feed(answer.content)]
    assert len(frames) == len(TEXTS)
    for text, states in zip(TEXTS, frames, strict=True):
        close(states, whole(cloud, prefix, text), len(prefix))
    spent = counted(cloud, "tokens_total", purpose="features") - before
    assert spent == sum(map(len, TEXTS))


def test_a_text_at_another_position_is_refused_with_the_right_one(cloud):
    kept = cloud.keep(tokens_of(PREFIX))
    fault = fault_in(ask(cloud, kept.prefix, [tokens_of(TEXTS[0])]))
    assert isinstance(fault, PositionMismatch)
    assert fault.details == {"expected": 20, "got": 0}


def test_a_text_longer_than_the_room_behind_the_prefix_is_refused(cloud):
    kept = cloud.keep(tokens_of(PREFIX))
    answer = ask(cloud, kept.prefix, [tokens_of(ids_of(250), position=20)])
    assert isinstance(fault_in(answer), ContextExceeded)


def test_a_prefix_that_is_not_there_is_named(cloud):
    fault = fault_in(ask(cloud, "nothing", [tokens_of(TEXTS[0], position=20)]))
    assert isinstance(fault, PrefixNotFound)
    assert fault.details == {"prefix": "nothing"}
    request = SessionRequest(FINAL, prefix="nothing").to_json()
    fault = fault_in(cloud.http.post("/v1/sessions", json=request))
    assert isinstance(fault, PrefixNotFound)


@pytest.mark.parametrize(
    ("tokens", "fault"),
    [
        (tokens_of([3], position=1), PositionMismatch),
        (tokens_of([3, 512]), TokenOutOfRange),
        (tokens_of(ids_of(tiny.POSITIONS)), ContextExceeded),
    ],
    ids=["position", "token", "length"],
)
def test_what_can_be_no_prefix_is_refused_before_it_is_read(cloud, tokens, fault):
    before = counted(cloud, "tokens_total", purpose="prefix")
    answer = cloud.http.post("/v1/prefixes", content=versions.encode(tokens))
    assert type(fault_in(answer)) is fault
    assert counted(cloud, "tokens_total", purpose="prefix") == before


def test_a_prefix_that_cannot_be_read_is_not_kept(cloud, monkeypatch):
    def fail(_spans):
        raise ZeroDivisionError

    tokens = versions.encode(tokens_of(ids_of(5, seed=60)))
    with monkeypatch.context() as broken:
        broken.setattr(cloud.service.runner.require_ready(), "read", fail)
        answer = cloud.http.post("/v1/prefixes", content=tokens)
        assert isinstance(fault_in(answer), InternalFault)
    assert cloud.http.post("/v1/prefixes", content=tokens).status_code == 201


def test_two_who_ask_for_one_prefix_at_a_time_have_it_read_once(prefixes, small):
    held, passes = Held(small), []
    counting = small.model.base_model.register_forward_hook(lambda *_: passes.append(1))

    async def ask_twice():
        asked = [
            asyncio.ensure_future(prefixes.keep("ada", tokens_of(PREFIX, step=n))) for n in range(2)
        ]
        await held.until_begun()
        held.release()
        return await asyncio.gather(*asked)

    (first, read), (second, none) = asyncio.run(ask_twice())
    counting.remove()
    assert (first, read, none) == (second, 20, 0)
    assert len(passes) == 1


def test_a_prefix_that_was_not_used_for_too_long_is_forgotten(prefixes, small, clock):
    first, second = kept(prefixes, PREFIX), kept(prefixes, LONG)
    clock.now += 59
    prefixes.place("ada", first).release()
    clock.now += 2
    prefixes.expire()
    assert (there(prefixes, first), there(prefixes, second)) == (True, False)
    assert small.pool.used == 1


def test_to_ask_for_a_prefix_again_is_to_use_it(prefixes, clock):
    first = kept(prefixes, PREFIX)
    clock.now += 59
    assert kept(prefixes, PREFIX) == first
    clock.now += 59
    prefixes.expire()
    assert there(prefixes, first)


def test_prefixes_have_their_share_of_the_memory_and_no_more(prefixes, small, clock):
    names = []
    for number in range(8):
        clock.now += 1
        names.append(kept(prefixes, ids_of(PAGE, seed=number)))
    assert [there(prefixes, name) for name in names] == [False] * 2 + [True] * 6
    assert small.pool.used == PAGES // 2
    with pytest.raises(ContextExceeded) as refused:
        kept(prefixes, ids_of(tiny.POSITIONS, seed=9))
    assert refused.value.details == {"asked": 256, "limit": 255}


def test_whoever_holds_the_most_makes_place_with_what_they_used_least(prefixes, clock):
    bobs = kept(prefixes, PREFIX, "bob")
    adas = []
    for number in range(5):
        clock.now += 1
        adas.append(kept(prefixes, ids_of(PAGE, seed=number)))
    clock.now += 1
    kept(prefixes, PREFIX)
    assert there(prefixes, bobs, "bob")
    assert [there(prefixes, name) for name in adas] == [False, True, True, True, True]


def test_a_prefix_of_one_owner_is_another_of_another(prefixes):
    adas, bobs = kept(prefixes, PREFIX, "ada"), kept(prefixes, PREFIX, "bob")
    assert adas != bobs
    assert not there(prefixes, adas, "bob")


def test_a_forgotten_prefix_stays_with_the_session_that_began_behind_it(prefixes, small, clock):
    name = kept(prefixes, PREFIX)
    cache = prefixes.place("ada", name)
    clock.now += 60
    prefixes.expire()
    assert not there(prefixes, name)
    states = read(small, cache, TEXTS[0], 9, EVERYTHING)
    fresh = Cache(small.pool)
    expected = read(small, fresh, np.concatenate([PREFIX, TEXTS[0]]), 29, EVERYTHING)
    close(states, expected, 20)


def test_unused_prefixes_make_place_for_sessions_and_used_ones_stay(prefixes, small, clock):
    used, unused = kept(prefixes, ids_of(3 * PAGE, seed=1)), kept(prefixes, ids_of(150, seed=2))
    place = prefixes.place("ada", used)
    sessions = [Cache(small.pool) for _ in range(3)]
    for cache in sessions:
        read(small, cache, ids_of(3 * PAGE), 1, FINAL)
    assert (there(prefixes, used), there(prefixes, unused)) == (True, False)
    with pytest.raises(Overloaded):
        read(small, Cache(small.pool), ids_of(1), 1, FINAL)
    assert there(prefixes, used)
    place.release()
    read(small, Cache(small.pool), ids_of(1), 1, FINAL)
    assert not there(prefixes, used)


def test_only_as_much_is_forgotten_as_is_needed_and_the_oldest_first(prefixes, small, clock):
    names = []
    for number in range(3):
        clock.now += 1
        names.append(kept(prefixes, ids_of(PAGE, seed=number)))
    sessions = [Cache(small.pool) for _ in range(4)]
    for cache, count in zip(sessions, (3, 3, 3, 1), strict=True):
        read(small, cache, ids_of(count * PAGE), 1, FINAL)
    assert [there(prefixes, name) for name in names] == [False, True, True]


def test_a_session_gives_back_what_it_holds_of_a_prefix(prefixes, small, runner, clock):
    sessions = Sessions(small.facts, runner, prefixes, Metrics(), limit=2, idle=60.0, clock=clock)
    name = kept(prefixes, LONG)
    opened = sessions.open(SessionRequest(FINAL, prefix=name), "ada")
    with sessions.use(opened.session, "ada") as session:
        asyncio.run(sessions.step(Waiter("ada"), session, tokens_of([5], position=len(LONG))))
    assert small.pool.used == 3
    sessions.close(opened.session, "ada")
    assert small.pool.used == 2


def test_without_a_backbone_there_is_no_prefix(small):
    class Unloaded:
        def require_ready(self):
            raise Loading()

    prefixes = Prefixes(small.facts, Unloaded(), Metrics(), idle=60.0)
    with pytest.raises(Loading):
        kept(prefixes, PREFIX)
    with pytest.raises(Loading):
        prefixes.place("ada", None)
