"""Bounded capture of one stream of a process: the first bytes, the true size, the hash of all."""

import codecs
import hashlib

_decoder = codecs.getincrementaldecoder("utf-8")
_EMPTY_SHA256 = hashlib.sha256().hexdigest()


class Capture:
    """What came through one pipe, in memory that stays within `limit_bytes`.

    Every byte is counted and hashed; those past the limit are then let go. `size` is the number
    of bytes that came.
    """

    __slots__ = ("_hash", "_kept", "_limit", "size")

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._kept = bytearray()
        self._hash: hashlib._Hash | None = None
        self.size = 0

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the stream."""
        room = self._limit - self.size
        self.size += len(data)
        if room > 0:
            self._kept += data[:room]
        if self._hash is None:
            self._hash = hashlib.sha256()
        self._hash.update(data)

    @property
    def is_truncated(self) -> bool:
        """Return whether bytes beyond the limit were let go."""
        return self.size > self._limit

    @property
    def start(self) -> bytes:
        """Return the bytes that were kept."""
        return bytes(self._kept)

    def text(self) -> str:
        """Return what was kept as text, each invalid UTF-8 sequence as one U+FFFD.

        A character that the limit cut in two is left out, so that valid UTF-8 never shows a
        replacement that the process did not write.
        """
        if not self._kept:
            return ""
        return _decoder("replace").decode(bytes(self._kept), final=not self.is_truncated)

    def sha256(self) -> str:
        """Return the hexadecimal SHA-256 of the whole stream, of the bytes let go too."""
        return _EMPTY_SHA256 if self._hash is None else self._hash.hexdigest()
