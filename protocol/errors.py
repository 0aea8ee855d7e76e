"""
Everything that one side can tell the other about what went wrong.

* Fault
  * ProtocolError: the bytes or the message break the agreement
    * MalformedFrame: the bytes are not a frame
      * BadMagic, TruncatedFrame, FrameTooLarge (LimitExceeded), TrailingBytes
    * UnsupportedVersion, UnsupportedFeature, UnknownKind, UnknownCodec
    * TensorMismatch, NotFinite, MalformedMessage
  * ServiceFault: the request was understood and cannot be served
    * SessionNotFound, PositionMismatch, ContextExceeded, TokenOutOfRange, TapOutOfRange, TooManySessions,
      PrefixNotFound
    * KitNotFound, KitNotReady, UnknownRecipe
    * Loading, Overloaded, Draining, InternalFault, UnknownEndpoint, WrongMethod
    * KeyMissing, KeyUnknown, KeyRevoked, QuotaSpent, SessionQuota
  * UnknownFault: the other side knows a fault that this one does not

A fault travels as JSON, in a frame or as the body of an HTTP answer, and is the same class again
on the other side. A number or a code, once released, is never reused.
"""

import math
from collections.abc import Mapping
from numbers import Integral
from string import Formatter
from typing import ClassVar

Detail = int | str | float

LONGEST_TEXT = 500
"""Characters of a message or a detail. What is longer was not written to be read."""
MOST_DETAILS = 32
_BIGGEST_INTEGER = 2**64


class Fault(Exception):
    """The base of everything the two sides tell each other.

    Attributes:
        details: What the sentence was filled with, cut to what a person can read.
        message: The sentence, filled.
    """

    number: ClassVar[int]
    code: ClassVar[str]
    status: ClassVar[int]
    """The HTTP status that carries it."""
    sentence: ClassVar[str]
    """What happened, with the names of the details in braces."""
    hint: ClassVar[str]
    """What to do next."""

    def __init__(self, /, **details: Detail) -> None:
        self.details: dict[str, Detail] = {name: _plain(value) for name, value in details.items()}
        self.message: str = _readable(self.sentence.format(**self.details))
        super().__init__(self.message)

    def to_json(self) -> dict[str, object]:
        """Return ``{"error": {"code", "number", "message", "hint", "details"}}``."""
        return {
            "error": {
                "code": self.code,
                "number": self.number,
                "message": self.message,
                "hint": self.hint,
                "details": dict(self.details),
            }
        }


class ProtocolError(Fault):
    """The bytes or the message break the agreement."""


class MalformedFrame(ProtocolError):
    """The bytes are not a frame."""


class BadMagic(MalformedFrame):
    """The first bytes are not ours."""

    number, code, status = 100, "bad_magic", 400
    sentence = "the bytes are not a Sideplug frame"
    hint = (
        "Check that the address is a Sideplug service and that nothing in between rewrites bodies."
    )


class TruncatedFrame(MalformedFrame):
    """The bytes end before the frame does."""

    number, code, status = 101, "truncated_frame", 400
    sentence = "frame needs {needed} bytes, got {got}"
    hint = "The connection broke in the middle; send it again."


class FrameTooLarge(MalformedFrame):
    """The header or the document is larger than this side will read."""

    number, code, status = 102, "frame_too_large", 413
    sentence = "{size} bytes are more than the {limit} allowed"
    hint = "Send fewer tokens at a time, ask for fewer taps, or choose a smaller codec."


class TrailingBytes(MalformedFrame):
    """Bytes are left over behind the frame."""

    number, code, status = 103, "trailing_bytes", 400
    sentence = "{extra} bytes are left over behind the frame"
    hint = "Send one whole frame and nothing else."


class LimitExceeded(FrameTooLarge):
    """A tensor in the frame has a longer side than this side will read."""

    number, code, status = 104, "limit_exceeded", 413
    sentence = "{part}: {size} are more than the {limit} allowed"
    hint = "Keep to the limits that the backbone's facts list."


class UnsupportedVersion(ProtocolError):
    """This side does not speak that major version."""

    number, code, status = 110, "unsupported_version", 415
    sentence = "protocol version {major} is not spoken here; spoken: {spoken}"
    hint = "Update the older of the two sides."


class UnsupportedFeature(ProtocolError):
    """The frame says it needs something this side does not know."""

    number, code, status = 111, "unsupported_feature", 415
    sentence = "the frame needs features {bits:#x}, which are not known here"
    hint = "Update the older of the two sides, or switch the feature off."


class UnknownKind(ProtocolError):
    """No message has that kind."""

    number, code, status = 112, "unknown_kind", 415
    sentence = "no message is of kind {kind}"
    hint = "Update the older of the two sides."


class UnknownCodec(ProtocolError):
    """No codec has that number or name."""

    number, code, status = 113, "unknown_codec", 415
    sentence = "there is no codec {codec}"
    hint = "Choose one of the codecs that the backbone's facts list."


class TensorMismatch(ProtocolError):
    """Shape, dtype and byte count disagree."""

    number, code, status = 114, "tensor_mismatch", 400
    sentence = "{part} must be {expected}, but is {got}"
    hint = "The sender counts otherwise than it writes; update it."


class NotFinite(ProtocolError):
    """A tensor holds a NaN or an infinity."""

    number, code, status = 115, "not_finite", 422
    sentence = "{part} holds numbers that are not finite"
    hint = "Look for an overflow where the numbers were made; a float16 backbone is a common cause."


class MalformedMessage(ProtocolError):
    """A message has wrong fields, types or values."""

    number, code, status = 116, "malformed_message", 422
    sentence = "the message makes no sense: {reason}"
    hint = "Compare it with the protocol's specification."


class ServiceFault(Fault):
    """The request was understood and cannot be served."""


class SessionNotFound(ServiceFault):
    """The session never was, has ended, or was idle too long."""

    number, code, status = 200, "session_not_found", 404
    sentence = "there is no session {session}"
    hint = "Open a new session and send its tokens again."


class PositionMismatch(ServiceFault):
    """The step does not begin where the session stands."""

    number, code, status = 201, "position_mismatch", 409
    sentence = "the session stands at position {expected}, the step begins at {got}"
    hint = "Continue at the expected position, or crop the session first."


class ContextExceeded(ServiceFault):
    """The tokens do not fit into the session."""

    number, code, status = 202, "context_exceeded", 413
    sentence = "{asked} positions are asked for, the limit is {limit}"
    hint = "Shorten the text, or begin a new session."


class TokenOutOfRange(ServiceFault):
    """The backbone has no such token."""

    number, code, status = 203, "token_out_of_range", 422
    sentence = "token {token} is outside the vocabulary of {vocabulary}"
    hint = "Use the tokenizer that this service hands out."


class TapOutOfRange(ServiceFault):
    """The backbone has no such layer."""

    number, code, status = 204, "tap_out_of_range", 422
    sentence = "there is no tap {tap}; the backbone has taps 0 to {layers}"
    hint = "Ask for taps that the backbone has."


class TooManySessions(ServiceFault):
    """Every place is taken."""

    number, code, status = 205, "too_many_sessions", 503
    sentence = "all {limit} sessions are in use"
    hint = "Try again in a moment; idle sessions make place."


class PrefixNotFound(ServiceFault):
    """The prefix never was, was not used for too long, or made place for another."""

    number, code, status = 206, "prefix_not_found", 404
    sentence = "there is no prefix {prefix}"
    hint = "Send its tokens again."


class KitNotFound(ServiceFault):
    """The service has no such kit or kit file."""

    number, code, status = 300, "kit_not_found", 404
    sentence = "there is no kit {kit}"
    hint = "List the kits, or ask for one by the name of its recipe."


class KitNotReady(ServiceFault):
    """The kit is being compiled."""

    number, code, status = 301, "kit_not_ready", 503
    sentence = "the kit of recipe {recipe} is being compiled"
    hint = "Ask again in a moment."


class UnknownRecipe(ServiceFault):
    """No recipe has that name."""

    number, code, status = 302, "unknown_recipe", 404
    sentence = "there is no recipe {recipe}; known: {known}"
    hint = "Choose one of the known recipes."


class Loading(ServiceFault):
    """The backbone is not in memory yet."""

    number, code, status = 400, "loading", 503
    sentence = "the backbone is being loaded"
    hint = "Try again in a moment."


class Overloaded(ServiceFault):
    """More is asked than can be queued."""

    number, code, status = 401, "overloaded", 503
    sentence = "the service has more to do than it can queue"
    hint = "Try again in a moment."


class Draining(ServiceFault):
    """The service finishes what it has begun, and begins nothing more."""

    number, code, status = 402, "draining", 503
    sentence = "the service is being stopped"
    hint = "Try again in a moment, or at another address of the service."


class InternalFault(ServiceFault):
    """The service itself is at fault."""

    number, code, status = 500, "internal_fault", 500
    sentence = "the service failed at request {request}"
    hint = "Look for the request's number in the service's log."


class UnknownEndpoint(ServiceFault):
    """Nothing answers at that path."""

    number, code, status = 600, "unknown_endpoint", 404
    sentence = "nothing answers at {path}"
    hint = "Compare the address with the protocol's specification."


class WrongMethod(ServiceFault):
    """The path is there, the method is not."""

    number, code, status = 601, "wrong_method", 405
    sentence = "{path} does not answer to {method}"
    hint = "Compare the request with the protocol's specification."


class KeyMissing(ServiceFault):
    """The service asks for a key and got none."""

    number, code, status = 700, "key_missing", 401
    sentence = "a key is needed here"
    hint = "Ask whoever runs the service for a key, and set SIDEPLUG_KEY to it."


class KeyUnknown(ServiceFault):
    """What was sent is no key of this service."""

    number, code, status = 701, "key_unknown", 401
    sentence = "the key is not one of this service"
    hint = "Compare the key and the address with what you were given."


class KeyRevoked(ServiceFault):
    """The key is no longer good."""

    number, code, status = 702, "key_revoked", 403
    sentence = "key {key} has been revoked"
    hint = "Ask whoever runs the service for a new key."


class QuotaSpent(ServiceFault):
    """The key has used what it may use for now."""

    number, code, status = 703, "quota_spent", 429
    sentence = "the key has spent its {limit} {unit}; {seconds} seconds until it may go on"
    hint = "Wait for so long, or ask whoever runs the service for more."


class SessionQuota(ServiceFault):
    """The key has as many sessions as it may have."""

    number, code, status = 704, "session_quota", 429
    sentence = "all {limit} sessions of the key are in use"
    hint = "Close a session; idle ones end by themselves."


class UnknownFault(Fault):
    """The other side knows a fault that this one does not."""

    number, code, status = 900, "unknown_fault", 502
    sentence = "{message} ({name})"
    hint = "Update this side: the other one is newer."


_ALL: tuple[type[Fault], ...] = (
    BadMagic,
    TruncatedFrame,
    FrameTooLarge,
    TrailingBytes,
    LimitExceeded,
    UnsupportedVersion,
    UnsupportedFeature,
    UnknownKind,
    UnknownCodec,
    TensorMismatch,
    NotFinite,
    MalformedMessage,
    SessionNotFound,
    PositionMismatch,
    ContextExceeded,
    TokenOutOfRange,
    TapOutOfRange,
    TooManySessions,
    PrefixNotFound,
    KitNotFound,
    KitNotReady,
    UnknownRecipe,
    Loading,
    Overloaded,
    Draining,
    InternalFault,
    UnknownEndpoint,
    WrongMethod,
    KeyMissing,
    KeyUnknown,
    KeyRevoked,
    QuotaSpent,
    SessionQuota,
    UnknownFault,
)

FAULTS: dict[str, type[Fault]] = {fault.code: fault for fault in _ALL}
"""Every fault that travels, by code. To add one: a class and a row."""


def fault_from_json(data: object) -> Fault:
    """
    Rebuild the fault that the other side wrote with ``Fault.to_json``.

    A code that is not in the table gives an ``UnknownFault`` with the other side's sentence.

    Raises:
        MalformedMessage: The JSON is not a fault.

    """
    error = data.get("error") if isinstance(data, Mapping) else None
    if not isinstance(error, Mapping):
        raise MalformedMessage(reason="a fault must be an object with an object 'error'")
    code = error.get("code")
    if not isinstance(code, str):
        raise MalformedMessage(reason="a fault must have a text 'code'")
    fault = FAULTS.get(code)
    if fault is None:
        message = error.get("message")
        return UnknownFault(message=message if isinstance(message, str) else "", name=code)
    details = _details(error.get("details"))
    try:
        return fault(**details)
    except (KeyError, ValueError):  # a detail is missing, or does not fit the sentence's format
        needed = ", ".join(name for _, name, _, _ in Formatter().parse(fault.sentence) if name)
        raise MalformedMessage(reason=f"a fault {code} must have details {needed}") from None


def _details(data: object) -> dict[str, Detail]:
    """Return the details when they are a few numbers and texts under names."""
    if not isinstance(data, Mapping) or len(data) > MOST_DETAILS:
        raise MalformedMessage(reason=f"a fault must have at most {MOST_DETAILS} details")
    for name, value in data.items():
        if not isinstance(name, str) or not isinstance(value, int | str | float):
            raise MalformedMessage(reason="a fault's details must be numbers and texts")
    return dict(data)


def _plain(value: Detail) -> Detail:
    """Return a value that JSON can carry and a terminal can show."""
    if isinstance(value, str):
        return _readable(value)
    if isinstance(value, Integral) and abs(value) < _BIGGEST_INTEGER:
        return int(value)  # numpy's integers are not JSON
    if isinstance(value, float) and math.isfinite(value):
        return float(value)
    return "out of range"


def _readable(text: str) -> str:
    """Cut a text to what a person reads, without control characters for the terminal."""
    if len(text) > LONGEST_TEXT:
        text = text[: LONGEST_TEXT - 1] + "…"
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else "�" for letter in text)
