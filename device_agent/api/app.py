"""The application: routes and border put together."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from device_agent.api import completions, embeddings, jobs, models, page, plugins, state, teaching
from device_agent.api.agent import Agent
from device_agent.api.border import Border
from device_agent.api.errors import status_of, told
from device_agent.api.voices import REST_SECONDS
from device_agent.errors import DeviceError
from protocol.errors import Fault

Answering = Callable[[Request], Awaitable[Response]]

ROUTES: tuple[tuple[str, str, Answering], ...] = (
    ("POST", "/v1/chat/completions", completions.chat_completions),
    ("POST", "/v1/completions", completions.completions),
    ("POST", "/v1/embeddings", embeddings.embeddings),
    ("GET", "/v1/models", models.models),
    ("GET", "/v1/models/{name}", models.model),
    ("GET", "/v1/examples", teaching.list_examples),
    ("POST", "/v1/examples", teaching.add_examples),
    ("POST", "/v1/examples/file", teaching.add_file),
    ("DELETE", "/v1/examples", teaching.forget_examples),
    ("DELETE", "/v1/examples/{number:int}", teaching.forget_example),
    ("POST", "/v1/feedback", teaching.give_feedback),
    ("GET", "/v1/jobs", jobs.list_jobs),
    ("POST", "/v1/jobs", jobs.add_job),
    ("GET", "/v1/jobs/{number:int}", jobs.show_job),
    ("POST", "/v1/jobs/{number:int}/{action}", jobs.act_on_job),
    ("GET", "/v1/plugins", plugins.list_plugins),
    ("POST", "/v1/plugins/use", plugins.use_plugin),
    ("POST", "/v1/plugins/rollback", plugins.roll_back),
    ("GET", "/v1/egress", state.egress),
    ("GET", "/v1/cloud", state.cloud),
    ("GET", "/health", state.health),
    ("GET", "/metrics", state.metrics),
    ("GET", "/", page.index),
    ("GET", "/page/{name}", page.asset),
)
"""To add a route: a function and a row."""


def create_app(agent: Agent) -> Starlette:
    """The agent as an ASGI application."""

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        resting = asyncio.create_task(_rest_now_and_then(agent))
        try:
            yield
        finally:
            resting.cancel()

    async def refuse(_request: Request, error: Exception) -> Response:
        headers = error.headers if isinstance(error, HTTPException) else None
        return JSONResponse(told(error), status_of(error), headers)

    app = Starlette(
        routes=[Route(path, answer, methods=[method]) for method, path, answer in ROUTES],
        middleware=[
            Middleware(
                Border,
                token=agent.token,
                host=agent.settings.host,
                metrics=agent.metrics,
                paths={answer: path for _method, path, answer in ROUTES},
            )
        ],
        exception_handlers={kind: refuse for kind in (DeviceError, Fault, HTTPException)},
        lifespan=lifespan,
    )
    app.state.agent = agent
    return app


async def _rest_now_and_then(agent: Agent) -> None:
    while True:
        await asyncio.sleep(REST_SECONDS / 10)
        if agent.voices.quiet_seconds > REST_SECONDS:
            await agent.voices.rest()
