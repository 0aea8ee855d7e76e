import math

import numpy as np
import pytest
import torch

from cloud_service.backbones.causal import CausalBackbone
from cloud_service.backbones.kv import BLOCK
from cloud_service.backbones.loading import load_model
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
    chosen = {"limit": 4, "positions": 1000, "idle": 60.0, **limits}
    return Sessions(llama.facts, Metrics(), clock=clock, **chosen)


@pytest.fixture
def sessions(llama, clock):
    return sessions_of(llama, clock)


@pytest.fixture
def session(sessions, llama):
    with sessions.use(sessions.open(EVERYTHING, llama).session) as opened:
        yield opened


def test_a_new_session_says_what_it_can_hold_and_how_long(sessions, llama):
    opened = sessions.open(FINAL, llama)
    assert (opened.position, opened.limit, opened.idle_seconds) == (0, tiny.POSITIONS, 60.0)


def test_names_of_sessions_cannot_be_guessed(sessions, llama):
    names = {sessions.open(FINAL, llama).session for _ in range(4)}
    assert len(names) == 4
    assert all(len(name) >= 24 for name in names)


def test_a_step_answers_with_what_the_session_wanted(sessions, session, llama):
    ids = ids_of(7)
    states = versions.decode(sessions.step(session, tokens_of(ids)))
    expected = llama.read(ids, 7, EVERYTHING)
    assert states.layers == (0, 2, 4)
    np.testing.assert_array_equal(states.taps, expected.taps)
    np.testing.assert_array_equal(states.log_z, expected.log_z)
    np.testing.assert_array_equal(states.candidates.ids, expected.candidates.ids)


def test_the_same_step_again_gives_the_same_bytes_and_reads_nothing(sessions, session):
    step = tokens_of(ids_of(7), step=3)
    first = sessions.step(session, step)
    assert sessions.step(session, tokens_of(ids_of(7), step=3)) is first
    assert session.context.position == 7


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
    sessions.step(session, tokens_of(ids_of(7), step=3))
    with pytest.raises(PositionMismatch) as refused:
        sessions.step(session, other)
    assert refused.value.details == {"expected": 7, "got": 0}
    assert session.context.position == 7


def test_a_step_of_an_old_id_at_the_right_position_is_a_new_step(sessions, session):
    sessions.step(session, tokens_of(ids_of(7), step=3))
    sessions.step(session, tokens_of(ids_of(2), position=7, step=3))
    assert session.context.position == 9


def test_a_crop_forgets_the_last_answer_too(sessions, session):
    step = tokens_of(ids_of(7))
    first = sessions.step(session, step)
    assert sessions.crop(session, 0) == 0
    again = sessions.step(session, step)
    assert again is not first
    assert again == first


def test_a_crop_to_where_the_session_stands_changes_nothing(sessions, session):
    sessions.step(session, tokens_of(ids_of(7)))
    assert sessions.crop(session, 7) == 7
    sessions.step(session, tokens_of(ids_of(1), position=7))


def test_a_crop_beyond_the_session_is_refused(sessions, session):
    sessions.step(session, tokens_of(ids_of(7)))
    with pytest.raises(PositionMismatch) as refused:
        sessions.crop(session, 8)
    assert refused.value.details == {"expected": 7, "got": 8}


def test_more_than_the_context_is_refused_before_it_is_read(sessions, session):
    sessions.step(session, tokens_of(ids_of(200), wanted=1))
    with pytest.raises(ContextExceeded) as refused:
        sessions.step(session, tokens_of(ids_of(57), position=200))
    assert refused.value.details == {"limit": 256, "asked": 257}
    sessions.step(session, tokens_of(ids_of(56), position=200))


def test_a_session_holds_no_more_than_all_may(llama, clock):
    sessions = sessions_of(llama, clock, positions=100)
    opened = sessions.open(FINAL, llama)
    assert opened.limit == 100


def test_sessions_share_the_memory_there_is(llama, clock):
    sessions = sessions_of(llama, clock, positions=2 * BLOCK + 10)
    with (
        sessions.use(sessions.open(FINAL, llama).session) as one,
        sessions.use(sessions.open(FINAL, llama).session) as two,
    ):
        sessions.step(one, tokens_of(ids_of(BLOCK + 1), wanted=1))
        assert sessions.held() == 2 * BLOCK
        with pytest.raises(Overloaded):
            sessions.step(two, tokens_of(ids_of(11)))
        sessions.step(two, tokens_of(ids_of(10)))
        sessions.close(one.name)
        sessions.step(two, tokens_of(ids_of(100), position=10, wanted=1))


def test_a_token_that_does_not_exist_is_refused(sessions, session):
    with pytest.raises(TokenOutOfRange) as refused:
        sessions.step(session, tokens_of([5, tiny.VOCABULARY, 6]))
    assert refused.value.details == {"token": 512, "vocabulary": 512}
    assert session.context.position == 0


def test_an_answer_that_fits_no_frame_is_refused_before_the_model_works(pulled_of, llama, clock):
    frame = 16 + 20 + 4 * 3 + 20 * (3 + 1) * 64 * 4 + 20 * 4 + 2 * 20 * 5 * 4
    for limit, fits in ((frame + 64, True), (frame - 1, False)):
        facts = pulled_of("llama").record.facts(limits=Limits(frame_bytes=limit))
        sessions = Sessions(facts, Metrics(), limit=1, positions=100, idle=60.0, clock=clock)
        with sessions.use(sessions.open(EVERYTHING, llama).session) as session:
            if fits:
                assert len(sessions.step(session, tokens_of(ids_of(20)))) == frame
            else:
                with pytest.raises(FrameTooLarge):
                    sessions.step(session, tokens_of(ids_of(20)))
                assert session.context.position == 0


def test_states_that_are_not_finite_are_refused_and_not_read(pulled_of, clock):
    pulled = pulled_of("llama")
    broken = CausalBackbone(load_model(pulled.folder, "f32"), pulled.record.facts())
    with torch.no_grad():
        broken.model.model.norm.weight[0] = math.inf
    sessions = sessions_of(broken, clock)
    with sessions.use(sessions.open(FINAL, broken).session) as session:
        with pytest.raises(NotFinite):
            sessions.step(session, tokens_of(ids_of(3)))
        assert session.context.position == 0


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


def test_memory_is_counted_while_sessions_hold_it(llama, clock):
    metrics = Metrics()
    sessions = Sessions(llama.facts, metrics, limit=2, positions=100, idle=60.0, clock=clock)
    with sessions.use(sessions.open(FINAL, llama).session) as session:
        sessions.step(session, tokens_of(ids_of(3)))
        shown = metrics.text().decode()
        assert "sideplug_sessions 1.0" in shown
        assert f"sideplug_positions {float(BLOCK)}" in shown
        assert f"sideplug_kv_bytes {float(session.context.bytes)}" in shown
        assert 'sideplug_tokens_total{purpose="step"} 3.0' in shown
        sessions.close(session.name)
    assert "sideplug_kv_bytes 0.0" in metrics.text().decode()
