"""Features in bulk: texts in, a frame of states for each out; steps go first."""

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from functools import partial

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from cloud_service.backbones.pages import Cache
from cloud_service.checks import check_text, check_wants
from cloud_service.faults import as_fault
from cloud_service.features import features as read_features
from cloud_service.reading import Waiter
from cloud_service.routes.exchange import FRAMES, caller_of, chunks, service_of
from cloud_service.routes.openapi import FRAME, TEXT, WANTS, described, document
from cloud_service.service import Service
from protocol import versions
from protocol.basis import Basis
from protocol.errors import MalformedMessage
from protocol.fields import read_json
from protocol.messages import Tokens, Wants
from protocol.stream import FrameReader

router = APIRouter(prefix="/v1")


@router.post(
    "/features",
    **described(
        FRAME,
        says="A frame of states for each text, in order; or a frame of a fault, which is the last",
        body=FRAME,
        query=[
            {"name": "wants", "in": "query", "required": True, "content": document(WANTS)},
            {"name": "prefix", "in": "query", "required": False, "schema": TEXT},
        ],
    ),
)
async def features(request: Request) -> Response:
    """
    Answer each text with its states, in order; what fails on the way ends in a fault frame.

    With the query parameter ``prefix``, each text is read behind that prefix.
    """
    service, caller = service_of(request), caller_of(request)
    service.runner.require_ready()  # before the body is taken in
    wants = _wants(request, service)
    basis = service.kits.basis(wants)
    prefix = request.query_params.get("prefix")
    start = service.prefixes.position(caller.owner, prefix)
    # The whole body first: a client writes all of it before it reads, so answering earlier
    # could leave both sides waiting for the other to read.
    texts = await _texts(request, service, wants, start)
    caller.tokens.spend(sum(len(text.ids) for text in texts))
    place = partial(service.prefixes.place, caller.owner, prefix)
    frames = _frames(service, Waiter(caller.owner), place, texts, wants, basis)
    return StreamingResponse(frames, media_type=FRAMES)


def _wants(request: Request, service: Service) -> Wants:
    asked = request.query_params.get("wants")
    if asked is None:
        raise MalformedMessage(reason="features need the query parameter wants, a JSON object")
    wants = Wants.from_json(read_json(asked.encode(), service.facts.limits.json_bytes))
    check_wants(wants, service.facts)
    return wants


async def _texts(request: Request, service: Service, wants: Wants, start: int) -> list[Tokens]:
    limits = service.facts.limits
    room = service.sessions.room
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
    service: Service,
    waiter: Waiter,
    place: Callable[[], Cache],
    texts: list[Tokens],
    wants: Wants,
    basis: Basis | None,
) -> AsyncIterator[bytes]:
    try:
        reading = read_features(service.runner, waiter, place, texts, wants, basis)
        async with aclosing(reading) as frames:
            async for frame in frames:
                yield frame
    except Exception as error:
        fault = as_fault(error)
        service.metrics.faults.labels(fault.code).inc()
        yield versions.encode(fault)
