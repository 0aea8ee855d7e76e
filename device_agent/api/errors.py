"""Every error of a request as OpenAI's clients read it: ``{"error": {message, type, param, code}}``."""

from starlette.exceptions import HTTPException

from device_agent.cloud.connection import CloudUnreachable
from device_agent.daemon.jobs import NoSuchJob, NotNow
from device_agent.data.chat_template import NoChatTemplate, TemplateRefused
from device_agent.data.documents import BadDocument
from device_agent.data.store import StoreUnavailable
from device_agent.egress.policy import BadPolicy, CapReached, PolicyForbids
from device_agent.errors import DeviceError
from device_agent.generation.speaker import EmptyPrompt
from device_agent.plugins import NoSuchVersion, NothingBefore
from device_agent.settings import BadSetting
from device_agent.training.forgetting import NoSuchExample, NothingToForget
from device_agent.training.lock import AlreadyTraining
from protocol.errors import ContextExceeded, Fault


class BadRequest(DeviceError):
    """A field of the request cannot be used."""

    def __init__(self, reason: str, param: str | None = None) -> None:
        super().__init__(reason)
        self.param = param


class BodyTooLarge(DeviceError):
    """The request's body is longer than is read."""

    hint = "Send less at once."

    def __init__(self, limit: int) -> None:
        super().__init__(f"a request may have {limit} bytes")


class WrongToken(DeviceError):
    """The request does not carry this home's token."""

    hint = "Send `Authorization: Bearer TOKEN`; `sideplug token` prints it."

    def __init__(self) -> None:
        super().__init__("the token is missing or wrong")


class WrongHost(DeviceError):
    """The request names another host than the one that is listened on."""

    hint = "Use the address that `sideplug status` shows."

    def __init__(self, host: str) -> None:
        super().__init__(f"the agent does not answer as {host!r}")


class NoSuchModel(DeviceError):
    """There is no model of that name."""

    hint = "GET /v1/models lists them: base, me, and me:VERSION."

    def __init__(self, name: str) -> None:
        super().__init__(f"there is no model {name!r}")


class NoSuchAnswer(DeviceError):
    """The answer that feedback is given on is not remembered."""

    hint = "The newest answers are, until the agent ends; send `messages` with the feedback."

    def __init__(self, name: str) -> None:
        super().__init__(f"the answer {name!r} is not remembered")


STATUS: dict[type[Exception], int] = {
    BadRequest: 400,
    BadSetting: 400,
    BadDocument: 400,
    EmptyPrompt: 400,
    NoChatTemplate: 400,
    TemplateRefused: 400,
    ContextExceeded: 400,
    WrongToken: 401,
    WrongHost: 403,
    BadPolicy: 403,
    PolicyForbids: 403,
    NoSuchModel: 404,
    NoSuchVersion: 404,
    NoSuchJob: 404,
    NoSuchAnswer: 404,
    NoSuchExample: 404,
    NothingToForget: 404,
    NothingBefore: 409,
    NotNow: 409,
    AlreadyTraining: 409,
    BodyTooLarge: 413,
    CapReached: 429,
    CloudUnreachable: 503,
    StoreUnavailable: 503,
}
"""HTTP status by class; of the others, faults of the cloud have 502 and all else 500."""

CODES: dict[type[Exception], str] = {
    ContextExceeded: "context_length_exceeded",
    WrongToken: "invalid_api_key",
    NoSuchModel: "model_not_found",
    CloudUnreachable: "cloud_unreachable",
}
"""Codes by which OpenAI's clients know an error; the others have the name of their class."""

Told = dict[str, dict[str, str | None]]


def status_of(error: Exception) -> int:
    """The HTTP status that an error is answered with."""
    if isinstance(error, HTTPException):
        return error.status_code
    for kind, status in STATUS.items():
        if isinstance(error, kind):
            return status
    # Too much at once is told to whoever asked too much; the cloud's other troubles are not theirs.
    if isinstance(error, Fault):
        return error.status if error.status in (429, 503) else 502
    return 500


def told(error: Exception) -> Told:
    """The error object. What was not foreseen tells nothing of itself: it is in the log."""
    if isinstance(error, HTTPException):
        return _object(error.detail, error.status_code, None, None)
    if not isinstance(error, DeviceError | Fault):
        return _object("the agent has failed; its log says where", 500, None, "internal_error")
    code = next((text for kind, text in CODES.items() if isinstance(error, kind)), error.code)
    param = error.name if isinstance(error, BadSetting) else getattr(error, "param", None)
    message = f"{error}. {error.hint}".strip()
    return _object(message, status_of(error), param, code)


def _object(message: str, status: int, param: str | None, code: str | None) -> Told:
    kinds = {429: "rate_limit_error", 401: "authentication_error"}
    kind = kinds.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}
