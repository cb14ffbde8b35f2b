"""The ledger as a whole: what it is, its copies, and what it may forget."""

import json
import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.ledger_contract import OUTCOMES, Desk, at_work
from tests.test_ledger_sqlite import SqlitePlace, integrity, mode, small_disk
from worker.cli import call, keeping
from worker.ledger import Baseline, Finding, Intent, Settle
from worker.ledger.connection import Connection
from worker.ledger.pruning import prunable, prune
from worker.ledger.sqlite import SqliteLedger
from worker.ledger.view import View
from worker.model import Created, Sample, Settlement, State

DAY = 86_400_000
LATER = time.time_ns() // 1_000_000 + DAY


@pytest.fixture
def place(tmp_path: Path) -> SqlitePlace:
    """Return a folder with no ledger yet."""
    return SqlitePlace(tmp_path / "imports.db")


@pytest.fixture
def desk(place: SqlitePlace) -> Iterator[Desk]:
    """Return a new ledger in its first run."""
    with at_work(place) as desk:
        yield desk


def fill(desk: Desk) -> None:
    """Give a ledger a row of each outcome, a waived, a closed and a started one, and everything beside rows."""
    for number, outcome in enumerate(OUTCOMES):
        desk.bring(desk.row(number), outcome)
    desk.intend(desk.row(20))
    for number in (1, 2):
        desk.ledger.write([Finding("rejected", desk.source, number, None, "bad", "is bad", f"r{number}\n", "x***")])
    desk.ledger.write([Finding("duplicate", desk.source, 3, "k", "duplicate", "again")])
    desk.ledger.write([Baseline(desk.row(0), ("UT",)), Baseline(desk.row(5), ("UT",))])
    desk.ledger.write([Sample(1, 1, 1, 0, 0, 0, 6.0, 16)])


def transaction(desk: Desk) -> AbstractContextManager[Connection]:
    """Begin a transaction of somebody who knows the tables."""
    assert isinstance(desk.ledger, SqliteLedger)
    return desk.ledger.transaction()


def backdate(path: Path) -> None:
    """Let everything in a ledger have happened a year ago."""
    with closing(sqlite3.connect(path)) as connection, connection:
        for column in ("runs.started_at", "rows.settled_at"):
            table, _, name = column.partition(".")
            connection.execute(f"UPDATE {table} SET {name} = {name} - ?", (365 * DAY,))


# ---- what it is -----------------------------------------------------------------------------------------------------


def test_what_a_ledger_is(place: SqlitePlace, capsys: pytest.CaptureFixture[str]) -> None:
    """How large, of what, since when and in whose hands; the same for programs."""
    with at_work(place) as desk:
        fill(desk)
        assert call(["ledger", "info"]) == 0
    assert "  in use by       process " in capsys.readouterr().out
    assert call(["ledger", "info", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["rows"], told["records"], told["runs"], told["holder"]) == (7, 7, 1, None)
    assert told["bytes"] >= place.path.stat().st_size > 0
    assert datetime.fromisoformat(told["first_run_at"]) <= datetime.now(UTC)
    assert call(["ledger", "info"]) == 0
    said = capsys.readouterr().out
    assert "7 in 7 channels, of 1 input\n" in said
    assert "in use by       nobody" in said
    assert max(map(len, said.splitlines())) <= 80


def test_a_new_ledger_is_one_too(place: SqlitePlace, capsys: pytest.CaptureFixture[str]) -> None:
    """Without rows or runs."""
    place.open().close()
    assert call(["ledger", "info"]) == 0
    assert "runs            none yet" in capsys.readouterr().out


# ---- copies ---------------------------------------------------------------------------------------------------------


def test_a_backup_beside_a_run_is_a_whole_ledger(
    place: SqlitePlace, desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    """With all that was recorded until then, for its owner only, in one file; the run goes on."""
    fill(desk)
    assert call(["ledger", "backup", "copy.db"]) == 0
    assert "7 rows" in capsys.readouterr().out
    desk.bring(desk.row(30), OUTCOMES[0])
    copy = Path("copy.db")
    assert mode(copy) == 0o600
    assert integrity(copy) == "ok"
    assert {path.name for path in Path().glob("*copy*")} == {"copy.db"}
    with View(copy) as view, View(place.path) as original:
        rows = list(view.export())
        assert len(rows) == len(list(original.export())) - 1
    copied = SqlitePlace(copy.absolute())
    with at_work(copied) as other:
        assert other.run == desk.run + 1


def test_a_copy_replaces_nothing(place: SqlitePlace, capsys: pytest.CaptureFixture[str]) -> None:
    """Least of all another ledger."""
    place.open().close()
    Path("other.db").write_text("precious")
    Path("dangling.db").symlink_to("nowhere.db")
    for command in (["backup"], ["copy", "imports.db"]):
        for target in ("other.db", "imports.db", "dangling.db"):
            assert call(["ledger", *command, target]) == 2
            assert "exists, and a copy of a ledger replaces nothing" in capsys.readouterr().err
    assert Path("other.db").read_text() == "precious"
    assert not Path("nowhere.db").exists()


def test_a_ledger_in_use_is_not_copied_to_go_on_with(place: SqlitePlace, capsys: pytest.CaptureFixture[str]) -> None:
    """Such a copy has to have everything, so no run may be at work."""
    with at_work(place):
        assert call(["ledger", "copy", "imports.db", "copy.db"]) == 5
    assert not Path("copy.db").exists()
    capsys.readouterr()
    assert call(["ledger", "copy", str(place.path), "copy.db"]) == 0
    assert "Go on with one of them only" in capsys.readouterr().out


def test_a_copy_that_finds_no_room_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A full disk, or a folder that is not there."""
    place = SqlitePlace(tmp_path / "imports.db")
    with at_work(place) as desk:
        for number in range(300):
            desk.bring(desk.row(number, content="x" * 2_000), OUTCOMES[2])
    assert call(["ledger", "backup", "absent/copy.db"]) == 2
    assert "cannot be made" in capsys.readouterr().err
    with small_disk(tmp_path / "small", "256k"):
        assert call(["ledger", "backup", "small/copy.db"]) == 2
        assert list((tmp_path / "small").iterdir()) == []
    assert "cannot be made" in capsys.readouterr().err


def test_a_damaged_ledger_is_not_taken_for_a_good_copy(place: SqlitePlace, capsys: pytest.CaptureFixture[str]) -> None:
    """A backup that nobody has read is a hope."""
    with at_work(place) as desk:
        for number in range(200):
            desk.bring(desk.row(number), OUTCOMES[2])
    content = bytearray(place.path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 16 * 4096] = b"\xff" * 16 * 4096
    place.path.write_bytes(content)
    assert call(["ledger", "backup", "copy.db"]) == 2
    assert "error: " in capsys.readouterr().err
    assert not Path("copy.db").exists()


def test_a_backup_is_a_file(place: SqlitePlace, capsys: pytest.CaptureFixture[str]) -> None:
    """What writes into a database is called otherwise."""
    place.open().close()
    assert call(["ledger", "backup", "postgresql://127.0.0.1/x"]) == 2
    assert "flex-import ledger copy FROM TO" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["", "-"])
def test_a_ledger_has_a_name(name: str, place: SqlitePlace, capsys: pytest.CaptureFixture[str]) -> None:
    """An empty variable is none."""
    place.open().close()
    assert call(["ledger", "backup", name]) == 2
    assert "name one" in capsys.readouterr().err


# ---- forgetting -----------------------------------------------------------------------------------------------------


def test_pruning_keeps_every_row_and_what_the_next_run_needs(place: SqlitePlace, desk: Desk) -> None:
    """Records of failed rows and of rows in doubt stay, as does the baseline of a channel with a doubt."""
    fill(desk)
    before = place.rows()
    with transaction(desk) as connection:
        found = prunable(connection, LATER)
    assert place.payloads().keys() == {desk.row(number).key for number in (2, 3, 4, 5, 20)}
    assert (found.records, found.findings, found.samples, found.baselines) == (4, 1, 1, 1)
    with transaction(desk) as connection:
        assert prune(connection, LATER) == found
    assert [row | {"reason": ""} for row in place.rows()] == [row | {"reason": ""} for row in before]
    assert place.payloads().keys() == {desk.row(number).key for number in (4, 5, 20)}
    assert [kind for kind, *_ in place.findings()] == ["rejected", "rejected"]
    assert desk.ledger.surroundings(6).baseline == frozenset({"UT"})
    with transaction(desk) as connection:
        assert not any(prune(connection, LATER))


def test_what_is_younger_stays(place: SqlitePlace, desk: Desk) -> None:
    """Nothing is dropped before its time."""
    fill(desk)
    kept = place.payloads()
    with transaction(desk) as connection:
        assert not any(prune(connection, LATER - 2 * DAY))
    assert place.payloads() == kept


def test_a_ledger_that_was_pruned_is_smaller(place: SqlitePlace, capsys: pytest.CaptureFixture[str]) -> None:
    """The disk gets back what people's records took, and the rejects say that theirs are gone."""
    with at_work(place) as desk:
        for number in range(300):
            desk.bring(desk.row(number, content="x" * 2_000), OUTCOMES[2])
    backdate(place.path)
    size = place.path.stat().st_size
    day = datetime.now(UTC) - timedelta(days=1)
    assert call(["ledger", "prune", "--before", f"{day:%Y-%m-%d}"]) == 2
    assert "300 records" in capsys.readouterr().err
    assert call(["ledger", "prune", "--before", f"{day:%Y-%m-%d}", "--yes"]) == 0
    assert "dropped: 300 records" in capsys.readouterr().out
    assert place.path.stat().st_size < size / 4
    assert call(["ledger", "prune", "--before", f"{day:%Y-%m-%d}", "--yes"]) == 0
    assert "nothing" in capsys.readouterr().out
    assert call(["export", "--rejects", "fix"]) == 0
    assert "300 rows skipped: their records have been pruned" in capsys.readouterr().out


@pytest.mark.parametrize("yes", [True, False])
def test_a_person_is_asked_before_anything_is_dropped(
    place: SqlitePlace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *, yes: bool
) -> None:
    """With what it would be; a no leaves it all."""
    with at_work(place) as desk:
        fill(desk)
    backdate(place.path)
    kept = place.payloads()
    asked: list[str] = []
    monkeypatch.setattr(keeping, "at_terminal", lambda: True)

    def answer(plan: str, question: str) -> bool:
        asked.append(plan + question)
        return yes

    monkeypatch.setattr(keeping, "agreed", answer)
    assert call(["ledger", "prune", "--before", "2024-01-01T00:00:00+00:00"]) == 0
    assert call(["ledger", "prune", "--before", f"{datetime.now(UTC):%Y-%m-%d}"]) == (0 if yes else 2)
    assert len(asked) == 1 if yes else place.payloads() == kept
    assert "4 records" in asked[0]
    capsys.readouterr()


@pytest.mark.parametrize(
    ("text", "says"), [("yesterday", "is no date"), ("2126-01-01", "is not in the past"), ("", "is no date")]
)
def test_a_date_is_one_in_the_past(
    text: str, says: str, place: SqlitePlace, capsys: pytest.CaptureFixture[str]
) -> None:
    """Otherwise nothing is dropped."""
    place.open().close()
    assert call(["ledger", "prune", "--before", text, "--yes"]) == 2
    assert says in capsys.readouterr().err


# ---- the history ----------------------------------------------------------------------------------------------------


def test_the_history_has_a_line_for_each_run(place: SqlitePlace, capsys: pytest.CaptureFixture[str]) -> None:
    """What it did and how it ended; a decision has no counts, and a run that goes on no end."""
    place.open().close()
    assert call(["history"]) == 0
    assert capsys.readouterr().out == "no run yet\n"
    summary = {
        "requests": 172_204,
        "created": 170_936,
        "rejected": 1_655,
        "parked": 171,
        "failed": 9,
        "in_doubt": 5,
        "elapsed_seconds": 28_800.0,
    }
    ledger = place.open()
    ledger.start_run("run")
    ledger.end_run(6, "stopped", json.dumps(summary))
    ledger.start_run("waive")
    ledger.end_run(0, "1 row waived", "{}")
    ledger.start_run("retry")
    ledger.close()
    assert call(["history"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["RUN", "COMMAND", "STARTED", "ENDED", "REQUESTS", "CREATED", "BAD", "DOUBT", "RATE", "EXIT"]
    assert re.fullmatch(r"  1  run +\d\d \w{3} \d\d:\d\d  \d\d:\d\d +172,204  170,936  1,835 +5 +6\.0 +6", lines[0])
    assert re.fullmatch(r"  2  waive +\d\d \w{3} \d\d:\d\d  \d\d:\d\d +0", lines[1])
    assert re.fullmatch(r"  3  retry +\d\d \w{3} \d\d:\d\d +-", lines[2])
    assert max(map(len, [head, *lines])) <= 80
    assert call(["history", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [run["exit_code"] for run in told] == [6, 0, None]
    assert told[0]["summary"]["created"] == 170_936


def test_a_year_is_said_when_it_is_not_this_one(place: SqlitePlace, capsys: pytest.CaptureFixture[str]) -> None:
    """Runs of years stand in one list."""
    with at_work(place) as desk:
        desk.begin_next_run()
    backdate(place.path)
    assert call(["history"]) == 0
    year = (datetime.now(UTC) - timedelta(days=365)).year
    assert f" {year} " in capsys.readouterr().out


def test_status_says_what_is_at_work(place: SqlitePlace, capsys: pytest.CaptureFixture[str]) -> None:
    """Beside a run: since when, who, and how it is doing; after it, what is left and when that would be done."""
    with at_work(place) as desk:
        [number] = desk.ledger.write([Intent(desk.row(1))])
        assert isinstance(number, int)
        desk.ledger.write([Sample(3, 3, 5, 1, 1, 2, 6.0, 16, 100.0, 200.0, 1100.0)])
        assert call(["status"]) == 0
        said = capsys.readouterr().out
        assert "in flight\n" in said
        assert re.match(r"run 1: at work\n  run, running since \d\d:\d\d: process \d+\n", said)
        assert re.search(r"  limit 6/s; 5 requests, 2 in flight, 1 times 429, p99 1,100 ms \([\d.]+ s ago\)\n", said)
        assert call(["status", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["at_work"].startswith("process ")
        desk.ledger.write([Settle(number, Settlement(desk.row(1).key, Created("UT" + "0" * 32)))])
        desk.ledger.end_run(6, "stopped", json.dumps({"unread": 36_000, "not_sent": 0}))
    assert call(["status", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["at_work"] is None
    assert call(["status"]) == 0
    said = capsys.readouterr().out
    assert "36,000 rows of its input to go" in said
    assert "at 15/s: at least 40 min" in said
    assert State.CREATED.value in said
