"""Where every error of a request becomes a fault, once."""

import logging
import secrets

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from protocol.errors import (
    Fault,
    InternalFault,
    KitNotReady,
    MalformedMessage,
    TooManySessions,
    UnknownEndpoint,
    WrongMethod,
)

log = logging.getLogger("sideplug.cloud")

_PATIENCE: dict[type[Fault], int] = {KitNotReady: 5, TooManySessions: 5}
"""Seconds after which it is worth asking again, where it is not one."""


def as_fault(error: Exception) -> Fault:
    """Return the fault itself, or an internal one whose number finds the stack in the log."""
    if isinstance(error, Fault):
        return error
    number = secrets.token_hex(4)
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
    """Return a fault as JSON with its status, and when to ask again where that may help."""
    wait = {"Retry-After": str(_PATIENCE.get(type(fault), 1))} if fault.status == 503 else None
    return JSONResponse(fault.to_json(), fault.status, headers=wait)
