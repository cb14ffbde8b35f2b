"""A word to the run that works on a ledger: written beside it by another process, looked for by the run itself.

An order is for one run and ends with it. What it means is the run's affair.
"""

import sqlite3
import time
from contextlib import closing
from types import TracebackType
from typing import Literal, NamedTuple, Self

from worker.errors import LedgerError, LedgerRefusedError
from worker.ledger.connection import Connection
from worker.ledger.lock import UNNAMED
from worker.ledger.opening import holder_of, open_beside, open_readonly
from worker.place import Place

Command = Literal["rate", "pause", "resume", "drain"]

_STEERED = ("run", "retry", "reconcile", "undo")
"""The commands whose runs look for orders."""

_NEWEST = "SELECT id, command, pid, host, ended_at FROM runs ORDER BY id DESC LIMIT 1"
_ORDER = "INSERT INTO orders (run_id, given_at, given_by, command, rate) VALUES (?, ?, ?, ?, ?)"
_FURTHER = "SELECT id, command, rate, given_by FROM orders WHERE run_id = ? AND id > ? ORDER BY id"


class Order(NamedTuple):
    """What a person told a run. rate: requests a second at most (inf: as configured), of the command `rate` only."""

    number: int
    command: Command
    rate: float | None
    by: str


def give_order(path: Place, command: Command, rate: float | None, by: str) -> int:
    """Write an order to the run that is at work on a ledger, durably; returns the run's number.

    rate: requests a second at most, for `rate` only. by: who gives it. Raises LedgerRefusedError when there is no such
    run or no ledger of this version, LedgerError when it cannot be written.
    """
    try:
        with closing(open_beside(path)) as connection:
            holder = holder_of(path)
            if holder is None:
                raise LedgerRefusedError(
                    f"{path}: no run is at work on this ledger, so there is none to steer; flex-import status shows "
                    "where it stands"
                )
            connection.begin()
            connection.hold("runs")  # from here on the run cannot end before the order is in
            run = _steered(connection, path, holder)
            by = by.encode("utf-8", "replace").decode()  # a name may come from an environment that is no text
            connection.execute(_ORDER, (run, time.time_ns() // 1_000_000, by, command, rate))
            connection.commit()
            return run
    except sqlite3.Error as exc:
        raise LedgerError(f"{path}: the order could not be written: {exc}; give it again") from exc


def _steered(connection: Connection, path: Place, holder: str) -> int:
    found = connection.execute(_NEWEST).fetchone()
    number, command, pid, host, ended_at = found or (0, "", 0, "", 0)
    # who holds the lock opens or closes the ledger when the newest run is over, or is a crashed one of another process
    far = " on " in holder and f"process {pid} on {host}".startswith(holder)  # a database cuts off long names
    if ended_at is not None or not (far or holder in {f"process {pid}", UNNAMED}):
        raise LedgerRefusedError(
            f"{path}: no run is at work on this ledger yet, or any more: {holder} has only just opened it, or is about "
            "to close it; try again in a moment"
        )
    if command not in _STEERED:
        raise LedgerRefusedError(
            f"{path}: run {number} ({command}) cannot be steered, only {', '.join(_STEERED)}; it soon ends by itself"
        )
    return int(number)


class Orders:
    """The orders to one run, as they come. A read-only look that never holds up who writes.

    Raises LedgerError when the ledger cannot be read. Close it before the ledger: who closes last tidies up its log.
    """

    def __init__(self, path: Place, run: int) -> None:
        self._path = path
        self._run = run
        self._last = 0
        self._connection = open_readonly(path)

    def next(self) -> list[Order]:
        """Return the orders that were not returned yet, in the order in which they were given."""
        try:
            found = self._connection.execute(_FURTHER, (self._run, self._last)).fetchall()
        except sqlite3.Error as exc:
            raise LedgerError(f"{self._path}: the orders to this run cannot be read: {exc}") from exc
        orders = [Order(*row) for row in found]
        if orders:
            self._last = orders[-1].number
        return orders

    def close(self) -> None:
        """Look no further."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
