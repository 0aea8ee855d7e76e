from dataclasses import replace

import numpy as np
import pytest

from protocol.errors import MalformedMessage, TensorMismatch, UnknownCodec
from protocol.messages import (
    Candidates,
    PrefixKept,
    SessionOpened,
    SessionRequest,
    States,
    Tokens,
    Wants,
)
from tests.protocol.samples import DOCUMENTS, MESSAGES, SESSION_REQUEST, WANTS, same

LATER = {
    "basis",
    "cache",
    "decoder_start",
    "encoder_layers",
    "encoding",
    "encodings",
    "gate",
    "shared",
}
"""Fields that older peers do not write."""

IDS = np.array([5, 6], np.uint32)
TAPS = np.zeros((1, 2, 4), np.float32)
FINAL, LOG_Z = np.zeros((2, 4), np.float32), np.zeros(2, np.float32)
ROWS = np.zeros((2, 3), np.float32)


@pytest.mark.parametrize("message", DOCUMENTS, ids=lambda message: type(message).__name__)
def test_a_document_comes_back_from_its_json(message):
    assert type(message).from_json(message.to_json()) == message


@pytest.mark.parametrize("message", DOCUMENTS, ids=lambda message: type(message).__name__)
def test_every_field_of_a_document_is_needed(message):
    good = message.to_json()
    for name in good.keys() - LATER:
        without = {key: value for key, value in good.items() if key != name}
        with pytest.raises(MalformedMessage, match=f"'{name}'"):
            type(message).from_json(without)


@pytest.mark.parametrize("message", DOCUMENTS, ids=lambda message: type(message).__name__)
def test_a_field_of_a_newer_version_is_left_alone(message):
    assert type(message).from_json(message.to_json() | {"newer": [1]}) == message


def test_a_message_equals_only_itself():
    assert [same(a, b) for a in MESSAGES for b in MESSAGES].count(True) == len(MESSAGES)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"step": -1}, "step"),
        ({"step": 2**64}, "step"),
        ({"position": -1}, "position"),
        ({"position": 2**32 - 2}, "position"),
        ({"drafts": -1}, "drafts must be 0"),
        ({"drafts": 2**16}, "drafts must be 0"),
        ({"position": 2**32 - 8, "drafts": 6}, "position"),
        ({"source": -1}, "source must be 0 to 2"),
        ({"source": 3}, "source must be 0 to 2"),
        ({"source": 1, "wanted": 2}, "wanted must be 1 to 1, but is 2"),
        ({"source": 1, "position": 1}, "a source begins at 0"),
        ({"source": 2, "drafts": 1}, "behind a source"),
        ({"source": 2, "alone": 1}, "behind a source"),
        ({"alone": -1}, "alone must be 0"),
        ({"alone": 2**16}, "alone must be 0"),
        ({"position": 2**32 - 8, "alone": 6}, "position"),
        ({"alone": 1, "drafts": 1}, "through a gate one row comes"),
        ({"alone": 1, "wanted": 2}, "through a gate one row comes"),
        ({"wanted": 0}, "wanted must be 1 to 2, but is 0"),
        ({"wanted": 3}, "wanted must be 1 to 2, but is 3"),
        ({"ids": IDS[:0]}, "tokens must be 1"),
    ],
)
def test_tokens_that_make_no_sense_are_refused(change, reason):
    good = {"step": 1, "position": 0, "wanted": 1, "ids": IDS}
    Tokens(**good)
    with pytest.raises(MalformedMessage, match=reason):
        Tokens(**(good | change))


@pytest.mark.parametrize("ids", [IDS.astype(np.int64), IDS.astype(">u4"), IDS[None], IDS[0]])
def test_token_ids_of_another_form_are_refused(ids):
    with pytest.raises(TensorMismatch, match="ids must be uint32 with 1 axes"):
        Tokens(1, 0, 1, np.asarray(ids))


@pytest.mark.parametrize(
    ("ids", "logits"),
    [
        (ROWS.astype(np.int64), ROWS),
        (ROWS.astype(np.uint32), ROWS.astype(np.float64)),
        (ROWS.astype(np.uint32), ROWS[:, :2]),
        (ROWS.astype(np.uint32)[0], ROWS[0]),
    ],
)
def test_candidates_of_another_form_are_refused(ids, logits):
    with pytest.raises(TensorMismatch, match="candidate"):
        Candidates(ids, logits)


def test_no_candidates_are_said_by_none():
    with pytest.raises(MalformedMessage, match="candidates must be 1"):
        Candidates(ROWS.astype(np.uint32)[:, :0], ROWS[:, :0])


@pytest.mark.parametrize(
    "change",
    [
        {"taps": TAPS.astype(np.float16)},
        {"taps": TAPS[0]},
        {"layers": ()},
        {"layers": (1, 2)},
        {"final": FINAL[:1]},
        {"final": FINAL[:, :2]},
        {"final": FINAL.astype(np.float64)},
        {"log_z": LOG_Z[:1]},
        {"log_z": LOG_Z[:, None]},
        {"candidates": Candidates(ROWS[:1].astype(np.uint32), ROWS[:1])},
        {"drafted": IDS[:1].astype(np.int32)},
        {"spoken": IDS[:1].astype(np.int32)},
    ],
)
def test_states_of_another_form_are_refused(change):
    good = {"position": 0, "layers": (3,), "taps": TAPS, "final": FINAL, "log_z": LOG_Z}
    States(**good)
    with pytest.raises(TensorMismatch):
        States(**(good | change))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"position": -1}, "position"),
        ({"position": 2**32 - 2}, "position"),
        ({"layers": (-1,)}, "layers"),
        ({"layers": (2**32,)}, "layers"),
        ({"layers": (2, 1), "taps": TAPS.repeat(2, 0)}, "layers must ascend"),
        ({"layers": (2, 2), "taps": TAPS.repeat(2, 0)}, "layers must ascend"),
        ({"drafted": IDS}, "drafted must be 0 to 1, but is 2"),
        ({"spoken": IDS}, "spoken must be 0 to 0, but is 2"),
        ({"spoken": IDS, "position": 9}, "with one row, not with 2"),
        ({"taps": TAPS[:, :0]}, "tokens"),
        ({"taps": TAPS[:, :, :0]}, "hidden"),
    ],
)
def test_states_that_make_no_sense_are_refused(change, reason):
    with pytest.raises(MalformedMessage, match=reason):
        States(**({"position": 0, "layers": (3,), "taps": TAPS} | change))


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"layers": [3, 1]}, MalformedMessage),
        ({"layers": [1, 1]}, MalformedMessage),
        ({"layers": ["1"]}, MalformedMessage),
        ({"layers": [2**32]}, MalformedMessage),
        ({"final": 1}, MalformedMessage),
        ({"candidates": -1}, MalformedMessage),
        ({"candidates": 2**16}, MalformedMessage),
        ({"codec": "zip"}, UnknownCodec),
        ({"codec": 1}, MalformedMessage),
    ],
)
def test_wants_that_make_no_sense_are_refused(change, error):
    with pytest.raises(error):
        Wants.from_json(WANTS.to_json() | change)


@pytest.mark.parametrize("protocol", ["", "1", "one.two", "1.0.0", "1.0\n", "1.-1"])
def test_a_session_request_names_a_version(protocol):
    with pytest.raises(MalformedMessage, match="protocol"):
        SessionRequest.from_json(SESSION_REQUEST.to_json() | {"protocol": protocol})


@pytest.mark.parametrize("session", ["", "a/b", "..", "a b", "a?b", "ä", "x" * 129, "a\n"])
def test_an_id_is_safe_in_an_address(session):
    with pytest.raises(MalformedMessage, match="session"):
        SessionOpened(session, position=0, limit=1, idle_seconds=1.0)
    with pytest.raises(MalformedMessage, match="prefix"):
        PrefixKept(session, position=1, idle_seconds=1.0)
    with pytest.raises(MalformedMessage, match="prefix"):
        SessionRequest(WANTS, prefix=session)


def test_a_session_behind_nothing_says_so():
    assert SessionRequest(WANTS).to_json()["prefix"] is None
    assert SessionRequest.from_json(SessionRequest(WANTS).to_json()).prefix is None


def test_a_prefix_of_no_tokens_is_none():
    with pytest.raises(MalformedMessage, match="position"):
        PrefixKept("a", position=0, idle_seconds=1.0)


def test_a_session_does_not_begin_beyond_its_limit():
    with pytest.raises(MalformedMessage, match="position must be 0 to 7, but is 8"):
        SessionOpened("a", position=8, limit=7, idle_seconds=1.0)


def test_what_is_wanted_says_how_deep_the_backbone_has_to_go():
    taps = Wants((0, 3), False, False, 0, "f32")
    assert taps.depth == 3
    for more in ({"final": True}, {"log_z": True}, {"candidates": 1}, {"layers": ()}):
        assert replace(taps, **more).depth is None
