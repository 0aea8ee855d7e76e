import asyncio
import math

import numpy as np
import pytest
import torch

from cloud_service.backbones.causal import CausalBackbone
from cloud_service.backbones.loading import load_model
from cloud_service.backbones.pages import PAGE
from cloud_service.metrics import Metrics
from cloud_service.prefixes import Prefixes
from cloud_service.reading import Dropped, Waiter
from cloud_service.sessions import Sessions
from protocol import versions
from protocol.errors import (
    ContextExceeded,
    FrameTooLarge,
    LimitExceeded,
    MalformedMessage,
    NotFinite,
    Overloaded,
    PositionMismatch,
    SessionNotFound,
    TapOutOfRange,
    TokenOutOfRange,
    TooManySessions,
)
from protocol.limits import Limits
from protocol.messages import SessionRequest, Wants
from tests import tiny
from tests.cloud_service.reading import KV_BYTES, Held, alone, loaded
from tests.cloud_service.running import EVERYTHING, FINAL, ids_of, tokens_of


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def sessions_of(clock):
    """Makes sessions of a backbone, with a runner of their own."""
    runners = []

    def made(backbone, metrics=None, **options):
        runners.append(loaded(backbone))
        chosen = {"facts": backbone.facts, "limit": 4, "idle": 60.0, **options}
        facts = chosen.pop("facts")
        metrics = metrics or Metrics()
        prefixes = Prefixes(facts, runners[-1], metrics, idle=60.0, clock=clock)
        return Sessions(facts, runners[-1], prefixes, metrics, clock=clock, **chosen)

    yield made
    for runner in runners:
        runner.stop()


def stepped(sessions, session, tokens):
    return asyncio.run(sessions.step(Waiter("somebody"), session, tokens)).frame


def cropped(sessions, session, position):
    return asyncio.run(sessions.crop(session, position))


@pytest.fixture
def sessions(llama, sessions_of):
    return sessions_of(llama)


@pytest.fixture
def session(sessions):
    with sessions.use(sessions.open(SessionRequest(EVERYTHING)).session) as opened:
        yield opened
    sessions.close(opened.name)


def test_a_new_session_says_what_it_can_hold_and_how_long(sessions):
    opened = sessions.open(SessionRequest(FINAL))
    assert (opened.position, opened.limit, opened.idle_seconds) == (0, tiny.POSITIONS, 60.0)


def test_names_of_sessions_cannot_be_guessed(sessions):
    names = {sessions.open(SessionRequest(FINAL)).session for _ in range(4)}
    assert len(names) == 4
    assert all(len(name) >= 24 for name in names)


def test_a_step_answers_with_what_the_session_wanted(sessions, session, llama):
    ids = ids_of(7)
    states = versions.decode(stepped(sessions, session, tokens_of(ids)))
    expected = alone(llama, ids, 7, EVERYTHING)
    assert states.layers == (0, 2, 4)
    np.testing.assert_array_equal(states.taps, expected.taps)
    np.testing.assert_array_equal(states.log_z, expected.log_z)
    np.testing.assert_array_equal(states.candidates.ids, expected.candidates.ids)


def test_the_same_step_again_gives_the_same_bytes_and_reads_nothing(sessions, session):
    step = tokens_of(ids_of(7), step=3)
    first = stepped(sessions, session, step)
    assert stepped(sessions, session, tokens_of(ids_of(7), step=3)) is first
    assert session.cache.position == 7


@pytest.mark.parametrize(
    "other",
    [
        tokens_of(ids_of(7), step=4),
        tokens_of(ids_of(7, seed=1), step=3),
        tokens_of(ids_of(7), step=3, wanted=1),
        tokens_of(ids_of(6), step=3),
    ],
    ids=["step", "tokens", "wanted", "count"],
)
def test_another_step_at_an_old_position_is_refused_with_the_expected_one(sessions, session, other):
    stepped(sessions, session, tokens_of(ids_of(7), step=3))
    with pytest.raises(PositionMismatch) as refused:
        stepped(sessions, session, other)
    assert refused.value.details == {"expected": 7, "got": 0}
    assert session.cache.position == 7


def test_a_step_of_an_old_id_at_the_right_position_is_a_new_step(sessions, session):
    stepped(sessions, session, tokens_of(ids_of(7), step=3))
    stepped(sessions, session, tokens_of(ids_of(2), position=7, step=3))
    assert session.cache.position == 9


def test_a_crop_forgets_the_last_answer_too(sessions, session):
    step = tokens_of(ids_of(7))
    first = stepped(sessions, session, step)
    assert cropped(sessions, session, 0) == 0
    again = stepped(sessions, session, step)
    assert again is not first
    assert again == first


def test_a_crop_to_where_the_session_stands_changes_nothing(sessions, session):
    stepped(sessions, session, tokens_of(ids_of(7)))
    assert cropped(sessions, session, 7) == 7
    stepped(sessions, session, tokens_of(ids_of(1), position=7))


def test_a_crop_beyond_the_session_is_refused(sessions, session):
    stepped(sessions, session, tokens_of(ids_of(7)))
    with pytest.raises(PositionMismatch) as refused:
        cropped(sessions, session, 8)
    assert refused.value.details == {"expected": 7, "got": 8}


def test_more_than_the_context_is_refused_before_it_is_read(sessions, session):
    stepped(sessions, session, tokens_of(ids_of(200), wanted=1))
    with pytest.raises(ContextExceeded) as refused:
        stepped(sessions, session, tokens_of(ids_of(57), position=200))
    assert refused.value.details == {"limit": 256, "asked": 257}
    stepped(sessions, session, tokens_of(ids_of(56), position=200))


@pytest.fixture
def small(pulled_of):
    """A backbone with memory for three pages."""
    pulled = pulled_of("llama")
    model = load_model(pulled.folder, "f32")
    page = 4 * 2 * PAGE * 2 * 16 * 4  # layers, keys and values, positions, heads, width, bytes
    return CausalBackbone(model, pulled.record.facts(), kv_bytes=3 * page)


def test_a_session_holds_no_more_than_there_is_memory(small, sessions_of):
    sessions = sessions_of(small)
    assert sessions.open(SessionRequest(FINAL)).limit == 3 * PAGE


def test_sessions_share_the_memory_there_is(small, sessions_of):
    sessions = sessions_of(small)
    with (
        sessions.use(sessions.open(SessionRequest(FINAL)).session) as one,
        sessions.use(sessions.open(SessionRequest(FINAL)).session) as two,
    ):
        stepped(sessions, one, tokens_of(ids_of(PAGE + 1), wanted=1))
        with pytest.raises(Overloaded):
            stepped(sessions, two, tokens_of(ids_of(PAGE + 1)))
        assert (small.pool.used, two.cache.position) == (2, 0)
        stepped(sessions, two, tokens_of(ids_of(PAGE)))
        sessions.close(one.name)
        stepped(sessions, two, tokens_of(ids_of(100), position=PAGE, wanted=1))


def test_a_token_that_does_not_exist_is_refused(sessions, session):
    with pytest.raises(TokenOutOfRange) as refused:
        stepped(sessions, session, tokens_of([5, tiny.VOCABULARY, 6]))
    assert refused.value.details == {"token": 512, "vocabulary": 512}
    assert session.cache.position == 0


def test_an_answer_that_fits_no_frame_is_refused_before_the_model_works(
    pulled_of, llama, sessions_of
):
    frame = 16 + 20 + 4 * 3 + 20 * (3 + 1) * 64 * 4 + 20 * 4 + 2 * 20 * 5 * 4
    for limit, fits in ((frame + 64, True), (frame - 1, False)):
        facts = pulled_of("llama").record.facts(limits=Limits(frame_bytes=limit))
        sessions = sessions_of(llama, facts=facts)
        with sessions.use(sessions.open(SessionRequest(EVERYTHING)).session) as session:
            if fits:
                assert len(stepped(sessions, session, tokens_of(ids_of(20)))) == frame
            else:
                with pytest.raises(FrameTooLarge):
                    stepped(sessions, session, tokens_of(ids_of(20)))
                assert session.cache.position == 0


def test_states_that_are_not_finite_are_refused_and_not_read(pulled_of, sessions_of):
    pulled = pulled_of("llama")
    model = load_model(pulled.folder, "f32")
    broken = CausalBackbone(model, pulled.record.facts(), kv_bytes=KV_BYTES)
    with torch.no_grad():
        broken.model.model.norm.weight[0] = math.inf
    sessions = sessions_of(broken)
    with sessions.use(sessions.open(SessionRequest(FINAL)).session) as session:
        with pytest.raises(NotFinite):
            stepped(sessions, session, tokens_of(ids_of(3)))
        assert session.cache.position == 0


@pytest.mark.parametrize(
    ("wants", "fault"),
    [
        (Wants((0, 5), True, False, 0, "f32"), TapOutOfRange),
        (Wants((), True, False, 513, "f32"), LimitExceeded),
    ],
    ids=["tap", "candidates"],
)
def test_what_no_answer_can_hold_is_refused_when_the_session_is_opened(sessions, wants, fault):
    with pytest.raises(fault):
        sessions.open(SessionRequest(wants))
    assert len(sessions) == 0


def test_a_session_ends_when_it_was_idle_too_long(sessions, clock):
    name = sessions.open(SessionRequest(FINAL)).session
    clock.now += 59
    with sessions.use(name):
        pass
    clock.now += 59.9
    sessions.expire()
    assert len(sessions) == 1
    clock.now += 0.2
    with pytest.raises(SessionNotFound) as refused:
        sessions.use(name)
    assert refused.value.details == {"session": name}


def test_a_session_that_is_in_use_does_not_end(sessions, clock):
    name = sessions.open(SessionRequest(FINAL)).session
    with sessions.use(name):
        clock.now += 3600
        sessions.expire()
        assert len(sessions) == 1
    clock.now += 59
    with sessions.use(name):
        pass


def test_a_place_is_free_again_when_a_session_ends_or_expires(sessions, clock):
    names = [sessions.open(SessionRequest(FINAL)).session for _ in range(4)]
    with pytest.raises(TooManySessions) as refused:
        sessions.open(SessionRequest(FINAL))
    assert refused.value.details == {"limit": 4}
    sessions.close(names[0])
    sessions.open(SessionRequest(FINAL))
    clock.now += 60
    for _ in range(4):
        sessions.open(SessionRequest(FINAL))


def test_what_was_closed_is_not_found(sessions):
    name = sessions.open(SessionRequest(FINAL)).session
    sessions.close(name)
    for ask in (sessions.use, sessions.close):
        with pytest.raises(SessionNotFound):
            ask(name)


def test_memory_is_counted_while_sessions_hold_it(small, sessions_of):
    metrics = Metrics()
    metrics.watch(small.pool)
    sessions = sessions_of(small, metrics)
    with sessions.use(sessions.open(SessionRequest(FINAL)).session) as session:
        stepped(sessions, session, tokens_of(ids_of(3)))
        shown = metrics.text().decode()
        assert "sideplug_sessions 1.0" in shown
        assert "sideplug_kv_pages_used 1.0" in shown
        assert f"sideplug_kv_pages_limit {float(small.pool.pages)}" in shown
        assert f"sideplug_kv_bytes {float(session.cache.bytes)}" in shown
        sessions.close(session.name)
    assert "sideplug_kv_bytes 0.0" in metrics.text().decode()


@pytest.fixture
def held(small):
    made = Held(small)
    yield made
    made.release()


def test_a_session_closed_within_a_pass_gives_its_memory_back_afterwards(small, sessions_of, held):
    sessions = sessions_of(small)

    async def close_while_it_is_read():
        name = sessions.open(SessionRequest(FINAL)).session
        with sessions.use(name) as session:
            step = sessions.step(Waiter("somebody"), session, tokens_of(ids_of(5)))
            stepping = asyncio.ensure_future(step)
            await held.until_begun()
            sessions.close(name)
            assert small.pool.used == 1
            held.release()
            await stepping

    asyncio.run(close_while_it_is_read())
    assert small.pool.used == 0


def test_a_crop_waits_for_its_own_sessions_step_and_for_no_other(small, sessions_of, held):
    sessions = sessions_of(small)

    async def crop_while_it_is_read():
        with (
            sessions.use(sessions.open(SessionRequest(FINAL)).session) as one,
            sessions.use(sessions.open(SessionRequest(FINAL)).session) as two,
        ):
            step = sessions.step(Waiter("somebody"), one, tokens_of(ids_of(5)))
            stepping = asyncio.ensure_future(step)
            await held.until_begun()
            assert await sessions.crop(two, 0) == 0
            cropping = asyncio.ensure_future(sessions.crop(one, 2))
            await asyncio.sleep(0.05)
            assert not cropping.done()
            held.release()
            await stepping
            assert await cropping == 2
            assert one.cache.position == 2

    asyncio.run(crop_while_it_is_read())


def test_the_same_step_while_it_is_read_gets_the_same_answer(small, sessions_of, held):
    sessions = sessions_of(small)

    async def ask_twice():
        with sessions.use(sessions.open(SessionRequest(FINAL)).session) as session:
            first, second = (
                asyncio.ensure_future(
                    sessions.step(Waiter("somebody"), session, tokens_of(ids_of(5), step=1))
                )
                for _ in range(2)
            )
            await held.until_begun()
            held.release()
            assert await first is await second
            assert session.cache.position == 5

    asyncio.run(ask_twice())


def test_a_step_whose_device_went_away_before_its_turn_is_not_read(small, sessions_of, held):
    sessions = sessions_of(small)

    async def leave():
        with (
            sessions.use(sessions.open(SessionRequest(FINAL)).session) as one,
            sessions.use(sessions.open(SessionRequest(FINAL)).session) as two,
        ):
            stepping = asyncio.ensure_future(
                sessions.step(Waiter("somebody"), one, tokens_of(ids_of(5)))
            )
            await held.until_begun()
            waiter = Waiter("somebody")
            left = asyncio.ensure_future(sessions.step(waiter, two, tokens_of(ids_of(5))))
            await asyncio.sleep(0.05)
            waiter.gone = True
            held.release()
            await stepping
            with pytest.raises(Dropped):
                await left
            with pytest.raises(Dropped):
                await sessions.step(waiter, two, tokens_of(ids_of(5)))
            assert (two.cache.position, two.cache.capacity) == (0, 0)

    asyncio.run(leave())


def test_what_waits_for_a_session_that_is_closed_finds_it_no_more(small, sessions_of, held):
    sessions = sessions_of(small)

    async def close():
        name = sessions.open(SessionRequest(FINAL)).session
        with sessions.use(name) as session:
            stepping = asyncio.ensure_future(
                sessions.step(Waiter("somebody"), session, tokens_of(ids_of(5)))
            )
            await held.until_begun()
            cropping = asyncio.ensure_future(sessions.crop(session, 0))
            await asyncio.sleep(0.05)
            sessions.close(name)
            held.release()
            await stepping
            with pytest.raises(SessionNotFound):
                await cropping

    asyncio.run(close())


def test_a_session_that_wants_taps_alone_has_no_drafts(sessions):
    opened = sessions.open(SessionRequest(Wants((1,), False, False, 0, "f32")))
    with sessions.use(opened.session) as session:
        with pytest.raises(MalformedMessage, match="no drafts"):
            stepped(sessions, session, tokens_of(ids_of(5), drafts=2))
        stepped(sessions, session, tokens_of(ids_of(5)))
    sessions.close(opened.session)
