"""The ledger in PostgreSQL: the contract, and what only a database can get wrong."""

import json
import os
import signal
import sqlite3
from contextlib import closing
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import pytest

from tests.ledger_contract import OUTCOMES, LedgerContract, at_work
from tests.postgres import Postgres, postgres
from tests.samples_of import sid
from tests.test_ledger_sqlite import SqlitePlace
from worker.errors import LedgerError, LedgerHeldError, LedgerRefusedError
from worker.ledger import BASELINE_FIRST, SID_KNOWN, Baseline, Entry, Finding, Intent, Known, Settle, pgschema, schema
from worker.ledger.connection import read
from worker.ledger.keeping import copy_ledger
from worker.ledger.moving import TABLES
from worker.ledger.pgconnection import PostgresConnection, connect
from worker.ledger.pgledger import PostgresLedger
from worker.ledger.postgres import (
    create_ledger,
    exists,
    holders_of,
    open_beside,
    open_ledger,
    open_readonly,
)
from worker.ledger.view import COLUMNS, View
from worker.model import Created, Sample, Settlement, State
from worker.place import Server


class PostgresPlace:
    """A ledger in a schema of its own."""

    def __init__(self, place: Server) -> None:
        self.place = place
        self.opener = (
            "from worker.ledger.postgres import create_ledger, exists, open_ledger\n"
            "from worker.place import Server\n"
            f"place = Server({place!r})\n"
            "if not exists(place):\n    create_ledger(place)\n"
            "ledger = open_ledger(place)"
        )

    def open(self) -> PostgresLedger:
        """Open the ledger; make it first when there is none."""
        if not exists(self.place):
            create_ledger(self.place)
        return open_ledger(self.place)

    def _query(self, query: str) -> list[Any]:
        with closing(open_readonly(self.place)) as connection:
            return connection.execute(query).fetchall()

    def rows(self) -> list[dict[str, Any]]:
        """Return the export."""
        with View(self.place) as view:
            return [dict(zip(COLUMNS, found, strict=True)) for found in view.export()]

    def payloads(self) -> dict[str, tuple[str, bytes]]:
        """Return what is kept to send rows again."""
        query = "SELECT key, record, request FROM payloads JOIN rows ON rows.id = row_id"
        return {key: (read(record) or "", request) for key, record, request in self._query(query)}

    def findings(self) -> list[tuple[str, str, int, int | None]]:
        """Return the findings and who retired them."""
        query = (
            "SELECT kind, path, line, superseded_by FROM findings "
            "JOIN sources ON sources.id = source_id ORDER BY findings.id"
        )
        return self._query(query)

    def looks(self) -> dict[str, tuple[str, tuple[str, ...]]]:
        """Return the looks."""
        query = "SELECT key, looks.reason, candidates FROM looks JOIN rows ON rows.id = row_id WHERE looked_at > 0"
        return {key: (reason, tuple(json.loads(sids))) for key, reason, sids in self._query(query)}

    def decisions(self) -> list[tuple[str, int, str, str, str | None, str | None, int]]:
        """Return the decisions."""
        query = (
            "SELECT key, decisions.run_id, decided_by, decision, decisions.sid, decisions.reason, decided_at "
            "FROM decisions JOIN rows ON rows.id = row_id ORDER BY decisions.id"
        )
        return self._query(query)

    def waivers(self) -> dict[bytes, tuple[int, str, str, int]]:
        """Return the waivers."""
        query = "SELECT digest, run_id, waived_by, reason, waived_at FROM waivers"
        return {digest: tuple(found) for digest, *found in self._query(query)}

    def verifications(self) -> dict[str, tuple[int, str, str | None]]:
        """Return what was verified last."""
        query = "SELECT key, verifications.run_id, result, detail FROM verifications JOIN rows ON rows.id = row_id"
        return {key: tuple(found) for key, *found in self._query(query)}

    def samples(self, run: int) -> list[Sample]:
        """Return the samples."""
        with View(self.place) as view:
            return [sample for _, sample in view.samples(run)]

    def forget(self, key: str) -> None:
        """Do what `ledger prune` will do."""
        with closing(open_beside(self.place)) as connection:
            connection.execute("DELETE FROM payloads WHERE row_id = (SELECT id FROM rows WHERE key = ?)", (key,))

    def decide(self, key: str, state: State) -> None:
        """Do what `waive` does and `undo` will do."""
        with closing(open_beside(self.place)) as connection:
            connection.execute("UPDATE rows SET state = ? WHERE key = ?", (state, key))


class TestPostgresLedger(LedgerContract):
    """The contract, kept by the ledger in PostgreSQL."""

    @pytest.fixture
    def place(self, server: Postgres) -> PostgresPlace:
        """Return a schema with no ledger yet."""
        return PostgresPlace(server.new_schema())


@pytest.fixture
def place(server: Postgres) -> PostgresPlace:
    """Return a schema with no ledger yet."""
    return PostgresPlace(server.new_schema())


def change(place: PostgresPlace, statement: str) -> None:
    """Do something to a ledger's tables."""
    with closing(connect(place.place, "tests")) as connection:
        connection.execute(statement)


# ---- what is no ledger ----------------------------------------------------------------------------------------------


def test_a_ledger_is_made_once(place: PostgresPlace) -> None:
    """What is there is never replaced, and what is not there is not made by opening."""
    assert not exists(place.place)
    with pytest.raises(LedgerRefusedError, match="there is no ledger at"):
        open_ledger(place.place)
    create_ledger(place.place)
    with pytest.raises(LedgerRefusedError, match="there is a ledger already"):
        create_ledger(place.place)


def test_a_schema_that_is_not_there_is_not_made(server: Postgres) -> None:
    """Which schemas a database has is for its owner to say."""
    with pytest.raises(LedgerRefusedError, match="CREATE SCHEMA first"):
        create_ledger(Server(server.address("nowhere")))


@pytest.mark.parametrize(
    ("version", "message"), [(0, "there is no ledger"), (99, r"newer flex-import \(schema 99")], ids=["none", "newer"]
)
def test_another_version_is_refused(place: PostgresPlace, version: int, message: str) -> None:
    """An older program does not guess at what a newer one wrote."""
    place.open().close()
    change(place, f"UPDATE ledger_version SET version = {version}")
    for opening in (open_ledger, open_readonly, open_beside):
        with pytest.raises(LedgerRefusedError, match=message):
            opening(place.place)


def test_an_older_ledger_is_brought_up_to_date_by_who_writes(
    place: PostgresPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who only looks says who can."""
    place.open().close()
    monkeypatch.setattr(pgschema, "MIGRATIONS", (*pgschema.MIGRATIONS, "CREATE TABLE colours (id BIGINT)"))
    with pytest.raises(LedgerRefusedError, match="older flex-import"):
        open_readonly(place.place)
    monkeypatch.setattr(pgschema.prepare, "__defaults__", (pgschema.MIGRATIONS,))
    place.open().close()
    with closing(open_readonly(place.place)) as connection:
        assert connection.execute("SELECT count(*) FROM colours").fetchone() == (0,)


def test_rows_that_an_earlier_version_gave_one_sid_are_in_doubt(place: PostgresPlace) -> None:
    """A participant is one row's: whose it is nobody knows. Other rows stay what they were."""
    with at_work(place) as desk:
        for number in range(3):
            desk.bring(desk.row(number), Created(sid("UT", f"e{number}")))
    change(
        place,
        "DROP INDEX rows_sid, closures_sid, channels_sids; DROP TABLE repairs; ALTER TABLE findings DROP ref; "
        "UPDATE ledger_version SET version = 3; "
        "ALTER TABLE sources DROP COLUMN byte_order_mark; "
        "ALTER TABLE channels ADD UNIQUE (channel_sid, interaction_sid); "
        "DROP TABLE verifications; ALTER TABLE decisions DROP state, DROP what; "
        "ALTER TABLE waivers DROP code, DROP cause; DROP INDEX decisions_row; "
        f"UPDATE rows SET sid = upper(sid) WHERE sid = '{sid('UT', 'e1')}'; "
        f"UPDATE rows SET sid = '{sid('UT', 'e1')}' WHERE sid = '{sid('UT', 'e2')}'",
    )
    place.open().close()
    assert [(found["state"], found["sid"], found["code"]) for found in place.rows()] == [
        ("created", sid("UT", "e0"), None), ("in_doubt", None, "known_sid"), ("in_doubt", None, "known_sid"),
    ]  # fmt: skip


def test_a_sid_that_another_session_records_meanwhile_is_found_out(place: PostgresPlace) -> None:
    """Two workers get one cached answer: whichever commits second has its row in doubt, and its group is written."""
    taken = sid("UT", 1)
    with at_work(place) as desk:
        theirs, ours = desk.row(1), desk.row(2)
        numbers = [desk.intend(theirs), desk.intend(ours)]
        other = connect(place.place, "test")
        other.begin()
        other.execute("UPDATE rows SET state = 'created', sid = ? WHERE id = ?", (taken, numbers[0]))
        answers: list[object] = []
        settle = Settle(numbers[1], Settlement(ours.key, Created(taken)))
        writing = Thread(target=lambda: answers.extend(desk.ledger.write([settle, Intent(desk.row(3))])))
        writing.start()
        with closing(connect(place.place, "test")) as looking:
            blocked = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%judged%'"
            while not looking.execute(blocked).fetchone()[0]:
                assert writing.is_alive()
        other.commit()
        other.close()
        writing.join()
        assert answers == [SID_KNOWN, answers[1]]
        assert isinstance(answers[1], int)
    assert [found["state"] for found in place.rows()] == ["created", "in_doubt", "in_doubt"]


def test_a_server_that_forgets_is_refused(place: PostgresPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is recorded must outlive a power cut."""
    place.open().close()
    answer = SimpleNamespace(fetchone=lambda: ("off",))
    execute = PostgresConnection.execute
    monkeypatch.setattr(
        PostgresConnection,
        "execute",
        lambda self, query, values=(): answer if query == "SHOW fsync" else execute(self, query, values),
    )
    with pytest.raises(LedgerRefusedError, match="fsync off"):
        place.open()


# ---- one at a time --------------------------------------------------------------------------------------------------


def test_one_process_at_a_time_and_the_other_one_is_named(place: PostgresPlace) -> None:
    """The lock goes with the session."""
    assert not exists(place.place)
    with at_work(place):
        with pytest.raises(LedgerHeldError, match=rf"process {os.getpid()} on \S+ is working on this ledger"):
            place.open()
        [holder] = holders_of(place.place)
        assert holder.startswith(f"process {os.getpid()} on ")
    assert holders_of(place.place) == []
    place.open().close()


def test_two_ledgers_of_one_database_know_nothing_of_each_other(server: Postgres) -> None:
    """A schema is a ledger: its lock, its rows, its versions."""
    one, other = PostgresPlace(server.new_schema()), PostgresPlace(server.new_schema())
    with at_work(one) as desk, at_work(other) as there:
        desk.bring(desk.row(1), OUTCOMES[0])
        there.bring(there.row(1), OUTCOMES[2])
    assert [found["state"] for found in one.rows()] == ["created"]
    assert [found["state"] for found in other.rows()] == ["rejected"]


def test_a_session_that_is_cut_off_writes_no_more(place: PostgresPlace, server: Postgres) -> None:
    """Its lock is gone, so another process may be at work: nothing is recorded, so nothing is sent."""
    with at_work(place) as desk:
        number = desk.intend(desk.row(1))
        server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE '%works%'")
        for _ in range(2):
            with pytest.raises(LedgerError, match="the ledger cannot be used"):
                desk.ledger.write([Intent(desk.row(2))])
    with at_work(place) as desk:
        assert [(found["key"], found["state"]) for found in place.rows()] == [(desk.row(1).key, "in_doubt")]
        assert desk.ledger.surroundings(number).unresolved == 1


def test_a_server_that_crashes_keeps_what_was_written() -> None:
    """What a write returned from is on the disk."""
    with postgres() as server:
        place = PostgresPlace(server.new_schema())
        with at_work(place) as desk:
            desk.bring(desk.row(1), OUTCOMES[0])
            desk.intend(desk.row(2))
            server.stop(signal.SIGQUIT)
            with pytest.raises(LedgerError):
                desk.intend(desk.row(3))
        server.start()
        place.open().close()
        assert [found["state"] for found in place.rows()] == ["created", "in_doubt"]


# ---- groups ---------------------------------------------------------------------------------------------------------


def test_a_group_of_everything_is_written_in_its_order(place: PostgresPlace) -> None:
    """A statement for many rows answers for each of them, and what depends on another entry comes after it."""
    with at_work(place) as desk:
        rows = [desk.row(number, channel=number % 3) for number in range(40)]
        done = desk.intend(desk.row(100))
        earlier = [desk.intend(one) for one in rows[:10]]
        settled = [
            Settle(at, Settlement(one.key, Created(sid("UT", at)))) for at, one in zip(earlier, rows, strict=False)
        ]
        group: list[Entry] = []
        for number in range(10):
            finding = Finding("duplicate", desk.source, number, rows[number].key, "duplicate", "again")
            group += [settled[number], Intent(rows[10 + number], baseline_first=number % 2 == 1), finding]
        group += [Baseline(rows[1], ("UT",)), Intent(rows[22], baseline_first=True), Intent(rows[0]), Intent(rows[10])]
        answers = desk.ledger.write(group)
        assert answers[0:30:3] == [None] * 10
        numbers = [answer for answer in answers[1:30:6] if isinstance(answer, int)]
        assert len(set(numbers)) == 5
        assert min(numbers) > done
        assert answers[4:30:6] == [BASELINE_FIRST] * 5
        assert answers[2:30:3] == [None] * 10
        assert isinstance(answers[31], int)
        assert [isinstance(one, Known) and one.state for one in answers[32:]] == [State.CREATED, State.STARTED]
    assert len(place.findings()) == 10


def test_a_settlement_of_a_row_that_is_not_started_undoes_its_whole_group(place: PostgresPlace) -> None:
    """All of a group or nothing."""
    with at_work(place) as desk:
        number = desk.intend(desk.row(1))
        other = desk.bring(desk.row(2), OUTCOMES[0])
        group = [Settle(one, Settlement(desk.row(at).key, OUTCOMES[2])) for at, one in ((1, number), (2, other))]
        with pytest.raises(LedgerError, match="no longer started"):
            desk.ledger.write([*group, Intent(desk.row(3))])
    assert sorted(found["state"] for found in place.rows()) == ["created", "in_doubt"]


# ---- moving house ---------------------------------------------------------------------------------------------------


def test_every_table_and_column_is_moved(place: PostgresPlace) -> None:
    """A column that one engine has and the other does not, or that nobody moves, would be lost."""
    place.open().close()
    with closing(open_readonly(place.place)) as connection:
        query = (
            "SELECT table_name, column_name FROM information_schema.columns "
            "WHERE table_schema = current_schema() "
            "AND table_name NOT IN ('ledger_version', 'chunks', 'queued', 'crew', 'pace')"
        )
        in_postgres = set(connection.execute(query).fetchall())
    in_sqlite: set[tuple[str, str]] = set()
    with closing(sqlite3.connect(":memory:")) as memory:
        for step in schema.MIGRATIONS:
            memory.executescript(step)
        for (table,) in memory.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall():
            in_sqlite |= {(table, column[1]) for column in memory.execute(f"PRAGMA table_info({table})")}
    moved = {(table, column) for table, columns in TABLES.items() for column in columns}
    assert in_postgres == in_sqlite == moved


def test_a_ledger_moves_there_and_back_and_is_the_same(place: PostgresPlace, tmp_path: Path) -> None:
    """From a file to a database and into a file again: all that can be asked has the same answer, and it goes on."""
    before = SqlitePlace(tmp_path / "before.db")
    with at_work(before) as desk:
        for number, outcome in enumerate(OUTCOMES):
            desk.bring(desk.row(number), outcome)
        desk.intend(desk.row(50))
        found = Finding("rejected", desk.source, 9, None, "malformed", "has a NUL character", "a\0b\n", "here")
        desk.ledger.write([found, Sample(*range(11)), Baseline(desk.row(1), ("UT",))])
    before.open().close()  # which makes the row that was under way one in doubt
    assert copy_ledger(before.path, place.place) == len(OUTCOMES) + 1
    assert copy_ledger(place.place, tmp_path / "after.db") == len(OUTCOMES) + 1
    after = SqlitePlace(tmp_path / "after.db")
    for one in (place, after):
        assert one.rows() == before.rows()
        assert (one.payloads(), one.findings(), one.samples(1)) == (
            before.payloads(), before.findings(), before.samples(1),
        )  # fmt: skip
        with View(before.path) as view, View(getattr(one, "place", tmp_path / "after.db")) as other:
            assert list(other.rejects()) == list(view.rejects())
            assert other.clusters() == view.clusters()
    with at_work(place) as desk:
        known = {found["key"] for found in place.rows()}
        desk.bring(desk.row(60), OUTCOMES[0])
        assert {found["key"] for found in place.rows()} - known == {desk.row(60).key}
