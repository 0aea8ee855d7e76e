"""Whoever is too slow is cut off, and nobody else; with looks so close together that it shows."""

import socket
import threading
import time

import pytest

from cloud_service import pace
from tests.cloud_service.running import ids_of, running, service_for, tokens_of

HEAD = b"POST /v1/sessions HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n"


@pytest.fixture(scope="module")
def brisk(cache, pulled_of):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pace, "LOOK_SECONDS", 0.2)
        patch.setattr(pace, "PACE", 5000)  # a thousand bytes a look
        with running(service_for(cache, pulled_of("llama"))) as served:
            served.wait()
            yield served


def connected(served):
    url = served.http.base_url
    opened = socket.create_connection((url.host, url.port))
    opened.settimeout(10)
    return opened


def is_cut(opened):
    try:
        return opened.recv(100) == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize(
    "sent",
    [b"", b"POST /v1/ses", HEAD, HEAD + b"{"],
    ids=["nothing", "half a head", "no body", "half a body"],
)
def test_whoever_says_no_more_is_cut_off(brisk, sent):
    with connected(brisk) as opened:
        opened.sendall(sent)
        assert is_cut(opened)


def drip(opened):
    for _ in range(100):
        opened.sendall(b"x")
        time.sleep(0.05)


@pytest.mark.parametrize("start", [b"GET / HTTP/1.1\r\nX: ", HEAD], ids=["head", "body"])
def test_whoever_sends_drop_by_drop_is_cut_off(brisk, start):
    with connected(brisk) as opened:
        opened.sendall(start)
        with pytest.raises(OSError, match=r"reset|pipe"):
            drip(opened)


@pytest.mark.parametrize(
    "start",
    [
        b"GET / HTTP/1.1\r\nX: ",
        b"GET /",
        b"POST /v1/sessions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;",
        b"POST /v1/sessions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: ",
    ],
    ids=["header", "address", "extension of a chunk", "trailer"],
)
def test_a_head_without_end_is_refused_before_it_is_kept(brisk, start):
    with connected(brisk) as opened:
        opened.sendall(start)
        with pytest.raises(ConnectionError):
            opened.sendall(b"x" * 16 * pace.MOST_HEAD)


def test_a_body_that_comes_at_a_fair_pace_is_waited_for(brisk):
    with connected(brisk) as opened:
        opened.sendall(HEAD)
        for _ in range(20):
            opened.sendall(b" " * 5000)
            time.sleep(0.06)
        assert opened.recv(100).startswith(b"HTTP/1.1 422")


def test_a_connection_that_rests_between_requests_is_kept(brisk):
    with connected(brisk) as opened:
        for _ in range(2):
            opened.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            assert opened.recv(1000).startswith(b"HTTP/1.1 200")
            time.sleep(1)


def test_whoever_does_not_read_is_cut_off(brisk, tmp_path):
    file = brisk.service.pulled.tokenizer
    before = file.read_bytes()
    file.write_bytes(before + b" " * 2**24)
    try:
        with connected(brisk) as opened:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            opened.sendall(b"GET /v1/tokenizer HTTP/1.1\r\nHost: x\r\n\r\n")
            for _ in range(500):
                if not brisk.server.server_state.tasks:
                    break
                time.sleep(0.02)
            assert not brisk.server.server_state.tasks
        with connected(brisk) as opened:
            opened.sendall(b"GET /v1/tokenizer HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            read = 0
            while chunk := opened.recv(2**16):
                read += len(chunk)
            assert read > 2**24
    finally:
        file.write_bytes(before)


def test_a_model_that_takes_its_time_is_waited_for(brisk, monkeypatch):
    steps = brisk.service.sessions.step
    monkeypatch.setattr(
        brisk.service.sessions, "step", lambda *args: threading.Event().wait(1) or steps(*args)
    )
    brisk.step(brisk.open().session, tokens_of(ids_of(3)))
