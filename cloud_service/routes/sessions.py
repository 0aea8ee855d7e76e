"""Sessions: open, step, crop, close."""

import time

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from cloud_service.reading import Waiter
from cloud_service.routes.exchange import (
    body,
    caller_of,
    frame_answer,
    service_of,
    tokens_of,
    unless_gone,
)
from cloud_service.routes.openapi import (
    FRAME,
    POSITION,
    SESSION,
    SESSION_REQUEST,
    described,
    document,
)
from cloud_service.service import Service
from cloud_service.sessions import Session
from protocol import versions
from protocol.fields import Fields, read_json
from protocol.messages import SessionRequest

router = APIRouter(prefix="/v1/sessions")


@router.post(
    "",
    **described(
        document(SESSION),
        status=201,
        says="The session is open",
        body=document(SESSION_REQUEST),
    ),
)
async def open_session(request: Request) -> Response:
    """Open a session that answers every step with what it wants."""
    service, caller = service_of(request), caller_of(request)
    limit = service.facts.limits.json_bytes
    asked = SessionRequest.from_json(read_json(await body(request, limit), limit))
    versions.check_spoken(asked.protocol)
    opened = service.sessions.open(asked, caller.owner, caller.sessions)
    return JSONResponse(opened.to_json(), 201)


@router.post("/{name}/step", **described(FRAME, says="A frame of states", body=FRAME))
async def step(request: Request, name: str) -> Response:
    """Read a frame of tokens, answer with a frame of states."""
    started = time.perf_counter()
    service, caller = service_of(request), caller_of(request)
    with service.sessions.use(name, caller.owner) as session:
        tokens = await tokens_of(request)
        caller.tokens.spend(len(tokens.ids) + tokens.drafts + tokens.alone)
        waiter = Waiter(caller.owner)
        answering = service.sessions.step(waiter, session, tokens)
        answer = await unless_gone(request, waiter, answering)
        # What the backbone did not say by itself, nobody could tell before.
        caller.tokens.spend(answer.said - tokens.alone)
        _time(service, session, started)
    return frame_answer(answer.frame)


@router.post("/{name}/crop", **described(document(POSITION), body=document(POSITION)))
async def crop(request: Request, name: str) -> Response:
    """Forget what a session has read from a position on."""
    service = service_of(request)
    limit = service.facts.limits.json_bytes
    with service.sessions.use(name, caller_of(request).owner) as session:
        read = Fields(read_json(await body(request, limit), limit), "crop")
        position = read.integer("position")
        stands = await service.sessions.crop(session, position)
    return JSONResponse({"position": stands})


@router.delete("/{name}", **described(None, status=204, says="The session has ended"))
async def close(request: Request, name: str) -> Response:
    """End a session."""
    service_of(request).sessions.close(name, caller_of(request).owner)
    return Response(status_code=204)


def _time(service: Service, session: Session, started: float) -> None:
    now = time.perf_counter()
    if session.answered is None:
        service.metrics.first.observe(now - started)
    else:
        service.metrics.between.observe(now - session.answered)
    session.answered = now
