import json
from string import Formatter

import numpy as np
import pytest

from protocol.errors import (
    FAULTS,
    LONGEST_TEXT,
    MOST_DETAILS,
    Fault,
    FrameTooLarge,
    InternalFault,
    LimitExceeded,
    MalformedFrame,
    MalformedMessage,
    PositionMismatch,
    ProtocolError,
    ServiceFault,
    SessionNotFound,
    TruncatedFrame,
    UnknownFault,
    UnsupportedFeature,
    fault_from_json,
)

EVERY_FAULT = pytest.mark.parametrize("fault", FAULTS.values(), ids=lambda fault: fault.code)


def example(fault: type[Fault]) -> Fault:
    fields = [(name, form) for _, name, form, _ in Formatter().parse(fault.sentence) if name]
    return fault(**{name: 5 if form else f"a {name}" for name, form in fields})


def family(fault: type[Fault]) -> set[type[Fault]]:
    return {fault}.union(*map(family, fault.__subclasses__()))


def test_every_fault_that_has_a_number_is_in_the_table():
    assert {fault for fault in family(Fault) if "number" in vars(fault)} == set(FAULTS.values())


def test_numbers_and_codes_are_unique():
    assert len({fault.number for fault in FAULTS.values()}) == len(FAULTS)
    assert all(FAULTS[code].code == code for code in FAULTS)


@EVERY_FAULT
def test_a_fault_comes_back_as_itself(fault):
    sent = example(fault)
    back = fault_from_json(json.loads(json.dumps(sent.to_json())))
    assert type(back) is fault
    assert (str(back), back.details) == (str(sent), sent.details)


@EVERY_FAULT
def test_a_fault_says_what_happened_and_what_to_do(fault):
    sent = example(fault)
    assert all(str(value) in sent.message or value == 5 for value in sent.details.values())
    assert sent.message == str(sent)
    assert fault.hint.endswith(".")
    assert 400 <= fault.status < 600


def test_the_json_of_a_fault():
    assert TruncatedFrame(needed=36, got=20).to_json() == {
        "error": {
            "code": "truncated_frame",
            "number": 101,
            "message": "frame needs 36 bytes, got 20",
            "hint": "The connection broke in the middle; send it again.",
            "details": {"needed": 36, "got": 20},
        }
    }


def test_faults_are_caught_by_family():
    assert issubclass(TruncatedFrame, MalformedFrame)
    assert issubclass(MalformedFrame, ProtocolError)
    assert issubclass(LimitExceeded, FrameTooLarge)
    assert issubclass(SessionNotFound, ServiceFault)
    assert not issubclass(UnknownFault, ProtocolError | ServiceFault)


def test_an_unknown_code_keeps_the_other_sides_sentence():
    fault = fault_from_json({"error": {"code": "out_of_tea", "message": "no tea is left"}})
    assert type(fault) is UnknownFault
    assert str(fault) == "no tea is left (out_of_tea)"


@pytest.mark.parametrize("message", [None, 7, ["a"]])
def test_an_unknown_code_needs_no_sentence(message):
    fault = fault_from_json({"error": {"code": "out_of_tea", "message": message}})
    assert str(fault) == " (out_of_tea)"


def test_details_of_a_newer_version_are_kept():
    details = {"session": "a", "since": 1.5}
    fault = fault_from_json({"error": {"code": "session_not_found", "details": details}})
    assert fault.details == details


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        {},
        {"error": "no"},
        {"error": {}},
        {"error": {"code": 200}},
        {"error": {"code": "session_not_found"}},
        {"error": {"code": "session_not_found", "details": []}},
        {"error": {"code": "session_not_found", "details": {}}},
        {"error": {"code": "session_not_found", "details": {"session": None}}},
        {"error": {"code": "session_not_found", "details": {"session": ["a"]}}},
        {"error": {"code": "session_not_found", "details": {7: "a"}}},
        {"error": {"code": "unsupported_feature", "details": {"bits": "many"}}},
        {"error": {"code": "loading", "details": dict.fromkeys(map(str, range(33)), 1)}},
    ],
)
def test_what_is_no_fault_is_a_malformed_message(data):
    with pytest.raises(MalformedMessage):
        fault_from_json(data)


def test_a_missing_detail_is_named():
    with pytest.raises(MalformedMessage, match="position_mismatch must have details expected, got"):
        fault_from_json({"error": {"code": "position_mismatch", "details": {"expected": 1}}})


def test_the_most_details_pass():
    details = dict.fromkeys(map(str, range(MOST_DETAILS)), 1)
    assert fault_from_json({"error": {"code": "loading", "details": details}}).details == details


def test_a_detail_may_have_any_name():
    details = {"self": 1, "code": 2, "session": "a{self}"}
    fault = fault_from_json({"error": {"code": "session_not_found", "details": details}})
    assert fault.details == details
    assert str(fault) == "there is no session a{self}"


def test_what_a_stranger_writes_is_cut_and_cannot_steer_a_terminal():
    fault = SessionNotFound(session="\x1b[2J\ud800" + "x" * 10_000)
    assert len(fault.message) <= LONGEST_TEXT
    assert len(str(fault.details["session"])) == LONGEST_TEXT
    assert fault.message.isprintable()
    fault.message.encode()


def test_a_cut_fault_comes_back_as_itself():
    sent = SessionNotFound(session="x" * 10_000)
    assert fault_from_json(sent.to_json()).to_json() == sent.to_json()


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (np.int64(7), 7),
        (np.uint32(7), 7),
        (np.float64(0.5), 0.5),
        (-(2**63), -(2**63)),
        (2**64, "out of range"),
        (float("nan"), "out of range"),
        (float("inf"), "out of range"),
    ],
)
def test_details_are_what_json_can_carry(value, kept):
    fault = InternalFault(request=value)
    assert fault.details == {"request": kept}
    assert json.loads(json.dumps(fault.to_json(), allow_nan=False)) == fault.to_json()


def test_feature_bits_are_shown_as_bits():
    assert "0x80000001" in str(UnsupportedFeature(bits=0x80000001))


def test_a_fault_without_its_details_cannot_be_made():
    with pytest.raises(KeyError):
        PositionMismatch(expected=1)
