"""What a person teaches through the API: examples, and feedback on answers."""

from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from device_agent.api.agent import Agent, agent_of
from device_agent.api.answers import Answer
from device_agent.api.body import Body, bytes_of
from device_agent.api.completions import turns_of
from device_agent.api.errors import BadRequest
from device_agent.api.models import ME, find_model
from device_agent.cloud.link import Link
from device_agent.daemon.jobs import anew
from device_agent.data.documents import example_of, examples_in
from device_agent.data.examples import Example
from device_agent.data.feedback import name_of, turn_back
from device_agent.plugins import PluginStore
from device_agent.training.forgetting import choose, forget

RATINGS = ("up", "down")
PREVIEW = 200
"""Characters of an example that a list shows."""


async def list_examples(request: Request) -> Response:
    """``GET /v1/examples``: the newest first, each with how it begins."""
    agent = agent_of(request)
    return JSONResponse(await run_in_threadpool(_examples, agent))


async def add_examples(request: Request) -> Response:
    """``POST /v1/examples``: ``{"text": …}``, ``{"messages": […]}``, ``{"source": …, "target": …}``, or ``{"examples": [these, …]}``.

    ``source`` beside any but a pair says where they come from.
    """
    body = await Body.of(request)
    given = body.value("examples")
    records = [body.record] if given is None else given
    if not isinstance(records, list) or not records:
        raise BadRequest("examples must be a list that is not empty", "examples")
    examples = [_example(record, place) for place, record in enumerate(records)]
    source = "api" if "target" in body.record else body.text("source", "api")
    return JSONResponse(await run_in_threadpool(_keep, agent_of(request), examples, source), 201)


async def add_file(request: Request) -> Response:
    """``POST /v1/examples/file?name=notes.md``: the body is a file as ``sideplug learn`` reads it; all or nothing."""
    path = Path(Path(request.query_params.get("name", "")).name)
    if not path.name:
        raise BadRequest("name must be the name of the file", "name")
    data = await bytes_of(request)
    examples = await run_in_threadpool(examples_in, path, data)
    kept = await run_in_threadpool(_keep, agent_of(request), examples, path.name)
    return JSONResponse(kept, 201)


async def forget_example(request: Request) -> Response:
    """``DELETE /v1/examples/{number}``: with everything that was made of it; see ``forgetting``."""
    number = request.path_params["number"]
    told = await run_in_threadpool(_forget, agent_of(request), _trains(request), numbers=[number])
    return JSONResponse({"id": number, **told})


async def forget_examples(request: Request) -> Response:
    """``DELETE /v1/examples?file=…&matching=…``: all that came from a file, all that hold some words."""
    asked = request.query_params
    files, matching = asked.getlist("file"), asked.get("matching", "")
    if not any(files) and not matching:
        raise BadRequest("file or matching must say what is to be forgotten")
    told = await run_in_threadpool(
        _forget, agent_of(request), _trains(request), files=files, matching=matching
    )
    return JSONResponse(told)


async def give_feedback(request: Request) -> Response:
    """``POST /v1/feedback``: ``rating`` up or down, and ``correction``, the better answer.

    Which answer is meant is told by its ``completion`` id, or by ``messages`` (and ``answer``) themselves.
    When a version gets significantly more thumbs down than what spoke before it, that speaks again.
    """
    agent, body = agent_of(request), await Body.of(request)
    rating = body.value("rating")
    correction = None if body.value("correction") is None else body.text("correction").strip()
    if rating not in (None, *RATINGS):
        raise BadRequest("rating must be up or down", "rating")
    if rating is None and not correction:
        raise BadRequest("there must be a rating, a correction, or both")
    meant = await run_in_threadpool(_answer_meant, agent, body)
    told = await run_in_threadpool(_keep_feedback, agent, meant, rating, correction or None)
    return JSONResponse({**told, "example": bool(correction)}, 201)


def _trains(request: Request) -> bool:
    """``train=false`` leaves it at forgetting."""
    word = request.query_params.get("train", "true")
    if word not in ("true", "false"):
        raise BadRequest("train must be true or false", "train")
    return word == "true"


def _forget(agent: Agent, trains: bool, **meant: Any) -> dict[str, object]:
    with Link(agent.settings, "forget") as link:
        gone = forget(link, choose(link.store, **meant))
        job = anew(link.store, agent.settings.recipe) if trains and gone.versions else None
    return {"deleted": True, **gone.to_json(), "job": job}


def _answer_meant(agent: Agent, body: Body) -> Answer:
    if body.value("messages") is None:
        return agent.answers.get(body.text("completion"))
    turns, answer = turns_of(body.value("messages")), body.text("answer", "")
    model = find_model(PluginStore(agent.settings.home), body.text("model", ME))
    return Answer(name_of(model.version), turns, answer)


def _keep_feedback(
    agent: Agent, meant: Answer, rating: str | None, correction: str | None
) -> dict[str, object]:
    plugins = PluginStore(agent.settings.home)
    with agent.store() as store:
        number = store.add_feedback(meant.model, meant.turns, meant.text, rating, correction)
        turned = turn_back(plugins, store)
    return {"id": number, "rolled_back": plugins.reason if turned else None}


def _keep(agent: Agent, examples: list[Example], source: str) -> dict[str, object]:
    with agent.store() as store:
        added = store.add_examples(examples, source)
        return {
            "added": added,
            "known": len(examples) - added,
            "examples": store.count_examples(),
        }


def _examples(agent: Agent) -> dict[str, object]:
    with agent.store() as store:
        rows = [
            {
                "id": stored.id,
                "kind": stored.example.kind,
                "source": stored.source,
                "created": stored.created,
                "preview": _preview(stored.example),
            }
            for stored in reversed(store.examples())
        ]
        counts, feedback = store.count_examples(), store.count_feedback()
    return {"object": "list", "data": rows, "examples": counts, "feedback": feedback}


def _preview(example: Example) -> str:
    text = example.text or "\n".join(f"{role}: {said}" for role, said in example.messages)
    return text[:PREVIEW]


def _example(record: object, place: int) -> Example:
    try:
        return example_of(record)
    except ValueError as error:
        raise BadRequest(f"example {place}: {error}", "examples") from None
