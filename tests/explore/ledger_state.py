"""The real ledger as a pure function of its content and an entry.

The search jumps between thousands of states, so the content of a ledger is a value here. Each new pair of a content and
an entry goes through the real ledger once, in SQLite in memory; the result is remembered.
"""

import json
import sqlite3
from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from unittest import mock

from worker.ledger import Asked, Entry, Known, Standing, Surroundings, standing_of, tables
from worker.ledger.connection import Connection, SqliteConnection
from worker.ledger.schema import prepare
from worker.ledger.tables import Tables
from worker.model import Row
from worker.model import State as RowState

T = TypeVar("T")

NOW = 10_000.0
"""The time in seconds, always: when time passes, earlier times move back instead."""

RUNS = 30
"""Runs that the ledger in memory has; states are renumbered, so that few are needed."""


class RowRecord(NamedTuple):
    """A row in the ledger. payload: whether its record and request are there."""

    number: int
    key: str
    state: str
    run: int
    sid: str | None
    payload: bool


class BaselineRecord(NamedTuple):
    """A baseline. at: seconds before now, negative; None when it does not hold any more."""

    run: int
    at: float | None
    sids: tuple[str, ...]


class LedgerState(NamedTuple):
    """The content of a ledger of one channel that decisions depend on. looks, closures: row number and sids."""

    rows: tuple[RowRecord, ...] = ()
    baseline: BaselineRecord | None = None
    looks: tuple[tuple[int, tuple[str, ...]], ...] = ()
    closures: tuple[tuple[int, str], ...] = ()

    def row(self, key: str) -> RowRecord | None:
        """Return the record of a row."""
        return next((row for row in self.rows if row.key == key), None)

    @property
    def sids(self) -> frozenset[str]:
        """The sids of all rows, of closed participants and of the channel's baseline."""
        found = {row.sid for row in self.rows if row.sid} | {sid for _, sid in self.closures}
        return frozenset(found | set(self.baseline.sids if self.baseline else ()))

    @property
    def unresolved(self) -> bool:
        """Whether a row may or may not exist."""
        return any(row.state in {"started", "in_doubt"} for row in self.rows)

    def later(self, seconds: float, longest: float) -> "LedgerState":
        """Return the same after some time. longest: ages beyond it make no difference."""
        if self.baseline is None or self.baseline.at is None:
            return self
        return self._replace(baseline=self.baseline._replace(at=max(self.baseline.at - seconds, -longest)))

    def renumbered(self) -> "LedgerState":
        """Return the same with runs numbered from 1: only their order and equality matter, and not of final rows."""
        final = {"created", "existed", "closed"}
        used = {row.run for row in self.rows if row.state not in final}
        used |= {self.baseline.run} if self.baseline else set()
        order = {run: place for place, run in enumerate(sorted(used), 1)}
        rows = tuple(row._replace(run=0 if row.state in final else order[row.run]) for row in self.rows)
        baseline = self.baseline and self.baseline._replace(run=order[self.baseline.run])
        return self._replace(rows=rows, baseline=baseline)

    @property
    def next_run(self) -> int:
        """Return the number that the next run gets."""
        return max([row.run for row in self.rows] + ([self.baseline.run] if self.baseline else [0]), default=0) + 1


class _MemoryTables(Tables):
    """The writing side of the ledger, in memory."""

    def _check(self, *, soon: bool = False) -> None:
        del soon

    def close(self) -> None:
        self._connection.close()

    def enter_run(self, run: int) -> None:
        """Write as this run from now on."""
        self._run = run


class PureLedger:
    """The ledger as a function. rows: every row of the channel."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._of = {row.key: row for row in rows}
        self._connection = sqlite3.connect(":memory:", isolation_level=None, factory=SqliteConnection)
        place = Path("memory")
        prepare(self._connection, place)
        self._ledger = _MemoryTables(self._connection, place)
        execute = self._connection.execute
        execute("INSERT INTO sources VALUES (1, 'input.csv', 'csv', 'utf-8', ',', 'a', '', NULL)")
        execute("INSERT INTO channels VALUES (1, ?, ?)", (rows[0].channel_sid, rows[0].interaction_sid))
        for run in range(RUNS):
            execute(
                "INSERT INTO runs (id, command, version, host, pid, started_at) VALUES (?, '', '', '', 0, 0)", (run,)
            )
        self._known: dict[Hashable, Any] = {}
        self._held: LedgerState | None = None
        self.asked = 0
        self.written = 0

    def close(self) -> None:
        """Close the ledger in memory."""
        self._ledger.close()

    # ---- what a run does --------------------------------------------------------------------------------------------

    def write(
        self, held: LedgerState, run: int, entries: Sequence[Entry], now: float = NOW
    ) -> tuple[LedgerState, list[int | Known | Asked | None]]:
        """Return the content after a group of entries, and their answers. Raises LedgerError as a ledger does."""
        return self._remembered((held, run, tuple(entries), now), lambda: self._write(held, run, entries, now))

    def open(self, held: LedgerState) -> LedgerState:
        """Return the content after the ledger is opened: rows that a run left as started are in doubt."""

        def opened() -> LedgerState:
            self._restore(held, NOW)
            self._ledger.settle_crashed()
            return self._taken(NOW)

        return self._remembered((held, "open"), opened)

    def surroundings(self, held: LedgerState, number: int) -> Surroundings:
        """Return what is known about the channel of a row."""
        return self._remembered((held, number), lambda: self._ask(held, lambda: self._ledger.surroundings(number)))

    def stored(self, held: LedgerState, run: int, states: Sequence[RowState], after: int) -> list[Row]:
        """Return the rows of earlier runs in these states."""

        def stored() -> list[Row]:
            self._ledger.enter_run(run)
            return self._ledger.stored(states, after, 100)

        return self._remembered((held, run, *states, after), lambda: self._ask(held, stored))

    def to_send(self, held: LedgerState) -> list[Row]:
        """Return the rows that a reading of the input hands to the run; one in doubt may have changed by its turn."""
        found = []
        for key, row in self._of.items():
            kept = held.row(key)
            known = kept and Known(key, row.fingerprint, RowState(kept.state), 1, row.line)
            if standing_of(known, row.fingerprint) in {Standing.SEND, Standing.IN_DOUBT}:
                found.append(row)
        return found

    # ---- inside -----------------------------------------------------------------------------------------------------

    def _remembered(self, key: Hashable, make: Callable[[], T]) -> T:
        self.asked += 1
        try:
            found: T = self._known[key]
        except KeyError:
            self.written += 1
            found = self._known[key] = make()
        return found

    def _write(
        self, held: LedgerState, run: int, entries: Sequence[Entry], now: float
    ) -> tuple[LedgerState, list[int | Known | Asked | None]]:
        self._restore(held, now)
        self._ledger.enter_run(run)
        try:
            with clock_at(lambda: now):
                answers = self._ledger.write(entries)
            after = self._taken(now)
        except BaseException:
            self._held = None
            raise
        return after, answers

    def _ask(self, held: LedgerState, ask: Callable[[], T]) -> T:
        self._restore(held, NOW)
        return ask()

    def _restore(self, held: LedgerState, now: float) -> None:
        if held == self._held and now == NOW:
            return
        execute = self._connection.execute
        for table in ("looks", "closures", "baselines", "payloads", "decisions", "rows"):
            execute(f"DELETE FROM {table}")
        for number, key, state, run, sid, payload in held.rows:
            row = self._of[key]
            execute(
                "INSERT INTO rows (id, key, fingerprint, state, run_id, source_id, line, mark, channel_id, type, sid, "
                "started_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 1, ?, ?, 0)",
                (number, key, row.fingerprint, state, run, row.source, row.line, row.mark, row.type, sid),
            )
            if payload:
                execute("INSERT INTO payloads VALUES (?, ?, ?)", (number, row.text, row.body))
        if held.baseline:
            run, at, sids = held.baseline
            taken_at = 0 if at is None else round(1000 * (NOW + at))
            execute("INSERT INTO baselines VALUES (1, ?, ?, ?)", (run, taken_at, json.dumps(sids)))
        for number, sids in held.looks:
            execute("INSERT INTO looks VALUES (?, 0, '', ?)", (number, json.dumps(sids)))
        for number, sid in held.closures:
            execute("INSERT INTO closures (row_id, run_id, closed_at, sid) VALUES (?, 0, 0, ?)", (number, sid))
        self._held = held

    def _taken(self, now: float) -> LedgerState:
        held = read_state(self._connection, now)
        self._held = held if now == NOW else None
        return held


def read_state(connection: Connection, now: float) -> LedgerState:
    """Return the content of a ledger. now: in seconds, for the age of its baseline."""
    rows = connection.execute(
        "SELECT rows.id, key, state, run_id, sid, row_id IS NOT NULL FROM rows "
        "LEFT JOIN payloads ON row_id = rows.id ORDER BY rows.id"
    )
    kept = tuple(RowRecord._make((*row[:5], bool(row[5]))) for row in rows)
    found = connection.execute("SELECT run_id, taken_at, sids FROM baselines").fetchone()
    baseline = None
    if found:
        run, at, sids = found
        baseline = BaselineRecord(run, at / 1000 - now if at else None, tuple(sorted(json.loads(sids))))
    looks = connection.execute("SELECT row_id, candidates FROM looks ORDER BY row_id")
    shown = tuple((number, tuple(sorted(json.loads(sids)))) for number, sids in looks)
    closures = tuple(connection.execute("SELECT row_id, sid FROM closures ORDER BY row_id, sid").fetchall())
    return LedgerState(kept, baseline, shown, closures)


def clock_at(seconds: Callable[[], float]) -> AbstractContextManager[object]:
    """Make ledgers use this clock, in seconds."""

    def milliseconds() -> int:
        return round(1000 * seconds())

    return mock.patch.object(tables, "milliseconds", milliseconds)
