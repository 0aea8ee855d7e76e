"""Features in bulk: texts in, a frame of states for each out, alone or behind a session; steps go first."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, aclosing, nullcontext

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from cloud_service.backbones.base import Backbone
from cloud_service.checks import check_text, check_wants
from cloud_service.faults import as_fault
from cloud_service.routes.exchange import FRAMES, caller_of, chunks, service_of
from cloud_service.runner import Priority
from cloud_service.service import Service
from cloud_service.sessions import Session, alone
from protocol import versions
from protocol.errors import MalformedMessage
from protocol.fields import read_json
from protocol.messages import Tokens, Wants
from protocol.stream import FrameReader

router = APIRouter(prefix="/v1")

Place = AbstractContextManager[Session | None]
"""What texts are read behind; the session cannot expire inside."""


@router.post("/features")
async def features(request: Request) -> Response:
    """
    Answer each text with its states, in order; what fails on the way ends in a fault frame.

    With the query parameter ``behind``, a session's name, each text is read behind what that session
    holds, which stays as it is: a prefix is paid for once and shared by all texts.
    """
    service, caller = service_of(request), caller_of(request)
    service.runner.require_ready()  # before the body is taken in
    wants = _wants(request, service)
    name = request.query_params.get("behind")
    place: Place = nullcontext() if name is None else service.sessions.use(name, caller.owner)
    # The whole body first: a client writes all of it before it reads, so answering earlier
    # could leave both sides waiting for the other to read.
    with place as session:
        texts = await _texts(request, service, wants, session)
    caller.tokens.spend(sum(len(text.ids) for text in texts))
    return StreamingResponse(_frames(service, wants, texts, place), media_type=FRAMES)


def _wants(request: Request, service: Service) -> Wants:
    asked = request.query_params.get("wants")
    if asked is None:
        raise MalformedMessage(reason="features need the query parameter wants, a JSON object")
    wants = Wants.from_json(read_json(asked.encode(), service.facts.limits.json_bytes))
    check_wants(wants, service.facts)
    return wants


async def _texts(
    request: Request, service: Service, wants: Wants, session: Session | None
) -> list[Tokens]:
    limits = service.facts.limits
    start = 0 if session is None else session.cache.position
    room = service.sessions.room(service.runner.require_ready().pool)
    reader, texts = FrameReader(limits), list[Tokens]()
    async with aclosing(chunks(request, limits.frame_bytes)) as parts:
        async for chunk in parts:
            for frame in reader.feed(chunk):
                text = versions.decode(frame, limits)
                if not isinstance(text, Tokens):
                    raise MalformedMessage(reason="a text must be a frame of tokens")
                check_text(text, wants, service.facts, start, room)
                texts.append(text)
    reader.close()
    return texts


async def _frames(
    service: Service, wants: Wants, texts: list[Tokens], place: Place
) -> AsyncIterator[bytes]:
    """Yield a frame a text. While one is sent, the model works on the next."""
    ahead: asyncio.Future[bytes] | None = None
    try:
        with place as session:
            for text in texts:
                earlier = ahead
                ahead = asyncio.ensure_future(_read(service, wants, text, session))
                if earlier is not None:
                    yield await earlier
            if ahead is not None:
                yield await ahead
    except Exception as error:
        fault = as_fault(error)
        service.metrics.faults.labels(fault.code).inc()
        yield versions.encode(fault)
    finally:
        if ahead is not None:
            ahead.cancel()


async def _read(service: Service, wants: Wants, text: Tokens, session: Session | None) -> bytes:
    def run(backbone: Backbone) -> bytes:
        with service.metrics.model.labels("features").time():
            if session is None:
                states = alone(backbone, text, wants)
            else:
                states = service.sessions.glance(backbone, session, text, wants)
            service.metrics.tokens.labels("features").inc(len(text.ids))
            return versions.encode(states, wants.codec)

    return await asyncio.wrap_future(service.runner.submit(Priority.FEATURES, run))
