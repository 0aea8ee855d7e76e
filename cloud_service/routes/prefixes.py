"""Prefixes: read once, then opened on by sessions and named by features."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from cloud_service.routes.exchange import caller_of, service_of, tokens_of
from cloud_service.routes.openapi import FRAME, PREFIX, described, document

router = APIRouter(prefix="/v1/prefixes")


@router.post(
    "",
    **described(document(PREFIX), status=201, says="The prefix is kept", body=FRAME),
)
async def keep(request: Request) -> Response:
    """Read a frame of tokens and keep them; 200 when they were there already."""
    service, caller = service_of(request), caller_of(request)
    kept, read = await service.prefixes.keep(caller.owner, await tokens_of(request))
    caller.tokens.spend(read)
    return JSONResponse(kept.to_json(), 201 if read else 200)
