"""Features in bulk, over real HTTP, and how steps go before them."""

import json
import threading
import time

import httpx
import numpy as np
import pytest

from protocol import versions
from protocol.errors import (
    BadMagic,
    ContextExceeded,
    InternalFault,
    Loading,
    MalformedMessage,
    PositionMismatch,
    TapOutOfRange,
    TokenOutOfRange,
    TruncatedFrame,
)
from protocol.limits import Limits
from protocol.messages import States
from protocol.stream import FrameReader
from tests import tiny
from tests.cloud_service.running import (
    EVERYTHING,
    FINAL,
    fault_in,
    ids_of,
    tokens_of,
)

FRAME_TYPE = "application/vnd.sideplug.frame"


def features(cloud, wants, texts, **options):
    """Return the messages that a stream of features is made of."""
    content = b"".join(versions.encode(tokens_of(text, **options)) for text in texts)
    params = {"wants": json.dumps(wants.to_json())}
    reader, messages = FrameReader(Limits()), []
    with cloud.http.stream("POST", "/v1/features", params=params, content=content) as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["content-type"] == FRAME_TYPE
        for chunk in answer.iter_bytes():
            messages += [versions.decode(frame) for frame in reader.feed(chunk)]
    reader.close()
    return messages


def test_features_are_the_states_that_a_session_would_give(cloud):
    texts = [ids_of(count, seed=count) for count in (40, 3, 200, 17)]
    answers = features(cloud, EVERYTHING, texts)
    assert len(answers) == len(texts)
    for text, states in zip(texts, answers, strict=True):
        expected = cloud.step(cloud.open(EVERYTHING).session, tokens_of(text))
        np.testing.assert_allclose(states.taps, expected.taps, atol=1e-4)
        np.testing.assert_allclose(states.final, expected.final, atol=1e-4)
        np.testing.assert_allclose(states.log_z, expected.log_z, atol=1e-4)
        np.testing.assert_allclose(states.candidates.logits, expected.candidates.logits, atol=1e-4)


def test_features_of_no_text_are_an_empty_stream(cloud):
    assert features(cloud, FINAL, []) == []


def test_features_of_the_wanted_tokens_only(cloud):
    (states,) = features(cloud, FINAL, [ids_of(9)], wanted=2)
    assert (states.position, states.final.shape) == (7, (2, tiny.HIDDEN))


GOOD_TEXT = versions.encode(tokens_of(ids_of(4)))


@pytest.mark.parametrize(
    ("wants", "content", "fault"),
    [
        (None, GOOD_TEXT, MalformedMessage),
        ("{", GOOD_TEXT, MalformedMessage),
        (json.dumps(EVERYTHING.to_json()).replace("4]", "5]"), GOOD_TEXT, TapOutOfRange),
        (json.dumps(FINAL.to_json()), GOOD_TEXT + b"SPLG", TruncatedFrame),
        (json.dumps(FINAL.to_json()), GOOD_TEXT + b"NOPE" + bytes(20), BadMagic),
        (json.dumps(FINAL.to_json()), versions.encode(Loading()), MalformedMessage),
        (
            json.dumps(FINAL.to_json()),
            versions.encode(tokens_of([3], position=1)),
            PositionMismatch,
        ),
        (json.dumps(FINAL.to_json()), versions.encode(tokens_of(ids_of(257))), ContextExceeded),
        (json.dumps(FINAL.to_json()), versions.encode(tokens_of([512])), TokenOutOfRange),
    ],
)
def test_a_wrong_request_for_features_is_refused_before_any_is_made(cloud, wants, content, fault):
    params = {} if wants is None else {"wants": wants}
    before = tokens_counted(cloud, "features")
    answer = cloud.http.post("/v1/features", params=params, content=content)
    assert type(fault_in(answer)) is fault
    assert tokens_counted(cloud, "features") == before


def tokens_counted(cloud, purpose):
    return (
        cloud.service.metrics.registry.get_sample_value(
            "sideplug_tokens_total", {"purpose": purpose}
        )
        or 0.0
    )


def test_a_step_is_answered_while_a_long_stream_of_features_is_made(cloud):
    texts = [ids_of(250, seed=number) for number in range(60)]
    session, done = cloud.open().session, []
    stream = threading.Thread(target=lambda: done.extend(features(cloud, EVERYTHING, texts)))
    before = tokens_counted(cloud, "features")
    stream.start()
    while tokens_counted(cloud, "features") == before:
        time.sleep(0.001)
    cloud_of_its_own = httpx.post(
        f"{cloud.http.base_url}/v1/sessions/{session}/step",
        content=versions.encode(tokens_of(ids_of(3))),
    )
    made = tokens_counted(cloud, "features") - before
    assert cloud_of_its_own.status_code == 200
    assert not done
    assert made < 50 * 250
    stream.join()
    assert len(done) == 60


def test_an_error_in_the_middle_of_features_ends_them_with_a_fault(cloud, monkeypatch):
    backbone = cloud.service.runner.require_ready()
    read = backbone.read

    def fails_at_the_third(spans):
        if any(len(span.ids) == 6 for span in spans):
            raise ZeroDivisionError("secret path /home/somebody")
        return read(spans)

    monkeypatch.setattr(backbone, "read", fails_at_the_third)
    first, second, last = features(cloud, FINAL, [ids_of(n) for n in (5, 5, 6, 5, 5)])
    assert isinstance(first, States)
    assert isinstance(second, States)
    assert isinstance(last, InternalFault)
    assert "secret" not in str(last)


def test_a_device_that_leaves_in_the_middle_of_features_stops_them(cloud):
    texts = b"".join(versions.encode(tokens_of(ids_of(250, seed=n))) for n in range(100))
    params = {"wants": json.dumps(EVERYTHING.to_json())}
    used = cloud.service.runner.require_ready().pool.used
    with cloud.http.stream("POST", "/v1/features", params=params, content=texts) as answer:
        next(answer.iter_raw())
    time.sleep(0.3)
    before = tokens_counted(cloud, "features")
    time.sleep(0.3)
    assert tokens_counted(cloud, "features") == before
    assert cloud.service.runner.require_ready().pool.used <= used
