"""Features of texts behind a session: what the session holds is their prefix, and stays as it is."""

import json
from collections.abc import Sequence

import httpx
import numpy as np
import pytest

from protocol import versions
from protocol.errors import ContextExceeded, PositionMismatch, SessionNotFound
from protocol.limits import Limits
from protocol.messages import States, Tokens
from protocol.stream import FrameReader
from tests.cloud_service.running import EVERYTHING, Running, fault_in, ids_of, tokens_of

PREFIX, TEXTS = ids_of(20, seed=1), [ids_of(9, seed=2), ids_of(14, seed=3)]


def ask(cloud: Running, session: str, texts: Sequence[Tokens]) -> httpx.Response:
    return cloud.http.post(
        "/v1/features",
        params={"wants": json.dumps(EVERYTHING.to_json()), "behind": session},
        content=b"".join(map(versions.encode, texts)),
    )


@pytest.fixture
def session(cloud: Running) -> str:
    opened = cloud.open(EVERYTHING)
    cloud.step(opened.session, tokens_of(PREFIX, step=1))
    return opened.session


def test_a_text_behind_a_session_has_the_states_of_prefix_and_text_in_one(cloud, session):
    answer = ask(cloud, session, [tokens_of(text, position=20) for text in TEXTS])
    frames = [versions.decode(frame) for frame in FrameReader(Limits()).feed(answer.content)]
    assert len(frames) == len(TEXTS)
    for text, states in zip(TEXTS, frames, strict=True):
        assert isinstance(states, States)
        whole = cloud.step(
            cloud.open(EVERYTHING).session, tokens_of(np.concatenate([PREFIX, text]))
        )
        assert states.position == 20
        np.testing.assert_allclose(states.taps, whole.taps[:, 20:], atol=1e-4)
        np.testing.assert_allclose(states.final, whole.final[20:], atol=1e-4)
        np.testing.assert_allclose(states.log_z, whole.log_z[20:], atol=1e-4)


def test_the_session_goes_on_as_if_nothing_had_been_read(cloud, session):
    ask(cloud, session, [tokens_of(TEXTS[0], position=20)])
    after = cloud.step(session, tokens_of(TEXTS[1], position=20, step=2))
    other = cloud.open(EVERYTHING).session
    whole = cloud.step(other, tokens_of(np.concatenate([PREFIX, TEXTS[1]])))
    np.testing.assert_allclose(after.final, whole.final[20:], atol=1e-4)


def test_a_text_at_another_position_is_refused_with_the_right_one(cloud, session):
    fault = fault_in(ask(cloud, session, [tokens_of(TEXTS[0])]))
    assert isinstance(fault, PositionMismatch)
    assert fault.details == {"expected": 20, "got": 0}


def test_a_text_longer_than_the_room_behind_the_session_is_refused(cloud, session):
    assert isinstance(
        fault_in(ask(cloud, session, [tokens_of(ids_of(250), position=20)])), ContextExceeded
    )


def test_a_session_that_is_not_there_is_named(cloud):
    fault = fault_in(ask(cloud, "nobody", [tokens_of(TEXTS[0], position=20)]))
    assert isinstance(fault, SessionNotFound)
