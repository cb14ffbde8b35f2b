"""`export --rejects`: the original records of what went wrong, ready to be repaired and read again."""

import csv
import io
import json
import os
import tempfile
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import reject as reject_example
from hypothesis import strategies as st

from tests.commands import CREDENTIALS, HOLDING, Ended, finish, flex_import, start
from tests.ledger_contract import OUTCOMES, Desk, at_work, bring_to
from tests.samples_of import row, sid
from tests.test_command import HEADER, csv_of, states
from tests.test_ledger_sqlite import SqlitePlace
from tests.test_source import CELL, ENCODINGS, options, written_tables
from worker.cli.repairing import find_rows
from worker.config import FieldMapping
from worker.emulator import Answer, Condition, Emulator, serve
from worker.errors import ConfigError, LedgerError, SourceError
from worker.ledger import Finding, SourceFile
from worker.ledger.view import Reject, View
from worker.model import Misfit, Record, State
from worker.payload import Mapper, ready
from worker.rejects import REASONS, Written, write_rejects
from worker.source import Input, Reader

CSV = SourceFile("/data/a.csv", "csv", "utf-8-sig", ",", "a,b\n")
NDJSON = SourceFile("/data/a.ndjson", "ndjson", "utf-8-sig", "", "")


@pytest.fixture
def place(tmp_path: Path) -> SqlitePlace:
    """Return a folder with no ledger yet."""
    return SqlitePlace(tmp_path / "imports.db")


def export(place: SqlitePlace, folder: str = "fix", run: int | None = None) -> list[Written]:
    """Write the rejects of a ledger into a folder beside it."""
    with View(place.path) as view, closing(view.rejects(run)) as rejects:
        return write_rejects(place.path.parent / folder, rejects, view.source)


def reject(place: SqlitePlace, source: SourceFile, *records: tuple[int, str | None]) -> None:
    """Let a run reject these records, each with its line, of one input."""
    with at_work(place) as desk:
        number = desk.ledger.register(source)
        desk.ledger.write([found(number, line, text) for line, text in records])


def found(source: int, line: int, text: str | None) -> Finding:
    """Return a local rejection."""
    return Finding("rejected", source, line, None, "malformed", "has 1 field, the header has 2", text)


def files(folder: Path) -> dict[str, bytes]:
    """Return name → content of the files in a folder, without those of reasons."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if not path.name.endswith(".reasons.csv")}


def names_in(folder: Path) -> list[str]:
    """Return the names of all that is in a folder, temporary files too."""
    return sorted(path.name for path in folder.iterdir())


def reasons(path: Path) -> list[dict[str, str]]:
    """Return the lines of a file of reasons."""
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


# ---- which rows -----------------------------------------------------------------------------------------------------


def test_what_is_rejected_parked_or_failed_is_written_in_the_order_of_lines(place: SqlitePlace) -> None:
    """Rows and what was rejected before it became one stand together; what is done, in doubt or waived does not."""
    with at_work(place) as desk:
        for number, state in enumerate(State):
            bring_to(desk, place, desk.row(number), state)
        desk.ledger.write([found(desk.source, 4, "x\n"), found(desk.source, 90, "y\n")])
        desk.ledger.write([Finding("duplicate", desk.source, 91, "k", "duplicate", "again", None, "the first one")])
        desk.ledger.write([Finding("changed", desk.source, 92, "k", "changed", "other content", "z\n")])
        desk.ledger.write(
            [Finding("rejected", desk.source, 3, "k", "key_conflict", "this key", "w\n", "it is a.csv:2")]
        )
        wanted = {state: desk.row(number) for number, state in enumerate(State)}
    [one] = export(place)
    expected = [
        (3, "k", "rejected", "key_conflict", "this key: it is a.csv:2", "w\n"),
        (4, "", "rejected", "malformed", "has 1 field, the header has 2", "x\n"),
        *(
            (wanted[state].line, wanted[state].key, state.value, outcome.code, outcome.reason, wanted[state].text)
            for state, outcome in (
                (State.REJECTED, OUTCOMES[2]),
                (State.PARKED, OUTCOMES[3]),
                (State.FAILED, OUTCOMES[4]),
            )
            if not hasattr(outcome, "sid")
        ),
        (90, "", "rejected", "malformed", "has 1 field, the header has 2", "y\n"),
    ]
    expected.sort(key=lambda item: item[0])
    assert (one.records, one.failed, one.missing) == (6, 1, 0)
    assert one.path
    assert one.path.read_bytes() == b"\xef\xbb\xbfa,b\n" + "".join(item[-1] for item in expected).encode()
    assert [tuple(line.values()) for line in reasons(one.reasons)] == [
        (str(number), str(line), *rest) for number, (line, *rest, _) in enumerate(expected, 1)
    ]
    assert tuple(reasons(one.reasons)[0]) == REASONS == ("record", "line", "key", "state", "code", "reason")


def test_what_a_later_reading_replaced_is_not_written_again(place: SqlitePlace) -> None:
    """Only rejections that still stand need a repair, also of one run."""
    with at_work(place) as desk:
        desk.ledger.write([found(desk.source, 2, "old\n"), found(desk.source, 5, "kept\n")])
        desk.bring(desk.row(10), OUTCOMES[4])
    with at_work(place) as desk:
        desk.ledger.write([found(desk.source, 2, "new\n")])
        desk.ledger.supersede(desk.source, 2)
    export(place)
    assert files(place.path.parent / "fix") == {"a.csv": b"\xef\xbb\xbfa,b\nnew\nkept\nrecord 10\n"}
    export(place, "first", run=1)
    assert files(place.path.parent / "first") == {"a.csv": b"\xef\xbb\xbfa,b\nkept\nrecord 10\n"}
    export(place, "second", run=2)
    assert files(place.path.parent / "second") == {"a.csv": b"\xef\xbb\xbfa,b\nnew\n"}
    assert export(place, "third", run=3) == []


def test_a_row_whose_record_is_gone_is_counted_and_keeps_its_reason(place: SqlitePlace) -> None:
    """Pruned records cannot be written, but nobody is to believe that there are none."""
    with at_work(place) as desk:
        for number in range(6):
            desk.bring(desk.row(number), OUTCOMES[2])
            if number != 3:
                place.forget(desk.row(number).key)
        desk.ledger.write([found(desk.source, 2, None)])
    [one] = export(place)
    assert (one.records, one.missing, one.missing_lines) == (1, 6, (2, 2, 3))
    assert one.path
    assert one.path.read_bytes().endswith(b"a,b\nrecord 3\n")
    assert [(line["record"], line["line"]) for line in reasons(one.reasons)] == [
        *(("", line) for line in "2234"),
        ("1", "5"),
        ("", "6"),
        ("", "7"),
    ]


def test_an_input_without_any_record_left_has_reasons_only(place: SqlitePlace) -> None:
    """A file with nothing but a header would be refused when it is read."""
    reject(place, CSV, (3, None))
    [one] = export(place)
    assert (one.path, one.reasons.name) == (None, "a.reasons.csv")
    assert names_in(place.path.parent / "fix") == ["a.reasons.csv"]


def test_nothing_to_repair_makes_nothing(place: SqlitePlace) -> None:
    """No empty files, no folder."""
    with at_work(place) as desk:
        desk.bring(desk.row(1), OUTCOMES[0])
    assert export(place) == []
    assert not (place.path.parent / "fix").exists()


# ---- names ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sources", "names"),
    [
        ([("/x/a.csv", "csv")], ["a.csv"]),
        ([("/x/a.csv", "csv"), ("/y/a.csv", "csv"), ("/z/A.CSV", "csv")], ["A-3.CSV", "a-2.csv", "a.csv"]),
        ([("/x/a.csv", "csv"), ("/x/a.tsv", "csv"), ("/x/a.ndjson", "ndjson")], ["a-2.tsv", "a-3.ndjson", "a.csv"]),
        ([("/x/a-2.csv", "csv"), ("/x/a.csv", "csv"), ("/y/a.csv", "csv")], ["a-2.csv", "a-3.csv", "a.csv"]),
        ([("-", "csv"), ("-", "ndjson"), ("/x/stdin.csv", "csv")], ["stdin-2.ndjson", "stdin-3.csv", "stdin.csv"]),
        ([("/x/a.csv.gz", "csv"), ("/x/b.ndjson.ZST", "ndjson")], ["a.csv", "b.ndjson"]),
        ([("/x/a.gz", "csv"), ("/x/b.xz", "ndjson")], ["a.csv", "b.ndjson"]),
        ([("/x/a.dat", "csv"), ("/x/b.2026", "ndjson"), ("/x/c", "csv")], ["a.dat.csv", "b.2026.ndjson", "c.csv"]),
        ([("/x/a.json", "csv"), ("/x/b.txt", "ndjson")], ["a.json.csv", "b.txt.ndjson"]),
        ([("/x/.a.csv", "csv"), ("/x/...", "csv")], ["a.csv", "rejects.csv"]),
        ([("/x/a b's.csv", "csv"), ("/x/caf\\xe9.csv", "csv")], ["a b's.csv", "caf\\xe9.csv"]),
        ([("/x/" + "é" * 120 + ".csv", "csv")], ["é" * 100 + ".csv"]),
    ],
)
def test_a_file_is_called_as_its_input_was(
    place: SqlitePlace, sources: list[tuple[str, str]], names: list[str]
) -> None:
    """By its own name, with a number where two would be one, and a suffix that tells the format; each is kept whole."""
    for number, (path, form) in enumerate(sources):
        reject(place, (CSV if form == "csv" else NDJSON)._replace(path=path), (2, f"{number}\n"))
    written = export(place)
    folder = place.path.parent / "fix"
    assert sorted(files(folder)) == sorted(names)
    for number, one in enumerate(written):
        assert one.path
        assert one.path.read_text("utf-8-sig").splitlines()[-1] == str(number)
        assert one.reasons.name == f"{one.path.stem}.reasons.csv"
        assert len(reasons(one.reasons)) == 1
    assert len(names_in(folder)) == 2 * len(sources)


def test_one_path_with_another_header_or_dialect_is_another_file(place: SqlitePlace) -> None:
    """A file that came anew under its old name keeps its records apart from the old ones."""
    reject(place, CSV, (2, "1\n"))
    reject(place, CSV._replace(header="b;a\r\n", delimiter=";"), (2, "2\r\n"))
    reject(place, CSV._replace(encoding="cp1252"), (2, "é\n"))
    export(place)
    assert files(place.path.parent / "fix") == {
        "a.csv": b"\xef\xbb\xbfa,b\n1\n",
        "a-2.csv": b"\xef\xbb\xbfb;a\r\n2\r\n",
        "a-3.csv": b"a,b\n\xe9\n",
    }


# ---- bytes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "records", "content"),
    [
        (CSV, [(9, "1"), (9, "2")], "a,b\n1\n2"),
        (CSV, [(9, "1")], "a,b\n1"),
        (CSV._replace(header="a,b\r\n"), [(9, "1"), (10, "2\n"), (11, "3")], "a,b\r\n1\r\n2\n3"),
        (CSV._replace(header="a,b\r"), [(9, "1"), (10, "2\r"), (11, "3\r")], "a,b\r1\r2\r3\r"),
        (CSV._replace(header="a,b"), [(9, "1\r\n")], "a,b\r\n1\r\n"),
        (CSV._replace(header="a,b"), [(9, "1")], "a,b\n1"),
        (CSV._replace(header=""), [(9, "1"), (10, "2")], "1\n2"),
        (CSV, [(2, '"x\r\ny",\0\n')], 'a,b\n"x\r\ny",\0\n'),
        (NDJSON, [(1, "{}\r\n"), (9, "[]"), (10, "[1]")], "{}\r\n[]\r\n[1]"),
        (NDJSON, [(9, "[]\r"), (10, "\r{}\n"), (11, "{}")], "[]\r\n\r{}\n{}"),
    ],
)
def test_a_line_end_is_added_only_between_records_and_in_the_files_own_style(
    place: SqlitePlace, source: SourceFile, records: list[tuple[int, str]], content: str
) -> None:
    """What was last in its file, and no longer is, must not run into the next one; all else is as it was."""
    reject(place, source._replace(encoding="utf-8"), *records)
    export(place)
    assert list(files(place.path.parent / "fix").values()) == [content.encode()]


@pytest.mark.parametrize(
    ("source", "content"),
    [
        (CSV, b"\xef\xbb\xbfa,b\n\xc3\xa9\n\xc3\xa9\n"),
        (CSV._replace(encoding="UTF8"), b"a,b\n\xc3\xa9\n\xc3\xa9\n"),
        (CSV._replace(encoding="utf-16"), "a,b\né\né\n".encode("utf-16")),
        (CSV._replace(encoding="utf-16-be"), "a,b\né\né\n".encode("utf-16-be")),
        (CSV._replace(encoding="cp1252"), b"a,b\n\xe9\n\xe9\n"),
        (NDJSON, b"\xc3\xa9\n\xc3\xa9\n"),
        (NDJSON._replace(encoding="utf_8_sig"), b"\xc3\xa9\n\xc3\xa9\n"),
    ],
)
def test_a_byte_order_mark_stands_once_and_at_the_start(place: SqlitePlace, source: SourceFile, content: bytes) -> None:
    """As the encoding has it; JSON has none."""
    reject(place, source, (2, "é\n"), (3, "é\n"))
    export(place)
    assert list(files(place.path.parent / "fix").values()) == [content]


def test_an_encoding_that_shifts_is_shifted_back_at_the_end(place: SqlitePlace) -> None:
    """A last record without a line end must not leave the file in the middle of Japanese."""
    reject(place, CSV._replace(encoding="iso2022_jp"), (2, "\u3042\n"), (3, "\u3044"))
    export(place)
    content = "a,b\n\u3042\n\u3044".encode("iso2022_jp")
    assert files(place.path.parent / "fix") == {"a.csv": content}
    assert content.endswith(b"\x1b(B")


@pytest.mark.parametrize("encoding", ["ascii", "no-such-encoding"])
def test_records_that_do_not_fit_in_their_encoding_leave_nothing_behind(place: SqlitePlace, encoding: str) -> None:
    """It cannot be; if it is, the input is named and no half of an export is there."""
    reject(place, CSV, (2, "1\n"))
    reject(place, CSV._replace(encoding=encoding, path="/data/b.csv"), (2, "é\n"))
    with pytest.raises(LedgerError, match=rf"/data/b\.csv: its records cannot be written as {encoding}"):
        export(place)
    assert names_in(place.path.parent / "fix") == []


def read(path: Path, delimiter: str, encoding: str) -> tuple[Reader, list[Record]]:
    """Read a file as a CSV to its end."""
    given = options(delimiter=delimiter, encoding=encoding, allow_empty=True)
    with Reader(Input(path.name, path), given) as reader:
        return reader, [record for batch in reader for record in batch]


def settle(desk: Desk, number: int, records: Iterable[tuple[Record, int]]) -> None:
    """Bring records to their outcomes; the last one means: rejected before they were rows."""
    for index, (record, fate) in enumerate(records):
        if fate == len(OUTCOMES):
            desk.ledger.write([found(number, record.line, record.text)])
        else:
            wanted = row(index)._replace(source=number, line=record.line, text=record.text)
            desk.bring(wanted, OUTCOMES[fate])


@settings(deadline=None, max_examples=60)
@given(
    written_tables(),
    st.sampled_from(ENCODINGS),
    st.booleans(),
    st.lists(st.sampled_from([0, 2, 3, 4, 5, 6]), min_size=6, max_size=6),
    st.randoms(use_true_random=False),
)
def test_any_table_comes_back_as_it_was(
    table: tuple[str, str, tuple[str, ...], list[tuple[int, str, list[str]]]],
    encoding: str,
    cut: bool,
    fates: list[int],
    order: Random,
) -> None:
    """Whatever a file holds: its rejects read back as the same records, and all of them together are its bytes."""
    delimiter, header, _, rows = table
    text = header + "".join(one for _, one, _ in rows)
    text = text.encode(encoding, "replace").decode(encoding)
    if cut and rows:
        text = text.rstrip("\r\n")
    with tempfile.TemporaryDirectory() as name:
        original, place = Path(name) / "a.csv", SqlitePlace(Path(name) / "imports.db")
        original.write_bytes(text.encode(encoding))
        try:
            reader, records = read(original, delimiter, encoding)
        except SourceError:
            reject_example()
        fated = list(zip(records, fates, strict=False))
        order.shuffle(fated)
        with at_work(place) as desk:
            source = SourceFile(str(original), reader.format, reader.encoding, reader.delimiter, reader.header)
            settle(desk, desk.ledger.register(source), fated)
        wanted = [(one, fate) for one, fate in sorted(fated) if fate not in {0, 5}]
        written = export(place)
        assert sum(one.records for one in written) == len(wanted)
        for one in written:
            assert one.path
            again, found_again = read(one.path, delimiter, encoding)
            assert (again.header, again.columns, again.delimiter) == (reader.header, reader.columns, delimiter)
            assert [(r.text, r.values, r.problem) for r in found_again] == [
                (r.text, r.values, r.problem) for r, _ in wanted
            ]
            assert [int(line["line"]) for line in reasons(one.reasons)] == [r.line for r, _ in wanted]
            assert [int(line["record"]) for line in reasons(one.reasons)] == list(range(1, len(wanted) + 1))
            if len(wanted) == len(records) and text == reader.header + "".join(r.text for r in records):
                assert one.path.read_bytes() == original.read_bytes()


FILTERED = Mapper(
    FieldMapping(
        interaction_sid=sid("KD", 1),
        channel_sid=sid("UO", 1),
        type="{kind | trim | lower | map:kind}",
        media_properties={"address": "{phone | digits | whatsapp}", "name": '{name | split:" ":1 | default:x} {raw}'},
        routing_properties={"raw": "{raw}"},
    ),
    "row:{id | trim}",
    maps={"kind": {"agent": "agent", "*": "customer"}},
)


@st.composite
def legacy_files(draw: st.DrawFn) -> tuple[str, str, bytes]:
    """Make an input in a legacy system's columns: its name, its encoding and its bytes."""
    columns = ("id", "kind", "phone", "name", "raw")
    rows = draw(st.lists(st.tuples(*[CELL] * len(columns)).filter(any), min_size=1, max_size=5))
    encoding, end = draw(st.sampled_from(ENCODINGS)), draw(st.sampled_from(["\n", "\r\n"]))
    if draw(st.booleans()):
        ascii_only = draw(st.booleans())
        objects = (dict(zip(columns, row, strict=True)) for row in rows)
        text = "".join(json.dumps(one, ensure_ascii=ascii_only) + end for one in objects)
        return "a.ndjson", encoding, text.encode(encoding, "replace")
    stream = io.StringIO(newline="")
    quoting: Literal[0, 1] = draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
    writer = csv.writer(stream, delimiter=draw(st.sampled_from(",;|")), quoting=quoting, lineterminator=end)
    writer.writerows([columns, *rows])
    return "a.csv", encoding, stream.getvalue().encode(encoding, "replace")


@settings(deadline=None, max_examples=60)
@given(legacy_files())
def test_any_rejects_make_the_same_requests_again(legacy: tuple[str, str, bytes]) -> None:
    """Under a mapping with filters and maps: keys, fingerprints and request bytes are those of the original input."""
    name, encoding, content = legacy
    with tempfile.TemporaryDirectory() as folder:
        original, place = Path(folder) / name, SqlitePlace(Path(folder) / "imports.db")
        original.write_bytes(content)
        before, reader = _mapped(original, encoding)
        source = SourceFile(str(original), reader.format, reader.encoding, reader.delimiter, reader.header)
        reject(place, source, *[(line, text) for line, text, _ in before])
        [one] = export(place)
        assert one.path
        after, _ = _mapped(one.path, encoding)
    assert [made for _, _, made in after] == [made for _, _, made in before]


def _mapped(path: Path, encoding: str) -> tuple[list[tuple[int, str, tuple[object, ...]]], Reader]:
    """Return what becomes of each record of a file: its line, its text, and its request or its problem."""
    found: list[tuple[int, str, tuple[object, ...]]] = []
    with Reader(Input(path.name, path), options(encoding=encoding)) as reader:
        for record in (record for batch in reader for record in batch):
            made = FILTERED.map(record, 1)
            if isinstance(made, Misfit):
                found.append((record.line, record.text, (made.key, made.problem)))
            else:
                found.append((record.line, record.text, (made.key, made.fingerprint, ready(made).body)))
    return found, reader


# ---- the folder -----------------------------------------------------------------------------------------------------


def test_folder_and_files_are_their_owners_only(place: SqlitePlace) -> None:
    """They hold people's data."""
    reject(place, CSV, (2, "1\n"))
    before = os.umask(0)
    try:
        export(place, "deep/fix")
    finally:
        os.umask(before)
    folder = place.path.parent / "deep" / "fix"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    assert names_in(folder) == ["a.csv", "a.reasons.csv"]


@pytest.mark.parametrize("name", ["b.csv", "b.reasons.csv"])
def test_a_file_that_is_there_is_never_overwritten(place: SqlitePlace, name: str) -> None:
    """It may hold an hour of repairs: the export is refused as a whole and names the file."""
    folder = place.path.parent / "fix"
    folder.mkdir()
    (folder / name).symlink_to("gone") if name == "b.csv" else (folder / name).write_text("mine")
    reject(place, CSV, (2, "1\n"))
    reject(place, CSV._replace(path="/data/b.csv"), (2, "2\n"))
    with pytest.raises(ConfigError, match=rf"fix/{name}: exists already and may hold repairs; move it away"):
        export(place)
    assert names_in(folder) == [name]


def test_a_file_that_appears_meanwhile_is_not_overwritten_either(place: SqlitePlace) -> None:
    """Between the first look and the end somebody may have put it there."""
    reject(place, CSV, (2, "1\n"))
    folder = place.path.parent / "fix"
    with View(place.path) as view:

        def rejects() -> Iterator[Reject]:
            yield from view.rejects()
            (folder / "a.csv").write_text("mine")

        with pytest.raises(ConfigError, match="exists already"):
            write_rejects(folder, rejects(), view.source)
    assert files(folder) == {"a.csv": b"mine"}
    assert names_in(folder) == ["a.csv"]


def test_a_folder_that_cannot_be_written_is_named(place: SqlitePlace) -> None:
    """Whatever the system says against it stands behind the folder's name."""
    reject(place, CSV, (2, "1\n"))
    (place.path.parent / "file").touch()
    with pytest.raises(ConfigError, match=r"--rejects: .*/file/fix: cannot be written: Not a directory"):
        export(place, "file/fix")


# ---- reasons are no rows --------------------------------------------------------------------------------------------


def test_reasons_are_left_out_of_the_inputs(
    place: SqlitePlace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`run fix/*.csv` means the records; what only looks like reasons is an input, and reasons alone are refused."""
    reject(place, CSV, (2, "1\n"))
    reject(place, CSV._replace(path="/data/b.csv"), (2, "2\n"))
    export(place)
    monkeypatch.chdir(place.path.parent / "fix")
    Path("c.reasons.csv").write_text("record,line,key,state,code,reason,more\n")
    assert [one.name for one in find_rows(["*.csv"], quiet=True)] == ["a.csv", "b.csv", "c.reasons.csv"]
    assert capsys.readouterr().err == ""
    find_rows(["a*.csv"], quiet=False)
    assert capsys.readouterr().err == "left out: a.reasons.csv: reasons of `export --rejects`, not rows\n"
    find_rows(["*.csv"], quiet=False)
    assert "a.reasons.csv and 1 more: reasons" in capsys.readouterr().err
    with pytest.raises(SourceError, match=r"a\.reasons\.csv: holds reasons, not rows"):
        find_rows(["a.reasons.csv"], quiet=False)
    assert find_rows(["-"], quiet=False) == [Input("stdin", None)]


# ---- the command ----------------------------------------------------------------------------------------------------


@pytest.fixture
async def service() -> AsyncIterator[tuple[Emulator, str]]:
    """An emulated service on loopback."""
    emulator = Emulator()
    async with serve(emulator) as base_url:
        yield emulator, base_url


async def command(folder: Path, base_url: str, *words: str) -> Ended:
    """Run a command against the service."""
    env = {**HOLDING, "FLEX_IMPORT__API__BASE_URL": base_url, "FLEX_IMPORT__LIMITS__RATE_PER_SECOND": "inf"}
    return await flex_import(*words, cwd=folder, env=env)


def numbered(table: str, first: int = 0) -> str:
    """Return a table with a column `id` of numbers."""
    lines = table.splitlines(keepends=True)
    return "id," + lines[0] + "".join(f"{number},{line}" for number, line in enumerate(lines[1:], first))


async def test_rejects_are_exported_repaired_and_imported(tmp_path: Path, service: tuple[Emulator, str]) -> None:
    """Each way to go wrong, in two files of one name; repaired as text, run, and everybody is there exactly once."""
    emulator, base_url = service
    (tmp_path / "config.toml").write_text('[source]\nkey = "row:{id}"\nencoding = "utf-16"\n')
    first = numbered(csv_of(8)).replace("\n", "\r\n")
    local = [f'20,{sid("KD", 20)},{sid("UO", 20)},costumer,"Zoë\r\n<p20@example.com>"\r\n']  # a wrong type
    local += [f"21,{sid('KD', 21)},{sid('UO', 21)},customer\r\n"]  # too few
    local += [f"3,{sid('KD', 22)},{sid('UO', 22)},customer,p22@example.com"]  # the key of another row; no line end
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.csv").write_bytes((first + "".join(local)).encode("utf-16"))
    second = numbered(csv_of(4, 2, first=100), 100)
    (tmp_path / "a.csv").write_bytes(second.encode("utf-16"))
    emulator.script(sid("UO", 5), Answer(status=400, code=20001, message="Address is wrong"))
    emulator.declare(sid("UO", 1), Condition.CLOSED)  # one of the first file, two of the second

    ended = await command(tmp_path, base_url, "run", "in/a.csv", "a.csv")
    assert ended.code == 1, ended.out + ended.err
    before = states(tmp_path)
    assert before == {"created": 8, "rejected": 2, "parked": 2}, ended.out
    failures = await command(tmp_path, base_url, "failures")
    assert "flex-import export --rejects fix/" in failures.out

    ended = await command(tmp_path, base_url, "export", "--rejects", "fix/")
    assert ended.code == 0, ended.err
    assert [" ".join(line.split()) for line in ended.out.splitlines()] == [
        "5 rows fix/a.csv of in/a.csv",
        "2 rows fix/a-2.csv of a.csv",
        "",
        "Repair these records; what is wrong with each stands beside them, in *.reasons.csv",
        "Next flex-import run fix/*.csv",
    ]
    fix = tmp_path / "fix"
    lines = first.splitlines(keepends=True)
    text = "".join((lines[0], lines[2], lines[6], *local))
    assert (fix / "a.csv").read_bytes() == text.encode("utf-16")
    assert [(line["record"], line["line"], line["key"], line["state"]) for line in reasons(fix / "a.reasons.csv")] == [
        ("1", "3", "row:1", "rejected"),
        ("2", "7", "row:5", "rejected"),
        ("3", "10", "row:20", "rejected"),
        ("4", "12", "", "rejected"),
        ("5", "13", "row:3", "rejected"),
    ]
    again = await command(tmp_path, base_url, "export", "--rejects", "fix/")
    assert (again.code, again.out) == (2, "")
    assert "fix/a.csv: exists already" in again.err

    repairs = [("costumer", "customer"), ("customer\r\n3,", "customer,p21@example.com\r\n22,"), ("p5@", "p55@")]
    for name in ("a.csv", "a-2.csv"):
        text = (fix / name).read_bytes().decode("utf-16").replace(sid("UO", 1), sid("UO", 7))
        for wrong, right in repairs:
            text = text.replace(wrong, right)
        (fix / name).write_bytes(text.encode("utf-16"))
    ended = await command(tmp_path, base_url, "run", "fix/*.csv")
    assert ended.code == 0, ended.out + ended.err
    assert "left out: fix/a-2.reasons.csv and 1 more" in ended.err
    assert states(tmp_path) == {"created": 15}
    arrived = emulator.stats.arrived
    for words in (("fix/*.csv",), ("in/a.csv", "a.csv")):
        await command(tmp_path, base_url, "run", *words)
    assert emulator.stats.arrived == arrived, "nothing is sent twice"
    made = sorted(one.media_properties["address"] for one in emulator.participants)
    people = [0, 1, 2, 3, 4, 55, 6, 7, 21, 22, 100, 101, 102, 103]
    assert made == sorted([*(f"p{number}@example.com" for number in people), "Zoë\r\n<p20@example.com>"])


async def test_stdin_comes_back_as_a_file(tmp_path: Path, service: tuple[Emulator, str]) -> None:
    """What was piped in once is in the ledger, and nowhere else."""
    _, base_url = service
    (tmp_path / "a.csv").write_text(csv_of(2) + "too,few\n")
    process = await start(
        "run", "-", "--base-url", base_url, "--rate", "inf", cwd=tmp_path, env=CREDENTIALS, stdin=PIPE
    )
    await finish(process, (tmp_path / "a.csv").read_bytes())
    ended = await command(tmp_path, base_url, "export", "--rejects", "my fix", "--run", "1")
    assert "1 row  my fix/stdin.csv   of stdin" in ended.out
    assert ended.out.endswith("flex-import run 'my fix'/*.csv\n")
    assert (tmp_path / "my fix" / "stdin.csv").read_text("utf-8-sig") == HEADER + "too,few\n"
    (tmp_path / "a.csv").write_text(csv_of(2))
    await command(tmp_path, base_url, "run", "a.csv")
    nothing = await command(tmp_path, base_url, "export", "--rejects", "none", "--run", "2")
    assert (nothing.code, nothing.out) == (0, "nothing is rejected, parked or failed: no files were made\n")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("fix", "--format", "csv"), "leave out --format"),
        (("fix", "--state", "rejected"), "leave out --state"),
        (("fix", "-o", "-"), "leave out --output"),
        (("",), "--rejects: is empty"),
        (("-",), "--rejects: -: is no folder"),
        (("config.toml",), "--rejects: config.toml: is no folder"),
        (("fix",), "there is no ledger"),
    ],
)
async def test_an_order_that_makes_no_sense_is_refused(tmp_path: Path, words: tuple[str, ...], says: str) -> None:
    """With exit 2 and a word on what to leave out; nothing is made."""
    (tmp_path / "config.toml").touch()
    ended = await flex_import("export", "--rejects", *words, cwd=tmp_path)
    assert (ended.code, ended.out) == (2, "")
    assert says in ended.err
    assert names_in(tmp_path) == ["config.toml"]


async def test_what_is_not_in_the_files_is_said(place: SqlitePlace, tmp_path: Path) -> None:
    """Records that are gone, and rows that the next run sends by itself."""
    with at_work(place) as desk:
        for number in range(5):
            desk.bring(desk.row(number), OUTCOMES[2])
            place.forget(desk.row(number).key)
        desk.bring(desk.row(9), OUTCOMES[4])
    ended = await flex_import("export", "--rejects", "fix", cwd=tmp_path)
    assert ended.code == 0, ended.err
    assert "1 row  fix/a.csv   of /data/a.csv" in ended.out
    assert "1 of them failed: the next run sends those again as they are; do not change them" in ended.out
    assert "5 rows skipped: their records have been pruned" in ended.out
    assert "list them:\n/data/a.csv:2, /data/a.csv:3, /data/a.csv:4, …" in ended.out
    assert ended.out.endswith("Next    flex-import run fix/*.csv\n")
