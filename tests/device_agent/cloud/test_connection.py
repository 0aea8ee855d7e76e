import gzip
import inspect
import socket
from dataclasses import replace

import httpx
import pytest

from device_agent.cloud.client import CloudUnreachable
from device_agent.cloud.connection import TRIES
from protocol.errors import (
    FAULTS,
    BadMagic,
    Fault,
    FrameTooLarge,
    InternalFault,
    KeyMissing,
    KeyRevoked,
    KeyUnknown,
    KitNotReady,
    Loading,
    MalformedMessage,
    Overloaded,
    PositionMismatch,
    QuotaSpent,
    SessionNotFound,
    SessionQuota,
    TrailingBytes,
    TruncatedFrame,
    UnsupportedVersion,
)
from protocol.limits import Limits
from tests.device_agent.scripted_cloud import Answer, in_turn, json_answer
from tests.device_agent.small_kit import small_facts
from tests.device_agent.talk import TOKENS, WANTS, Talk, fault_answer, frame, states, texts


def talk_through(reply, **options):
    return Talk("http://cloud", transport=httpx.MockTransport(reply), **options)


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_every_fault_is_the_same_class_again(talk_to, fault):
    details = {"number": 3}.fromkeys(
        ["needed", "got", "size", "limit", "extra", "part", "major", "spoken", "bits", "kind", "codec",
         "expected", "reason", "session", "prefix", "asked", "token", "vocabulary", "tap", "layers", "kit",
         "recipe", "known", "request", "path", "method", "message", "name", "key", "unit", "seconds"], 3
    )  # fmt: skip
    sent = fault(**details)
    talk, _ = talk_to(in_turn(fault_answer(sent)))
    with pytest.raises(Fault) as caught:
        talk.cloud.facts()
    assert type(caught.value) is fault or caught.value.code == "unknown_fault"
    assert caught.value.number == fault.number


def test_a_fault_in_a_frame_is_raised_too(talk_to):
    talk, _ = talk_to(in_turn(Answer(frame(PositionMismatch(expected=1, got=2)))))
    with pytest.raises(PositionMismatch) as caught:
        talk.cloud.step("abc", TOKENS)
    assert caught.value.details == {"expected": 1, "got": 2}


@pytest.mark.parametrize("fault", [Loading(), Overloaded()], ids=str)
def test_what_passes_is_tried_again_after_a_growing_pause(talk_to, fault):
    talk, server = talk_to(
        in_turn(fault_answer(fault), fault_answer(fault), Answer(frame(states())))
    )
    talk.cloud.step("abc", TOKENS)
    assert len({request.body for request in server.requests}) == 1
    assert 0.125 <= talk.pauses[0] <= 0.25
    assert 0.25 <= talk.pauses[1] <= 0.5


def test_tries_are_bounded(talk_to):
    talk, server = talk_to(in_turn(fault_answer(Loading())))
    with pytest.raises(Loading):
        talk.cloud.step("abc", TOKENS)
    assert len(server.requests) == TRIES
    assert len(talk.pauses) == TRIES - 1


SPENT = QuotaSpent(limit=9, unit="tokens a minute", seconds=7)


@pytest.mark.parametrize("fault", [Overloaded(), SPENT, SessionQuota(limit=1)], ids=str)
def test_the_pause_is_what_the_cloud_asks_for(talk_to, fault):
    talk, _ = talk_to(in_turn(fault_answer(fault, retry_after="7"), Answer(frame(states()))))
    talk.cloud.step("abc", TOKENS)
    assert talk.pauses == [7.0]


def test_who_asks_for_too_long_a_pause_is_not_waited_for(talk_to):
    talk, server = talk_to(in_turn(fault_answer(SPENT, retry_after="9999")))
    with pytest.raises(QuotaSpent):
        talk.cloud.step("abc", TOKENS)
    assert (talk.pauses, len(server.requests)) == ([], 1)


@pytest.mark.parametrize(
    "fault", [KeyMissing(), KeyUnknown(), KeyRevoked(key="1")], ids=lambda fault: fault.code
)
def test_who_is_not_let_in_does_not_ask_again(talk_to, fault):
    talk, server = talk_to(in_turn(fault_answer(fault)))
    with pytest.raises(type(fault)):
        talk.cloud.facts()
    assert len(server.requests) == 1


def test_all_requests_of_a_connection_have_one_random_id(talk_to):
    ids = []
    for _ in range(2):
        talk, server = talk_to(in_turn(Answer(frame(states()))))
        for _ in range(2):
            talk.cloud.step("abc", TOKENS)
        ids.append({request.headers["x-session-id"] for request in server.requests})
    assert [len(one) for one in ids] == [1, 1]
    assert not ids[0] & ids[1]


def test_the_key_goes_with_every_request(talk_to):
    talk, server = talk_to(in_turn(Answer(frame(states()))), key="sideplug_1_x")
    talk.cloud.step("abc", TOKENS)
    assert server.requests[0].headers["authorization"] == "Bearer sideplug_1_x"


def test_a_date_in_retry_after_is_not_followed(talk_to):
    busy = fault_answer(Overloaded(), retry_after="Wed, 21 Oct 2026 07:28:00 GMT")
    talk, _ = talk_to(in_turn(busy, Answer(frame(states()))))
    talk.cloud.step("abc", TOKENS)
    assert talk.pauses[0] < 1


@pytest.mark.parametrize(
    "fault",
    [SessionNotFound(session="a"), KitNotReady(recipe="x"), InternalFault(request="1")],
    ids=str,
)
def test_what_does_not_pass_is_not_tried_again(talk_to, fault):
    talk, server = talk_to(in_turn(fault_answer(fault)))
    with pytest.raises(type(fault)):
        talk.cloud.kit("x")
    assert len(server.requests) == 1


def test_nobody_there_is_cloud_unreachable():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: refuses for as long as it is held
        talk = Talk(f"http://127.0.0.1:{taken.getsockname()[1]}")
        with talk.cloud, pytest.raises(CloudUnreachable, match="no answer from http") as caught:
            talk.cloud.facts()
    assert len(talk.pauses) == TRIES - 1
    assert "serve" in caught.value.hint


def test_a_body_that_is_cut_is_asked_for_again(talk_to):
    body = frame(states())
    talk, server = talk_to(in_turn(Answer(body[:30], missing=50), Answer(body)))
    assert talk.cloud.step("abc", TOKENS).position == 5
    assert len(server.requests) == 2


def test_a_kit_file_that_is_cut_does_not_look_whole(talk_to):
    talk, _ = talk_to(in_turn(Answer(b"abc", missing=5)))
    with pytest.raises(CloudUnreachable):
        list(talk.cloud.kit_file("small-1", "head.codes"))


HTTPX_ERRORS = [
    kind
    for _, kind in inspect.getmembers(httpx, inspect.isclass)
    if issubclass(kind, httpx.HTTPError | httpx.InvalidURL)
    and kind
    not in (httpx.HTTPStatusError, httpx.HTTPError)  # never raised unless asked for; the base
]


@pytest.mark.parametrize("kind", HTTPX_ERRORS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("message", ["it broke", ""])
def test_every_error_of_httpx_is_mapped(kind, message):
    def fail(request):
        raise kind(message)

    talk = talk_through(fail)
    with pytest.raises(CloudUnreachable, match=message or kind.__name__):
        talk.cloud.facts()


def test_an_address_that_is_none_is_cloud_unreachable():
    with pytest.raises(CloudUnreachable):
        Talk("http://[half").cloud.facts()


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_gateway_that_answers_for_the_cloud_is_tried_again(talk_to, status):
    talk, server = talk_to(in_turn(Answer(b"<html>bad gateway</html>", status)))
    with pytest.raises(CloudUnreachable, match=str(status)):
        talk.cloud.facts()
    assert len(server.requests) == TRIES


@pytest.mark.parametrize("status", [302, 404, 418])
def test_another_server_that_answers_is_told_apart(talk_to, status):
    talk, server = talk_to(in_turn(Answer(b"what?", status, {"location": "http://elsewhere/"})))
    with pytest.raises(MalformedMessage, match=str(status)):
        talk.cloud.facts()
    assert len(server.requests) == 1


BAD_STEPS = {
    "garbage": (b"\x00" * 64, BadMagic),
    "nothing": (b"", Fault),
    "another major version": (b"SPLG\x09" + b"\x00" * 30, UnsupportedVersion),
    "cut with a right length": (frame(states())[:-1], TruncatedFrame),
    "one byte over": (frame(states()) + b"\x00", TrailingBytes),
    "tokens": (frame(TOKENS), MalformedMessage),
    "states of another place": (frame(states(position=4)), MalformedMessage),
    "too many states": (frame(states(rows=2)), MalformedMessage),
}


@pytest.mark.parametrize(("body", "error"), BAD_STEPS.values(), ids=BAD_STEPS)
def test_a_step_that_answers_something_else_is_refused(talk_to, body, error):
    talk, _ = talk_to(in_turn(Answer(body)))
    with pytest.raises(error):
        talk.cloud.step("abc", TOKENS)


def test_an_oversized_answer_is_refused_by_its_header(talk_to):
    talk, _ = talk_to(in_turn(Answer(b"x", missing=10**9)), limits=Limits(frame_bytes=1000))
    with pytest.raises(FrameTooLarge, match="1000"):
        talk.cloud.step("abc", TOKENS)
    assert talk.traffic[0].down <= 1


def test_an_oversized_answer_without_a_length_is_cut_off():
    taken = []

    def endless():
        while len(taken) < 1000:
            taken.append(True)
            yield b"x" * 100

    talk = talk_through(
        lambda request: httpx.Response(200, content=endless()), limits=Limits(frame_bytes=1000)
    )
    with pytest.raises(FrameTooLarge):
        talk.cloud.step("abc", TOKENS)
    assert len(taken) < 20


def test_an_oversized_frame_in_a_stream_is_refused_by_its_header(talk_to):
    big = frame(states(0, 100))
    talk, _ = talk_to(in_turn(Answer(big[:16])), limits=Limits(frame_bytes=1000))
    with pytest.raises(FrameTooLarge):
        list(talk.cloud.features(texts(100), WANTS))


def test_compressed_answers_are_not_asked_for_and_not_unpacked(talk_to):
    packed = gzip.compress(frame(states()))
    talk, server = talk_to(in_turn(Answer(packed, headers={"content-encoding": "gzip"})))
    with pytest.raises(BadMagic):
        talk.cloud.step("abc", TOKENS)
    assert server.requests[0].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize(
    "body", [b"", b"no json", b"[]", b'{"position": 4}', b"NaN", b"[" * 100_000]
)
def test_a_crop_that_is_not_confirmed_is_refused(talk_to, body):
    talk, _ = talk_to(in_turn(Answer(body)))
    with pytest.raises(MalformedMessage):
        talk.cloud.crop("abc", 3)


def test_facts_of_the_wrong_type_are_refused(talk_to):
    wrong = replace(small_facts(), name="x").to_json() | {"hidden": "wide"}
    talk, _ = talk_to(in_turn(json_answer(wrong)))
    with pytest.raises(MalformedMessage, match="hidden"):
        talk.cloud.facts()
