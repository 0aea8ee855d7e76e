"""
A stream of bytes, sealed with a passphrase into one file:

    offset  size  field
         0     8  magic, b"SPSEAL" and the version, 0 1
         8    16  salt
        24    16  check: tag of an empty message, which tells a wrong passphrase from a changed file
        40     8  first bytes of the sha256 of all before
        48     -  chunks: ChaCha20-Poly1305 of 64 KiB, of the last one 0 to 64 KiB, each with its tag of 16 bytes
       end     8  end mark, which tells a file that was cut off from one that was changed

The key is Scrypt (RFC 7914) of the passphrase, with parameters of OWASP's list that take 32 MB. A chunk's
nonce is its number in 11 bytes and one byte that is 1 for the last chunk alone, so that no chunk can be
taken out, put elsewhere or left off (STREAM of Hoang, Reyhanitabar, Rogaway and Vizar, 2015).
"""

import hashlib
import os
import secrets
import unicodedata
from pathlib import Path
from typing import BinaryIO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from device_agent.errors import DeviceError

MAGIC = b"SPSEAL\x00\x01"
END = b"SPSEAL.\n"
CHUNK = 1 << 16
SALT, TAG, SUM = 16, 16, 8
HEAD = len(MAGIC) + SALT + TAG + SUM

_CHECK = b"\xff" * 12
"""A nonce that no chunk has."""


class NotSealed(DeviceError):
    """The file is none of ours."""

    hint = "Name a file that `sideplug export` has made."

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} was not made by `sideplug export`, or by a later release")


class CutOff(DeviceError):
    """The end of the file is missing."""

    hint = "Copy it again from where it was made."

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} is cut off: its end is missing")


class Tampered(DeviceError):
    """The file's bytes are not those that were written."""

    hint = "Copy it again from where it was made."

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} is damaged: its bytes were changed")


class WrongPassphrase(DeviceError):
    """The file was sealed with another passphrase."""

    hint = "Try again; without its passphrase nobody can open it."

    def __init__(self, path: Path) -> None:
        super().__init__(f"this is not the passphrase of {path}")


class SealingWriter:
    """Seals what is written. It has to be closed, and nothing was sealed when it was not.

    Args:
        file: Open for writing, at its start.
        passphrase: Not empty.
    """

    def __init__(self, file: BinaryIO, passphrase: str) -> None:
        self._file, self._left, self._number = file, bytearray(), 0
        head = MAGIC + secrets.token_bytes(SALT)
        self._cipher, self._about = _cipher(passphrase, head), head
        head += self._cipher.encrypt(_CHECK, b"", self._about)
        file.write(head + hashlib.sha256(head).digest()[:SUM])

    def write(self, data: bytes) -> None:
        """Seal some more."""
        self._left += data
        # The last chunk is known only at the end, and is not empty unless all is.
        while len(self._left) > CHUNK:
            self._seal(self._left[:CHUNK], last=False)
            del self._left[:CHUNK]

    def close(self) -> None:
        """Seal the end. The file stays open."""
        self._seal(self._left, last=True)
        self._file.write(END)

    def _seal(self, chunk: bytearray, last: bool) -> None:
        self._file.write(self._cipher.encrypt(_nonce(self._number, last), chunk, self._about))
        self._number += 1


class SealedReader:
    """Gives what was sealed, each byte only after its chunk was found unchanged.

    Raises:
        NotSealed, CutOff, Tampered, WrongPassphrase: All of them before anything is given, but for
            chunks that were changed, which are found when they are come to.
    """

    def __init__(self, file: BinaryIO, path: Path, passphrase: str) -> None:
        """Look at the head and at the end.

        Args:
            file: Open for reading, at its start.
            path: Its name, for errors.
            passphrase: With which it was sealed.
        """
        self._file, self._path = file, path
        head = file.read(HEAD)
        if head[: len(MAGIC)] != MAGIC[: len(head)] or not head:
            raise NotSealed(path)
        size = os.fstat(file.fileno()).st_size
        self._end = size - len(END)
        if self._end < HEAD + TAG or _read_at(file, self._end) != END:
            raise CutOff(path)
        if hashlib.sha256(head[:-SUM]).digest()[:SUM] != head[-SUM:]:
            raise Tampered(path)
        self._about = head[: len(MAGIC) + SALT]
        self._cipher = _cipher(passphrase, self._about)
        try:
            self._cipher.decrypt(_CHECK, head[len(self._about) : -SUM], self._about)
        except InvalidTag:
            raise WrongPassphrase(path) from None
        file.seek(HEAD)
        self._left, self._number, self._whole = bytearray(), 0, False

    def read(self, size: int) -> bytes:
        """The next ``size`` bytes; fewer only at the end, which was seen then to be the true one."""
        while len(self._left) < size and not self._whole:
            self._left += self._next()
        found = bytes(self._left[:size])
        del self._left[:size]
        return found

    def _next(self) -> bytes:
        at = self._file.tell()
        data = self._file.read(min(CHUNK + TAG, self._end - at))
        self._whole = at + len(data) == self._end
        try:
            chunk = self._cipher.decrypt(_nonce(self._number, self._whole), data, self._about)
        except InvalidTag:
            raise Tampered(self._path) from None
        self._number += 1
        return chunk


def _cipher(passphrase: str, head: bytes) -> ChaCha20Poly1305:
    # The same letters can be typed as different characters on different systems.
    secret = unicodedata.normalize("NFC", passphrase).encode()
    key = Scrypt(salt=head[-SALT:], length=32, n=2**15, r=8, p=3).derive(secret)
    return ChaCha20Poly1305(key)


def _nonce(number: int, last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes([last])


def _read_at(file: BinaryIO, place: int) -> bytes:
    file.seek(place)
    return file.read(len(END))
