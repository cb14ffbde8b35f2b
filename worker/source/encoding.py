"""Explains bytes that are not text in the configured encoding: where they are, and which encoding is likely."""

import codecs
import re
from typing import BinaryIO, NamedTuple

_CHUNK_BYTES = 1 << 16
_WINDOW_BYTES = 200
_UTF8 = ("utf-8", "utf-8-sig")


class Fault(NamedTuple):
    """The first undecodable byte: its value, its offset in the file from 0, its line from 1, and what to try."""

    byte: int
    offset: int
    line: int
    hint: str


class LineCounter:
    """Counts line ends in pieces of text, wherever it was cut. universal: a carriage return alone is a line end too."""

    def __init__(self, *, universal: bool) -> None:
        self._universal = universal
        self._after_return = False
        self.ends = 0

    def feed(self, text: str) -> None:
        """Count the line ends of the next piece."""
        self.ends += text.count("\n")
        if self._universal and text:
            self.ends += text.count("\r") - text.count("\r\n") - (self._after_return and text[0] == "\n")
            self._after_return = text[-1] == "\r"


def find_fault(stream: BinaryIO, encoding: str, *, universal: bool) -> Fault | None:
    """Read bytes from the start of a file to the first that cannot be decoded; None when there is none.

    universal: as of `LineCounter`.
    """
    decoder = codecs.getincrementaldecoder(encoding)()
    counter = LineCounter(universal=universal)
    head, fed, ascii_before = b"", 0, True
    while True:
        chunk = stream.read(_CHUNK_BYTES)
        head = head or chunk
        state = decoder.getstate()
        try:
            text = decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as exc:
            # What the codec had before it is the end of what it was fed, whatever it kept from earlier chunks.
            offset = fed + len(chunk) - len(exc.object) + exc.start
            decoder.setstate(state)
            text = decoder.decode(chunk[: max(0, offset - fed)])
            counter.feed(text)
            hint = suggest(exc, head, encoding, ascii_before=ascii_before and text.isascii())
            return Fault(exc.object[exc.start], offset, counter.ends + 1, hint)
        if not chunk:
            return None
        counter.feed(text)
        ascii_before = ascii_before and text.isascii()
        fed += len(chunk)


def suggest(exc: UnicodeDecodeError, head: bytes, encoding: str, *, ascii_before: bool) -> str:
    """Return what to do about an undecodable byte.

    head: how the input begins. ascii_before: everything up to the byte was ASCII.
    """
    codec = codecs.lookup(encoding).name
    wide = suggest_wide(head)
    if wide:
        return wide
    bad = exc.object[exc.start :]
    if codec not in _UTF8 and _decodes_as_utf8(exc.object):
        return 'it is probably UTF-8: set source.encoding = "utf-8-sig"'
    if exc.reason in {"unexpected end of data", "truncated data"}:
        return "the input ends in the middle of a character: is it complete?"
    if codec != "cp1252" and ascii_before and _plausible_cp1252(bad):
        return 'it is probably Windows-1252: set source.encoding = "cp1252"'
    return "the line is damaged, or source.encoding is not the file's encoding"


def suggest_wide(head: bytes) -> str:
    """Return what to set when the bytes look like UTF-16, else an empty string."""
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return 'it is UTF-16: set source.encoding = "utf-16"'
    nulls = head.count(0)
    if nulls * 4 < len(head) or not nulls:
        return ""
    # Without a byte-order mark the plain name does not tell which byte of the two comes first.
    order = "be" if head[::2].count(0) > head[1::2].count(0) else "le"
    return f'it is probably UTF-16: set source.encoding = "utf-16-{order}"'


def likely_encoding(message: str) -> str | None:
    """Return the encoding that an error about undecodable bytes suggests; None when it suggests none."""
    found = re.search(r'set source\.encoding = "([^"]+)"$', message)
    return found and found.group(1)


def _decodes_as_utf8(data: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(data)
    except UnicodeDecodeError:
        return False
    return True


def _plausible_cp1252(bad: bytes) -> bool:
    window = bad[:_WINDOW_BYTES].splitlines()[0]
    try:
        text = window.decode("cp1252")
    except UnicodeDecodeError:
        return False
    return all(character.isprintable() or character in "\t\xa0\xad" for character in text)
