"""How inputs are found and read: what becomes a record, what is malformed, and what stops the reading."""

import csv
import errno
import io
import json
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Literal
from unittest import mock

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.test_compression import FORMATS, compress
from worker.config import Source
from worker.errors import SourceError
from worker.model import Record
from worker.source import BATCH_RECORDS, Input, Reader, batches, count, decoder, find_inputs, open_reader
from worker.source import encoding as encoding_room

STDIN = Input("stdin", None)
Write = Callable[[str, bytes | str], Input]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Return a function that makes a file and gives it as an input, by its bare name."""

    def make(name: str, content: bytes | str) -> Input:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return Input(name, path)

    return make


def options(**given: Any) -> Source:
    """Make the [source] section of a config from some of its keys."""
    return Source.model_validate(given)


def read(source: Input, **given: Any) -> list[Record]:
    """Read an input to its end under these settings."""
    with Reader(source, options(**given)) as reader:
        return [record for batch in reader for record in batch]


def read_text(text: str, **given: Any) -> tuple[Reader, list[Record]]:
    """Read a text from stdin to its end; give the reader too, for what it says of the header."""
    with Reader(STDIN, options(**given), stdin=io.BytesIO(text.encode())) as reader:
        return reader, [record for batch in reader for record in batch]


def brief(record: Record) -> tuple[int, Any]:
    """Give a record's line and its values, or the reason for not having any."""
    return record.line, record.problem.reason if record.problem else list((record.values or {}).values())


# ---- which inputs ---------------------------------------------------------------------------------------------------


def test_inputs_keep_their_order_and_patterns_are_sorted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files come in the order of the command line, those of a pattern by name, each under the name it was given."""
    monkeypatch.chdir(tmp_path)
    for name in ("z.csv", "b2.csv", "b1.csv", "b10.csv"):
        Path(name).touch()
    assert find_inputs(["z.csv", "b*.csv"]) == [
        Input(name, Path(name)) for name in ("z.csv", "b1.csv", "b10.csv", "b2.csv")
    ]


def test_a_name_with_pattern_characters_is_meant_literally_when_it_exists(tmp_path: Path) -> None:
    """A file called `a[1].csv` can be given by its name."""
    path = tmp_path / "a[1].csv"
    path.touch()
    assert find_inputs([str(path)]) == [Input(str(path), path)]


def test_a_dash_is_stdin() -> None:
    """`-` alone means stdin, which has no path."""
    assert find_inputs(["-"]) == [STDIN]


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (["-", "a.csv"], '"-" (stdin) cannot be combined'),
        (["-", "-"], "give it alone, and once"),
        ([], "no input was given"),
        ([""], "name is empty"),
        (["*.tsv"], "*.tsv: no file matches; look with: ls *.tsv"),
        (["missing.csv"], "missing.csv: there is no such file"),
        (["a.csv", "dangling.csv"], "dangling.csv: there is no such file"),
        (["folder"], 'folder: is a directory; name its files, as in "folder/*.csv"'),
        (["pipe"], 'pipe: is not a plain file; feed it on stdin, with "-"'),
        (["a.csv", "a.csv"], "a.csv: is given twice; name each file once"),
        (["a.csv", "./a.csv"], "./a.csv: is given twice, also as a.csv"),
        (["*.csv", "link"], "link: is given twice, also as a.csv"),
        (["a.csv/b.csv"], "a.csv/b.csv: cannot be opened: Not a directory"),
    ],
)
def test_inputs_that_cannot_be_used_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patterns: list[str], message: str
) -> None:
    """Whatever is wrong with an input's name, the message has the name and what to do."""
    monkeypatch.chdir(tmp_path)
    Path("a.csv").touch()
    Path("folder").mkdir()
    Path("link").symlink_to("a.csv")
    Path("dangling.csv").symlink_to("gone")
    os.mkfifo("pipe")
    if patterns == ["*.csv", "link"]:
        Path("dangling.csv").unlink()
    with pytest.raises(SourceError) as caught:
        find_inputs(patterns)
    assert message in str(caught.value)


def test_a_file_without_permission_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that may not be read is found before the run, not in the middle of it."""
    path = tmp_path / "a.csv"
    path.touch()
    monkeypatch.setattr(Path, "open", mock.Mock(side_effect=PermissionError(errno.EACCES, "no")))
    with pytest.raises(SourceError, match=r"a\.csv: no permission to read it"):
        find_inputs([str(path)])


# ---- format and delimiter -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "given", "expected"),
    [
        ("a.csv", "{x\n1\n", {}, "csv"),
        ("a.TSV", "x\n1\n", {}, "csv"),
        ("a.txt", "x\n1\n", {}, "csv"),
        ("a.ndjson", "x\n", {}, "ndjson"),
        ("a.jsonl", "x\n", {}, "ndjson"),
        ("a.JSON", "x\n", {}, "ndjson"),
        ("a.dat", '\n  {"a": 1}\n', {}, "ndjson"),
        ("a.dat", "\n  x\n1\n", {}, "csv"),
        ("a", "x\n{\n", {}, "csv"),
        ("a.json", "x\n1\n", {"format": "csv"}, "csv"),
        ("a.csv", "{}\n", {"format": "ndjson"}, "ndjson"),
    ],
)
def test_the_format_comes_from_the_settings_the_suffix_or_the_first_character(
    write: Write, name: str, text: str, given: dict[str, Any], expected: str
) -> None:
    """The settings win; then the suffix; without a known one, an opening brace makes it NDJSON."""
    with Reader(write(name, text), options(**given)) as reader:
        assert reader.format == expected


def test_stdin_has_no_suffix_to_go_by() -> None:
    """On stdin the first character decides."""
    assert read_text('{"a": 1}\n')[0].format == "ndjson"
    assert read_text("a\n1\n")[0].format == "csv"


@pytest.mark.parametrize(
    ("header", "given", "expected", "columns"),
    [
        ("a,b", "auto", ",", ("a", "b")),
        ("a;b;c", "auto", ";", ("a", "b", "c")),
        ("a\tb", "auto", "\t", ("a", "b")),
        ("a|b", "auto", "|", ("a", "b")),
        ("a", "auto", ",", ("a",)),
        ("a;b,c", "auto", ",", ("a;b", "c")),
        ('"x,y,z";b', "auto", ";", ("x,y,z", "b")),
        ('"x "",;,"" y"|b', "auto", "|", ('x ",;," y', "b")),
        ("a;b;c,d", ",", ",", ("a;b;c", "d")),
        (" a , b\t", "auto", ",", ("a", "b")),
    ],
)
def test_the_delimiter_is_the_most_frequent_in_the_header(
    header: str, given: str, expected: str, columns: tuple[str, ...]
) -> None:
    """Of , ; tab | the header's favourite outside quotes separates; names lose the spaces around them."""
    reader, _ = read_text(header + "\n" + expected.join("x" * len(columns)) + "\n", delimiter=given)
    assert (reader.delimiter, reader.columns) == (expected, columns)


# ---- records --------------------------------------------------------------------------------------------------------


def test_records_know_their_lines_and_their_text(write: Write) -> None:
    """Lines are physical lines from 1; a record's text is the file's own, line end and quotes included."""
    with Reader(write("a.csv", '\n a,"b"\r\n\n1,"x\ny"\n   \n2,z'), options()) as reader:
        records = [record for batch in reader for record in batch]
    assert (reader.header_line, reader.header) == (2, ' a,"b"\r\n')
    assert reader.encoding == "utf-8-sig"
    assert records == [
        Record(4, '1,"x\ny"\n', {"a": "1", "b": "x\ny"}),
        Record(7, "2,z", {"a": "2", "b": "z"}),
    ]


ODD_CSV: dict[str, tuple[str, list[tuple[int, Any]]]] = {
    "blank lines are no records": ("a,b\n\n1,2\n\r\n  \n3,4\n\n", [(3, ["1", "2"]), (6, ["3", "4"])]),
    "spaces are a value where there is one column": ("a\n  \n\nx\n", [(2, ["  "]), (4, ["x"])]),
    "empty fields are fields": ("a,b\n,1\n2,\n", [(2, ["", "1"]), (3, ["2", ""])]),
    "empty fields alone are no record": ('a,b\n,\n"",""\n\n1,2\n', [(5, ["1", "2"])]),
    "a field of a space is a record": ("a,b\n, \n", [(2, ["", " "])]),
    "tabs are empty fields": ("a\tb\n\t\n\t1\n", [(3, ["", "1"])]),
    "too few": ("a,b\n1\n2,3\n", [(2, "has 1 field, the header has 2"), (3, ["2", "3"])]),
    "too many": ("a,b\n1,2,3,4\n5,6\n", [(2, "has 4 fields, the header has 2"), (3, ["5", "6"])]),
    "an empty field too many": ("a,b\n1,2,\n", [(2, "has 3 fields, the header has 2")]),
    "too many over two lines": ('a\n"x\ny",z\nw\n', [(2, "has 2 fields, the header has 1"), (4, ["w"])]),
    "NUL": ("a,b\n1,x\0y\n3,4\n", [(2, "has a NUL character"), (3, ["3", "4"])]),
    "NUL and a field too few": ("a,b\n\0\n", [(2, "has a NUL character")]),
    "text after a closing quote": ('a,b\n1,"x"y\n3,4\n', [(2, "text after a closing quote"), (3, ["3", "4"])]),
    "an inner quote not doubled": ('a,b\n"6" pipe",x\n3,4\n', [(2, "after a closing quote"), (3, ["3", "4"])]),
    "a quoted word in quotes": ('a,b\n"Al "Bo" C","x"\n3,4\n', [(2, "after a closing quote"), (3, ["3", "4"])]),
    "a space after a closing quote": ('a,b\n"x" ,y\n3,4\n', [(2, "after a closing quote"), (3, ["3", "4"])]),
    "misquoted lines in a row": (
        'a\n"x"y\n"x"y\nz\n"x"y',
        [(2, "closing"), (3, "closing"), (4, ["z"]), (5, "closing")],
    ),
    "a quote inside an unquoted field is a character": ('a,b\n6" pipe,y\n', [(2, ['6" pipe', "y"])]),
    "doubled quotes are one": ('a,b\n"say ""hi""",y\n', [(2, ['say "hi"', "y"])]),
    "a quoted field may have line ends": (
        'a,b\r\n"x\r\n\r\ny",1\r\n2,3\r\n',
        [(2, ["x\r\n\r\ny", "1"]), (5, ["2", "3"])],
    ),
    "old Mac line ends": ("a,b\r1,2\r3,4", [(2, ["1", "2"]), (3, ["3", "4"])]),
    "mixed line ends": ("a,b\n1,2\r\n3,4\r5,6\n", [(2, ["1", "2"]), (3, ["3", "4"]), (4, ["5", "6"])]),
    "other separators of Unicode end no line": ("a\nx\u2028y\x0bz\x85\n", [(2, ["x\u2028y\x0bz\x85"])]),
    "a delimiter at the header's end": (
        "a,b,\n1,2,\n3,4\n5,6,7\n8\n",
        [(2, ["1", "2"]), (3, ["3", "4"]), (4, "has a value in a column that has no name"), (5, "has 1 field, the")],
    ),
    "a delimiter at the end of records only": ("a,b\n1,2,\n", [(2, "let the header end with as many")]),
    "too long a field": (
        f'a,b\n{"x" * (csv.field_size_limit() + 1)},"y"\n3,4\n',
        [(2, "has a field of more than 131,072 characters"), (3, ["3", "4"])],
    ),
    "spaces in values stay": ("a,b\n 1 , 2\n", [(2, [" 1 ", " 2"])]),
}

ODD_NDJSON: dict[str, tuple[str, list[tuple[int, Any]]]] = {
    "blank lines are no records": ('\n{"a": 1}\n \t\r\n{"a": 2}', [(2, [1]), (4, [2])]),
    "an empty object": ("{}\n", [(1, [])]),
    "no JSON": ('{"a": 1}\nx\n{"a": 2}\n', [(1, [1]), (2, "is not JSON: Expecting value at character 1"), (3, [2])]),
    "cut off": ('{"a": \n{"a": 2}\n', [(1, "is not JSON: Expecting value at character 8"), (2, [2])]),
    "text unfinished": ('{"a": "x\n', [(1, "is not JSON: Invalid control character at character 9")]),
    "text unfinished at the end": ('{"a": "x', [(1, "is not JSON: Unterminated string starting at character 7")]),
    "an unknown escape": ('{"a": "\\q"}\n', [(1, "is not JSON: Invalid \\escape at character 8")]),
    "two values": ('{"a": 1} {}\n{"a": 2}\n', [(1, "is not JSON: Extra data at character 10"), (2, [2])]),
    "a NUL": ('{"a": 1\0}\n', [(1, "is not JSON: Expecting ',' delimiter at character 8")]),
    "an array": ("[1]\n", [(1, "is a JSON array, not an object")]),
    "text": ('"x"\n', [(1, "is a JSON string, not an object")]),
    "a number": ("1\n1.5\n", [(1, "is a JSON number, not an object"), (2, "is a JSON number, not an object")]),
    "true": ("true\n", [(1, "is a JSON boolean, not an object")]),
    "null": ("null\n", [(1, "is a JSON null, not an object")]),
    "a key twice": ('{"a": 1, "b": 2, "a": 1}\n{"a": 2}\n', [(1, 'has the key "a" twice'), (2, [2])]),
    "a key twice inside": ('{"a": {"b": 1, "b": 2}}\n', [(1, 'has the key "b" twice')]),
    "NaN": ('{"a": NaN}\n', [(1, "is not JSON: NaN is not a JSON value")]),
    "Infinity": ('{"a": -Infinity}\n', [(1, "is not JSON: -Infinity is not a JSON value")]),
    "too big a number": ('{"a": -1e999}\n', [(1, "has a number that is out of range")]),
    "too long a number": ('{"a": 1%s}\n' % ("0" * 5000), [(1, "has a number that is out of range")]),
    "too deep": ('{"a": %s}\n{"a": 2}\n' % ("[" * 100_000), [(1, "is nested too deeply"), (2, [2])]),
    "half a character": ('{"a": "\\uD83d"}\n', [(1, "is not valid Unicode: it has half of a surrogate pair")]),
    "a whole character in two halves": ('{"a": "\\ud83d\\ude00"}\n', [(1, ["\U0001f600"])]),
    "a carriage return is a space": ('{"a":\r1}\n\r{"a": 2}\r\n{"a": 3}\r', [(1, [1]), (2, [2]), (3, [3])]),
    "a separator of Unicode ends no line": ('{"a": "x\u2028y"}\n', [(1, ["x\u2028y"])]),
}


@pytest.mark.parametrize(
    ("format_", "text", "expected"),
    [
        pytest.param(format_, text, expected, id=f"{format_}: {name}")
        for format_, table in (("csv", ODD_CSV), ("ndjson", ODD_NDJSON))
        for name, (text, expected) in table.items()
    ],
)
def test_an_odd_record_is_told_and_never_shifts_another(
    write: Write, format_: str, text: str, expected: list[tuple[int, Any]]
) -> None:
    """Each oddity has its policy: a reason on its own line, and every other record as if it were not there."""
    records = read(write("odd", text), format=format_)
    assert [line for line, _ in map(brief, records)] == [line for line, _ in expected]
    for record, (_, wanted) in zip(records, expected, strict=True):
        if isinstance(wanted, str):
            assert record.values is None
            assert record.problem
            assert record.problem.code == "malformed"
            assert wanted in " ".join(filter(None, record.problem[1:]))
        else:
            assert (brief(record)[1], record.problem) == (wanted, None)


def test_ndjson_has_no_header_and_keeps_types() -> None:
    """An NDJSON record is the object itself, in the file's own text; there are no columns to speak of."""
    reader, records = read_text('{"a": {"b": [1, 2.5, null, true]}}\r\n')
    assert (reader.header, reader.columns, reader.delimiter) == ("", None, "")
    assert records == [
        Record(1, '{"a": {"b": [1, 2.5, null, true]}}\r\n', {"a": {"b": [1, 2.5, None, True]}}),
    ]


# ---- what stops the reading -----------------------------------------------------------------------------------------

LONG = csv.field_size_limit() + 1
UNCLOSED = "a quote that opened here is probably never closed"

FATAL: dict[str, tuple[str | bytes, dict[str, Any], list[str]]] = {
    "0 bytes": ("", {}, ["odd: is empty", "source.allow_empty = true"]),
    "only blank lines": ("\n \r\n\t\n", {}, ["odd: is empty"]),
    "only a byte-order mark": (b"\xef\xbb\xbf", {}, ["odd: is empty"]),
    "empty NDJSON": ("\n\n", {"format": "ndjson"}, ["odd: is empty"]),
    "only a header": ("a,b\n\n", {}, ["odd: has a header and no records", "source.allow_empty = true"]),
    "a column twice": (
        "\na, b,a \n1,2,3\n",
        {},
        ['odd: line 2: the header has the column "a" twice, as columns 1 and 3'],
    ),
    "a column without a name": ("a, ,c\n1,2,3\n", {}, ["odd: line 1: column 2 of the header has no name"]),
    "no column with a name": (",,\n1,2,3\n", {}, ["odd: line 1: column 1 of the header has no name"]),
    "a header's open quote": ('\n"a,b\n1,2\n', {}, ["odd: line 2:", "runs to the end of the file", UNCLOSED]),
    "a header's misplaced quote": ('"a"b,c\n1,2\n', {}, ["odd: line 1:", "quotes that do not pair up"]),
    "a NUL in the header": ("a,bcdefg\0\n1,2\n", {}, ["odd: line 1: the header has a NUL character"]),
    "an open quote": ('a,b\n1,2\n3,"4\n5,6\n', {}, ["odd: line 3:", "runs to the end of the file", UNCLOSED]),
    "an open quote in the last line": ('a,b\n1,2\n3,"', {}, ["odd: line 3:", "runs to the end of the file"]),
    "an open quote that meets another": ('a,b\n1,"2\n3,4\n5,"6"\n', {}, ["odd: line 2:", "by line 4", UNCLOSED]),
    "a misquoted field before an open one": ('a,b\n1,2\n"x"y,"z\nw"\n', {}, ["odd: line 3:", "by line 3", UNCLOSED]),
    "a misquoted field before an endless one": (f'a,b\n"x"y,"{"z" * LONG}\n', {}, ["odd: line 2:", UNCLOSED]),
    "a quote that swallows too much": (
        'a,b\n1,2\n3,"4\n' + ("y" * 99 + "\n") * 2000 + '"',
        {},
        ["odd: line 3:", "more than 131,072 characters by line 1314", UNCLOSED],
    ),
    "too long a field, open": (
        f'a\n1\n"{"x" * LONG}\n',
        {},
        ["odd: line 3:", "131,072 characters by line 3", UNCLOSED],
    ),
    "cp1252 in UTF-8": (
        b"a,b\r\n1,2\r\n3,Jos\xe9 P\xe9rez\r\n",
        {},
        ["odd: line 3: byte 0xe9 at offset 15 (0xf) is not utf-8-sig", 'set source.encoding = "cp1252"'],
    ),
    "a damaged byte in UTF-8": (
        "a\né\n".encode() + b"\xe9x\n",
        {},
        ["odd: line 3: byte 0xe9 at offset 5 (0x5)", "the line is damaged"],
    ),
    "no text at all": (b"\x7fELF\x02\x81\x00", {}, ["odd: line 1: byte 0x81 at offset 5", "is damaged, or"]),
    "no cp1252 either": (b"a\n\x81\n", {}, ["odd: line 2: byte 0x81 at offset 2", "the line is damaged"]),
    "cut in a character": ("a\nx\né".encode()[:-1], {}, ["odd: line 3: byte 0xc3 at offset 4", "is it complete?"]),
    "UTF-8 read as cp1252": (
        "a\nÁ\n".encode(),
        {"encoding": "windows-1252"},
        ["odd: line 2: byte 0x81 at offset 3", 'set source.encoding = "utf-8-sig"'],
    ),
    "no cp1252 and no UTF-8": (b"a\n\xc0\x81\xc0\n", {"encoding": "cp1252"}, ["byte 0x81 at offset 3", "is damaged"]),
    "UTF-16": ("a\n1\n".encode("utf-16"), {}, ["odd: line 1: byte 0xff at offset 0", 'set source.encoding = "utf-16"']),
    "UTF-16 read as cp1252": ("a,b\n".encode("utf-16"), {"encoding": "cp1252"}, ['set source.encoding = "utf-16"']),
    "UTF-16 LE, no mark": ("ab,c\n1,2\n".encode("utf-16-le"), {}, ["odd: line 1:", 'source.encoding = "utf-16-le"']),
    "UTF-16 BE, no mark": ("ab,c\n1,2\n".encode("utf-16-be"), {}, ["odd: line 1:", 'source.encoding = "utf-16-be"']),
    "UTF-16 LE, no mark, not ASCII": (
        ("name\n" + "abcdé\n" * 9).encode("utf-16-le"),
        {},
        ["odd: line 2: byte 0xe9 at offset 18", 'source.encoding = "utf-16-le"'],
    ),
    "UTF-8 read as UTF-16": ("a,bc\n1,2\n", {"encoding": "utf-16"}, ["odd: is not utf-16:", '"utf-8-sig"']),
    "a mark for UTF-8": (
        b"\xef\xbb\xbfa\n1\n",
        {"encoding": "utf-8"},
        ["odd: line 1:", 'source.encoding = "utf-8-sig"'],
    ),
    "a mark for UTF-16": (
        "\ufeffa\n1\n".encode("utf-16-le"),
        {"encoding": "utf-16-le"},
        ["odd: line 1: begins with a byte-order mark", 'source.encoding = "utf-16"'],
    ),
    "a bad byte in NDJSON": (
        b'{"a":\r1}\n{"a": "\xe9"}\n',
        {"format": "ndjson"},
        ["odd: line 2: byte 0xe9 at offset 16"],
    ),
}


@pytest.mark.parametrize(("content", "given", "messages"), FATAL.values(), ids=FATAL.keys())
def test_what_leaves_records_uncertain_stops_the_reading(
    write: Write, content: str | bytes, given: dict[str, Any], messages: list[str]
) -> None:
    """Where no record can be trusted any more, the message names file, line and what to do, already when counting."""
    source = write("odd", content)
    with pytest.raises(SourceError) as caught:
        read(source, **given)
    for message in messages:
        assert message in str(caught.value)
    with pytest.raises(SourceError) as counting:
        anyio.run(count, source, options(**given))
    assert str(counting.value) == str(caught.value)


def test_a_bad_byte_far_down_is_found_exactly(write: Write) -> None:
    """Offset and line are those of the file, however many records, blank lines and chunks come before."""
    before = "a,é\r\n" + "".join(f'{n},"x\r\n{n}"\r\n\r\n' for n in range(20_000))
    with pytest.raises(SourceError) as caught:
        read(write("far.csv", before.encode() + b"1,\xfc\r\n"))
    offset = len(before.encode()) + 2
    assert (
        f"far.csv: line 60002: byte 0xfc at offset {offset} (0x{offset:x}) is not utf-8-sig; the line is damaged"
        in str(caught.value)
    )


def test_a_bad_byte_on_stdin_is_found_by_its_line() -> None:
    """Stdin cannot be read again for the offset, but the line is right and the likely option is named."""
    content = b"a\n" + b"x\n\n" * 5000 + b"\xe9\n"
    with Reader(STDIN, options(), stdin=io.BytesIO(content)) as reader, pytest.raises(SourceError) as caught:
        list(reader)
    assert (
        'stdin: line 10002: byte 0xe9 is not utf-8-sig; it is probably Windows-1252: set source.encoding = "cp'
        in str(caught.value)
    )
    with pytest.raises(SourceError, match="stdin: line 2: byte 0xe9"):
        Reader(STDIN, options(), stdin=io.BytesIO(b"a\n\xe9\n")).open()


TEXT = st.text(st.sampled_from("aé€\U0001f600\r\n") | st.characters(exclude_categories=["Cs"]), max_size=40)


@settings(deadline=None)
@given(
    before=TEXT,
    chunk=st.integers(1, 9),
    universal=st.booleans(),
    codec=st.sampled_from(["utf-8", "utf-8-sig", "gb18030"]),
)
def test_the_first_bad_byte_is_found_in_chunks_of_any_size(
    before: str,
    chunk: int,
    universal: bool,
    codec: str,
) -> None:
    """Neither a character nor a line end nor a byte-order mark cut in two moves the offset or the line."""
    data = before.encode(codec)
    with mock.patch.object(encoding_room, "_CHUNK_BYTES", chunk):
        fault = encoding_room.find_fault(io.BytesIO(data + b"\xffxyz"), codec, universal=universal)
        assert encoding_room.find_fault(io.BytesIO(data), codec, universal=universal) is None
    text = data.decode(codec)
    lines = len(io.StringIO(text + "x", newline="" if universal else "\n").readlines())
    assert fault is not None
    assert (fault.byte, fault.offset, fault.line) == (0xFF, len(data), lines)


@pytest.mark.parametrize(
    ("name", "text"), [("a.csv", ""), ("a.csv", "\n"), ("a.csv", "a,b\n"), ("a.ndjson", "\n"), ("a.dat", "")]
)
def test_an_empty_input_can_be_allowed(write: Write, name: str, text: str) -> None:
    """A night without records is no error when the settings say so."""
    source = write(name, text)
    with Reader(source, options(allow_empty=True)) as reader:
        assert list(reader) == []
        assert reader.columns == (("a", "b") if text == "a,b\n" else None)
    assert anyio.run(count, source, options(allow_empty=True)).records == 0


class FailingDisk(io.RawIOBase):
    """Gives its bytes and then an input/output error."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def readable(self) -> bool:
        """Tell io that this is for reading."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer, or fail when nothing is left."""
        if not self._content:
            raise OSError(errno.EIO, "Input/output error")
        size = min(len(buffer), len(self._content))
        buffer[:size], self._content = self._content[:size], self._content[size:]
        return size


def test_a_disk_that_fails_on_the_way_is_told_with_the_line() -> None:
    """An error of the disk in the middle of the file stops the reading at a known line."""
    disk = io.BufferedReader(FailingDisk(b"a\n" + b"1\n" * 6000))
    with Reader(STDIN, options(), stdin=disk) as reader, pytest.raises(SourceError) as caught:
        list(reader)
    assert str(caught.value) == "stdin: line 6002: cannot be read: Input/output error"


def test_a_file_that_is_gone_is_told(tmp_path: Path) -> None:
    """A file removed between being found and being opened is an error of the input."""
    with pytest.raises(SourceError, match=r"a\.csv: cannot be read: No such file"):
        read(Input("a.csv", tmp_path / "a.csv"))


def test_a_process_without_stdin_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some supervisors start processes without a stdin at all."""
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(SourceError, match="stdin: is closed"):
        read(STDIN)


# ---- counting, and files that change --------------------------------------------------------------------------------


async def test_counting_counts_what_reading_gives(write: Write) -> None:
    """The count has malformed records too, no blank lines, and the stamp that reading accepts."""
    source = write("a.csv", "a,b\n1,2\n\n3\n" + "5,6\n" * 2000)
    counted = await count(source, options())
    assert counted.records == 2002
    with Reader(source, options(), counted=counted) as reader:
        assert sum(map(len, reader)) == 2002


CUT = "the last line has no line end, so the input may be cut off inside it; this line was left out"


@pytest.mark.parametrize(
    ("text", "line", "whole"),
    [
        ("a,b\n1,2\n3,UO12", 3, ["1"]),
        ('a,b\n1,2\n3,"x\ny"', 3, ["1"]),
        ("a,b\n1,2\n3", 3, ["1"]),
        ("a,b\n1,2\n,", 3, ["1"]),
        ("a\tb\n1\t2\n\t", 3, ["1"]),
        ('a,b\n1,2\n3,"x"y', 3, ["1"]),
        ("a,b\n" + "1,2\n" * 511 + "3,4", 513, ["1"] * 511),
        ("a,b\n" + "1,2\n" * 512 + "3,4", 514, ["1"] * 512),
        ("a,b\n3,4", 2, []),
        ("a,b", 1, None),
        ('{"a": "1"}\n{"a": "2"}', 2, ["1"]),
        ('{"a": "1"}\n{"a": "2', 2, ["1"]),
        ('{"a": "1"}\n12', 2, ["1"]),
        ('{"a": "1"}\n\n12', 3, ["1"]),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16-le"])
def test_a_pipe_that_ends_inside_a_line_is_never_taken_for_whole(
    text: str, line: int, whole: list[str] | None, encoding: str
) -> None:
    """Its writer may have died; what stands there may be half a value. All whole records come first."""
    found: list[str] = []

    def read_all() -> None:
        with Reader(STDIN, options(encoding=encoding), stdin=io.BytesIO(text.encode(encoding))) as reader:
            found.append("opened")
            for batch in reader:
                found.extend(str((record.values or {})["a"]) for record in batch)

    with pytest.raises(SourceError, match=rf"^stdin: line {line}: {CUT}\. Run again with the whole input"):
        read_all()
    assert found == ([] if whole is None else ["opened", *whole])


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\n\n", "\n  "])
def test_a_pipe_that_ends_with_a_line_end_is_whole(end: str) -> None:
    """Whichever of the three it is, and blank lines after it are none."""
    assert [brief(record) for record in read_text(f"a,b\n1,2{end}")[1]] == [(2, ["1", "2"])]


@pytest.mark.parametrize("text", ["a,b\n1,2", '{"a": "1", "b": "2"}'])
def test_a_file_needs_no_last_line_end(write: Write, text: str) -> None:
    """Not even one that is redirected to stdin: nothing is cut off on the way from the disk."""
    source = write("a", text)
    values = [["1", "2"]]
    assert [brief(record)[1] for record in read(source)] == values
    assert source.path is not None
    with source.path.open("rb") as redirected, Reader(STDIN, options(), stdin=redirected) as reader:
        assert [brief(record)[1] for batch in reader for record in batch] == values


async def test_stdin_is_not_counted() -> None:
    """What can be read only once is not read for counting."""
    with pytest.raises(ValueError, match="read only once"):
        await count(STDIN, options())


def _touched(path: Path) -> None:
    os.utime(path, ns=(0, 0))


def _grown(path: Path) -> None:
    with path.open("a") as file:
        file.write("8,9\n")


def _replaced(path: Path) -> None:
    status = path.stat()
    other = path.with_suffix(".new")
    other.write_bytes(path.read_bytes())
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.rename(path)


def _mended(path: Path) -> None:
    path.with_suffix(".new").write_bytes(b"a\nx\n")
    path.with_suffix(".new").rename(path)


@pytest.mark.parametrize("change", [_touched, _grown, _replaced])
async def test_a_file_changed_since_it_was_counted_is_refused(write: Write, change: Callable[[Path], None]) -> None:
    """Another time, size or inode than when it was counted: nothing of it is read."""
    source = write("a.csv", "a,b\n1,2\n")
    counted = await count(source, options())
    assert source.path
    change(source.path)
    with pytest.raises(SourceError, match=r"a\.csv: changed since it was counted; run again when"):
        Reader(source, options(), counted=counted).open()


@pytest.mark.parametrize("records", [3, BATCH_RECORDS, 3000])
@pytest.mark.parametrize("change", [_touched, _grown])
def test_a_file_that_changes_while_it_is_read_is_refused(
    write: Write, change: Callable[[Path], None], records: int
) -> None:
    """The last record, perhaps half written, is not given before the file is known to have stayed the same."""
    source = write("a.csv", "a,b\n" + "\n".join(["1,2"] * records))
    assert source.path
    given: list[Record] = []
    with Reader(source, options()) as reader:
        change(source.path)
        with pytest.raises(SourceError, match=r"a\.csv: changed while it was read; run again when it is complete"):
            given.extend(record for batch in reader for record in batch)
    assert given == []


def test_a_file_cut_short_by_a_change_is_not_called_damaged(write: Write) -> None:
    """An open quote at the end of a file that is still being written is no error of the file."""
    source = write("a.csv", 'a,b\n1,"2')
    assert source.path
    with Reader(source, options()) as reader:
        _touched(source.path)
        with pytest.raises(SourceError, match="changed while it was read"):
            list(reader)


@pytest.mark.parametrize("change", [_mended, Path.unlink])
def test_a_bad_byte_that_is_gone_when_looked_for_is_a_change(write: Write, change: Callable[[Path], Any]) -> None:
    """When the second look finds all well, or nothing at all, the file is not what it was."""
    path = write("a.csv", b"a\n" + b"x\n" * 9000 + b"\xe9\n").path
    assert path
    opened = path.open("rb")
    change(path)
    with (
        mock.patch.object(Reader, "_open_bytes", return_value=opened),
        Reader(Input("a.csv", path), options()) as reader,
        pytest.raises(SourceError, match=r"a\.csv: changed while it was read"),
    ):
        list(reader)


# ---- off the event loop ---------------------------------------------------------------------------------------------


async def test_batches_are_made_in_another_thread(write: Write) -> None:
    """Reading and the caller's work on a batch happen off the event loop, and the file is closed at the end."""
    source = write("a.csv", "a\n" + "x\n" * 1200)
    threads: set[int] = set()

    def measure(batch: list[Record]) -> int:
        threads.add(threading.get_ident())
        return len(batch)

    async with open_reader(source, options()) as reader:
        assert reader.columns == ("a",)
        assert [size async for size in batches(reader, measure)] == [512, 512, 176]
    assert threading.get_ident() not in threads
    assert reader._text
    assert reader._text.closed


async def test_a_batch_may_become_nothing(write: Write) -> None:
    """What the caller makes of a batch is its own business: an empty result does not end the reading."""
    async with open_reader(write("a.csv", "a\n" + "x\n" * 1200), options()) as reader:
        assert [made async for made in batches(reader, lambda _: None)] == [None, None, None]


@pytest.mark.parametrize("name", ["a.csv", "-"])
async def test_an_error_of_the_callers_work_comes_out_and_the_input_is_closed(write: Write, name: str) -> None:
    """When the caller's function fails, its error is what is seen, and nothing stays open."""
    source = STDIN if name == "-" else write(name, "a\nx\n")
    async with open_reader(source, options(), stdin=io.BytesIO(b"a\nx\n")) as reader:
        with pytest.raises(ZeroDivisionError):
            await anext(aiter(batches(reader, lambda batch: len(batch) // 0)))
    assert reader._text
    assert reader._text.closed


async def test_leaving_early_closes_the_file(write: Write) -> None:
    """Whoever stops reading in the middle leaves no open file behind, and gets no more records."""
    async with open_reader(write("a.csv", "a\n" + "x\n" * 1200), options()) as reader:
        async for _ in batches(reader, len):
            break
    assert reader._text
    assert reader._text.closed
    assert reader.pull() is None


def test_a_reader_that_cannot_be_opened_is_closed(write: Write) -> None:
    """A refused header leaves no open file behind."""
    reader = Reader(write("a.csv", "a,a\n"), options())
    with pytest.raises(SourceError):
        reader.open()
    assert reader._text
    assert reader._text.closed


@pytest.fixture
def silent_pipe() -> Iterator[tuple[BinaryIO, int]]:
    """Give a stdin to read and the descriptor to write to it; its writer never closes it by itself."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as stdin:
        yield stdin, writing
        os.close(writing)


def _is_over(reader: Reader) -> bool:
    """Wait for a thread that may still be reading, and tell whether it has closed everything."""
    with reader._at_work:
        pass
    reader.close()
    return reader._text is not None and reader._text.closed


async def test_cancelling_does_not_wait_for_stdin(silent_pipe: tuple[BinaryIO, int]) -> None:
    """A read of stdin that waits for bytes is given up at once, and its thread ends."""
    stdin, writing = silent_pipe
    os.write(writing, b"a\n" + b"1\n" * BATCH_RECORDS + b"half")
    seen: list[int] = []
    async with open_reader(STDIN, options(), stdin=stdin) as reader, anyio.create_task_group() as group:
        first = anyio.Event()

        async def follow() -> None:
            async for size in batches(reader, len):
                seen.append(size)
                first.set()

        group.start_soon(follow)
        await first.wait()
        group.cancel_scope.cancel()
    assert await anyio.to_thread.run_sync(_is_over, reader)
    assert seen == [BATCH_RECORDS]
    assert not stdin.closed


async def test_opening_a_silent_stdin_can_be_cancelled(
    silent_pipe: tuple[BinaryIO, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Waiting for the first line of stdin ends with the task that waits."""
    stdin, _ = silent_pipe
    begun, ended = anyio.Event(), threading.Event()
    opened: list[Reader] = []
    open_ = Reader.open

    def opening(reader: Reader) -> None:
        opened.append(reader)
        anyio.from_thread.run_sync(begun.set)
        try:
            open_(reader)
        finally:
            ended.set()

    monkeypatch.setattr(Reader, "open", opening)

    async def follow() -> None:
        async with open_reader(STDIN, options(), stdin=stdin):
            pytest.fail("nothing was written to stdin")

    async with anyio.create_task_group() as group:
        group.start_soon(follow)
        await begun.wait()
        group.cancel_scope.cancel()
    await anyio.to_thread.run_sync(ended.wait)
    assert _is_over(opened[0])
    assert opened[0].pull() is None


def test_a_process_ends_although_its_stdin_is_silent() -> None:
    """A blocked read of stdin never keeps the process from ending."""
    program = (
        "import anyio\n"
        "from worker.config import Source\n"
        "from worker.source import batches, find_inputs, open_reader\n"
        "async def main():\n"
        "    with anyio.move_on_after(0.2):\n"
        "        async with open_reader(find_inputs(['-'])[0], Source()) as reader:\n"
        "            async for size in batches(reader, len): print(size)\n"
        "anyio.run(main)\n"
        "print('over')\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write(b"a\n1\n")
        process.stdin.flush()
        assert process.wait(timeout=30) == 0
        assert process.stdout.read() == b"over\n"


async def test_stdin_is_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process's own stdin gives all that is written to it, and has no stamp."""
    reading, writing = os.pipe()
    os.write(writing, b"a\n1\n2\n")
    os.close(writing)
    with os.fdopen(reading, "rb") as stdin:
        monkeypatch.setattr(sys, "stdin", mock.Mock(buffer=stdin))
        async with open_reader(STDIN, options()) as reader:
            assert [made async for made in batches(reader, lambda batch: [r.line for r in batch])] == [[2, 3]]
        assert not stdin.closed
    assert reader.stamp is None


# ---- any table, any text --------------------------------------------------------------------------------------------

CELL = st.text(
    st.sampled_from("ab \",;\t|'é\n\r") | st.characters(exclude_categories=["Cs"], exclude_characters="\0\ufeff\ufffe"),
    max_size=8,
)
NAMES = st.lists(CELL.map(str.strip).filter(bool), min_size=1, max_size=4, unique=True)


@st.composite
def written_tables(draw: st.DrawFn) -> tuple[str, str, tuple[str, ...], list[tuple[int, str, list[str]]]]:
    """Make a delimiter, a header as written, its columns, and rows with the line and the text they were written as."""
    end = draw(st.sampled_from(["\n", "\r\n", "\r"]))
    quoting: Literal[0, 1, 2] = draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]))
    delimiter = draw(st.sampled_from(",;\t|:"))

    def fit(cell: str) -> str:
        # With minimal quoting Python's writer leaves a line end of another kind than its own unquoted.
        return cell if quoting != csv.QUOTE_MINIMAL else cell.replace("\r", "\n").replace("\n", end)

    def line_of(cells: list[str]) -> str:
        buffer = io.StringIO(newline="")
        csv.writer(buffer, delimiter=delimiter, quoting=quoting, lineterminator=end).writerow(cells)
        return buffer.getvalue()

    names = draw(
        NAMES.map(lambda cells: [fit(cell) for cell in cells]).filter(lambda cells: len(set(cells)) == len(cells))
    )
    rows = draw(st.lists(st.lists(CELL.map(fit), min_size=len(names), max_size=len(names)).filter(any), max_size=6))
    header = line_of(names)
    line = 1 + _physical_lines(header)
    written = []
    for row in rows:
        text = line_of(row)
        written.append((line, text, row))
        line += _physical_lines(text)
    return delimiter, header, tuple(names), written


def _physical_lines(text: str) -> int:
    return len(io.StringIO(text, newline="").readlines())


@settings(deadline=None)
@given(written_tables())
def test_any_written_table_reads_back_the_same(
    table: tuple[str, str, tuple[str, ...], list[tuple[int, str, list[str]]]],
) -> None:
    """Whatever csv.writer writes comes back with its values, lines and texts, and the texts are the file."""
    delimiter, header, columns, rows = table
    reader, records = read_text(
        header + "".join(text for _, text, _ in rows), delimiter=delimiter, format="csv", allow_empty=True
    )
    assert (reader.header, reader.columns) == (header, columns)
    assert [(r.line, r.text, r.values) for r in records] == [
        (line, text, dict(zip(columns, row, strict=True))) for line, text, row in rows
    ]


ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32", "cp1252", "shift_jis", "gb18030", "iso2022_jp")


def _holds(encoding: str, text: str) -> bool:
    try:
        return text.encode(encoding).decode(encoding) == text
    except UnicodeError:
        return False


@settings(deadline=None)
@given(written_tables(), st.data(), st.sampled_from(["", *FORMATS]))
def test_any_written_table_reads_back_in_any_encoding_and_compression(
    table: tuple[str, str, tuple[str, ...], list[tuple[int, str, list[str]]]], data: st.DataObject, pack: str
) -> None:
    """In each encoding that can hold it, plain or compressed, it is the same table with the same lines."""
    delimiter, header, columns, rows = table
    text = header + "".join(text for _, text, _ in rows)
    encoding = data.draw(st.sampled_from([one for one in ENCODINGS if _holds(one, text)]))
    content = compress(pack, text.encode(encoding)) if pack else text.encode(encoding)
    given_ = options(delimiter=delimiter, format="csv", allow_empty=True, encoding=encoding)
    with Reader(STDIN, given_, stdin=io.BytesIO(content)) as reader:
        records = [record for batch in reader for record in batch]
    assert (reader.compression or "", reader.header, reader.columns) == (pack, header, columns)
    assert [(r.line, r.text, list((r.values or {}).values())) for r in records] == rows


@settings(deadline=None)
@given(written_tables(), st.sampled_from(['"x"y', '"6" pipe"', "\0", '"a" ']), st.integers(0, 6))
def test_a_malformed_line_anywhere_shifts_nothing(
    table: tuple[str, str, tuple[str, ...], list[tuple[int, str, list[str]]]], bad: str, position: int
) -> None:
    """A bad line put between any two records is one malformed record; the others only move down by a line."""
    delimiter, header, _, rows = table
    texts = [text for _, text, _ in rows]
    texts.insert(position, bad + "\n")
    _, records = read_text(header + "".join(texts), delimiter=delimiter, format="csv")
    place = min(position, len(rows))
    assert [r.text for r in records] == texts
    assert [r.problem is None for r in records] == [index != place for index in range(len(texts))]
    others = records[:place] + records[place + 1 :]
    assert [r.line - (index >= place) for index, r in enumerate(others)] == [line for line, _, _ in rows]


@settings(deadline=None)
@given(st.text(st.sampled_from('ab,"\n\r \0'), max_size=60))
def test_any_text_is_read_whole_or_refused(text: str) -> None:
    """Every physical line belongs to the header, to one record, or is blank; or the file is refused as a whole."""
    try:
        reader, records = read_text(text, format="csv", delimiter=",", allow_empty=True)
    except SourceError:
        return
    lines = io.StringIO(text, newline="").readlines()
    starts = {record.line: record.text for record in records}
    assert len(starts) == len(records)
    number, header_left = 1, bool(reader.header)
    while number <= len(lines):
        rest = "".join(lines[number - 1 :])
        found = starts.pop(number, "")
        if header_left and not found and lines[number - 1].strip(" \r\n"):
            found, header_left = reader.header, False
        assert rest.startswith(found)
        assert found or not lines[number - 1].strip(' \r\n,"')
        number += _physical_lines(found) or 1
    assert not starts


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | CELL,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(CELL, inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(
    st.lists(st.dictionaries(CELL, JSON, max_size=3) | st.sampled_from(["x{", "[]", "{,}"]), min_size=1, max_size=6),
    st.booleans(),
    st.sampled_from(["\n", "\r\n", "\n\n"]),
)
def test_any_object_reads_back_the_same(values: list[Any], ascii_only: bool, end: str) -> None:
    """Objects come back as they were written, whatever stands in the lines between them."""
    texts = [v if isinstance(v, str) else json.dumps(v, ensure_ascii=ascii_only) for v in values]
    _, records = read_text("".join(text + end for text in texts), format="ndjson")
    assert [r.values for r in records] == [None if isinstance(v, str) else v for v in values]
    assert [r.line for r in records] == [1 + index * end.count("\n") for index in range(len(values))]
    assert [r.text for r in records] == [text + end[: end.index("\n") + 1] for text in texts]


def test_a_key_that_stands_twice_is_found_in_linear_time() -> None:
    """Names are compared with those before them once, whatever their number."""
    compared: Counter[str] = Counter()

    class Name(str):
        __slots__ = ()

        def __eq__(self, other: object) -> bool:
            compared["names"] += 1
            return str.__eq__(self, other)

        __hash__ = str.__hash__

    names = [Name(number) for number in range(20_000)]
    with pytest.raises(ValueError, match='has the key "19999" twice'):
        decoder._unique([(name, 0) for name in (*names, Name(19_999))])
    assert compared["names"] < 10 * len(names)
