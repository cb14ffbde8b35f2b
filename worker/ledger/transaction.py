"""Writing to a ledger: one transaction, whose failures are the ledger's, and what goes into it as text."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from worker.errors import LedgerError
from worker.ledger.connection import Connection
from worker.place import Place


@contextmanager
def guarded(connection: Connection, place: Place) -> Iterator[Connection]:
    """Run one transaction; what the engine or the disk says against it becomes a LedgerError."""
    try:
        connection.begin()
        try:
            yield connection
            connection.commit()
        except BaseException:
            with suppress(sqlite3.Error, LedgerError):  # a commit that failed, on a full disk say, is still open
                if connection.in_transaction:
                    connection.rollback()
            raise
    except sqlite3.Error as exc:
        raise LedgerError(f"{place}: the ledger cannot be written: {exc}") from exc


def storable(text: str) -> str:
    """Return a text of the service's as any engine can keep it: no halves of surrogate pairs, no NUL."""
    return text.encode("utf-8", "replace").decode().replace("\0", "\ufffd")


def milliseconds() -> int:
    """Return the time as the ledger keeps it: milliseconds since 1970, UTC."""
    return time.time_ns() // 1_000_000
