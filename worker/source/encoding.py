"""Explains bytes that are not text in the configured encoding: where they are, and which encoding is likely."""

import codecs
import re
from typing import BinaryIO, NamedTuple

_CHUNK_BYTES = 1 << 16
_WINDOW_BYTES = 200
_MANY = 2
_UTF8 = ("utf-8", "utf-8-sig")
_UTF16_ORDERED = ("utf-16-le", "utf-16-be")

# Hardly in a Western language: many such letters in a row, or a capital right after a small letter.
_NOT_WESTERN = re.compile(r"[^\x00-\x7f]{3}|[a-zß-öø-ÿšœž][À-ÖØ-ÞŠŒŽŸ]")


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
    wide = "" if codec.startswith("utf-16") else suggest_wide(head)
    if wide:
        return wide
    bad = exc.object[exc.start :]
    if codec not in _UTF8 and 0 not in head and _decodes_as_utf8(exc.object):
        return 'it is probably UTF-8: set source.encoding = "utf-8-sig"'
    if exc.reason in {"unexpected end of data", "truncated data"}:
        return "the input ends in the middle of a character: is it complete?"
    if codec != "cp1252" and ascii_before and _plausible_cp1252(exc.object[: exc.start], bad):
        return 'it is probably Windows-1252: set source.encoding = "cp1252"'
    return "the line is damaged, or source.encoding is not the file's encoding"


def suggest_wide(head: bytes) -> str:
    """Return what to set when the bytes look like UTF-16 or UTF-32, else an empty string."""
    if head.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return 'it is UTF-32: set source.encoding = "utf-32"'
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return 'it is UTF-16: set source.encoding = "utf-16"'
    nulls = head.count(0)
    if nulls * 4 < len(head) or not nulls:
        return ""
    # Without a byte-order mark the plain name does not tell which byte of the two comes first.
    order = "be" if head[::2].count(0) > head[1::2].count(0) else "le"
    return f'it is probably UTF-16: set source.encoding = "utf-16-{order}"'


def suggest_at_top(head: bytes, encoding: str) -> str:
    """Return what to set when the first bytes, though they can be decoded, show another encoding; else nothing."""
    codec = codecs.lookup(encoding).name
    if head.startswith(codecs.BOM_UTF8) and codec not in _UTF8:
        return 'it is UTF-8: set source.encoding = "utf-8-sig"'
    if codec in _UTF16_ORDERED and not head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        own, other = head[1::2].count(0), head[::2].count(0)
        if codec == "utf-16-be":
            own, other = other, own
        if other > _MANY * (own + 1):  # a few characters do hold a zero byte on that side
            return suggest_wide(head)
        # Not even a line end without a NUL: that cannot be two bytes a character.
        if b"\n" in head and 0 not in head and _decodes_as_utf8(head):
            return 'it is probably UTF-8: set source.encoding = "utf-8-sig"'
    return ""


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


def _plausible_cp1252(before: bytes, bad: bytes) -> bool:
    window = before[-1:].strip() + bad[:_WINDOW_BYTES].splitlines()[0]
    try:
        text = window.decode("cp1252")
    except UnicodeDecodeError:
        return False
    printable = all(character.isprintable() or character in "\t\xa0\xad" for character in text)
    return printable and not _NOT_WESTERN.search(text)
