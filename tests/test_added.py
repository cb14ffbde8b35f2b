"""Columns that are added to records: the rest of a record stays as it was."""

import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.added import AddedColumns
from worker.ledger import SourceFile

NAMES = ("flex_ref", "flex_reason")


def csv_source(header: str, delimiter: str = ",", encoding: str = "utf-8") -> SourceFile:
    """Return an input in CSV."""
    return SourceFile("/data/a.csv", "csv", encoding, delimiter, header)


@pytest.mark.parametrize(
    ("header", "delimiter", "record", "widened"),
    [
        ("a,b\n", ",", "1,2\n", "1,2,k,no\n"),
        ("a,b\r\n", ",", "1,2\r\n", "1,2,k,no\r\n"),
        ("a;b\n", ";", '"1;1";2', '"1;1";2;k;no'),
        ("a,b\n", ",", "1\n", "1,,k,no\n"),
        ("a,b\n", ",", "1,2,3\n", "1,2,3,k,no\n"),
        ("a,b\n", ",", '"1\n1",2\n', '"1\n1",2,k,no\n'),
        ("a,b\n", ",", '1,"2"x"\n', '1,"2"x",k,no\n'),
        ("a,b,,\n", ",", "1,2,,\n", "1,2,k,no\n"),
        ("a,flex_ref,b,flex_reason\n", ",", "1,old,2,old\n", "1,k,2,no\n"),
        ("a,flex_ref\n", ",", "1\n", "1,k,no\n"),
    ],
)
def test_a_record_of_csv_gets_two_fields_at_its_end(header: str, delimiter: str, record: str, widened: str) -> None:
    """In its own dialect; missing fields are filled up, and what was added before is replaced."""
    assert AddedColumns(csv_source(header, delimiter), NAMES).record(record, ("k", "no")) == widened


@pytest.mark.parametrize(
    ("header", "widened"),
    [("a,b\r\n", "a,b,flex_ref,flex_reason\r\n"), ("a,b,\n", "a,b,flex_ref,flex_reason\n"),
     ("a,flex_ref\n", "a,flex_ref,flex_reason\n"), ("a,flex_reason,flex_ref\n", "a,flex_reason,flex_ref\n")],
)  # fmt: skip
def test_a_header_gets_the_names_that_it_lacks(header: str, widened: str) -> None:
    """In the order in which they are asked for."""
    added = AddedColumns(csv_source(header), NAMES)
    known = widened == header
    assert (added.header == header) if known else added.header == widened


@pytest.mark.parametrize(
    ("record", "widened"),
    [
        ('{"a": 1}\n', '{"a": 1, "flex_ref": "k", "flex_reason": "no"}\n'),
        ('{ "a": 1 }', '{ "a": 1, "flex_ref": "k", "flex_reason": "no"}'),
        ("{}\r\n", '{"flex_ref": "k", "flex_reason": "no"}\r\n'),
        ('{"flex_ref": "old", "é": 1}\n', '{"flex_ref": "k", "é": 1, "flex_reason": "no"}\n'),
        ("[1]\n", "[1]\n"),
        ("no json\n", "no json\n"),
    ],
)
def test_a_record_of_ndjson_gets_two_keys(record: str, widened: str) -> None:
    """What is not an object gets none."""
    source = SourceFile("/data/a.ndjson", "ndjson", "utf-8", "", "")
    assert AddedColumns(source, NAMES).record(record, ("k", "no")) == widened


def test_what_is_added_stays_on_its_line_and_in_the_encoding() -> None:
    """Reasons come from the service, in any language."""
    added = AddedColumns(csv_source("a\n", encoding="cp1252"), NAMES)
    assert added.record("1\n", ("k", 'a "b",\nЖ é')) == '1,k,"a ""b"", ? é"\n'


@given(
    cells=st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0")), min_size=2, max_size=2),
    values=st.tuples(st.text(), st.text()),
)
def test_any_record_reads_as_before_with_two_more_fields(cells: list[str], values: tuple[str, str]) -> None:
    """In CSV and in NDJSON."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow(cells)
    added = AddedColumns(csv_source("a,b\n"), NAMES)
    fitting = [added._fitting(value) for value in values]
    widened = added.record(out.getvalue(), values)
    assert next(csv.reader(io.StringIO(widened, newline=""))) == [*cells, *fitting]
    record = {"a": cells[0], "b": cells[1]}
    source = SourceFile("/data/a.ndjson", "ndjson", "utf-8", "", "")
    line = AddedColumns(source, NAMES).record(json.dumps(record) + "\n", values)
    assert json.loads(line) == record | dict(zip(NAMES, fitting, strict=True))
