"""``/v1/jobs``: training in the background."""

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from device_agent.api.agent import agent_of
from device_agent.api.body import Body
from device_agent.api.errors import BadRequest
from device_agent.daemon import jobs


async def list_jobs(request: Request) -> Response:
    """``GET /v1/jobs``: the newest first."""
    agent = agent_of(request)

    def read() -> list[dict[str, object]]:
        with agent.store() as store:
            return [jobs.told(job) for job in reversed(store.jobs())]

    return JSONResponse({"object": "list", "data": await run_in_threadpool(read)})


async def show_job(request: Request) -> Response:
    """``GET /v1/jobs/{number}``: with the curves of its losses."""
    agent, number = agent_of(request), request.path_params["number"]

    def read() -> dict[str, object]:
        with agent.store() as store:
            return jobs.told(jobs.find(store, number), curves=True)

    return JSONResponse(await run_in_threadpool(read))


async def add_job(request: Request) -> Response:
    """``POST /v1/jobs``: ``options`` as ``sideplug train`` has them, ``recipe`` as the settings have it."""
    agent, body = agent_of(request), await Body.of(request)
    options, recipe = body.value("options", {}), body.text("recipe", agent.settings.recipe)
    if not isinstance(options, dict):
        raise BadRequest("options must be an object", "options")

    def write() -> dict[str, object]:
        with agent.store() as store:
            return jobs.told(jobs.queue(store, recipe, options))

    return JSONResponse(await run_in_threadpool(write), 201)


async def act_on_job(request: Request) -> Response:
    """``POST /v1/jobs/{number}/pause``, ``resume`` or ``cancel``."""
    agent, number = agent_of(request), request.path_params["number"]
    action = request.path_params["action"]
    if action not in jobs.ACTIONS:
        raise HTTPException(404)

    def write() -> dict[str, object]:
        with agent.store() as store:
            return jobs.told(jobs.act(store, number, action))

    return JSONResponse(await run_in_threadpool(write))
