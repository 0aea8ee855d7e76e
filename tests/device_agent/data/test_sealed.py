"""Sealed files: the published functions are used as the layout says, and no changed byte gets through."""

import hashlib
import io

import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from device_agent.data.sealed import (
    CHUNK,
    END,
    HEAD,
    MAGIC,
    CutOff,
    NotSealed,
    SealedReader,
    SealingWriter,
    Tampered,
    WrongPassphrase,
)

SECRET = "correct horse battery"


def seal(path, data, secret=SECRET):
    with path.open("wb") as file:
        writer = SealingWriter(file, secret)
        writer.write(data)
        writer.close()
    return path


def unseal(path, secret=SECRET, block=1 << 20):
    with path.open("rb") as file:
        reader, found = SealedReader(file, path, secret), io.BytesIO()
        while data := reader.read(block):
            found.write(data)
    return found.getvalue()


@pytest.fixture
def sealed(tmp_path):
    return seal(tmp_path / "file", b"private words " * 15_000)


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 300_000])
def test_what_was_sealed_comes_back(tmp_path, size):
    data = hashlib.shake_128(b"x").digest(size)
    path = seal(tmp_path / "file", data)
    assert unseal(path) == data == unseal(path, block=999)


def test_the_file_is_as_its_layout_says(tmp_path):
    """Opened by hand with the standard library's scrypt."""
    data = b"a" * (CHUNK + 5)
    raw = seal(tmp_path / "file", data, "pässword").read_bytes()
    key = hashlib.scrypt(
        "pässword".encode(), salt=raw[8:24], n=2**15, r=8, p=3, dklen=32, maxmem=2**26
    )
    cipher, about = ChaCha20Poly1305(key), raw[:24]
    assert raw[:8] == MAGIC == b"SPSEAL\x00\x01"
    assert cipher.decrypt(b"\xff" * 12, raw[24:40], about) == b""
    assert raw[40:48] == hashlib.sha256(raw[:40]).digest()[:8]
    first, second = raw[HEAD : HEAD + CHUNK + 16], raw[HEAD + CHUNK + 16 : -8]
    assert cipher.decrypt(bytes(12), first, about) == data[:CHUNK]
    assert cipher.decrypt(bytes(10) + b"\x01\x01", second, about) == data[CHUNK:]
    assert raw[-8:] == END


def test_two_seals_of_the_same_share_nothing_but_what_is_public(tmp_path):
    one, two = (seal(tmp_path / name, b"same").read_bytes() for name in "ab")
    assert one[8:24] != two[8:24]
    assert one[HEAD : -len(END)] != two[HEAD : -len(END)]


def test_a_passphrase_may_be_typed_on_any_system(tmp_path):
    path = seal(tmp_path / "file", b"data", "caf\u00e9 au lait")
    assert unseal(path, "cafe\u0301 au lait") == b"data"


def test_a_wrong_passphrase_is_told_as_that(sealed):
    with pytest.raises(WrongPassphrase):
        unseal(sealed, SECRET + "x")


def test_a_file_that_is_cut_off_is_told_as_that_at_every_length(sealed):
    whole = sealed.read_bytes()
    lengths = [1, 8, 24, HEAD, HEAD + 16, HEAD + CHUNK + 16, len(whole) - len(END), len(whole) - 1]
    for length in lengths:
        sealed.write_bytes(whole[:length])
        with pytest.raises(CutOff):
            unseal(sealed)


@pytest.mark.parametrize("place", [8, 30, 44, HEAD, HEAD + 20, HEAD + CHUNK + 40, -9, -40])
def test_every_changed_byte_is_found(sealed, place):
    data = bytearray(sealed.read_bytes())
    data[place] ^= 1
    sealed.write_bytes(data)
    with pytest.raises(Tampered):
        unseal(sealed)


@pytest.mark.parametrize("what", ["left out", "swapped", "repeated", "ended early"])
def test_chunks_cannot_be_rearranged(sealed, what):
    raw = sealed.read_bytes()
    head, body, size = raw[:HEAD], raw[HEAD : -len(END)], CHUNK + 16
    one, two, rest = body[:size], body[size : 2 * size], body[2 * size :]
    changed = {
        "left out": one + rest,
        "swapped": two + one + rest,
        "repeated": one + one + two + rest,
        "ended early": one + two,
    }[what]
    sealed.write_bytes(head + changed + END)
    with pytest.raises(Tampered):
        unseal(sealed)


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04" * 100, b"SPSEAL\x00\x02" + b"x" * 100])
def test_another_file_is_told_as_that(tmp_path, data):
    (tmp_path / "file").write_bytes(data)
    with pytest.raises(NotSealed):
        unseal(tmp_path / "file")
