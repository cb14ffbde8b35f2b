"""Compressed inputs: told by their first bytes, read as what is inside, and never taken for whole when they are not.

Everything happens in this process: a decompressor of its own would outlive a kill and be hit by Ctrl-C.
"""

import io
from pathlib import PurePath
from typing import BinaryIO, Literal, cast

from xopen import xopen

Compression = Literal["gz", "bz2", "xz", "zst"]

_SUFFIXES: dict[str, Compression] = {".gz": "gz", ".bz2": "bz2", ".xz": "xz", ".zst": "zst"}

# Longer than what `file` goes by: "BZh" alone may well begin a column's name.
_MAGICS: dict[Compression, tuple[bytes, ...]] = {
    "gz": (b"\x1f\x8b\x08",),
    # A level, and then the mark of a first block or that of the end.
    "bz2": tuple(b"BZh%d%b" % (level, mark) for level in range(1, 10) for mark in (b"1AY&SY", b"\x17rE8P\x90")),
    "xz": (b"\xfd7zXZ\0",),
    # pzstd begins with a frame to be skipped; there are 16 kinds of them.
    "zst": (b"\x28\xb5\x2f\xfd", *(bytes((kind, 0x2A, 0x4D, 0x18)) for kind in range(0x50, 0x60))),
}
_HEAD_BYTES = max(len(magic) for magics in _MAGICS.values() for magic in magics)


class DamagedError(OSError):
    """Compressed data ends too early, or is not what it claims to be. Its text completes "is cut off or damaged:"."""


def plain_suffix(path: PurePath) -> str:
    """Return the suffix that tells what is inside, in small letters: .csv for export.csv and for export.CSV.gz."""
    inner = PurePath(path.stem) if path.suffix.lower() in _SUFFIXES else path
    return inner.suffix.lower()


def decompress(stream: io.BufferedReader, path: PurePath | None) -> tuple[io.BufferedReader, Compression | None]:
    """Return the bytes inside a stream, and how they were compressed; the stream itself when they were not.

    stream: at its start; it is closed with what is returned, and at an error. path: what its name claims counts only
    where the content says nothing. Raises DamagedError, now and while reading; other OSErrors are the disk's.
    """
    try:
        compression = _recognise(stream.peek(_HEAD_BYTES)[:_HEAD_BYTES], path)
    except BaseException:
        stream.close()
        raise
    return (io.BufferedReader(_Decompressed(stream, compression)) if compression else stream), compression


def recognise(head: bytes) -> Compression | None:
    """Return how data that begins like this is compressed; None when it is not."""
    return next((compression for compression, magics in _MAGICS.items() if head.startswith(magics)), None)


def _recognise(head: bytes, path: PurePath | None) -> Compression | None:
    if found := recognise(head):
        return found
    claimed = _SUFFIXES.get(path.suffix.lower()) if path else None
    if claimed and any(magic.startswith(head) for magic in _MAGICS[claimed]):
        raise DamagedError(f"its {claimed} data ends within its first {_HEAD_BYTES} bytes")
    return None


class _Compressed(io.RawIOBase):
    """The compressed bytes, on their way to a decompressor. ended: it has asked for more, and there was no more."""

    def __init__(self, stream: io.BufferedReader) -> None:
        self._stream = stream
        self.ended = False

    def readable(self) -> bool:
        """Tell io that this is for reading."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill the buffer with what one read gives."""
        size = self._stream.readinto1(buffer)
        self.ended = not size
        return size


class _Decompressed(io.RawIOBase):
    """The bytes inside. Its end is the end of all compressed data; whatever else looks like one is an error."""

    def __init__(self, stream: io.BufferedReader, compression: Compression) -> None:
        self._stream = stream
        self._compression = compression
        self._compressed = _Compressed(stream)
        opened = xopen(cast("BinaryIO", self._compressed), "rb", threads=0, format=compression)
        self._plain = cast("io.BufferedIOBase", opened)

    def readable(self) -> bool:
        """Tell io that this is for reading."""
        return True

    def fileno(self) -> int:
        """Return the compressed file's descriptor: it is what may change."""
        return self._stream.fileno()

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill the buffer as far as bytes are there; 0 at the end of the last member and of the file."""
        try:
            size = self._plain.readinto1(buffer)
        except EOFError:
            raise DamagedError(f"its {self._compression} data ends too early") from None
        except Exception as exc:  # each of the libraries has its own, and not all of them are always there
            if isinstance(exc, OSError) and exc.errno is not None:
                raise
            reason = str(exc) or type(exc).__name__
            raise DamagedError(f"its {self._compression} data cannot be decompressed ({reason})") from exc
        if not size and not self._compressed.ended:
            # bz2 and lzma pass over what they cannot read behind a member: another member, if that is damaged.
            raise DamagedError(f"what follows its {self._compression} data is something else")
        return size

    def close(self) -> None:
        """Close the decompressor and the file."""
        if not self.closed:
            self._plain.close()
            self._stream.close()
        super().close()
