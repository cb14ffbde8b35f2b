"""A word to the run that works on a ledger: written beside it by another process, looked for by the run itself.

An order is for one run and ends with it; what workers are told is for all of them, and holds until they are told
otherwise. What an order means is the run's affair.
"""

import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from math import inf
from types import TracebackType
from typing import Literal, NamedTuple, Self

from worker.errors import LedgerError, LedgerRefusedError
from worker.ledger.connection import Connection
from worker.ledger.opening import holders_of, open_beside, open_readonly
from worker.ledger.presence import runs_at_work
from worker.place import Place, Server

Command = Literal["rate", "pause", "resume", "drain"]

_STEERED = ("run", "retry", "reconcile", "undo", "verify", "worker")
"""The commands whose runs look for orders."""

_ORDER = "INSERT INTO orders (run_id, given_at, given_by, command, rate) VALUES (?, ?, ?, ?, ?)"
_FURTHER = "SELECT id, command, rate, given_by FROM orders WHERE run_id = ? AND id > ? ORDER BY id"
_PAUSED = """
SELECT command, given_by FROM orders WHERE run_id = ? AND command IN ('pause', 'resume') ORDER BY id DESC LIMIT 1
"""
_STANDING = """
SELECT id, command, rate, given_by FROM orders WHERE id IN (
    SELECT max(orders.id) FROM orders JOIN runs ON runs.id = run_id
    WHERE runs.command = 'worker' AND orders.command <> 'drain' GROUP BY orders.command = 'rate')
ORDER BY id
"""


class Order(NamedTuple):
    """What a person told a run. rate: requests a second at most (inf: as configured), of the command `rate` only."""

    number: int
    command: Command
    rate: float | None
    by: str


def give_order(path: Place, command: Command, rate: float | None, by: str) -> list[int]:
    """Write an order to the run that is at work on a ledger, durably, or to all workers; returns their numbers.

    rate: requests a second at most, for `rate` only. by: who gives it. Raises LedgerRefusedError when there is no such
    run or no ledger of this version, LedgerError when it cannot be written.
    """
    try:
        with closing(open_beside(path)) as connection:
            holders = holders_of(path)
            if not holders:
                raise LedgerRefusedError(f"{path}: no run is at work on this ledger, so there is none to steer")
            connection.begin()
            connection.hold("runs")  # from here on the run cannot end before the order is in
            runs = _steered(connection, path, holders)
            by = by.encode("utf-8", "replace").decode()  # a name may come from an environment that is no text
            for run in runs:
                connection.execute(_ORDER, (run, time.time_ns() // 1_000_000, by, command, rate))
            connection.commit()
            return runs
    except sqlite3.Error as exc:
        raise LedgerError(f"{path}: the order could not be written: {exc}; give it again") from exc


def _steered(connection: Connection, path: Place, holders: Sequence[str]) -> list[int]:
    """Return the runs at work, the newest first: of one process in a file, of several where workers share a ledger."""
    at_work = runs_at_work(connection, holders)
    alone = len(holders) == 1
    if not at_work or (alone and not _goes_on(connection, path, at_work[0][0])):
        raise LedgerRefusedError(
            f"{path}: no run is at work on this ledger yet, or any more: {holders[0]} has only just opened it, or is "
            "about to close it; try again in a moment"
        )
    steered = [run for run, command in at_work if command in _STEERED]
    if not steered:
        run, command = at_work[0]
        raise LedgerRefusedError(
            f"{path}: run {run} ({command}) cannot be steered, only {', '.join(_STEERED)}; it soon ends by itself"
        )
    return steered[:1] if alone else steered


def _goes_on(connection: Connection, path: Place, run: int) -> bool:
    """Tell whether this run is the only holder's present one, not a crashed one of a process with the same number.

    The only holder of a ledger has its newest run, unless it has only just opened the ledger or is about to close it.
    A worker shares the ledger, so other runs may have begun and ended since; but then it is one of the crew.
    """
    if run == connection.execute("SELECT max(id) FROM runs").fetchone()[0]:
        return True
    if not isinstance(path, Server) or not connection.execute("SELECT to_regclass('crew') IS NOT NULL").fetchone()[0]:
        return False
    return connection.execute("SELECT 1 FROM crew WHERE run_id = ?", (run,)).fetchone() is not None


def standing_orders(connection: Connection) -> list[Order]:
    """Return what workers were told and have to heed whenever they join: a pause that goes on, a rate that holds."""
    found = [Order(*row) for row in connection.execute(_STANDING).fetchall()]
    return [order for order in found if order.command != "resume" and order.rate != inf]


def paused_by(path: Place, run: int) -> str:
    """Return the name of the person who paused this run; "" when it is not paused. Raises LedgerError."""
    try:
        with closing(open_readonly(path)) as connection:
            found = connection.execute(_PAUSED, (run,)).fetchone()
    except sqlite3.Error as exc:
        raise LedgerError(f"{path}: the ledger cannot be read: {exc}") from exc
    return str(found[1]) if found and found[0] == "pause" else ""


class Orders:
    """The orders to one run, as they come. A read-only look that never holds up who writes.

    standing: begin with those that workers have to heed whenever they join.

    Raises LedgerError when the ledger cannot be read. Close it before the ledger: who closes last tidies up its log.
    """

    def __init__(self, path: Place, run: int, *, standing: bool = False) -> None:
        self._path = path
        self._run = run
        self._standing = standing
        self._last = 0
        self._connection = open_readonly(path)

    def next(self) -> list[Order]:
        """Return the orders that were not returned yet, in the order in which they were given."""
        try:
            standing = standing_orders(self._connection) if self._standing else []
            orders = [Order(*row) for row in self._connection.execute(_FURTHER, (self._run, self._last)).fetchall()]
        except sqlite3.Error as exc:
            raise LedgerError(f"{self._path}: the orders to this run cannot be read: {exc}") from exc
        self._standing = False
        if orders:
            self._last = orders[-1].number
        return standing + orders

    def close(self) -> None:
        """Look no further."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
