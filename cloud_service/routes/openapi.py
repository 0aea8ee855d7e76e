"""What the routes say of themselves in the OpenAPI document: bodies, answers, and the one shape of a fault."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from cloud_service.routes.exchange import FRAMES
from protocol.codecs import CODEC_NAMES
from protocol.errors import FAULTS
from protocol.facts import BackboneFacts
from protocol.fields import U32
from protocol.kit import KitManifest

Schema = dict[str, Any]
Content = dict[str, Any]
"""A schema by media type, as OpenAPI has it."""

COUNT: Schema = {"type": "integer", "minimum": 0, "maximum": U32}
TEXT: Schema = {"type": "string"}
NAME: Schema = {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,128}$"}


def record(**properties: Schema) -> Schema:
    """An object with these fields; a reader ignores others."""
    return {"type": "object", "required": list(properties), "properties": properties}


def document(schema: Schema) -> Content:
    """JSON."""
    return {"application/json": {"schema": schema}}


def binary(media_type: str) -> Content:
    """Bytes."""
    return {media_type: {"schema": {"type": "string", "format": "binary"}}}


WANTS = record(
    layers={"type": "array", "items": COUNT, "uniqueItems": True},
    final={"type": "boolean"},
    log_z={"type": "boolean"},
    candidates=COUNT,
    codec={"enum": list(CODEC_NAMES)},
)
SECTIONS: Schema = {
    "type": "array",
    "items": record(codec={"enum": list(CODEC_NAMES)}, width=COUNT),
}
WANTS["properties"] |= {
    "basis": {"anyOf": [TEXT, {"type": "null"}]},
    "encoding": {"anyOf": [record(final=SECTIONS, taps=SECTIONS), {"type": "null"}]},
}
GATE = record(
    threshold={"type": "number", "minimum": 0, "maximum": 1},
    row={"anyOf": [{"type": "array", "items": {"type": "number"}}, {"type": "null"}]},
    bias={"type": "number"},
)
SESSION_REQUEST = record(wants=WANTS, protocol=TEXT, prefix={"anyOf": [NAME, {"type": "null"}]})
SESSION_REQUEST["properties"]["gate"] = {"anyOf": [GATE, {"type": "null"}]}
SESSION = record(session=TEXT, position=COUNT, limit=COUNT, idle_seconds={"type": "number"})
PREFIX = record(prefix=NAME, position=COUNT, idle_seconds={"type": "number"})
POSITION = record(position=COUNT)
FACTS: Schema = {"type": "object", "required": [item.name for item in fields(BackboneFacts)]}
MANIFEST: Schema = {"type": "object", "required": [item.name for item in fields(KitManifest)]}
FAULT = record(
    error=record(
        code={"enum": list(FAULTS)},
        number={"enum": [fault.number for fault in FAULTS.values()]},
        message=TEXT,
        hint=TEXT,
        details={"type": "object"},
    )
)
FRAME = binary(FRAMES)
FILE = binary("application/octet-stream")


def described(
    answer: Content | None,
    *,
    status: int = 200,
    says: str = "What was asked for",
    body: Content | None = None,
    query: Sequence[dict[str, Any]] = (),
) -> dict[str, Any]:
    """
    Return the arguments of a route's decorator that describe it.

    Args:
        answer: What it answers with; None for nothing.
        status: With which status.
        says: The answer in words.
        body: What it is asked with.
        query: Parameters of the query, as OpenAPI has them.

    """
    good: dict[str, Any] = {"description": says}
    if answer is not None:
        good["content"] = answer
    extra: dict[str, Any] = {"parameters": list(query)} if query else {}
    if body is not None:
        extra["requestBody"] = {"required": True, "content": body}
    faults = {"description": "A fault, with its status", "content": document(FAULT)}
    return {
        "status_code": status,
        "responses": {status: good, "default": faults},
        "openapi_extra": extra,
    }
