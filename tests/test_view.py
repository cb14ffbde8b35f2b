import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.ledger_contract import OUTCOMES, SOURCE, Desk, at_work, bring_to
from tests.test_ledger_sqlite import SqlitePlace
from worker.cluster import Cluster, cluster_id
from worker.errors import LedgerError, LedgerRefusedError
from worker.ledger import Finding, Intent, grouping
from worker.ledger.statement import CRASH_REASON
from worker.ledger.view import COLUMNS, View
from worker.model import NOT_SENT, Failed, Rejected, State


@pytest.fixture
def place(tmp_path: Path) -> SqlitePlace:
    """Return a folder with no ledger yet."""
    return SqlitePlace(tmp_path / "imports.db")


@pytest.fixture
def desk(place: SqlitePlace) -> Iterator[Desk]:
    """Return a new ledger in its first run."""
    with at_work(place) as desk:
        yield desk


def rejected(desk: Desk, line: int, reason: str = "type: is missing") -> Finding:
    """Return a local rejection."""
    return Finding("rejected", desk.source, line, None, "bad_field", reason, f"record {line}\n")


def exported(place: SqlitePlace, *states: str, run: int | None = None) -> list[tuple[int, str]]:
    """Return line and state of what is exported."""
    with View(place.path) as view:
        return [(found[COLUMNS.index("line")], found[COLUMNS.index("state")]) for found in view.export(states, run)]


# ---- status ---------------------------------------------------------------------------------------------------------


def test_a_new_ledger_shows_nothing(desk: Desk, place: SqlitePlace) -> None:
    """Before a row is sent there are no counts, no groups and nothing to export, only a run."""
    with View(place.path) as view:
        assert (view.counts(), view.clusters(), list(view.export())) == ({}, [], [])
        run = view.last_run()
    assert run is not None
    assert run.number == desk.run


def test_a_ledger_without_a_run_says_so(place: SqlitePlace) -> None:
    """A ledger that was made and never used has no last run."""
    place.open().close()
    with View(place.path) as view:
        assert view.last_run() is None


def test_the_last_run_is_the_newest(place: SqlitePlace) -> None:
    """Of several runs the one that began last is shown."""
    for code in (3, 0):
        with at_work(place) as desk:
            desk.ledger.end_run(code, f"exit {code}", "{}")
    with View(place.path) as view:
        run = view.last_run()
    assert run is not None
    assert (run.number, run.exit_code, run.reason) == (2, 0, "exit 0")


def test_rows_are_counted_by_state(desk: Desk, place: SqlitePlace) -> None:
    """Every state has its count; states without rows are left out."""
    for number, state in enumerate(State):
        bring_to(desk, place, desk.row(number), state)
    bring_to(desk, place, desk.row(100), State.CREATED)
    with View(place.path) as view:
        assert view.counts() == {state.value: 2 if state is State.CREATED else 1 for state in State}


def test_local_rejections_count_while_they_stand(place: SqlitePlace) -> None:
    """Rows rejected here and rows rejected by the API are one count; what was retired and duplicates are not in it."""
    with at_work(place) as desk:
        bring_to(desk, place, desk.row(1), State.REJECTED)
        duplicate = Finding("duplicate", desk.source, 9, "k", "duplicate", "the same as a.csv:2, which counts")
        desk.ledger.write([rejected(desk, 2), rejected(desk, 5), duplicate])
        with View(place.path) as view:
            assert view.counts() == {"rejected": 3}
    with at_work(place) as desk:
        desk.ledger.supersede(desk.source, 2)
        with View(place.path) as view:
            assert view.counts() == {"rejected": 2}


def test_local_rejections_alone_are_counted(desk: Desk, place: SqlitePlace) -> None:
    """A ledger in which no row was sent yet counts what reading rejected."""
    desk.ledger.write([rejected(desk, 2)])
    with View(place.path) as view:
        assert view.counts() == {"rejected": 1}


def cluster(state: str, code: str, reason: str, *lines: int, rows: int = 0, detail: str | None = None) -> Cluster:
    """Return a cluster with places in the one input, and an id of four digits."""
    made = cluster_id(state, code, reason)
    places = tuple((SOURCE.path, line) for line in lines)
    return Cluster(made, made[:4], state, code, reason, rows or len(lines), places, detail)


def test_what_needs_something_is_grouped_by_its_reason(place: SqlitePlace) -> None:
    """The largest cluster first, with the first places in reading order; done, under way, signed off: nothing."""
    with at_work(place) as desk:
        desk.ledger.write([rejected(desk, 90), rejected(desk, 91, "old")])
    with at_work(place) as desk:
        desk.ledger.supersede(desk.source, 91)
        for number, state in enumerate(State):
            bring_to(desk, place, desk.row(number), state)
        for number in (21, 20, 19):
            desk.bring(desk.row(number), Rejected("20001", "Type is wrong"))
        desk.bring(desk.row(30), NOT_SENT)
        desk.ledger.write([replace(rejected(desk, 500), detail="b"), replace(rejected(desk, 51), detail="a")])
    with View(place.path) as view:
        clusters = view.clusters()
    line = {state: number + 2 for number, state in enumerate(State)}
    assert clusters == [
        cluster("rejected", "20001", "Type is wrong", line[State.REJECTED], 23, 22, rows=4),
        cluster("rejected", "bad_field", "type: is missing", 51, 500, detail="a"),
        cluster("failed", "503", "used up its attempts", line[State.FAILED]),
        cluster("in_doubt", "crash", CRASH_REASON, line[State.STARTED]),
        cluster("in_doubt", "timeout", "no answer in time", line[State.IN_DOUBT]),
        cluster("parked", "45354", "the channel is closed", line[State.PARKED]),
    ]


def test_a_run_has_its_own_clusters_under_the_same_ids(place: SqlitePlace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each only what the run brought about; an id means one cluster of the ledger, not one of the run."""
    ids = {"503": "abcd1", "504": "abcd2", "timeout": "0000"}
    monkeypatch.setattr(grouping, "cluster_id", lambda _, code, __: ids[code])
    with at_work(place) as desk:
        for number, code in enumerate(("503", "503", "504")):
            desk.bring(desk.row(number), Failed(code, "x"))
        desk.doubt(desk.row(8))
        desk.begin_next_run()
        desk.bring(desk.row(1), Failed("503", "x"))
        desk.doubt(desk.row(9))
    with View(place.path) as view:
        found = {run: [(one.short, one.rows, one.places) for one in view.clusters(run)] for run in (None, 1, 2, 3)}
        doubts = {run: [one.key for one in view.in_doubt(run=run)] for run in (None, 1, 2)}
    at = [(SOURCE.path, line) for line in range(20)]
    assert found == {
        None: [("abcd1", 2, (at[2], at[3])), ("0000", 2, (at[10], at[11])), ("abcd2", 1, (at[4],))],
        1: [("abcd1", 1, (at[2],)), ("abcd2", 1, (at[4],)), ("0000", 1, (at[10],))],
        2: [("abcd1", 1, (at[3],)), ("0000", 1, (at[11],))],
        3: [],
    }
    assert doubts == {None: [desk.row(8).key, desk.row(9).key], 1: [desk.row(8).key], 2: [desk.row(9).key]}


# ---- export ---------------------------------------------------------------------------------------------------------


def test_the_columns_are_the_contract() -> None:
    """Scripts read these columns in this order."""
    assert ",".join(COLUMNS) == (
        "key,source,line,state,sid,interaction_sid,channel_sid,type,code,reason,http_status,"
        "attempts,request_id,reconciled,run,started_at,settled_at"
    )


def test_a_row_and_a_local_rejection_have_all_columns(desk: Desk, place: SqlitePlace) -> None:
    """What is not known is null; rows come first, local rejections after them."""
    wanted = desk.row(1)
    desk.bring(wanted, OUTCOMES[0], attempts=2)
    desk.ledger.write([rejected(desk, 7)])
    with closing(sqlite3.connect(place.path)) as clock, clock:
        clock.execute("UPDATE rows SET started_at = 1767323045006, settled_at = 1767323045999")
    with View(place.path) as view:
        first, second = (dict(zip(COLUMNS, found, strict=True)) for found in view.export())
    assert first == {
        "key": wanted.key,
        "source": SOURCE.path,
        "line": wanted.line,
        "state": "created",
        "sid": getattr(OUTCOMES[0], "sid", None),
        "interaction_sid": wanted.interaction_sid,
        "channel_sid": wanted.channel_sid,
        "type": "customer",
        "code": None,
        "reason": None,
        "http_status": 200,
        "attempts": 2,
        "request_id": "RQ0",
        "reconciled": 0,
        "run": desk.run,
        "started_at": "2026-01-02T03:04:05.006Z",
        "settled_at": "2026-01-02T03:04:05.999Z",
    }
    said: dict[str, Any] = {
        "source": SOURCE.path,
        "line": 7,
        "state": "rejected",
        "code": "bad_field",
        "reason": "type: is missing",
        "attempts": 0,
        "reconciled": 0,
        "run": desk.run,
    }
    assert second == dict.fromkeys(COLUMNS) | said


@pytest.mark.parametrize("moment", [0, 999, 1000, 951782400001, 253402300799999])
def test_times_are_rfc_3339_with_milliseconds(desk: Desk, place: SqlitePlace, moment: int) -> None:
    """Any moment comes out in UTC, to the millisecond."""
    desk.intend(desk.row(1))
    with closing(sqlite3.connect(place.path)) as clock, clock:
        clock.execute("UPDATE rows SET started_at = ?", (moment,))
    [found] = place.rows()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", found["started_at"])
    with closing(sqlite3.connect(":memory:")) as clock:
        query = "SELECT CAST(round((julianday(?) - 2440587.5) * 86400000) AS INTEGER)"
        assert clock.execute(query, (found["started_at"],)).fetchone()[0] == moment
    assert found["settled_at"] is None


def test_rows_come_in_the_order_in_which_they_were_first_sent(desk: Desk, place: SqlitePlace) -> None:
    """Neither the state nor a later attempt moves a row."""
    rows = [desk.row(number) for number in (5, 3, 9, 1)]
    for wanted in rows:
        desk.bring(wanted, OUTCOMES[4])
    desk.begin_next_run()
    desk.bring(rows[0], OUTCOMES[0])
    lines = [each.line for each in rows]
    assert [line for line, _ in exported(place)] == lines
    assert [line for line, _ in exported(place, "failed", "created")] == lines


@pytest.mark.parametrize(
    ("states", "lines"),
    [
        ((), [2, 3, 4, 5, 6, 7, 30]),
        (("created",), [2]),
        (("rejected",), [4, 30]),
        (("failed", "parked"), [5, 6]),
        (("started",), []),
        (("'; DROP TABLE rows --",), []),
    ],
)
def test_only_the_states_asked_for_are_exported(
    desk: Desk, place: SqlitePlace, states: tuple[str, ...], lines: list[int]
) -> None:
    """Local rejections belong to rejected; an unknown state matches nothing."""
    for number, outcome in enumerate(OUTCOMES):
        desk.bring(desk.row(number), outcome)
    desk.ledger.write([rejected(desk, 30)])
    assert [line for line, _ in exported(place, *states)] == lines


def test_a_runs_export_holds_what_it_brought_about(place: SqlitePlace) -> None:
    """A row belongs to the run that sent it last; a local rejection to the run that found it, also when retired."""
    with at_work(place) as desk:
        desk.bring(desk.row(0), OUTCOMES[0])
        desk.bring(desk.row(1), OUTCOMES[4])
        desk.ledger.write([rejected(desk, 30), rejected(desk, 40)])
    with at_work(place) as desk:
        desk.bring(desk.row(1), OUTCOMES[0])
        desk.ledger.write([rejected(desk, 30)])
        desk.ledger.supersede(desk.source, 30)
    assert exported(place, run=1) == [(2, "created"), (30, "rejected"), (40, "rejected")]
    assert exported(place, run=2) == [(3, "created"), (30, "rejected")]
    assert exported(place, "created", run=2) == [(3, "created")]
    assert exported(place, "rejected", run=2) == [(30, "rejected")]
    assert exported(place, run=3) == []
    assert exported(place) == [(2, "created"), (3, "created"), (40, "rejected"), (30, "rejected")]


# ---- beside a run ---------------------------------------------------------------------------------------------------


def test_a_half_read_export_does_not_disturb_the_writer(desk: Desk, place: SqlitePlace) -> None:
    """While somebody exports slowly the run goes on; the export shows the rows as they were when it began."""
    numbers = [desk.intend(desk.row(number)) for number in range(50)]
    with View(place.path) as view:
        rows = view.export()
        first = next(rows)
        answers = desk.ledger.write([Intent(desk.row(number)) for number in range(50, 100)])
        assert len({*numbers, *answers}) == 100
        assert len([first, *rows]) == 50
        assert len(list(view.export())) == 100


def test_an_export_that_nobody_reads_to_its_end_can_be_left(desk: Desk, place: SqlitePlace) -> None:
    """Closing a look in the middle is allowed, and lets go of the ledger."""
    for number in range(5):
        desk.intend(desk.row(number))
    with View(place.path) as view, closing(view.export()) as rows:
        next(rows)
    desk.intend(desk.row(9))


def test_looking_writes_nothing(desk: Desk, place: SqlitePlace) -> None:
    """The connection of a look is read-only, whatever is asked of it."""
    desk.intend(desk.row(1))
    with View(place.path) as view, pytest.raises(sqlite3.OperationalError, match="readonly"):
        view._connection.execute("DELETE FROM payloads")


def test_a_look_after_a_crash_takes_nothing_over(place: SqlitePlace) -> None:
    """A started row reads as in doubt everywhere once its run is gone, but only the next writer may record it."""
    with at_work(place) as desk:
        desk.intend(desk.row(1))
        with View(place.path) as view:
            assert (view.counts(), view.in_doubt(), view.clusters()) == ({"started": 1}, [], [])
            assert [found[3] for found in view.export(["started"])] == ["started"]
    for _ in range(2):
        with View(place.path) as view:
            assert view.counts() == {"in_doubt": 1}
            assert [doubt.reason for doubt in view.in_doubt()] == [CRASH_REASON]
            assert [(group.state, group.code, group.rows) for group in view.clusters()] == [("in_doubt", "crash", 1)]
            assert list(view.export(["started"])) == []
            [found] = view.export(["in_doubt"])
            assert (found[3], found[8], found[9]) == ("in_doubt", "crash", CRASH_REASON)
    with closing(sqlite3.connect(place.path)) as connection:
        assert connection.execute("SELECT state FROM rows").fetchall() == [("started",)]


def test_a_look_needs_a_ledger(place: SqlitePlace) -> None:
    """Looking makes nothing: without a ledger it is refused."""
    with pytest.raises(LedgerRefusedError, match="there is no ledger at"):
        View(place.path)
    assert not place.path.exists()


def test_a_look_at_a_broken_ledger_is_an_error(desk: Desk, place: SqlitePlace) -> None:
    """What cannot be read is said, wherever it is met."""
    assert desk.run
    with View(place.path) as view:
        with closing(sqlite3.connect(place.path)) as vandal, vandal:
            vandal.execute("ALTER TABLE findings RENAME TO gone")
            vandal.execute("ALTER TABLE runs RENAME TO gone_too")
        for look in (view.counts, view.clusters, view.last_run, lambda: list(view.export())):
            with pytest.raises(LedgerError, match="the ledger cannot be read"):
                look()
