"""What is read again is known again, before it is mapped."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.samples_of import sid
from tests.test_ledger_sqlite import SqlitePlace
from worker.config import FieldMapping, Source
from worker.intake import Intake
from worker.ledger import Intent, Settle, SourceFile
from worker.ledger.survey import Survey, Surveyed
from worker.model import Created, Draft, Misfit, Record, Rejected, Row, Settlement
from worker.payload import Mapper
from worker.rules import Rules
from worker.source import find_inputs

HEADER = "interaction_sid,channel_sid,type,media_properties.address"


class CountingMapper(Mapper):
    """Tells which lines it was given to map."""

    def __init__(self, mapping: FieldMapping | None = None, key: str = "") -> None:
        super().__init__(mapping, key)
        self.lines: list[int] = []

    def map(self, record: Record, source: int) -> Draft | Misfit:
        """Map, and remember."""
        self.lines.append(record.line)
        return super().map(record, source)


def write(path: Path, addresses: list[str]) -> None:
    """Write one row an address."""
    lines = [f"{sid('KD', n)},{sid('UO', n)},customer,{address}\n" for n, address in enumerate(addresses)]
    path.write_text(f"{HEADER}\n{''.join(lines)}", encoding="utf-8")


def shuffle(*order: int) -> None:
    """Put the lines of a.csv behind its header into this order; a number may come twice."""
    lines = Path("a.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    Path("a.csv").write_text("".join([lines[0], *(lines[number] for number in order)]), encoding="utf-8")


@pytest.fixture
def place(tmp_path: Path) -> SqlitePlace:
    """Return a place for a ledger."""
    return SqlitePlace(tmp_path / "imports.db")


@asynccontextmanager
async def reading(place: SqlitePlace, mapper: Mapper) -> AsyncIterator[tuple[list[Surveyed[Row]], SourceFile]]:
    """Read a.csv beside the ledger and yield the batches."""
    described: list[SourceFile] = []

    async def register(source: SourceFile) -> int:
        described.append(source)
        return 1

    rules = Rules("", Source(), mapper)
    async with Intake([(source, rules) for source in find_inputs(["a.csv"])]) as intake:
        await intake.count()
        with Survey(place.path, intake.names) as survey:
            batches = [batch async for batch in intake.rows(survey, register)]
    yield batches, described[0]


async def settle_all(place: SqlitePlace, mapper: Mapper, rejected: str = "") -> None:
    """Send every row of a.csv as far as the ledger is concerned; those with this address are rejected."""
    place.open().close()
    async with reading(place, mapper) as (batches, source):
        rows = [row for batch in batches for row in batch.send]
    ledger = place.open()
    ledger.start_run("run")
    assert ledger.register(source) == 1
    for row in rows:
        [number] = ledger.write([Intent(row)])
        assert isinstance(number, int)
        bad = bool(rejected) and rejected in row.text
        outcome = Rejected("20001", "no") if bad else Created(sid("UT", row.key))
        ledger.write([Settle(number, Settlement(row.key, outcome))])
    ledger.close()


async def test_a_row_that_was_created_is_not_mapped_again(place: SqlitePlace) -> None:
    """Its record and how it is read are the same, so it is the same row."""
    write(Path("a.csv"), ["a@x.org", "b@x.org", "c@x.org"])
    await settle_all(place, Mapper(None))
    mapper = CountingMapper()
    async with reading(place, mapper) as ([batch], _):
        assert batch.counts == {"already_done": 3}
        assert (batch.send, batch.findings, batch.read, batch.last_line) == ([], [], 3, 4)
    assert mapper.lines == []


async def test_what_is_new_changed_or_refused_is_mapped(place: SqlitePlace) -> None:
    """Only what the ledger is sure of is spared."""
    write(Path("a.csv"), ["a@x.org", "b@x.org", "c@x.org"])
    await settle_all(place, Mapper(None), rejected="b@x.org")
    write(Path("a.csv"), ["a@x.org", "b@x.org", "changed@x.org", "new@x.org"])
    mapper = CountingMapper()
    async with reading(place, mapper) as ([batch], _):
        assert batch.counts == {"already_done": 1, "rejected": 1}
        assert [row.line for row in batch.send] == [4, 5]
    assert mapper.lines == [3, 4, 5]


async def test_another_place_or_another_mapping_takes_the_long_way(place: SqlitePlace) -> None:
    """And comes to the same end: the mark is a shortcut, the key decides."""
    write(Path("a.csv"), ["a@x.org", "b@x.org"])
    await settle_all(place, Mapper(None))
    shuffle(2, 1)
    mapper = CountingMapper()
    async with reading(place, mapper) as ([batch], _):
        assert batch.counts == {"already_done": 2}
    assert mapper.lines == [2, 3]
    same = CountingMapper(FieldMapping(type="customer"))
    async with reading(place, same) as ([batch], _):
        assert batch.counts == {"already_done": 2}
    assert same.lines == [2, 3]


async def test_a_row_that_is_known_at_once_has_duplicates_too(place: SqlitePlace) -> None:
    """The same record again in the input is a duplicate of it, as of any other row."""
    write(Path("a.csv"), ["a@x.org"])
    await settle_all(place, Mapper(None))
    shuffle(1, 1)
    mapper = CountingMapper()
    async with reading(place, mapper) as ([batch], _):
        assert batch.counts == {"already_done": 1, "duplicate": 1}
        assert [(finding.line, finding.detail) for finding in batch.findings] == [(3, "the first one is a.csv:2")]
    assert mapper.lines == [3]


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ((None, ""), (None, ""), True),
        ((None, ""), (None, "{ID}"), False),
        ((None, ""), (FieldMapping(), ""), False),
        ((FieldMapping(type="{a}"), ""), (FieldMapping(type="{b}"), ""), False),
    ],
)
def test_a_mark_is_of_the_record_and_of_how_it_is_read(
    first: tuple[FieldMapping | None, str], second: tuple[FieldMapping | None, str], *, same: bool
) -> None:
    """Whatever makes another key or another request makes another mark."""
    marks = [Mapper(*one).mark("x\n") for one in (first, second)]
    assert (marks[0] == marks[1]) is same
    assert Mapper(*first).mark("y\n") != marks[0] != 0
    assert all(-(1 << 63) <= mark < 1 << 63 for mark in marks)
