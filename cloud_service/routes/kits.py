"""The compiled kits: which there are, their manifests, their files."""

from dataclasses import asdict

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from cloud_service.routes.exchange import file_answer, service_of
from cloud_service.routes.openapi import FILE, MANIFEST, TEXT, described, document, record

router = APIRouter(prefix="/v1/kits")

OFFER = record(id=TEXT, recipe=TEXT, ready={"type": "boolean"})
KITS = record(kits={"type": "array", "items": OFFER})


@router.get("", **described(document(KITS)))
async def kits(request: Request) -> Response:
    """List id, recipe and readiness of every kit on offer."""
    offers = service_of(request).kits.offers()
    return JSONResponse({"kits": [asdict(offer) for offer in offers]})


@router.get("/{name}", **described(document(MANIFEST)))
async def manifest(request: Request, name: str) -> Response:
    """Return the manifest of a kit, by the name of its recipe or its id."""
    return JSONResponse(service_of(request).kits.manifest(name).to_json())


@router.get("/{kit}/files/{name}", **described(FILE))
async def file(request: Request, kit: str, name: str) -> Response:
    """Return one file of a kit; its digest is the ETag, and ranges are answered."""
    path, entry = service_of(request).kits.file(kit, name)
    return file_answer(request, path, entry.sha256)
