import json

import httpx
import pytest

from device_agent.cloud.client import BATCH_TEXTS, CloudUnreachable
from device_agent.cloud.connection import TRIES
from protocol import versions
from protocol.errors import (
    BadMagic,
    InternalFault,
    MalformedMessage,
    PrefixNotFound,
    TruncatedFrame,
)
from protocol.limits import Limits
from protocol.messages import PrefixKept
from tests.device_agent.scripted_cloud import Answer, in_turn
from tests.device_agent.talk import TOKENS, WANTS, fault_answer, frame, states, texts

PREFIX = PrefixKept(prefix="abc", position=40, idle_seconds=60.0)


def echo_features(request):
    """The states of each text that was sent, filled with the text's length."""
    reader = versions_of(request.body)
    return Answer(
        b"".join(
            frame(states(len(t.ids) - t.wanted, t.wanted, fill=float(len(t.ids)))) for t in reader
        )
    )


def versions_of(body):
    found = []
    while body:
        size = versions.frame_size(body[:16], Limits())
        found.append(versions.decode(body[:size]))
        body = body[size:]
    return found


def test_each_text_brings_its_states_in_order(talk_to):
    talk, server = talk_to(echo_features)
    found = list(talk.cloud.features(texts(3, 1, 7), WANTS))
    assert [s.taps.shape[1] for s in found] == [3, 1, 7]
    assert [s.taps[0, 0, 0] for s in found] == [3, 1, 7]
    assert [s.position for s in found] == [0, 0, 0]
    (request,) = server.requests
    query = httpx.URL(f"http://x{request.path}").params
    assert json.loads(query["wants"]) == json.loads(json.dumps(WANTS.to_json()))


def test_only_the_last_rows_of_a_text_come_when_only_those_are_wanted(talk_to):
    talk, _ = talk_to(echo_features)
    found = list(talk.cloud.features(texts(9, 5), WANTS, rows=[2, 5]))
    assert [(s.position, s.taps.shape[1]) for s in found] == [(7, 2), (0, 5)]


def test_many_texts_go_in_several_requests(talk_to):
    talk, server = talk_to(echo_features)
    sizes = [5000, 4000, 8192, *([1] * (BATCH_TEXTS + 10))]
    found = list(talk.cloud.features(texts(*sizes), WANTS))
    assert [s.taps.shape[1] for s in found] == sizes
    assert [len(versions_of(r.body)) for r in server.requests] == [1, 1, 1, BATCH_TEXTS, 10]


def test_texts_are_read_behind_a_prefix(talk_to):
    body = frame(states(40, 3)) + frame(states(42, 1))
    talk, server = talk_to(in_turn(Answer(body)))
    found = list(talk.cloud.features(texts(3, 3), WANTS, [3, 1], PREFIX))
    assert [s.position for s in found] == [40, 42]
    assert [t.position for t in versions_of(server.requests[0].body)] == [40, 40]
    assert httpx.URL(f"http://x{server.requests[0].path}").params["prefix"] == "abc"


def test_texts_behind_a_forgotten_prefix_are_not_asked_for_again(talk_to):
    talk, server = talk_to(in_turn(fault_answer(PrefixNotFound(prefix="abc"))))
    with pytest.raises(PrefixNotFound):
        list(talk.cloud.features(texts(3), WANTS, None, PREFIX))
    assert len(server.requests) == 1


def test_no_texts_ask_nothing(talk_to):
    talk, server = talk_to(echo_features)
    assert list(talk.cloud.features([], WANTS)) == []
    assert server.requests == []


def test_features_go_on_behind_the_last_text_when_the_connection_breaks(talk_to):
    broken = []

    def cut_after_two(request):
        answer = echo_features(request)
        if broken:
            return answer
        broken.append(True)
        first = sum(len(frame(states(0, size))) for size in (2, 3))
        return Answer(answer.body[: first + 30], missing=1000)

    talk, server = talk_to(cut_after_two)
    found = list(talk.cloud.features(texts(2, 3, 4, 5), WANTS))
    assert [s.taps.shape[1] for s in found] == [2, 3, 4, 5]
    assert [len(versions_of(r.body)) for r in server.requests] == [4, 2]


def test_features_that_bring_nothing_again_and_again_give_up(talk_to):
    talk, server = talk_to(in_turn(Answer(b"", missing=10)))
    with pytest.raises(CloudUnreachable):
        list(talk.cloud.features(texts(2), WANTS))
    assert len(server.requests) == TRIES


def test_a_fault_in_the_stream_ends_it_after_the_texts_before(talk_to):
    body = frame(states(0, 2)) + frame(InternalFault(request="7"))
    talk, _ = talk_to(in_turn(Answer(body)))
    answers = talk.cloud.features(texts(2, 3), WANTS)
    assert next(answers).taps.shape[1] == 2
    with pytest.raises(InternalFault, match="7"):
        next(answers)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (frame(states(0, 2)), MalformedMessage),
        (frame(states(0, 2)) * 3, MalformedMessage),
        (frame(states(0, 2)) + frame(states(0, 1)), MalformedMessage),
        (frame(states(0, 2)) * 2 + b"SPLG", TruncatedFrame),
        (frame(TOKENS), MalformedMessage),
        (b"<html>" * 10, BadMagic),
    ],
    ids=["one missing", "one too many", "another text's", "rest", "tokens", "garbage"],
)
def test_a_stream_that_does_not_fit_the_texts_is_refused(talk_to, body, error):
    talk, _ = talk_to(in_turn(Answer(body)))
    with pytest.raises(error):
        list(talk.cloud.features(texts(2, 2), WANTS))
