"""Odd inputs, one table: what is said about each, with its line, and that the records around it do not notice.

They take the way of every import: opened, counted, read, mapped and surveyed. docs/input.md has the policies.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs

import pytest

from tests.commands import ROOT
from tests.samples_of import sid
from tests.test_compression import compress
from worker.config import FieldMapping, Source
from worker.errors import ConfigError, SourceError
from worker.intake import Intake
from worker.ledger import SourceFile
from worker.ledger.survey import Survey
from worker.payload import Mapper
from worker.rules import Rules
from worker.source import Input

KEY = "{k}"
MAPPING = FieldMapping(
    interaction_sid=sid("KD", 1),
    channel_sid=sid("UO", 1),
    type="customer",
    media_properties={"address": "{k}", "name": "{v}"},
)
LIMIT = 131_072

Found = tuple[int, str, Any]
"""A good record: its line, its key and its name; a bad one: its line, the code and the reason."""


class Case(NamedTuple):
    """One odd input. policy: its line in docs/input.md. expected: the whole message that stops it, or all records."""

    policy: str
    content: bytes
    expected: str | list[Found]
    name: str
    given: Mapping[str, Any]


def reads(policy: str, content: str | bytes, *expected: Found, name: str = "odd.csv", **given: Any) -> Case:
    """Make a case that is read to its end."""
    return Case(policy, _bytes(content), list(expected), name, given)


def stops(policy: str, content: str | bytes, message: str, *, name: str = "odd.csv", **given: Any) -> Case:
    """Make a case that is refused. message: without the name of the input at its beginning."""
    return Case(policy, _bytes(content), name + message, name, given)


def _bytes(content: str | bytes) -> bytes:
    return content.encode() if isinstance(content, str) else content


def objects(*pairs: tuple[str, str]) -> list[str]:
    """Return JSON objects as texts."""
    return [json.dumps({"k": k, "v": v}) for k, v in pairs]


def bad(line: int, reason: str) -> Found:
    """Return what is found of a malformed record."""
    return line, "malformed", reason


A, B = (2, "1", "a"), (3, "2", "b")
ONE, TWO, THREE = objects(("1", "a"), ("2", "b"), ("3", "c"))
PLAIN = "k,v\n1,a\n2,b\n"
ACUTE = "k,v\n1,é\n2,b\n"
ACUTE_READ = (2, "1", "é"), B
MISQUOTED = 'has text after a closing quote; a quote inside a quoted field is written twice: ""'
NUL = "has a NUL character"
LONG = "has a field of more than 131,072 characters"
UNCLOSED = (
    ": a quote that opened here is probably never closed, "
    "and after it no record can be told from the next; correct it and run again"
)
EMPTY = "; if that is as it should be, set source.allow_empty = true"
DAMAGED = "the line is damaged, or source.encoding is not the file's encoding"
CP1252 = 'it is probably Windows-1252: set source.encoding = "cp1252"'
UTF8 = 'set source.encoding = "utf-8-sig"'
UNNAMED = "of the header has no name; give it one, or remove it"
ARRAY = "is the beginning of a JSON array; write each of its objects on a line of its own, as jq -c '.[]' does"
PRETTY = "is a JSON object of several lines; write each object on a line of its own, as jq -c . does"
CUT = "is cut off or damaged: its {} data ends too early; get the file again"
BEHIND = ": line 4: is cut off or damaged: what follows its {} data is something else; get the file again"

CASES: dict[str, Case] = {
    # ---- delimiters and quotes
    "semicolons": reads("delimiter", "k;v\n1;a\n2;b\n", A, B),
    "tabs": reads("delimiter", "k\tv\n1\ta,;|\n2\tb\n", (2, "1", "a,;|"), B),
    "bars": reads("delimiter", "k|v\n1|a\n2|b\n", A, B),
    "decimal commas between semicolons": reads("delimiter", "k;v;x\n1;a;2,50\n2;b;3,5\n", A, B),
    "tabs with more commas in a .tsv": reads("delimiter", "k\tv\tx,y,z,w\n1\ta\t\n2\tb\t\n", A, B, name="odd.tsv"),
    "a delimiter of one's own": reads("delimiter", "k^v\n1^a\n2^b\n", A, B, delimiter="^"),
    "another delimiter than is set": stops(
        "no-column",
        "k;v\n1;a\n",
        ':1 (one column, with source.delimiter = ","): there is no column "k", which source.key reads (columns: k;v)',
        delimiter=",",
    ),
    "commas, but tabs are set": stops(
        "no-column",
        PLAIN,
        ':1 (one column, with source.delimiter = "tab"): there is no column "k", which source.key reads (columns: k,v)',
        delimiter="tab",
    ),
    "an unknown delimiter": stops(
        "no-column",
        "k^v\n1^a\n",
        ':1 (one column, with source.delimiter = ","): there is no column "k", which source.key reads (columns: k^v)',
    ),
    "semicolons under a header with commas": reads(
        "fields", "k,v\n1;a\n2,b\n", bad(2, "has 1 field, the header has 2"), B
    ),
    "all quoted": reads("quoting", '"k","v"\r\n"1","a"\r\n"2","b"\r\n', A, B),
    "quotes doubled": reads("quoting", 'k,v\n1,"a ""b"", c"\n2,b\n', (2, "1", 'a "b", c'), B),
    "inches": reads("quoting", 'k,v\n1,6" pipe\n2,b"\n', (2, "1", '6" pipe'), (3, "2", 'b"')),
    "a quote at the end of the file": reads("quoting", 'k,v\n1,a\n2,b"', A, (3, "2", 'b"')),
    "single quotes are no quotes": reads("fields", "k,v\n1,'a,b'\n2,b\n", bad(2, "has 3 fields, the header has 2"), B),
    "a backslash before a quote": reads("after-quote", 'k,v\n1,"a \\"b\\" c"\n2,b\n', bad(2, MISQUOTED), B),
    "text after a closing quote": reads("after-quote", 'k,v\n1,"a"x\n2,b\n', bad(2, MISQUOTED), B),
    "a space after a closing quote": reads("after-quote", 'k,v\n1,"a" \n2,b\n', bad(2, MISQUOTED), B),
    "an open quote swallows rows": stops(
        "open-quote",
        'k,v\n1,a\n2,"b\n3,c\n4,d\n',
        ": line 3: the record that begins here runs to the end of the file" + UNCLOSED,
    ),
    "an open quote meets another": stops(
        "open-quote",
        'k,v\n1,a\n2,"b\n3,c\n4,"d"\n5,e\n',
        ": line 3: the record that begins here has quotes that do not pair up, by line 5" + UNCLOSED,
    ),
    "an open quote in the last field": stops(
        "open-quote",
        'k,v\n1,a\n2,"b',
        ": line 3: the record that begins here runs to the end of the file" + UNCLOSED,
    ),
    "a lone quote at the end": stops(
        "open-quote", 'k,v\n1,a\n"', ": line 3: the record that begins here runs to the end of the file" + UNCLOSED
    ),
    "an open quote swallows too much": stops(
        "open-quote",
        'k,v\n1,a\n2,"b\n' + "3,c\n" * 50_000,
        ": line 3: a field that begins here has more than 131,072 characters by line 32771" + UNCLOSED,
    ),
    "an open quote in the header": stops(
        "open-quote", '"k,v\n1,a\n', ": line 1: the record that begins here runs to the end of the file" + UNCLOSED
    ),
    "an open quote that pairs up later": reads(
        "fields", 'k,v\n1,"a\n2,b\n3,",x\n4,d\n', bad(2, "has 3 fields, the header has 2"), (5, "4", "d")
    ),
    # ---- lines
    "lines in a field": reads("lines-in-field", 'k,v\n1,"a\n\nb"\n2,b\n', (2, "1", "a\n\nb"), (5, "2", "b")),
    "CRLF in a field": reads("lines-in-field", 'k,v\r\n1,"a\r\nb"\r\n2,b\r\n', (2, "1", "a\r\nb"), (4, "2", "b")),
    "CR in a field": reads("lines-in-field", 'k,v\r1,"a\rb"\r2,b\r', (2, "1", "a\rb"), (4, "2", "b")),
    "all ends in a field": reads(
        "lines-in-field", 'k,v\n1,"a\rb\nc\r\nd"\n2,b', (2, "1", "a\rb\nc\r\nd"), (6, "2", "b")
    ),
    "a header of two lines": reads("lines-in-field", 'k,v,"x\ny"\n1,a,\n2,b,\n', (3, "1", "a"), (4, "2", "b")),
    "CRLF": reads("line-ends", PLAIN.replace("\n", "\r\n"), A, B),
    "CR": reads("line-ends", PLAIN.replace("\n", "\r"), A, B),
    "mixed ends": reads("line-ends", "k,v\r\n1,a\n2,b\r3,c\r\n", A, B, (4, "3", "c")),
    "CR CR LF": reads("line-ends", "k,v\r\r\n1,a\r\r\n2,b\r\r\n", (3, "1", "a"), (5, "2", "b")),
    "no last end": reads("line-ends", "k,v\n1,a\n2,b", A, B),
    "a lone CR ends a line": reads("line-ends", "k,v,w\r1,a,\n2,b,\r\n", A, B),
    "a lone CR in an unquoted field": reads(
        "fields",
        "k,v,w\n1,a\rb,\n2,b,\n",
        bad(2, "has 2 fields, the header has 3"),
        bad(3, "has 2 fields, the header has 3"),
        (4, "2", "b"),
    ),
    "other separators": reads(
        "other-separators",
        "k,v\n1,a\x0bb\x0cc\x1cd\x1ee\x85f\u2028g\u2029h\n2,b\n",
        (2, "1", "a\x0bb\x0cc\x1cd\x1ee\x85f\u2028g\u2029h"),
        B,
    ),
    "a separator of Unicode in JSON": reads(
        "other-separators",
        '{"k": "1", "v": "a\u2028\x85b"}\n' + TWO,
        (1, "1", "a\u2028\x85b"),
        (2, "2", "b"),
        name="odd.ndjson",
    ),
    "blank lines at the start": reads("blank", "\n\r\n  \nk,v\n1,a\n2,b\n", (5, "1", "a"), (6, "2", "b")),
    "blank lines in the middle": reads("blank", "k,v\n\n1,a\n   \n\r\n2,b\n", (3, "1", "a"), (6, "2", "b")),
    "blank lines at the end": reads("blank", PLAIN + "\n\n  \n\n", A, B),
    "a tab is no blank line": reads("fields", "k,v\n\t\n2,b\n", bad(2, "has 1 field, the header has 2"), B),
    "blank lines in NDJSON": reads(
        "blank", f"\n{ONE}\n \t\n{TWO}\n\n", (2, "1", "a"), (4, "2", "b"), name="odd.ndjson"
    ),
    # ---- fields
    "too few fields": reads("fields", "k,v\n1\n2,b\n", bad(2, "has 1 field, the header has 2"), B),
    "too many fields": reads("fields", "k,v\n1,a,x\n2,b\n", bad(2, "has 3 fields, the header has 2"), B),
    "a footer": reads("fields", PLAIN + "(2 rows)\n", A, B, bad(4, "has 1 field, the header has 2")),
    "an end-of-file mark of DOS": reads("fields", PLAIN + "\x1a", A, B, bad(4, "has 1 field, the header has 2")),
    "no key": reads("no-key", "k,v\n,a\n2,b\n", (2, "key_empty", "source.key: k empty"), B),
    "a key that is no id": reads(
        "bad-key",
        f"k,v\n{'é' * 1_000}x,a\n2,b\n",
        (2, "key_unfit", "source.key: more than 2,000 bytes; let it read fewer columns"),
        B,
    ),
    "a key with a NUL": reads(
        "bad-key",
        '{"k": "1\\u0000", "v": "a"}\n{"k": "2", "v": "b"}\n',
        (1, "key_unfit", "source.key: a NUL character"),
        (2, "2", "b"),
        name="a.ndjson",
    ),
    "a line of delimiters only": reads("blank", 'k,v\n1,a\n,\n"",\n,,,\n""\n2,b\n,\n', A, (7, "2", "b")),
    "delimiters at the end of records only": reads(
        "fields",
        "k,v\n1,a,\n2,b\n",
        bad(2, "has 3 fields, the header has 2; if the lines end with delimiters, let the header end with as many"),
        B,
    ),
    "delimiters at the end of every line": reads("nameless-end", "k;v;;\n1;a;;\n2;b;;\n", A, B),
    "delimiters at the end of some lines": reads("nameless-end", "k;v;;\n1;a\n2;b;\n", A, B),
    "a value without a column name": reads(
        "nameless-value", "k;v;\n1;a;x\n2;b;\n", bad(2, "has a value in a column that has no name in the header"), B
    ),
    "NUL in a record": reads("nul", "k,v\n1,a\0\n2,b\n", bad(2, NUL), B),
    "NULs at the end": reads("nul", PLAIN + "\0" * 5000, A, B, bad(4, NUL)),
    "spaces around values": reads("spaces", "k , v\n 1 , a \n2,b\n", (2, "1", " a "), B),
    "a field at the limit": reads("big-field", f"k,v\n1,{'x' * LIMIT}\n2,b\n", (2, "1", "x" * LIMIT), B),
    "a field just below the limit, not ASCII": reads(
        "big-field", f"k,v\n1,{'é' * (LIMIT - 1)}\n2,b\n", (2, "1", "é" * (LIMIT - 1)), B
    ),
    "a field beyond the limit": reads("long-field", f"k,v\n1,{'x' * (LIMIT + 1)}\n2,b\n", bad(2, LONG), B),
    "a quoted field beyond the limit": reads("long-field", f'k,v\n1,"{"x" * (LIMIT + 1)}"\n2,b\n', bad(2, LONG), B),
    "a field beyond the limit in two lines": stops(
        "open-quote",
        f'k,v\n1,"x\n{"x" * LIMIT}"\n2,b\n',
        ": line 2: a field that begins here has more than 131,072 characters by line 3" + UNCLOSED,
    ),
    "the same record again": reads("same-key", PLAIN + "1,a\n", A, B, (4, "duplicate", "the same record again")),
    "the same key again": reads(
        "same-key", PLAIN + "1,z\n", A, B, (4, "key_conflict", "another row of the input has this key")
    ),
    # ---- headers
    "a name twice": stops(
        "header", "k,v,k\n1,a,2\n", ': line 1: the header has the column "k" twice, as columns 1 and 3; rename one'
    ),
    "a name twice but for spaces": stops(
        "header", "\nk,v, v \n1,a,2\n", ': line 2: the header has the column "v" twice, as columns 2 and 3; rename one'
    ),
    "no name in between": stops("header", "k,,v\n1,a,2\n", f": line 1: column 2 {UNNAMED}"),
    "separators of Unicode alone": stops("header", "\u2028\x0b\nk,v\n1,a\n", f": line 1: column 1 {UNNAMED}"),
    "no names at all": stops("header", ",,\n1,a,2\n", f": line 1: column 1 {UNNAMED}"),
    "NUL in the header": stops(
        "header", "k,v,w\0\n1,a,x\n", ": line 1: the header has a NUL character; is source.encoding right?"
    ),
    "Excel's mark of the delimiter": stops(
        "excel-mark", "sep=;\nk;v\n1;a\n", ": line 1: tells Excel the delimiter and is no header; remove this line"
    ),
    "names in quotes and with spaces": reads("spaces", '" k ", v \n1,a\n2,b\n', A, B),
    "names that differ by case": reads("case", "k,v,K,V\n1,a,x,y\n2,b,x,y\n", A, B),
    "other case": stops(
        "no-column", "K,V\n1,a\n", ':1: there is no column "k", which source.key reads (did you mean "K"?)'
    ),
    "no header": stops("no-column", "1,a\n2,b\n", ':1: there is no column "k", which source.key reads (columns: 1, a)'),
    "a title above the header": stops(
        "no-column",
        "Contacts\n\nk,v\n1,a\n",
        ':1 (one column, with source.delimiter = ","): there is no column "k", which source.key reads '
        "(columns: Contacts)",
    ),
    "one column": stops(
        "no-column",
        "k\n1\n",
        ':1 (one column, with source.delimiter = ","): there is no column "v", which mapping.media_properties.name '
        "reads (columns: k)",
    ),
    "only a header": stops("empty", "k,v\n", ": has a header and no records" + EMPTY),
    "only a header, allowed": reads("allowed-empty", "k,v\n\n", allow_empty=True),
    "nothing": stops("empty", "", ": is empty" + EMPTY),
    "nothing, allowed": reads("allowed-empty", "", allow_empty=True),
    "only blank lines": stops("empty", "\n \r\n\n", ": is empty" + EMPTY),
    "only a mark": stops("empty", b"\xef\xbb\xbf", ": is empty" + EMPTY),
    # ---- encodings
    "a mark of UTF-8": reads("mark", b"\xef\xbb\xbf" + ACUTE.encode(), *ACUTE_READ),
    "a mark of UTF-8 before a quote": reads("mark", b'\xef\xbb\xbf"k",v\n1,a\n2,b\n', A, B),
    "no mark of UTF-8": reads("mark", ACUTE, *ACUTE_READ),
    "UTF-16, little end first": reads("mark", b"\xff\xfe" + ACUTE.encode("utf-16-le"), *ACUTE_READ, encoding="utf-16"),
    "UTF-16, big end first": reads("mark", b"\xfe\xff" + ACUTE.encode("utf-16-be"), *ACUTE_READ, encoding="utf-16"),
    "UTF-16 without a mark": reads("encoding-set", ACUTE.encode("utf-16-be"), *ACUTE_READ, encoding="utf-16-be"),
    "cp1252, as set": reads("encoding-set", "k,v\n1,é€\n2,b\n".encode("cp1252"), (2, "1", "é€"), B, encoding="cp1252"),
    "Shift JIS, as set": reads(
        "encoding-set", "k,v\n1,日本\n2,b\n".encode("shift_jis"), (2, "1", "日本"), B, encoding="shift_jis"
    ),
    "a piece of a mark": stops("other-mark", b"\xef\xbb", ": ends inside its byte-order mark; is it complete?"),
    "two marks": stops(
        "other-mark", b"\xef\xbb\xbf" * 2 + PLAIN.encode(), ": line 1: begins with two byte-order marks; remove one"
    ),
    "UTF-8 with a mark, read as cp1252": stops(
        "other-mark",
        b"\xef\xbb\xbf" + ACUTE.encode(),
        f": line 1: does not look like cp1252; it is UTF-8: {UTF8}",
        encoding="cp1252",
    ),
    "UTF-8 with a mark, read without": stops(
        "other-mark",
        b"\xef\xbb\xbf" + ACUTE.encode(),
        f": line 1: begins with a byte-order mark; {UTF8}",
        encoding="utf-8",
    ),
    "UTF-16, read as UTF-8": stops(
        "wide",
        ACUTE.encode("utf-16"),
        ': line 1: byte 0xff at offset 0 (0x0) is not utf-8-sig; it is UTF-16: set source.encoding = "utf-16"',
    ),
    "UTF-16 without a mark, read as UTF-8": stops(
        "wide",
        PLAIN.encode("utf-16-le"),
        ': line 1: is full of NUL characters; it is probably UTF-16: set source.encoding = "utf-16-le"',
    ),
    "UTF-16, read as Latin-1": stops(
        "wide",
        ACUTE.encode("utf-16"),
        ': line 1: is full of NUL characters; it is UTF-16: set source.encoding = "utf-16"',
        encoding="latin-1",
    ),
    "UTF-16 with the other end first": stops(
        "wide",
        ACUTE.encode("utf-16-le"),
        ': line 1: does not look like utf-16-be; it is probably UTF-16: set source.encoding = "utf-16-le"',
        encoding="utf-16-be",
    ),
    "UTF-16 with a mark of the other end": stops(
        "wide",
        b"\xff\xfe" + ACUTE.encode("utf-16-le"),
        ': line 1: begins with a byte-order mark; set source.encoding = "utf-16"',
        encoding="utf-16-be",
    ),
    "UTF-8, read as UTF-16": stops(
        "wide",
        ACUTE,
        ': is not utf-16: UTF-16 stream does not start with BOM; set source.encoding to "utf-16-le" or "utf-8-sig"',
        encoding="utf-16",
    ),
    "bytes that are no UTF-16 and have no mark": stops(
        "wide",
        b",\x8e\n\xd8v\n",
        ': is not utf-16: UTF-16 stream does not start with BOM; set source.encoding to "utf-16-le" or "utf-8-sig"',
        encoding="utf-16",
    ),
    "UTF-8, read as UTF-16 without a mark": stops(
        "wide",
        PLAIN,
        f": line 1: does not look like utf-16-le; it is probably UTF-8: {UTF8}",
        encoding="utf-16-le",
    ),
    "UTF-32": stops(
        "wide",
        ACUTE.encode("utf-32"),
        ': line 1: byte 0xff at offset 0 (0x0) is not utf-8-sig; it is UTF-32: set source.encoding = "utf-32"',
    ),
    "UTF-16 cut in a character": stops(
        "encoding",
        ACUTE.encode("utf-16")[:-1],
        ": line 3: byte 0x0a at offset 24 (0x18) is not utf-16; "
        "the input ends in the middle of a character: is it complete?",
        encoding="utf-16",
    ),
    "cp1252": stops(
        "encoding",
        "k,v\n1,a\n2,José\n".encode("cp1252"),
        f": line 3: byte 0xe9 at offset 13 (0xd) is not utf-8-sig; {CP1252}",
    ),
    "Latin-1": stops(
        "encoding",
        "k,v\n1,Ünal\n".encode("latin-1"),
        f": line 2: byte 0xdc at offset 6 (0x6) is not utf-8-sig; {CP1252}",
    ),
    "Mac Roman": stops(
        "encoding",
        "k,v\n1,José\n".encode("mac-roman"),
        f": line 2: byte 0x8e at offset 9 (0x9) is not utf-8-sig; {DAMAGED}",
    ),
    "Shift JIS": stops(
        "encoding",
        "k,v\n1,日本語\n".encode("shift_jis"),
        f": line 2: byte 0x93 at offset 6 (0x6) is not utf-8-sig; {DAMAGED}",
    ),
    "Windows-1251": stops(
        "encoding",
        "k,v\n1,Привет\n".encode("cp1251"),
        f": line 2: byte 0xcf at offset 6 (0x6) is not utf-8-sig; {DAMAGED}",
    ),
    "a byte that cp1252 does not have": stops(
        "encoding",
        b"k,v\n1,a\x81\n",
        f": line 2: byte 0x81 at offset 7 (0x7) is not cp1252; {DAMAGED}",
        encoding="cp1252",
    ),
    "UTF-8, read as cp1252": stops(
        "encoding",
        "k,v\n1,Á\n",
        f": line 2: byte 0x81 at offset 7 (0x7) is not cp1252; it is probably UTF-8: {UTF8}",
        encoding="cp1252",
    ),
    "UTF-8 cut in a character": stops(
        "encoding",
        "k,v\n1,a\n2,é".encode()[:-1],
        ": line 3: byte 0xc3 at offset 10 (0xa) is not utf-8-sig; "
        "the input ends in the middle of a character: is it complete?",
    ),
    "one damaged byte": stops(
        "encoding",
        "k,v\n1,é\n".encode() + b"2,\xe9x\n",
        f": line 3: byte 0xe9 at offset 11 (0xb) is not utf-8-sig; {DAMAGED}",
    ),
    "a bad byte after fields of several lines": stops(
        "encoding",
        b'k,v\r\n1,"a\r\nb"\r\n\r\n2,\xe9\r\n',
        f": line 5: byte 0xe9 at offset 19 (0x13) is not utf-8-sig; {CP1252}",
    ),
    # ---- NDJSON
    "an array for a record": reads(
        "not-object",
        f"{ONE}\n[1, 2]\n{THREE}\n",
        (1, "1", "a"),
        bad(2, "is a JSON array, not an object"),
        (3, "3", "c"),
        name="odd.ndjson",
    ),
    "other values for a record": reads(
        "not-object",
        f'{ONE}\n"x"\n4.5\nnull\ntrue\n{THREE}',
        (1, "1", "a"),
        bad(2, "is a JSON string, not an object"),
        bad(3, "is a JSON number, not an object"),
        bad(4, "is a JSON null, not an object"),
        bad(5, "is a JSON boolean, not an object"),
        (6, "3", "c"),
        name="odd.ndjson",
    ),
    "nested objects": reads(
        "nested",
        '{"k": 1, "v": {"x": [1, null, {"y": "é"}]}}\n' + TWO,
        (1, "1", {"x": [1, None, {"y": "é"}]}),
        (2, "2", "b"),
        name="odd.ndjson",
    ),
    "a key twice": reads(
        "json-limits",
        f'{{"k": "1", "v": "a", "v": "b"}}\n{TWO}\n',
        bad(1, 'has the key "v" twice'),
        (2, "2", "b"),
        name="odd.ndjson",
    ),
    "NaN": reads(
        "json-limits",
        f'{{"k": "1", "v": NaN}}\n{TWO}\n',
        bad(1, "is not JSON: NaN is not a JSON value"),
        (2, "2", "b"),
        name="odd.ndjson",
    ),
    "a huge number": reads(
        "json-limits",
        f'{{"k": "1", "v": 1{"0" * 5000}}}\n{TWO}\n',
        bad(1, "has a number that is out of range"),
        (2, "2", "b"),
        name="odd.ndjson",
    ),
    "half a character": reads(
        "json-limits",
        f'{{"k": "1", "v": "\\ud83d"}}\n{TWO}\n',
        bad(1, "is not valid Unicode: it has half of a surrogate pair"),
        (2, "2", "b"),
        name="odd.ndjson",
    ),
    "too deep": reads(
        "json-limits",
        f'{{"k": "1", "v": {"[" * 90_000}}}\n{TWO}\n',
        bad(1, "is nested too deeply"),
        (2, "2", "b"),
        name="odd.ndjson",
    ),
    "commas after objects": reads(
        "not-json",
        f"{ONE},\n{TWO}\n",
        bad(1, "is not JSON: Extra data"),
        (2, "2", "b"),
        name="odd.ndjson",
    ),
    "a comma before a brace": reads(
        "not-json",
        f'{{"k": "1",}}\n{TWO}\n',
        bad(1, "is not JSON: Expecting property name enclosed in double quotes"),
        (2, "2", "b"),
        name="odd.ndjson",
    ),
    "two objects on a line": reads(
        "not-json",
        f"{ONE} {TWO}\n{THREE}\n",
        bad(1, "is not JSON: Extra data"),
        (2, "3", "c"),
        name="odd.ndjson",
    ),
    "a record cut off": reads(
        "not-json",
        f"{ONE}\n{TWO[:9]}\n{THREE}\n",
        (1, "1", "a"),
        bad(2, "is not JSON: Expecting ',' delimiter"),
        (3, "3", "c"),
        name="odd.ndjson",
    ),
    "single quotes in JSON": reads(
        "not-json",
        "{'k': '1'}\n" + TWO,
        bad(1, "is not JSON: Expecting property name enclosed in double quotes"),
        (2, "2", "b"),
        name="odd.ndjson",
    ),
    "a NUL in JSON": reads(
        "not-json",
        f'{{"k": "1", "v": "\0"}}\n{TWO}',
        bad(1, "is not JSON: Invalid control character"),
        (2, "2", "b"),
        name="odd.ndjson",
    ),
    "CSV called .json": reads(
        "not-json",
        "k,v\n1,a\n",
        bad(1, "is not JSON: Expecting value"),
        bad(2, "is not JSON: Extra data"),
        name="odd.json",
    ),
    "NDJSON with CRLF and a mark": reads(
        "mark", f"\ufeff{ONE}\r\n{TWO}", (1, "1", "a"), (2, "2", "b"), name="odd.jsonl"
    ),
    "NDJSON in UTF-16": reads(
        "encoding-set",
        f"{ONE}\n{TWO}\n".encode("utf-16"),
        (1, "1", "a"),
        (2, "2", "b"),
        name="odd.json",
        encoding="utf-16",
    ),
    "a CR is a space in JSON": reads(
        "line-ends", f'{{"k": "1",\r"v": "a"}}\n{TWO}\r', (1, "1", "a"), (2, "2", "b"), name="odd.ndjson"
    ),
    "NDJSON without a telling name": reads("name", f"\n{ONE}\n{TWO}\n", (2, "1", "a"), (3, "2", "b"), name="odd.dump"),
    "CSV without a telling name": reads("name", PLAIN, A, B, name="odd"),
    "CSV called .txt": reads("name", PLAIN, A, B, name="ODD.TXT"),
    "NDJSON called .txt, as set": reads("name", ONE, (1, "1", "a"), name="odd.txt", format="ndjson"),
    "a JSON array": stops("json-shape", f"[{ONE}, {TWO}]", f": line 1: {ARRAY}", name="odd.json"),
    "a JSON array over lines": stops("json-shape", f"\n[{ONE},\n{TWO}]\n", f": line 2: {ARRAY}", name="odd.json"),
    "a JSON array on lines of its own": stops(
        "json-shape", f"[\n{ONE},\n{TWO}\n]\n", f": line 1: {ARRAY}", name="odd.json"
    ),
    "a JSON array without a telling name": stops("json-shape", f"[\n{ONE}\n]", f": line 1: {ARRAY}", name="odd.dump"),
    "JSON objects over several lines": stops(
        "json-shape", json.dumps({"k": 1, "v": 2}, indent=2), f": line 1: {PRETTY}", name="odd.json"
    ),
    "records inside an object": stops(
        "json-shape", f'{{"contacts": [\n{ONE},\n{TWO}\n]}}\n', f": line 1: {PRETTY}", name="odd.json"
    ),
    "NDJSON called .csv": stops(
        "json-shape",
        f"{ONE}\n{TWO}\n",
        ': line 1: is JSON, and read as CSV because of the file\'s name; set source.format = "ndjson"',
    ),
    # ---- what is no text
    "an Excel workbook": stops(
        "no-text",
        b"PK\x03\x04\x14\x00\x06\x00\x08\x00\x00\x00!\x00",
        ": is an Excel workbook or another zip archive, not text: save its sheet as CSV, or unpack it",
        name="odd.xlsx",
    ),
    "an old Excel workbook": stops(
        "no-text",
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(200),
        ": is an old Excel workbook, not text: save its sheet as CSV",
    ),
    "a PDF": stops("no-text", b"%PDF-1.4\n%\xe2\xe3\n", ": is a PDF, not text: get the table as CSV"),
}


def _compressed() -> Iterator[tuple[str, Case]]:
    for kind in ("gz", "bz2", "xz", "zst"):
        whole, name = compress(kind, PLAIN), f"odd.csv.{kind}"
        told = "" if kind in {"gz", "zst"} else ": line 4"  # where records came out before the end was missed
        yield f"{kind}", reads("compressed", whole, A, B, name=name)
        yield f"{kind} called .csv", reads("compressed", whole, A, B)
        yield (
            f"{kind} in two members",
            reads("compressed", compress(kind, "k,v\n1,") + compress(kind, "a\n2,b"), A, B, name=name),
        )
        yield f"{kind} cut off", stops("damaged", whole[:-3], f"{told}: {CUT.format(kind)}", name=name)
        yield (
            f"{kind} twice",
            stops(
                "compressed-twice", compress(kind, whole), ": is compressed twice; take the outer layer off", name=name
            ),
        )
        yield f"{kind} of nothing", stops("empty", compress(kind, ""), f": is empty{EMPTY}", name=name)
    for kind in ("bz2", "xz"):
        yield (
            f"{kind} with something behind",
            stops("damaged", compress(kind, PLAIN) + b"garbage", BEHIND.format(kind), name=f"odd.csv.{kind}"),
        )
    yield (
        "gz with something behind",
        stops("damaged", compress("gz", PLAIN) + b"garbage", f": {CUT.format('gz')}", name="odd.csv.gz"),
    )
    yield (
        "gz of 0 bytes",
        stops(
            "damaged",
            b"",
            ": is cut off or damaged: its gz data ends within its first 10 bytes; get the file again",
            name="odd.csv.gz",
        ),
    )
    yield "plain text called .gz", reads("compressed", PLAIN, A, B, name="odd.csv.gz")


CASES |= dict(_compressed())


async def look(path: Path, given: Mapping[str, Any]) -> list[Found]:
    """Take an input the way of `check`, and return everything that was found, in the order of lines."""

    async def register(_: SourceFile) -> int:
        return 1

    found: list[Found] = []
    settings = Source.model_validate({"key": KEY, **given})
    async with Intake([(Input(path.name, path), Rules("", settings, Mapper(MAPPING, KEY)))]) as intake:
        counted = await intake.count()
        with Survey(None, intake.names) as survey:
            async for batch in intake.rows(survey, register):
                found += [(row.line, row.key, _name(row.body)) for row in batch.send]
                found += [(finding.line, finding.code, finding.reason) for finding in batch.findings]
    assert counted == len(found)
    return sorted(found)


def _name(body: bytes) -> Any:
    media = json.loads(parse_qs(body.decode())["MediaProperties"][0])
    return media["name"]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
async def test_an_odd_input_is_read_or_refused_as_the_table_says(tmp_path: Path, case: Case) -> None:
    """The whole message, or every record with its line: what is good around a bad one is as if it were not there."""
    path = tmp_path / case.name
    path.write_bytes(case.content)
    found: str | list[Found]
    try:
        found = await look(path, case.given)
    except (SourceError, ConfigError) as exc:
        found = str(exc)
    assert found == case.expected


def policies() -> dict[str, str]:
    """Return policy → the first word of what happens, from the table in the docs."""
    section = (ROOT / "docs" / "input.md").read_text().partition("\n## What happens to odd ones\n")[2]
    table = section.partition("\n## ")[0]
    rows = re.findall(r"^\| `([a-z0-9-]+)` \|[^|\n]+\| (\w+)", table, re.MULTILINE)
    assert len(rows) == len(dict(rows))
    return dict(rows)


def test_every_policy_has_a_case_and_every_case_a_policy() -> None:
    """What the docs promise about odd inputs is what the table above shows, and they leave nothing out."""
    assert set(policies()) == {case.policy for case in CASES.values()}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_case_goes_as_its_policy_says(case: Case) -> None:
    """Stops: a message; rejected: a bad record among others; taken and skipped: all records are good."""
    codes = {"malformed", "key_empty", "key_unfit", "key_conflict", "duplicate"}
    if isinstance(case.expected, str):
        outcome = {"stops"}
    elif any(code in codes for _, code, _ in case.expected):
        outcome = {"rejected"}
    else:
        outcome = {"taken", "skipped"}
    assert policies()[case.policy] in outcome


def test_the_table_is_as_long_as_was_asked_for() -> None:
    """At least sixty odd inputs, none of them twice."""
    assert len(CASES) >= 60
    assert len({(case.content, case.name, str(case.given)) for case in CASES.values()}) == len(CASES)
