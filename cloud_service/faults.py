"""Where every error of a request becomes a fault, once."""

import logging

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from cloud_service.logs import request_id
from protocol.errors import (
    Draining,
    Fault,
    InternalFault,
    KeyMissing,
    KeyUnknown,
    KitNotReady,
    MalformedMessage,
    QuotaSpent,
    SessionQuota,
    TooManySessions,
    UnknownEndpoint,
    WrongMethod,
)

log = logging.getLogger("sideplug.cloud")

_PATIENCE: dict[type[Fault], int] = {
    Draining: 5,
    KitNotReady: 5,
    TooManySessions: 5,
    SessionQuota: 5,
}
"""Seconds after which it is worth asking again, where it is not one."""


def as_fault(error: Exception) -> Fault:
    """Return the fault itself, or an internal one whose number finds the stack in the log."""
    if isinstance(error, Fault):
        return error
    number = request_id.get() or "unknown"
    log.error("request %s failed", number, exc_info=error)
    return InternalFault(request=number)


def framework_fault(request: Request, error: Exception) -> Fault:
    """Return what the framework refuses in the words of the protocol."""
    status = error.status_code if isinstance(error, HTTPException) else None
    if status == 404:
        return UnknownEndpoint(path=request.url.path)
    if status == 405:
        return WrongMethod(path=request.url.path, method=request.method)
    if isinstance(error, RequestValidationError):
        return MalformedMessage(reason="a parameter is missing or of another type")
    if isinstance(error, HTTPException):
        return MalformedMessage(reason=str(error.detail))
    return as_fault(error)


def fault_answer(fault: Fault) -> Response:
    """Return a fault as JSON with its status, and when to ask again or with what."""
    return JSONResponse(fault.to_json(), fault.status, headers=_headers(fault))


def _headers(fault: Fault) -> dict[str, str]:
    if isinstance(fault, QuotaSpent):
        return {"Retry-After": str(fault.details["seconds"])}
    if fault.status in (429, 503):
        return {"Retry-After": str(_PATIENCE.get(type(fault), 1))}
    if isinstance(fault, KeyMissing | KeyUnknown):
        return {"WWW-Authenticate": "Bearer"}
    return {}
