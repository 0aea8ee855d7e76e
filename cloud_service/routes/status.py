"""Whether the service lives, whether it can work, what it is, and what it counts."""

from importlib.metadata import PackageNotFoundError, version

from fastapi import APIRouter, Request, Response

from cloud_service import metrics
from cloud_service.routes.exchange import service_of
from cloud_service.routes.openapi import TEXT, described, document, record
from protocol.errors import Draining, Overloaded
from protocol.versions import SPOKEN

router = APIRouter()

STATUS = record(status=TEXT, backbone=TEXT)
VERSION = record(version=TEXT, protocol={"type": "array", "items": TEXT})


def package_version() -> str:
    """Return the version of the distribution, or "source" when it runs without being installed."""
    try:
        return version("sideplug")
    except PackageNotFoundError:
        return "source"


@router.get("/health", **described(document(STATUS)))
async def health(request: Request) -> dict[str, object]:
    """Answer 200 as soon as the backbone is in memory, 503 before."""
    return {"status": "ok", "backbone": service_of(request).runner.require_ready().facts.name}


@router.get("/ready", **described(document(STATUS)))
async def ready(request: Request) -> dict[str, object]:
    """Answer 200 when the next step would be accepted."""
    service = service_of(request)
    if service.admission.draining:
        raise Draining()
    runner = service.runner
    if runner.full:
        raise Overloaded()
    return {"status": "ready", "backbone": runner.require_ready().facts.name}


@router.get("/version", **described(document(VERSION)))
async def what(_request: Request) -> dict[str, object]:
    """Say which release this is and which versions of the protocol it speaks."""
    return {"version": package_version(), "protocol": SPOKEN}


@router.get("/metrics", **described({"text/plain": {"schema": TEXT}}))
async def counted(request: Request) -> Response:
    """Return the metrics in the Prometheus text format."""
    text = service_of(request).metrics.text()
    return Response(text, headers={"Content-Type": metrics.CONTENT_TYPE})
