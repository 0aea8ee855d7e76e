import pytest

from protocol import versions
from protocol.errors import BadMagic, ProtocolError, TruncatedFrame, UnsupportedVersion
from protocol.limits import Limits
from protocol.messages import Coordinates
from tests.protocol.samples import MESSAGES, SESSION_REQUEST


def test_this_side_speaks_version_1():
    assert versions.SPOKEN == ("1.2",)
    assert versions.LATEST == 1
    assert SESSION_REQUEST.protocol in versions.SPOKEN


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_header_tells_the_size_of_its_frame(message):
    data = versions.encode(message)
    assert versions.frame_size(data[: versions.HEADER_SIZE], Limits()) == len(data)


@pytest.mark.parametrize("wire", versions.WIRES.values(), ids=lambda wire: str(wire.major))
def test_each_version_reads_what_it_writes(wire):
    for message in MESSAGES:
        data = wire.encode(message, "f32")
        # What was released before a kind came stays what it was.
        minor = 1 if isinstance(message, Coordinates) else 0
        assert data[:6] == versions.MAGIC + bytes([wire.major, minor])
        assert wire.encode(wire.decode(data, Limits()), "f32") == data


@pytest.mark.parametrize(
    ("header", "error"),
    [
        (b"", TruncatedFrame),
        (b"SPLG\x01", TruncatedFrame),
        (b"GET / HTTP/1.1\r\n", BadMagic),
        (b"SPLG\x02" + bytes(11), UnsupportedVersion),
    ],
)
def test_a_bad_header_has_no_size(header, error):
    with pytest.raises(ProtocolError) as caught:
        versions.frame_size(header, Limits())
    assert type(caught.value) is error


@pytest.mark.parametrize("protocol", ["1.0", "1.9"])
def test_any_minor_version_of_a_spoken_one_will_do(protocol):
    versions.check_spoken(protocol)


@pytest.mark.parametrize("protocol", ["0.9", "2.0", "11.0", "", "one"])
def test_another_major_version_is_refused(protocol):
    with pytest.raises(UnsupportedVersion, match=r"spoken: 1\.2"):
        versions.check_spoken(protocol)


@pytest.mark.parametrize(
    ("spoken", "holds"),
    [
        (["1.1"], True),
        (["1.12"], True),
        (["2.0", "1.1"], True),
        (["1.0"], False),
        (["2.1", "0.9"], False),
        ([], False),
        (["1", "1.", "1.x", "one"], False),
    ],
)
def test_a_minor_version_is_spoken_with_every_later_one(spoken, holds):
    assert versions.speaks(spoken, 1) is holds
