"""Whether a backbone can do what a device asks, decided before it takes a moment of the model."""

from protocol.codecs import codec_named
from protocol.errors import (
    ContextExceeded,
    FrameTooLarge,
    LimitExceeded,
    MalformedMessage,
    PositionMismatch,
    TapOutOfRange,
    TensorMismatch,
    TokenOutOfRange,
)
from protocol.facts import BackboneFacts
from protocol.gate import Gate
from protocol.messages import Ids, Tokens, Wants

_FRAME_OVERHEAD = 64
"""More than the fixed parts of a frame of states."""


def check_wants(wants: Wants, facts: BackboneFacts) -> None:
    """
    Refuse what no answer of this backbone can hold.

    Raises:
        TapOutOfRange: It has no such layer.
        LimitExceeded: It would be more candidates than are sent, or than there are tokens.

    """
    for tap in wants.layers:
        if tap > facts.layers:
            raise TapOutOfRange(tap=tap, layers=facts.layers)
    limit = min(facts.limits.candidates, facts.vocabulary)
    if wants.candidates > limit:
        raise LimitExceeded(part="candidates", size=wants.candidates, limit=limit)


def check_text(text: Tokens, wants: Wants, facts: BackboneFacts, start: int, room: int) -> None:
    """
    Refuse a text that cannot be read behind ``start`` positions where there is ``room`` for so many.

    Raises:
        PositionMismatch: It does not begin at ``start``.
        ContextExceeded: It is longer than the room.
        TokenOutOfRange: One of its tokens does not exist.
        FrameTooLarge: The answer would not fit into a frame.
        MalformedMessage: It asks for drafts, or has a source where none is read, or none where one is.

    """
    check_no_drafts(text)
    if text.position != start:
        raise PositionMismatch(expected=start, got=text.position)
    check_source(text, wants, facts)
    if start + len(text.ids) > room:
        raise ContextExceeded(limit=room, asked=start + len(text.ids))
    check_ids(text.ids, facts)
    check_answer(text.wanted, wants, facts)


def check_no_drafts(tokens: Tokens) -> None:
    """Refuse tokens that nothing is said behind with ``MalformedMessage`` when they ask for it."""
    if tokens.drafts or tokens.alone:
        raise MalformedMessage(
            reason="only the steps of sessions have drafts, or go through a gate"
        )


def check_gate(gate: Gate | None, wants: Wants, facts: BackboneFacts) -> None:
    """
    Refuse a gate that cannot be read off this backbone's rows.

    Raises:
        MalformedMessage: A classifier, and no final state that it could read is wanted.
        TensorMismatch: The classifier is of another width than the final state.

    """
    if gate is None or gate.row is None:
        return
    if not wants.final:
        raise MalformedMessage(reason="a classifier reads the final state, which is not wanted")
    if len(gate.row) != facts.hidden:
        raise TensorMismatch(part="gate", expected=str(facts.hidden), got=str(len(gate.row)))


def check_source(tokens: Tokens, wants: Wants, facts: BackboneFacts) -> None:
    """
    Refuse a source that nobody reads, or that is missing, with ``MalformedMessage``.

    Raises:
        TapOutOfRange: The encoder is asked for a layer that it does not have.

    """
    if not facts.encodes:
        if tokens.source:
            raise MalformedMessage(reason=f"{facts.name} has no encoder that could read a source")
        return
    if not tokens.position and not tokens.source:
        raise MalformedMessage(
            reason=f"{facts.name} needs a source, which the first tokens have to be"
        )
    if tokens.source < len(tokens.ids):
        return
    if wants.basis is not None:
        raise MalformedMessage(reason="an encoder's states have no coordinates in a kit's basis")
    for tap in wants.layers:
        if tap > facts.encoder_layers:
            raise TapOutOfRange(tap=tap, layers=facts.encoder_layers)


def check_ids(ids: Ids, facts: BackboneFacts) -> None:
    """Refuse tokens (T,) that are not all in the vocabulary with ``TokenOutOfRange``."""
    largest = int(ids.max())
    if largest >= facts.vocabulary:
        raise TokenOutOfRange(token=largest, vocabulary=facts.vocabulary)


def check_answer(
    rows: int, wants: Wants, facts: BackboneFacts, drafts: int = 0, said: int = 0
) -> None:
    """
    Refuse an answer of ``rows`` rows, ``drafts`` more and ``said`` tokens that would not fit into a frame.

    Raises:
        FrameTooLarge: It would not.

    """
    size = _answer_size(rows + drafts, wants, facts) + 4 * (drafts + said)
    if size > facts.limits.frame_bytes:
        raise FrameTooLarge(size=size, limit=facts.limits.frame_bytes)


def _answer_size(rows: int, wants: Wants, facts: BackboneFacts) -> int:
    numbers = len(wants.layers) + rows * (int(wants.log_z) + 2 * wants.candidates)
    if wants.encoding is not None:
        sections = len(wants.encoding.final) + len(wants.encoding.taps)
        return _FRAME_OVERHEAD + wants.encoding.size(rows) + 4 * (numbers + sections)
    codec = codec_named(wants.codec)
    taps = codec.size((len(wants.layers), rows, facts.hidden))
    final = codec.size((rows, facts.hidden)) if wants.final else 0
    return _FRAME_OVERHEAD + taps + final + 4 * numbers
