"""How the agent is, what it counts, and what has left the device."""

from dataclasses import asdict, replace

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from device_agent.api.agent import agent_of
from device_agent.api.errors import BadRequest
from device_agent.api.metrics import CONTENT_TYPE
from device_agent.link import Link
from device_agent.reachability import reachability

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
        with Link(impatient, sleep=lambda _: None) as link:
            return reachability(link)

    return JSONResponse(await run_in_threadpool(ask))


async def egress(request: Request) -> Response:
    """``GET /v1/egress?since=SECONDS``: bytes that left and came, by host and kind."""
    agent = agent_of(request)
    try:
        since = float(request.query_params.get("since", "0"))
        int(since)
    except (ValueError, OverflowError):
        raise BadRequest("since must be seconds since 1970", "since") from None

    def read() -> list[dict[str, object]]:
        with agent.store() as store:
            return [asdict(total) for total in store.traffic(since)]

    return JSONResponse({"object": "list", "data": await run_in_threadpool(read)})
