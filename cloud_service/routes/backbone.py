"""What a device has to know of the backbone, and its tokenizer."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from cloud_service.routes.exchange import file_answer, service_of
from cloud_service.routes.openapi import FACTS, FILE, described, document

router = APIRouter(prefix="/v1")


@router.get("/backbone", **described(document(FACTS)))
async def facts(request: Request) -> Response:
    """Return the facts, while the backbone is still loading too."""
    return JSONResponse(service_of(request).facts.to_json())


@router.get("/tokenizer", **described(FILE))
async def tokenizer(request: Request) -> Response:
    """Return tokenizer.json; its digest is the ETag."""
    service = service_of(request)
    return file_answer(request, service.pulled.tokenizer, service.facts.tokenizer_sha256)
