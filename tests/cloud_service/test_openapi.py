"""The OpenAPI document tells the truth, and nothing made from it breaks the service."""

from random import Random

import pytest
import schemathesis
from fastapi.routing import APIRoute
from hypothesis import HealthCheck, Phase, given, settings, strategies

from benchmarks import malformed
from cloud_service.routes import ROUTERS
from cloud_service.routes.exchange import FRAMES
from protocol.messages import SessionOpened, SessionRequest
from tests.cloud_service.running import EVERYTHING, FINAL, put_kit, running, service_for

frames = strategies.integers(0, 2**32).map(lambda seed: malformed.frame(Random(seed), 512))
schemathesis.openapi.media_type(FRAMES, frames)

ROUTES = [route for router in ROUTERS for route in router.routes if isinstance(route, APIRoute)]


@pytest.fixture(scope="module")
def described(cache, pulled_of):
    """A service with room for every session that a test opens, and the document it serves."""
    put_kit(cache, pulled_of("llama"), "spa")
    service = service_for(cache, pulled_of("llama"), sessions=10**6, recipe=("spa",))
    with running(service) as served:
        served.wait()
        yield served, served.http.get("/openapi.json").json()


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.methods} {route.path}")
def test_every_route_says_what_it_answers_and_that_it_may_fail(described, route):
    (method,) = route.methods
    told = described[1]["paths"][route.path][method.lower()]
    assert "default" in told["responses"]
    (good,) = [status for status in told["responses"] if status.startswith("2")]
    assert ("content" in told["responses"][good]) == (good != "204")
    if method == "POST":
        assert told["requestBody"]["content"]


def test_what_the_document_requires_is_what_is_read_and_written(described):
    paths = described[1]["paths"]
    asked = paths["/v1/sessions"]["post"]
    body = asked["requestBody"]["content"]["application/json"]["schema"]
    assert set(body["properties"]) == set(SessionRequest(FINAL).to_json())
    assert set(body["properties"]["wants"]["properties"]) == set(FINAL.to_json())
    opened = asked["responses"]["201"]["content"]["application/json"]["schema"]
    written = SessionOpened("a", 0, 1, 1.0).to_json()
    assert set(opened["properties"]) == set(opened["required"]) == set(written)


@pytest.mark.slow
def test_schemathesis_finds_no_error_of_the_server(described):
    served, document = described
    schema = schemathesis.openapi.from_dict(document)
    schema.config.update(base_url=str(served.http.base_url))
    checks = [
        schemathesis.checks.not_a_server_error,
        schemathesis.checks.CHECKS.get_one("response_schema_conformance"),
        schemathesis.checks.CHECKS.get_one("content_type_conformance"),
    ]
    session = served.open(EVERYTHING).session
    tested = 0
    for found in schema.get_all_operations():
        operation = found.ok()

        @settings(
            max_examples=200,
            deadline=None,
            database=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        def ask(case):
            if "name" in case.path_parameters and case.method == "POST":
                case.path_parameters["name"] = session
            case.call_and_validate(checks=checks)

        strategy = operation.as_strategy()
        given(case=strategy)(ask)()
        tested += 1
    assert tested == len(ROUTES)
