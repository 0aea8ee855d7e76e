"""How the agent is, what it counts, and what has left the device."""

from dataclasses import replace

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from device_agent.api.agent import agent_of
from device_agent.api.errors import BadRequest
from device_agent.api.metrics import CONTENT_TYPE
from device_agent.cloud.link import Link
from device_agent.cloud.reachability import reachability
from device_agent.egress.ledger import USUAL, grouping, totals

CLOUD_SECONDS = 5.0
"""So long the cloud may take to say that it is there."""


async def health(_request: Request) -> Response:
    """``GET /health``: whether the agent answers; what it needs of the cloud is found out by asking."""
    return JSONResponse({"status": "ok"})


async def metrics(request: Request) -> Response:
    """``GET /metrics``, for Prometheus."""
    text = await run_in_threadpool(agent_of(request).metrics.text)
    return Response(text, headers={"content-type": CONTENT_TYPE})


async def cloud(request: Request) -> Response:
    """``GET /v1/cloud``: whether the cloud answers, and which backbone it hosts. Asks it."""
    settings = agent_of(request).settings
    impatient = replace(settings, patience=min(settings.patience, CLOUD_SECONDS))

    def ask() -> dict[str, object]:
        # No pauses between attempts: whoever asks will ask again.
        with Link(impatient, "status", sleep=lambda _: None) as link:
            return reachability(link)

    return JSONResponse(await run_in_threadpool(ask))


async def egress(request: Request) -> Response:
    """``GET /v1/egress?since=SECONDS&by=host,kind,purpose``: what left and what came, in groups.

    ``by`` may name day, host, kind, purpose and minute, in any order; empty for one sum of all.
    """
    agent, asked = agent_of(request), request.query_params
    try:
        since = float(asked.get("since", "0"))
        int(since)
    except (ValueError, OverflowError):
        raise BadRequest("since must be seconds since 1970", "since") from None
    try:
        by = grouping(asked.get("by", ",".join(USUAL)).split(",") if asked.get("by") != "" else [])
    except ValueError as error:
        raise BadRequest(str(error), "by") from None

    def read() -> list[dict[str, object]]:
        with agent.store() as store:
            return [total.to_json() for total in totals(store, since, by)]

    return JSONResponse({"object": "list", "data": await run_in_threadpool(read)})
