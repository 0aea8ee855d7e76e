"""The service as a device sees it, over real HTTP."""

import json
import logging
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
import torch

from protocol import versions
from protocol.errors import (
    BadMagic,
    ContextExceeded,
    Fault,
    FrameTooLarge,
    InternalFault,
    Loading,
    MalformedMessage,
    Overloaded,
    PositionMismatch,
    SessionNotFound,
    TapOutOfRange,
    TokenOutOfRange,
    TooManySessions,
    TrailingBytes,
    TruncatedFrame,
    UnknownCodec,
    UnknownEndpoint,
    UnsupportedVersion,
    WrongMethod,
)
from protocol.facts import BackboneFacts
from protocol.messages import SessionRequest
from tests import tiny
from tests.cloud_service.reading import Held, alone
from tests.cloud_service.running import (
    EVERYTHING,
    FINAL,
    fault_in,
    ids_of,
    running,
    service_for,
    tokens_of,
)

FRAME_TYPE = "application/vnd.sideplug.frame"


def test_facts_name_the_backbone_and_what_the_service_reads(cloud):
    facts = BackboneFacts.from_json(cloud.http.get("/v1/backbone").json())
    assert facts == cloud.service.facts
    assert (facts.layers, facts.hidden, facts.vocabulary) == (
        tiny.LAYERS,
        tiny.HIDDEN,
        tiny.VOCABULARY,
    )


def test_the_tokenizer_is_fetched_once(cloud):
    answer = cloud.http.get("/v1/tokenizer")
    assert answer.content == cloud.service.pulled.tokenizer.read_bytes()
    tag = answer.headers["etag"]
    assert tag == f'"{cloud.service.facts.tokenizer_sha256}"'
    again = cloud.http.get("/v1/tokenizer", headers={"If-None-Match": tag})
    assert (again.status_code, again.content) == (304, b"")


def test_a_session_from_opening_to_closing(cloud, llama):
    ids = ids_of(12)
    opened = cloud.open(EVERYTHING)
    expected = alone(llama, ids, 12, EVERYTHING)
    first = cloud.step(opened.session, tokens_of(ids[:10]))
    np.testing.assert_allclose(first.taps, expected.taps[:, :10], atol=1e-5)
    second = cloud.step(opened.session, tokens_of(ids[10:], position=10, wanted=1, step=1))
    assert second.position == 11
    np.testing.assert_allclose(second.final[0], expected.final[11], atol=1e-5)
    cropped = cloud.http.post(f"/v1/sessions/{opened.session}/crop", json={"position": 10})
    assert cropped.json() == {"position": 10}
    cloud.step(opened.session, tokens_of(ids[10:11], position=10, step=2))
    closed = cloud.http.delete(f"/v1/sessions/{opened.session}")
    assert (closed.status_code, closed.content) == (204, b"")
    after = cloud.post(opened.session, tokens_of(ids[11:], position=11, step=3))
    assert isinstance(fault_in(after), SessionNotFound)


def test_a_step_sent_twice_is_answered_twice_alike(cloud):
    session = cloud.open(EVERYTHING).session
    answers = [cloud.post(session, tokens_of(ids_of(5), step=9)) for _ in range(2)]
    assert answers[0].headers["content-type"] == FRAME_TYPE
    assert answers[0].content == answers[1].content


def test_the_same_step_sent_at_the_same_time_is_read_once(cloud):
    session, frame = cloud.open().session, versions.encode(tokens_of(ids_of(200), wanted=1))
    answers = []

    def send():
        url = f"{cloud.http.base_url}/v1/sessions/{session}/step"
        answers.append(httpx.post(url, content=frame).content)

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(answers)) == 1
    cloud.step(session, tokens_of(ids_of(1), position=200, step=1))


STEP_FAULTS = [
    (
        versions.encode(tokens_of(ids_of(3), position=4)),
        PositionMismatch,
        {"expected": 0, "got": 4},
    ),
    (versions.encode(tokens_of(ids_of(257))), ContextExceeded, {"limit": 256, "asked": 257}),
    (versions.encode(tokens_of([512])), TokenOutOfRange, {"token": 512, "vocabulary": 512}),
    (b"NOPE" + bytes(40), BadMagic, {}),
    (versions.encode(tokens_of(ids_of(3)))[:-1], TruncatedFrame, {"needed": 48, "got": 47}),
    (versions.encode(tokens_of(ids_of(3))) + b"x", TrailingBytes, {"extra": 1}),
    (b"SPLG\x09" + bytes(40), UnsupportedVersion, {"major": 9, "spoken": "1.2"}),
    (
        versions.encode(Loading()),
        MalformedMessage,
        {"reason": "the body must be a frame of tokens"},
    ),
    (b"", TruncatedFrame, {"needed": 16, "got": 0}),
]


@pytest.mark.parametrize(
    ("content", "fault", "details"), STEP_FAULTS, ids=[row[1].code for row in STEP_FAULTS]
)
def test_a_wrong_step_is_told_what_is_wrong_and_reads_nothing(cloud, content, fault, details):
    session = cloud.open().session
    told = fault_in(cloud.http.post(f"/v1/sessions/{session}/step", content=content))
    assert type(told) is fault
    assert told.details == details
    cloud.step(session, tokens_of(ids_of(1)))


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ("", MalformedMessage),
        ("[1]", MalformedMessage),
        ('{"wants": {}, "protocol": "1.0"}', MalformedMessage),
        (json.dumps({**SessionRequest(FINAL).to_json(), "protocol": "2.0"}), UnsupportedVersion),
        (json.dumps(SessionRequest(FINAL).to_json()).replace("f32", "f31"), UnknownCodec),
        (json.dumps(SessionRequest(EVERYTHING).to_json()).replace("4]", "5]"), TapOutOfRange),
    ],
    ids=["nothing", "a list", "no wants", "version", "codec", "tap"],
)
def test_a_wrong_request_for_a_session_is_told_what_is_wrong(cloud, body, fault):
    assert isinstance(fault_in(cloud.http.post("/v1/sessions", content=body)), fault)


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ("{}", MalformedMessage),
        ('{"position": -1}', MalformedMessage),
        ('{"position": 1}', PositionMismatch),
    ],
    ids=["nothing", "negative", "beyond"],
)
def test_a_wrong_crop_is_told_what_is_wrong(cloud, body, fault):
    session = cloud.open().session
    answer = cloud.http.post(f"/v1/sessions/{session}/crop", content=body)
    assert isinstance(fault_in(answer), fault)


@pytest.mark.parametrize("path", ["/v1/sessions/none/step", "/v1/sessions/none/crop"])
def test_an_unknown_session_is_told_so(cloud, path):
    assert isinstance(fault_in(cloud.http.post(path)), SessionNotFound)
    assert isinstance(fault_in(cloud.http.delete("/v1/sessions/none")), SessionNotFound)


def test_what_is_nowhere_and_what_is_not_done_are_faults_too(cloud):
    nowhere = fault_in(cloud.http.get("/v2/backbone"))
    assert (type(nowhere), nowhere.details) == (UnknownEndpoint, {"path": "/v2/backbone"})
    wrong = fault_in(cloud.http.put("/v1/sessions"))
    assert (type(wrong), wrong.details) == (WrongMethod, {"path": "/v1/sessions", "method": "PUT"})


def test_a_body_that_announces_too_much_is_refused_at_once(cloud):
    limit = cloud.service.facts.limits.json_bytes
    told = fault_in(cloud.http.post("/v1/sessions", content=bytes(limit + 1)))
    assert (type(told), told.details) == (FrameTooLarge, {"size": limit + 1, "limit": limit})


def test_a_body_that_announces_nothing_is_cut_off_at_the_limit(cloud):
    limit, sent = cloud.service.facts.limits.json_bytes, []

    def endless():
        while len(sent) < 4 * limit // 2**16:
            sent.append(1)
            yield bytes(2**16)

    try:
        answer = cloud.http.post("/v1/sessions", content=endless())
    except (httpx.WriteError, httpx.ReadError):
        return  # cut off while it was still sending
    assert isinstance(fault_in(answer), FrameTooLarge)


def test_an_error_inside_shows_a_number_and_logs_the_stack(cloud, monkeypatch, caplog):
    def fail(*_):
        raise ZeroDivisionError("secret path /home/somebody")

    monkeypatch.setattr(cloud.service.sessions, "step", fail)
    session = cloud.open().session
    with caplog.at_level(logging.ERROR, "sideplug.cloud"):
        answer = cloud.post(session, tokens_of(ids_of(3)))
    told = fault_in(answer)
    assert isinstance(told, InternalFault)
    assert "secret" not in answer.text
    assert str(told.details["request"]) in caplog.text
    assert "ZeroDivisionError: secret path" in caplog.text


def test_an_error_outside_the_routes_shows_a_number_too(cloud, monkeypatch):
    monkeypatch.setattr(cloud.service.kits, "offers", lambda: 1 / 0)
    assert isinstance(fault_in(cloud.http.get("/v1/kits")), InternalFault)


def test_nothing_that_a_device_sends_is_logged(cloud, caplog):
    with caplog.at_level(logging.DEBUG):
        session = cloud.open().session
        cloud.step(session, tokens_of([411, 412, 413]))
        cloud.post(session, tokens_of([411], position=9))
    for record in caplog.records:
        if record.name.startswith(("sideplug", "uvicorn")):
            assert session not in record.getMessage()
            assert "411" not in record.getMessage()


def test_a_device_that_hangs_up_in_the_middle_of_a_body_harms_nobody(cloud):
    host, port = cloud.http.base_url.host, cloud.http.base_url.port
    gone = {"route": "/v1/sessions", "status": "499"}
    registry = cloud.service.metrics.registry
    before = registry.get_sample_value("sideplug_requests_total", gone) or 0
    with socket.create_connection((host, port)) as raw:
        raw.sendall(b"POST /v1/sessions HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{")
    for _ in range(100):
        if (registry.get_sample_value("sideplug_requests_total", gone) or 0) > before:
            break
        time.sleep(0.02)
    else:
        pytest.fail("the request was never counted")
    cloud.open()


def test_metrics_count_routes_and_never_sessions(cloud):
    session = cloud.open().session
    cloud.step(session, tokens_of(ids_of(3)))
    cloud.step(session, tokens_of(ids_of(1), position=3, step=1))
    cloud.post(session, tokens_of(ids_of(1), step=2))
    cloud.http.get("/nowhere/" + session)
    answer = cloud.http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = answer.text.splitlines()
    assert any('requests_total{route="/v1/sessions/{name}/step",status="409"}' in x for x in lines)
    assert any('faults_total{code="position_mismatch"}' in line for line in lines)
    assert any("sideplug_inter_token_latency_seconds_count" in line for line in lines)
    assert any("sideplug_time_to_first_token_seconds_count" in line for line in lines)
    assert "sideplug_num_requests_running 1.0" in lines
    assert session not in answer.text
    assert all(line.startswith(("sideplug_", "#")) for line in lines)


def test_version_and_readiness_are_told(cloud):
    assert cloud.http.get("/version").json()["protocol"] == ["1.2"]
    assert cloud.http.get("/ready").json() == {"status": "ready", "backbone": "llama"}


def slow_service(service, llama, go: threading.Event, error=None):
    """The same service with a backbone that takes until ``go``."""

    def load():
        go.wait(10)
        if error:
            raise error
        return llama

    service.runner._load = load
    return service


def test_while_it_loads_the_service_says_so_and_tells_what_it_can(cache, pulled_of, llama):
    go = threading.Event()
    with running(slow_service(service_for(cache, pulled_of("llama")), llama, go)) as loading:
        for path in ("/health", "/ready"):
            answer = loading.http.get(path)
            assert isinstance(fault_in(answer), Loading)
            assert answer.headers["retry-after"] == "1"
        request = SessionRequest(FINAL).to_json()
        assert isinstance(fault_in(loading.http.post("/v1/sessions", json=request)), Loading)
        params = {"wants": json.dumps(FINAL.to_json())}
        answer = loading.http.post("/v1/features", params=params, content=b"")
        assert isinstance(fault_in(answer), Loading)
        assert loading.http.get("/v1/backbone").status_code == 200
        assert loading.http.get("/version").status_code == 200
        go.set()
        loading.wait()
        loading.step(loading.open().session, tokens_of(ids_of(2)))


def test_a_full_queue_turns_steps_away_until_there_is_room(cache, pulled_of):
    with running(service_for(cache, pulled_of("llama"), engine="general", queue=1)) as busy:
        busy.wait()
        session = busy.open().session
        held = Held(busy.service.runner.require_ready())
        with ThreadPoolExecutor() as pool:
            stepping = pool.submit(busy.post, session, tokens_of([3], step=1))
            held.begun.wait(10)
            other = busy.open().session
            for answer in (busy.post(other, tokens_of([3])), busy.http.get("/ready")):
                assert isinstance(fault_in(answer), Overloaded)
            held.release()
            assert stepping.result(10).status_code == 200
        busy.step(other, tokens_of([3]))


def test_too_many_sessions_are_told_when_to_try_again(cache, pulled_of):
    with running(service_for(cache, pulled_of("llama"), sessions=1)) as small:
        small.wait()
        small.open()
        answer = small.http.post("/v1/sessions", json=SessionRequest(FINAL).to_json())
        assert isinstance(fault_in(answer), TooManySessions)
        assert answer.headers["retry-after"] == "5"


def test_small_answers_are_not_held_back(cloud):
    cloud.http.get("/version")
    for connection in cloud.server.server_state.connections:
        opened = connection.transport.get_extra_info("socket")
        assert opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.parametrize(
    ("capable", "dtype"),
    [({}, "f32"), ({"avx512_bf16": True}, "bf16"), ({"amx_bf16": True}, "bf16")],
)
def test_bf16_is_chosen_where_the_processor_has_it(cache, pulled_of, monkeypatch, capable, dtype):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capable)
    assert (
        service_for(cache, pulled_of("llama"), engine="general", weights="auto").facts.dtype
        == dtype
    )


def test_every_fault_has_a_status_that_http_knows():
    import http

    from protocol.errors import FAULTS

    for fault in FAULTS.values():
        assert issubclass(fault, Fault)
        assert http.HTTPStatus(fault.status) >= 400
