import json

import numpy as np
import pytest

from protocol.errors import (
    FAULTS,
    Fault,
    SessionNotFound,
    UnsupportedVersion,
)
from protocol.limits import Limits
from protocol.messages import SessionRequest
from tests.device_agent.scripted_cloud import Answer, in_turn, json_answer
from tests.device_agent.small_kit import small_facts, write_kit
from tests.device_agent.talk import TOKENS, WANTS, fault_answer, frame, states


def test_facts_come_back_as_they_were_sent(talk_to):
    facts = small_facts(stop_tokens=(2, 0), chat_template="{{ x }}")
    talk, server = talk_to(in_turn(json_answer(facts.to_json())))
    assert talk.cloud.facts() == facts
    assert server.paths() == ["GET /v1/backbone"]


def test_the_clouds_limits_become_ours_where_they_are_smaller(talk_to):
    theirs = Limits(tokens=17, frame_bytes=2**31)
    talk, _ = talk_to(in_turn(json_answer(small_facts(limits=theirs).to_json())))
    talk.cloud.facts()
    assert talk.cloud.limits == Limits(tokens=17)


def test_a_cloud_of_another_major_version_is_refused(talk_to):
    talk, _ = talk_to(in_turn(json_answer(small_facts(protocol=("2.0", "3.1")).to_json())))
    with pytest.raises(UnsupportedVersion, match=r"2\.0"):
        talk.cloud.facts()


def test_a_tokenizer_comes_byte_for_byte(talk_to):
    talk, server = talk_to(in_turn(Answer(b"\x00\xfftokenizer")))
    assert talk.cloud.tokenizer() == b"\x00\xfftokenizer"
    assert server.paths() == ["GET /v1/tokenizer"]


def test_a_kit_and_its_files(talk_to, tmp_path):
    manifest = write_kit(tmp_path)
    talk, server = talk_to(in_turn(json_answer(manifest.to_json()), Answer(b"x" * 100_000)))
    assert talk.cloud.kit("small") == manifest
    assert b"".join(talk.cloud.kit_file("small-1", "head.codes")) == b"x" * 100_000
    assert server.paths() == ["GET /v1/kits/small", "GET /v1/kits/small-1/files/head.codes"]


def test_a_kits_name_cannot_leave_its_place_in_the_address(talk_to):
    talk, server = talk_to(in_turn(fault_answer(FAULTS["kit_not_found"](kit="x"))))
    with pytest.raises(Fault):
        talk.cloud.kit("../sessions?x=1")
    assert server.paths() == ["GET /v1/kits/..%2Fsessions%3Fx%3D1"]


def test_a_session_from_beginning_to_end(talk_to):
    opened = {"session": "abc", "position": 0, "limit": 99, "idle_seconds": 60.0}
    talk, server = talk_to(
        in_turn(
            json_answer(opened, 201),
            Answer(frame(states())),
            json_answer({"position": 3}),
            Answer(status=204),
        )
    )
    request = SessionRequest(wants=WANTS)
    session = talk.cloud.open_session(request)
    assert (session.session, session.limit) == ("abc", 99)
    answer = talk.cloud.step("abc", TOKENS)
    assert talk.cloud.crop("abc", 3) == 3
    talk.cloud.close_session("abc")
    np.testing.assert_array_equal(answer.taps, states().taps)
    assert server.paths() == [
        "POST /v1/sessions",
        "POST /v1/sessions/abc/step",
        "POST /v1/sessions/abc/crop",
        "DELETE /v1/sessions/abc",
    ]
    assert json.loads(server.requests[0].body) == json.loads(json.dumps(request.to_json()))
    assert server.requests[1].body == frame(TOKENS)
    assert json.loads(server.requests[2].body) == {"position": 3}


def test_all_requests_go_over_one_connection_and_each_token_costs_one(talk_to):
    talk, server = talk_to(in_turn(Answer(frame(states()))))
    for _ in range(20):
        talk.cloud.step("abc", TOKENS)
    assert len(server.requests) == 20
    assert len({request.port for request in server.requests}) == 1


def test_every_byte_of_the_bodies_is_counted_by_kind(talk_to):
    body = frame(states())
    talk, _ = talk_to(
        in_turn(Answer(b"12345"), Answer(body), fault_answer(SessionNotFound(session="a")))
    )
    talk.cloud.tokenizer()
    talk.cloud.step("abc", TOKENS)
    with pytest.raises(SessionNotFound):
        talk.cloud.step("abc", TOKENS)
    up = len(frame(TOKENS))
    assert [(one.out.kind, one.out.body, one.out.tokens) for one in talk.traffic] == [
        ("tokenizer", 0, 0),
        ("prompt", up, 2),
        ("prompt", up, 2),
    ]
    assert [one.down for one in talk.traffic[:2]] == [5, len(body)]
    assert talk.traffic[2].down > 0
