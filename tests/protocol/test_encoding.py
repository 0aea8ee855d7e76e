import json

import pytest

from protocol.encoding import Encoding, Measured, Section, smallest
from protocol.errors import MalformedMessage, UnknownCodec
from protocol.kit import KitManifest
from protocol.messages import Wants
from tests.protocol.samples import ENCODED_WANTS, ENCODING, KIT, WANTS, numbers


def measured(kl: float, size: int) -> Measured:
    return Measured(ENCODING, kl, size)


def test_the_smallest_within_the_bound_is_taken():
    found = [measured(0.1, 200), measured(0.01, 300), measured(0.004, 350), measured(0.0, 900)]
    assert smallest(found, 0.01) is found[1]
    assert smallest(found, 0.009) is found[2]
    assert smallest(found, 5.0) is found[0]
    assert smallest(found, 0.0) is found[3]
    assert smallest(found[:2], 0.001) is None
    assert smallest([], 1.0) is None


def test_an_encoding_knows_its_bytes():
    # 32 + 4 in int8, 29 + 4 in int6 and 17 + 4 in int4 with their scales, 14 in f16.
    assert ENCODING.size(1) == 36 + 33 + 21 + 14
    assert ENCODING.size(3) == 3 * ENCODING.size(1)
    assert ENCODING.widths == (70, 40)
    assert numbers(2, 70).shape[1] == ENCODING.widths[0]


@pytest.mark.parametrize(
    ("data", "error"),
    [
        ([], MalformedMessage),
        ({"final": []}, MalformedMessage),
        ({"final": [], "taps": [{"codec": "int4"}]}, MalformedMessage),
        ({"final": [], "taps": [{"codec": "int4", "width": 0}]}, MalformedMessage),
        ({"final": [], "taps": [{"codec": "int4", "width": 65536}]}, MalformedMessage),
        ({"final": [{"codec": "int5", "width": 4}], "taps": []}, UnknownCodec),
        ({"final": [{"codec": "int4", "width": 1}] * 65, "taps": []}, MalformedMessage),
        ({"final": [{"codec": "int4", "width": 40000}] * 2, "taps": []}, MalformedMessage),
    ],
)
def test_an_encoding_that_makes_no_sense_is_refused(data, error):
    with pytest.raises(error):
        Encoding.from_json(data)


@pytest.mark.parametrize(
    "change",
    [
        {"basis": None},
        {"encoding": None},
        {"basis": "../kit"},
        {"layers": []},
        {"final": False},
        {"encoding": {"final": [{"codec": "int4", "width": 4}], "taps": []}},
    ],
)
def test_wants_whose_encoding_does_not_fit_are_refused(change):
    with pytest.raises(MalformedMessage):
        Wants.from_json(ENCODED_WANTS.to_json() | change)


def test_wants_of_an_earlier_version_are_read():
    old = {k: v for k, v in WANTS.to_json().items() if k not in ("basis", "encoding")}
    assert Wants.from_json(old) == WANTS


def test_a_manifest_of_an_earlier_version_is_read():
    fields = json.loads(json.dumps(KIT.to_json()))
    del fields["basis"], fields["encodings"]
    found = KitManifest.from_json(fields)
    assert (found.basis, found.encodings) == (None, ())


def test_encodings_in_codecs_of_a_later_version_are_left_out():
    fields = json.loads(json.dumps(KIT.to_json()))
    newer = json.loads(json.dumps(fields["encodings"][0]))
    newer["encoding"]["taps"][0]["codec"] = "int3"
    fields["encodings"].append(newer)
    assert KitManifest.from_json(fields).encodings == KIT.encodings


@pytest.mark.parametrize(
    "change",
    [
        {"basis": None},
        {"basis": {"final": 69, "taps": 40}},
        {"basis": {"final": 70, "taps": 39}},
        {"basis": {"final": 0, "taps": 40}},
        {"encodings": [{"encoding": ENCODING.to_json(), "kl": -1.0, "bytes": 5}]},
        {"encodings": [{"encoding": ENCODING.to_json(), "kl": 0.1, "bytes": 0}]},
        {"encodings": {}},
    ],
)
def test_a_manifest_whose_encodings_do_not_fit_is_refused(change):
    with pytest.raises(MalformedMessage):
        KitManifest.from_json(KIT.to_json() | change)


def test_a_section_is_of_a_codec_and_a_width():
    assert Section("int4", 3) == Section.from_json({"codec": "int4", "width": 3, "later": 1})
