import json
import logging

import pytest

from cloud_service.logs import JsonLines
from tests.cloud_service.running import ids_of, running, service_for, tokens_of


@pytest.fixture
def lines(monkeypatch):
    """What the service logs, as the lines it would write."""
    written, shape = [], JsonLines()

    class Kept(logging.Handler):
        def emit(self, record):
            written.append(json.loads(shape.format(record)))

    log = logging.getLogger("sideplug.cloud")
    handler = Kept()
    log.addHandler(handler)
    monkeypatch.setattr(log, "level", logging.DEBUG)
    log.manager._clear_cache()
    yield written
    log.removeHandler(handler)
    log.manager._clear_cache()


def test_a_request_is_one_line_with_its_number_and_nothing_that_was_sent(cache, pulled_of, lines):
    with running(service_for(cache, pulled_of("llama"))) as served:
        served.wait()
        session = served.open().session
        answer = served.post(session, tokens_of([411, 412, 413]))
        refused = served.post(session, tokens_of(ids_of(1), position=9))
    found = {line["request"]: line for line in lines if line["message"] == "request"}
    line = found[answer.headers["x-request-id"]]
    assert line.pop("seconds") > 0
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "level": "debug",
        "logger": "sideplug.cloud",
        "message": "request",
        "request": answer.headers["x-request-id"],
        "route": "/v1/sessions/{name}/step",
        "method": "POST",
        "status": 200,
        "received": len(answer.request.content),
        "sent": len(answer.content),
        "key": None,
    }
    assert found[refused.headers["x-request-id"]]["status"] == 409
    assert session not in json.dumps(lines)


def test_an_error_brings_its_stack():
    try:
        raise ValueError("so")
    except ValueError as error:
        info = (ValueError, error, error.__traceback__)
    record = logging.LogRecord("x", logging.ERROR, "f.py", 1, "it %s", ("broke",), info)
    line = json.loads(JsonLines().format(record))
    assert line["message"] == "it broke"
    assert line["stack"].endswith("ValueError: so")
