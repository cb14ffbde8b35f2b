"""Writing to a ledger in SQLite: one transaction, whose failures are the ledger's, and what goes into it as text."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from worker.errors import LedgerError


@contextmanager
def guarded(connection: sqlite3.Connection, path: Path) -> Iterator[sqlite3.Connection]:
    """Run one transaction; what SQLite or the disk says against it becomes a LedgerError."""
    try:
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")
    except sqlite3.Error as exc:
        if connection.in_transaction:  # a commit that failed, on a full disk say, is still open
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
        raise LedgerError(f"{path}: the ledger cannot be written: {exc}") from exc


def storable(text: str) -> str:
    """Return a text of the service's without halves of surrogate pairs, which JSON can carry and UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode()


def milliseconds() -> int:
    """Return the time as the ledger keeps it: milliseconds since 1970, UTC."""
    return time.time_ns() // 1_000_000
