"""What the framework or a bug refuses leaves as a fault, and is counted."""

import asyncio

import pytest
from fastapi import HTTPException, Request
from fastapi.exceptions import RequestValidationError
from starlette.requests import ClientDisconnect

from cloud_service.border import Border
from cloud_service.faults import framework_fault
from cloud_service.metrics import Metrics
from protocol.errors import Loading, MalformedMessage, UnknownEndpoint, WrongMethod

SCOPE = {"type": "http", "method": "GET", "path": "/x", "headers": [], "query_string": b""}


@pytest.mark.parametrize(
    ("error", "fault", "details"),
    [
        (HTTPException(404), UnknownEndpoint, {"path": "/x"}),
        (HTTPException(405), WrongMethod, {"path": "/x", "method": "GET"}),
        (HTTPException(400, "no body"), MalformedMessage, {"reason": "no body"}),
        (
            RequestValidationError([]),
            MalformedMessage,
            {"reason": "a parameter is missing or of another type"},
        ),
        (Loading(), Loading, {}),
    ],
)
def test_the_frameworks_errors_are_put_in_the_words_of_the_protocol(error, fault, details):
    told = framework_fault(Request(SCOPE), error)
    assert type(told) is fault
    assert told.details == details


def passed(app):
    """Send one request through the border; return what came out, and the metrics."""
    metrics, sent = Metrics(), []

    async def receive():
        return {"type": "http.request", "body": b"12345"}

    async def send(message):
        sent.append(message)

    async def run():
        await Border(app, metrics)(SCOPE, receive, send)

    try:
        asyncio.run(run())
    except ZeroDivisionError as error:
        sent.append(error)
    return sent, metrics.text().decode()


def test_an_error_before_the_answer_is_an_internal_fault(caplog):
    async def app(_scope, receive, _send):
        await receive()
        raise ZeroDivisionError("private")

    sent, counted = passed(app)
    assert sent[0]["status"] == 500
    assert b"internal_fault" in sent[1]["body"]
    assert b"private" not in sent[1]["body"]
    assert "ZeroDivisionError: private" in caplog.text
    assert 'sideplug_requests_total{route="unknown",status="500"} 1.0' in counted
    assert "sideplug_received_bytes_total 5.0" in counted


def test_an_error_within_the_answer_cuts_it_off():
    async def app(_scope, _receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise ZeroDivisionError

    sent, counted = passed(app)
    assert [type(message) for message in sent] == [dict, ZeroDivisionError]
    assert 'sideplug_faults_total{code="internal_fault"} 1.0' in counted
    assert "sideplug_num_requests_running 0.0" in counted


def test_a_device_that_went_away_is_no_error_of_the_service(caplog):
    async def app(*_):
        raise ClientDisconnect

    sent, counted = passed(app)
    assert sent == []
    assert 'sideplug_requests_total{route="unknown",status="499"} 1.0' in counted
    assert caplog.text == ""
