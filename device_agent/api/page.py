"""The page at ``/``: files of this package, and what a browser may do with them. They hold nothing of the person."""

from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

FOLDER = Path(__file__).parents[1] / "page"

MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

INDEX = "index.html"

ASSETS = {
    f"/page/{path.name}": path
    for path in sorted(FOLDER.iterdir())
    if path.suffix in MEDIA_TYPES and path.name != INDEX
}
"""Path on disk by path of the request: nothing else can be asked for."""

SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
    )
)
"""Nothing from elsewhere, no script in the text, no frame around the page, no text that becomes markup."""

HEADERS = {
    "content-security-policy": SECURITY_POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    # Another release may stand at the same address tomorrow.
    "cache-control": "no-cache",
}


async def index(_request: Request) -> Response:
    """``GET /``: the page. What it asks of the API, it asks with the home's token."""
    return await _file(FOLDER / INDEX)


async def asset(request: Request) -> Response:
    """``GET /page/{name}``: its scripts, styles and pictures."""
    path = ASSETS.get(request.url.path)
    if path is None:
        raise HTTPException(404)
    return await _file(path)


async def _file(path: Path) -> Response:
    data = await run_in_threadpool(path.read_bytes)
    return Response(data, headers={**HEADERS, "content-type": MEDIA_TYPES[path.suffix]})
