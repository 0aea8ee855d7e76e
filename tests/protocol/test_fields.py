import pytest

from protocol.errors import FrameTooLarge, MalformedMessage
from protocol.fields import LONGEST_LABEL, Fields, is_file_name, read_json

FIELDS = Fields(
    {
        "count": 7,
        "rate": 0.5,
        "yes": True,
        "text": "a\nb",
        "label": "ladder",
        "digest": "0f" * 32,
        "null": None,
        "counts": [1, 2],
        "labels": ["a", "b"],
        "mapping": {"a": 1},
        "nan": float("nan"),
        "infinity": float("inf"),
        "huge": 10**400,
        "surrogate": "\ud800",
        "surrogates": {"\ud800": 1},
        "numbered": {1: 1},
        "empty": "",
        "long": "x" * (LONGEST_LABEL + 1),
        "path": "../a",
        "mixed": [1, "a", True],
    },
    "sample",
)


def test_good_fields_are_read():
    assert FIELDS.value("null") is None
    assert FIELDS.integer("count", 7, 7) == 7
    assert FIELDS.number("rate", 0.5, 0.5) == 0.5
    assert FIELDS.number("count", 0.0, 10.0) == 7.0
    assert FIELDS.positive("rate") == 0.5
    assert FIELDS.flag("yes") is True
    assert FIELDS.text("text") == "a\nb"
    assert FIELDS.text("empty") == ""
    assert FIELDS.label("label") == "ladder"
    assert FIELDS.file_name("label") == "ladder"
    assert FIELDS.digest("digest") == "0f" * 32
    assert FIELDS.one_of("label", ("spa", "ladder")) == "ladder"
    assert FIELDS.integers("counts", 2, 1, 2) == (1, 2)
    assert FIELDS.labels("labels", 2) == ("a", "b")
    assert FIELDS.values("mixed", 3) == [1, "a", True]
    assert FIELDS.mapping("mapping", 1) == {"a": 1}
    assert FIELDS.maybe("null", FIELDS.label) is None
    assert FIELDS.maybe("label", FIELDS.label) == "ladder"


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("absent", FIELDS.value),
        ("absent", FIELDS.integer),
        ("absent", lambda name: FIELDS.maybe(name, FIELDS.label)),
        ("rate", FIELDS.integer),
        ("yes", FIELDS.integer),
        ("null", FIELDS.integer),
        ("huge", FIELDS.integer),
        ("count", lambda name: FIELDS.integer(name, 8)),
        ("count", lambda name: FIELDS.integer(name, 0, 6)),
        ("yes", FIELDS.positive),
        ("label", FIELDS.positive),
        ("nan", FIELDS.positive),
        ("infinity", FIELDS.positive),
        ("huge", FIELDS.positive),
        ("rate", lambda name: FIELDS.number(name, 0.6, 1.0)),
        ("count", FIELDS.flag),
        ("null", FIELDS.flag),
        ("count", FIELDS.text),
        ("surrogate", FIELDS.text),
        ("count", FIELDS.label),
        ("empty", FIELDS.label),
        ("long", FIELDS.label),
        ("text", FIELDS.label),
        ("surrogate", FIELDS.label),
        ("path", FIELDS.file_name),
        ("label", FIELDS.digest),
        ("label", lambda name: FIELDS.one_of(name, ("spa",))),
        ("label", lambda name: FIELDS.integers(name, 9)),
        ("mixed", lambda name: FIELDS.integers(name, 9)),
        ("counts", lambda name: FIELDS.integers(name, 9, 2)),
        ("counts", lambda name: FIELDS.integers(name, 9, 0, 1)),
        ("counts", lambda name: FIELDS.integers(name, 1)),
        ("mixed", lambda name: FIELDS.labels(name, 9)),
        ("counts", lambda name: FIELDS.labels(name, 9)),
        ("mapping", lambda name: FIELDS.values(name, 9)),
        ("counts", lambda name: FIELDS.mapping(name, 9)),
        ("mapping", lambda name: FIELDS.mapping(name, 0)),
        ("surrogates", lambda name: FIELDS.mapping(name, 9)),
        ("numbered", lambda name: FIELDS.mapping(name, 9)),
    ],
)
def test_a_wrong_field_is_refused_by_name(name, read):
    with pytest.raises(MalformedMessage, match=f"'{name}' of sample"):
        read(name)


@pytest.mark.parametrize(
    ("data", "kind"), [(None, "null"), ([], "list"), ("{}", "str"), (7, "int"), (True, "bool")]
)
def test_only_an_object_has_fields(data, kind):
    with pytest.raises(MalformedMessage, match=f"sample must be an object, but is {kind}"):
        Fields(data, "sample")


@pytest.mark.parametrize(
    "name", ["a", "infer.onnx", "blocks.0.down", "head_codes-2", "0", "x" * 100, "console", "com10"]
)
def test_plain_names_pass(name):
    assert is_file_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "a..b",
        ".hidden",
        "ends.",
        "a/b",
        "a\\b",
        "../a",
        "c:",
        "Infer.onnx",
        "a b",
        "a\n",
        "a\0",
        "ä",
        "٣",
        "x" * 101,
        "con",
        "nul.onnx",
        "com1",
        "lpt9.tar.gz",
    ],
)
def test_names_that_are_more_than_a_name_are_refused(name):
    assert not is_file_name(name)


@pytest.mark.parametrize("form", [bytes, bytearray, memoryview])
def test_json_is_read_from_any_bytes(form):
    assert read_json(form('{"a": [1, "ü"]}'.encode()), 16) == {"a": [1, "ü"]}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"{} {}",
        b"\xff",
        b'"\xc3"',
        '"a"'.encode("utf-16"),
        b"\xef\xbb\xbf{}",
        b"NaN",
        b"[Infinity]",
        b"-Infinity",
        b"[" * 100_000,
        b"1" * 5000,
        b'{"a": 1,}',
    ],
)
def test_what_is_not_json_is_a_malformed_message(data):
    with pytest.raises(MalformedMessage):
        read_json(data, 2**20)


def test_json_over_the_limit_is_not_read():
    with pytest.raises(FrameTooLarge) as caught:
        read_json(b"[]" + b" " * 10, 11)
    assert caught.value.details == {"size": 12, "limit": 11}
