"""Encrypt a stream with a passphrase: AES-256-GCM in pieces, each bound to its place, so that no piece can be cut, moved or repeated.

A header (`MAGIC` and 16 random bytes), then pieces of 64 KiB and 16 bytes each, the last one shorter. scrypt makes the key from the
passphrase and the random bytes; the nonce of a piece is its number, and whether it is the last.
"""

from __future__ import annotations

import hashlib
import io
import os
from typing import BinaryIO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ragq.errors import PermanentError

MAGIC = b"ragq-encrypted-1\n"
PIECE_BYTES = 1 << 16
_SALT_BYTES = 16
_TAG_BYTES = 16
_NUMBER_BYTES = 11  # a nonce has 12


class EncryptingWriter(io.RawIOBase):
    """Encrypts what is written to it into another file; `close` writes the last piece, and leaves that file open."""

    def __init__(self, file: BinaryIO, passphrase: str) -> None:
        self._file = file
        header = MAGIC + os.urandom(_SALT_BYTES)
        self._pieces = _Pieces(header, passphrase)
        self._pending = bytearray()
        file.write(header)

    def writable(self) -> bool:
        return True

    def write(self, data: bytes | bytearray | memoryview) -> int:  # type: ignore[override]  # any buffer of bytes
        self._pending += data
        while len(self._pending) > PIECE_BYTES:  # not the last: more follows
            self._file.write(self._pieces.encrypt(bytes(self._pending[:PIECE_BYTES]), is_last=False))
            del self._pending[:PIECE_BYTES]
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._file.write(self._pieces.encrypt(bytes(self._pending), is_last=True))
        super().close()


class DecryptingReader(io.RawIOBase):
    """Reads what an EncryptingWriter wrote to a file.

    Raises:
        PermanentError: On reading: the passphrase is wrong, or the file is damaged or cut.
    """

    def __init__(self, file: BinaryIO, passphrase: str) -> None:
        self._file = file
        self._pieces = _Pieces(_read_exactly(file, len(MAGIC) + _SALT_BYTES), passphrase)
        self._next = _read_exactly(file, PIECE_BYTES + _TAG_BYTES)
        self._plain = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]  # any buffer of bytes
        while not self._plain and self._next:
            piece, self._next = self._next, _read_exactly(self._file, PIECE_BYTES + _TAG_BYTES)
            self._plain = memoryview(self._pieces.decrypt(piece, is_last=not self._next))
        count = min(len(buffer), len(self._plain))
        buffer[:count] = self._plain[:count]
        self._plain = self._plain[count:]
        return count


class _Pieces:
    """The key of a file, and the number of the next piece."""

    def __init__(self, header: bytes, passphrase: str) -> None:
        key = hashlib.scrypt(
            passphrase.encode(), salt=header[len(MAGIC) :], n=1 << 15, r=8, p=1, maxmem=1 << 26, dklen=32
        )
        self._cipher = AESGCM(key)
        self._header = header
        self._number = 0

    def encrypt(self, piece: bytes, *, is_last: bool) -> bytes:
        return self._cipher.encrypt(self._nonce(is_last), piece, self._header)

    def decrypt(self, piece: bytes, *, is_last: bool) -> bytes:
        is_first = self._number == 0
        try:
            return self._cipher.decrypt(self._nonce(is_last), piece, self._header)
        except InvalidTag as error:
            raise PermanentError(
                "The backup cannot be decrypted: RAGQ_BACKUP_KEY is not the key that it was made with, or its beginning is damaged."
                if is_first
                else "The backup is damaged or cut: a piece of it cannot be decrypted."
            ) from error

    def _nonce(self, is_last: bool) -> bytes:
        number, self._number = self._number, self._number + 1
        return number.to_bytes(_NUMBER_BYTES, "big") + bytes([is_last])


def _read_exactly(file: BinaryIO, count: int) -> bytes:
    """Read so many bytes, fewer only at the end of the file."""
    parts = []
    while count and (part := file.read(count)):
        parts.append(part)
        count -= len(part)
    return b"".join(parts)
