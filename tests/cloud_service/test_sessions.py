import math

import numpy as np
import pytest
import torch

from cloud_service.backbones.causal import CausalBackbone
from cloud_service.backbones.loading import load_model
from cloud_service.backbones.pages import PAGE
from cloud_service.metrics import Metrics
from cloud_service.sessions import Sessions
from protocol import versions
from protocol.errors import (
    ContextExceeded,
    FrameTooLarge,
    LimitExceeded,
    NotFinite,
    Overloaded,
    PositionMismatch,
    SessionNotFound,
    TapOutOfRange,
    TokenOutOfRange,
    TooManySessions,
)
from protocol.limits import Limits
from protocol.messages import Wants
from tests import tiny
from tests.cloud_service.reading import KV_BYTES, alone
from tests.cloud_service.running import EVERYTHING, FINAL, ids_of, tokens_of


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def sessions_of(llama, clock, **limits):
    chosen = {"limit": 4, "idle": 60.0, **limits}
    return Sessions(llama.facts, Metrics(), clock=clock, **chosen)


@pytest.fixture
def sessions(llama, clock):
    return sessions_of(llama, clock)


@pytest.fixture
def session(sessions, llama):
    with sessions.use(sessions.open(EVERYTHING, llama).session) as opened:
        yield opened
    sessions.close(opened.name)


def test_a_new_session_says_what_it_can_hold_and_how_long(sessions, llama):
    opened = sessions.open(FINAL, llama)
    assert (opened.position, opened.limit, opened.idle_seconds) == (0, tiny.POSITIONS, 60.0)


def test_names_of_sessions_cannot_be_guessed(sessions, llama):
    names = {sessions.open(FINAL, llama).session for _ in range(4)}
    assert len(names) == 4
    assert all(len(name) >= 24 for name in names)


def test_a_step_answers_with_what_the_session_wanted(sessions, session, llama):
    ids = ids_of(7)
    states = versions.decode(sessions.step(llama, session, tokens_of(ids)))
    expected = alone(llama, ids, 7, EVERYTHING)
    assert states.layers == (0, 2, 4)
    np.testing.assert_array_equal(states.taps, expected.taps)
    np.testing.assert_array_equal(states.log_z, expected.log_z)
    np.testing.assert_array_equal(states.candidates.ids, expected.candidates.ids)


def test_the_same_step_again_gives_the_same_bytes_and_reads_nothing(sessions, session, llama):
    step = tokens_of(ids_of(7), step=3)
    first = sessions.step(llama, session, step)
    assert sessions.step(llama, session, tokens_of(ids_of(7), step=3)) is first
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
def test_another_step_at_an_old_position_is_refused_with_the_expected_one(
    sessions, session, llama, other
):
    sessions.step(llama, session, tokens_of(ids_of(7), step=3))
    with pytest.raises(PositionMismatch) as refused:
        sessions.step(llama, session, other)
    assert refused.value.details == {"expected": 7, "got": 0}
    assert session.cache.position == 7


def test_a_step_of_an_old_id_at_the_right_position_is_a_new_step(sessions, session, llama):
    sessions.step(llama, session, tokens_of(ids_of(7), step=3))
    sessions.step(llama, session, tokens_of(ids_of(2), position=7, step=3))
    assert session.cache.position == 9


def test_a_crop_forgets_the_last_answer_too(sessions, session, llama):
    step = tokens_of(ids_of(7))
    first = sessions.step(llama, session, step)
    assert sessions.crop(session, 0) == 0
    again = sessions.step(llama, session, step)
    assert again is not first
    assert again == first


def test_a_crop_to_where_the_session_stands_changes_nothing(sessions, session, llama):
    sessions.step(llama, session, tokens_of(ids_of(7)))
    assert sessions.crop(session, 7) == 7
    sessions.step(llama, session, tokens_of(ids_of(1), position=7))


def test_a_crop_beyond_the_session_is_refused(sessions, session, llama):
    sessions.step(llama, session, tokens_of(ids_of(7)))
    with pytest.raises(PositionMismatch) as refused:
        sessions.crop(session, 8)
    assert refused.value.details == {"expected": 7, "got": 8}


def test_more_than_the_context_is_refused_before_it_is_read(sessions, session, llama):
    sessions.step(llama, session, tokens_of(ids_of(200), wanted=1))
    with pytest.raises(ContextExceeded) as refused:
        sessions.step(llama, session, tokens_of(ids_of(57), position=200))
    assert refused.value.details == {"limit": 256, "asked": 257}
    sessions.step(llama, session, tokens_of(ids_of(56), position=200))


@pytest.fixture
def small(pulled_of):
    """A backbone with memory for three pages."""
    pulled = pulled_of("llama")
    model = load_model(pulled.folder, "f32")
    page = 4 * 2 * PAGE * 2 * 16 * 4  # layers, keys and values, positions, heads, width, bytes
    return CausalBackbone(model, pulled.record.facts(), kv_bytes=3 * page)


def test_a_session_holds_no_more_than_there_is_memory(small, clock):
    sessions = sessions_of(small, clock)
    assert sessions.open(FINAL, small).limit == 3 * PAGE


def test_sessions_share_the_memory_there_is(small, clock):
    sessions = sessions_of(small, clock)
    with (
        sessions.use(sessions.open(FINAL, small).session) as one,
        sessions.use(sessions.open(FINAL, small).session) as two,
    ):
        sessions.step(small, one, tokens_of(ids_of(PAGE + 1), wanted=1))
        with pytest.raises(Overloaded):
            sessions.step(small, two, tokens_of(ids_of(PAGE + 1)))
        assert (small.pool.used, two.cache.position) == (2, 0)
        sessions.step(small, two, tokens_of(ids_of(PAGE)))
        sessions.close(one.name)
        sessions.step(small, two, tokens_of(ids_of(100), position=PAGE, wanted=1))


def test_a_token_that_does_not_exist_is_refused(sessions, session, llama):
    with pytest.raises(TokenOutOfRange) as refused:
        sessions.step(llama, session, tokens_of([5, tiny.VOCABULARY, 6]))
    assert refused.value.details == {"token": 512, "vocabulary": 512}
    assert session.cache.position == 0


def test_an_answer_that_fits_no_frame_is_refused_before_the_model_works(pulled_of, llama, clock):
    frame = 16 + 20 + 4 * 3 + 20 * (3 + 1) * 64 * 4 + 20 * 4 + 2 * 20 * 5 * 4
    for limit, fits in ((frame + 64, True), (frame - 1, False)):
        facts = pulled_of("llama").record.facts(limits=Limits(frame_bytes=limit))
        sessions = Sessions(facts, Metrics(), limit=1, idle=60.0, clock=clock)
        with sessions.use(sessions.open(EVERYTHING, llama).session) as session:
            if fits:
                assert len(sessions.step(llama, session, tokens_of(ids_of(20)))) == frame
            else:
                with pytest.raises(FrameTooLarge):
                    sessions.step(llama, session, tokens_of(ids_of(20)))
                assert session.cache.position == 0


def test_states_that_are_not_finite_are_refused_and_not_read(pulled_of, clock):
    pulled = pulled_of("llama")
    model = load_model(pulled.folder, "f32")
    broken = CausalBackbone(model, pulled.record.facts(), kv_bytes=KV_BYTES)
    with torch.no_grad():
        broken.model.model.norm.weight[0] = math.inf
    sessions = sessions_of(broken, clock)
    with sessions.use(sessions.open(FINAL, broken).session) as session:
        with pytest.raises(NotFinite):
            sessions.step(broken, session, tokens_of(ids_of(3)))
        assert session.cache.position == 0


@pytest.mark.parametrize(
    ("wants", "fault"),
    [
        (Wants((0, 5), True, False, 0, "f32"), TapOutOfRange),
        (Wants((), True, False, 513, "f32"), LimitExceeded),
    ],
    ids=["tap", "candidates"],
)
def test_what_no_answer_can_hold_is_refused_when_the_session_is_opened(
    sessions, llama, wants, fault
):
    with pytest.raises(fault):
        sessions.open(wants, llama)
    assert len(sessions) == 0


def test_a_session_ends_when_it_was_idle_too_long(sessions, llama, clock):
    name = sessions.open(FINAL, llama).session
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


def test_a_session_that_is_in_use_does_not_end(sessions, llama, clock):
    name = sessions.open(FINAL, llama).session
    with sessions.use(name):
        clock.now += 3600
        sessions.expire()
        assert len(sessions) == 1
    clock.now += 59
    with sessions.use(name):
        pass


def test_a_place_is_free_again_when_a_session_ends_or_expires(sessions, llama, clock):
    names = [sessions.open(FINAL, llama).session for _ in range(4)]
    with pytest.raises(TooManySessions) as refused:
        sessions.open(FINAL, llama)
    assert refused.value.details == {"limit": 4}
    sessions.close(names[0])
    sessions.open(FINAL, llama)
    clock.now += 60
    for _ in range(4):
        sessions.open(FINAL, llama)


def test_what_was_closed_is_not_found(sessions, llama):
    name = sessions.open(FINAL, llama).session
    sessions.close(name)
    for ask in (sessions.use, sessions.close):
        with pytest.raises(SessionNotFound):
            ask(name)


def test_memory_is_counted_while_sessions_hold_it(small, clock):
    metrics = Metrics()
    metrics.watch(small.pool)
    sessions = Sessions(small.facts, metrics, limit=2, idle=60.0, clock=clock)
    with sessions.use(sessions.open(FINAL, small).session) as session:
        sessions.step(small, session, tokens_of(ids_of(3)))
        shown = metrics.text().decode()
        assert "sideplug_sessions 1.0" in shown
        assert "sideplug_kv_pages_used 1.0" in shown
        assert f"sideplug_kv_pages_limit {float(small.pool.pages)}" in shown
        assert f"sideplug_kv_bytes {float(session.cache.bytes)}" in shown
        assert 'sideplug_tokens_total{purpose="step"} 3.0' in shown
        sessions.close(session.name)
    assert "sideplug_kv_bytes 0.0" in metrics.text().decode()
