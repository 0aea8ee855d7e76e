"""How a route gets at its service, reads a body within limits, and writes a frame."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from pathlib import Path
from typing import Any, TypeVar, cast

from fastapi import Request, Response
from fastapi.responses import FileResponse
from starlette.requests import ClientDisconnect

from cloud_service.admission import Caller
from cloud_service.reading import Dropped, Waiter
from cloud_service.service import Service
from protocol import versions
from protocol.errors import FrameTooLarge, MalformedMessage
from protocol.messages import Tokens

T = TypeVar("T")

FRAMES = "application/vnd.sideplug.frame"


def service_of(request: Request) -> Service:
    """Return the service that a request was sent to."""
    return cast(Service, request.app.state.service)


def caller_of(request: Request) -> Caller:
    """Return who sent a request."""
    return cast(Caller, request.scope["caller"])


async def chunks(request: Request, limit: int) -> AsyncGenerator[bytes]:
    """
    Iterate over a body as it arrives.

    Raises:
        FrameTooLarge: More than ``limit`` bytes are announced or have come.

    """
    announced = request.headers.get("content-length", "0")
    if announced.isdecimal() and int(announced) > limit:
        raise FrameTooLarge(size=int(announced), limit=limit)
    size = 0
    async with aclosing(request.stream()) as stream:
        async for chunk in stream:
            size += len(chunk)
            if size > limit:
                raise FrameTooLarge(size=size, limit=limit)
            yield chunk


async def body(request: Request, limit: int) -> bytes:
    """Return a whole body of at most ``limit`` bytes; ``FrameTooLarge`` when it is longer."""
    async with aclosing(chunks(request, limit)) as parts:
        return b"".join([part async for part in parts])


async def tokens_of(request: Request) -> Tokens:
    """
    Return the tokens that a body is a frame of.

    Raises:
        ProtocolError: It is not one.

    """
    limits = service_of(request).facts.limits
    tokens = versions.decode(await body(request, limits.frame_bytes), limits)
    if not isinstance(tokens, Tokens):
        raise MalformedMessage(reason="the body must be a frame of tokens")
    return tokens


async def unless_gone(request: Request, waiter: Waiter, answering: Coroutine[Any, Any, T]) -> T:
    """
    Return an answer; tell the one who makes it when the other side has gone away meanwhile.

    Args:
        request: Its body has been read.
        waiter: Is marked as gone.
        answering: Makes the answer, and ends soon when its waiter is gone.

    Raises:
        ClientDisconnect: There is no answer, and nobody to have it.

    """
    task = asyncio.ensure_future(answering)
    leaving = asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait({task, leaving}, return_when=asyncio.FIRST_COMPLETED)
        waiter.gone = leaving.done()
        return await task
    except Dropped:
        raise ClientDisconnect from None
    finally:
        leaving.cancel()


def frame_answer(frame: bytes) -> Response:
    """Return an answer that is one frame."""
    return Response(frame, media_type=FRAMES)


def file_answer(request: Request, path: Path, sha256: str) -> Response:
    """Return a file that never changes under its digest, or 304 when the other side has it."""
    headers = {"ETag": f'"{sha256}"', "Cache-Control": "public, max-age=31536000, immutable"}
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    return FileResponse(path, media_type="application/octet-stream", headers=headers)
