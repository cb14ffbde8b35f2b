"""The ledger in one SQLite file: WAL, synchronous=FULL, one writer, one process.

What `write` has returned from is on the disk: SQLite syncs the log at each commit [sqlite.org/pragma.html].
"""

import time
from pathlib import Path

from worker.ledger.connection import SqliteConnection
from worker.ledger.lock import Identity, Lock
from worker.ledger.logmark import LogMark
from worker.ledger.tables import Tables

_IDENTITY_SECONDS = 0.2


class SqliteLedger(Tables):
    """The writing side of a ledger file; see `worker.ledger.Ledger` for the contract."""

    def __init__(self, connection: SqliteConnection, path: Path, lock: Lock, mark: LogMark) -> None:
        super().__init__(connection, path)
        self._sqlite = connection
        self._mark = mark
        self._lock = lock
        self._identity = Identity(path)
        self._checked_at = 0.0
        self.settle_crashed()

    def start_run(self, command: str) -> int:
        number = super().start_run(command)
        self._mark.renew(self._sqlite)
        return number

    def _check(self, *, soon: bool = False) -> None:
        if soon or time.monotonic() - self._checked_at > _IDENTITY_SECONDS:
            self._identity.check()
            self._lock.check()
            self._mark.renew(self._sqlite)
            self._checked_at = time.monotonic()

    def close(self) -> None:
        try:
            self._connection.close()
        finally:
            self._mark.close()
            self._lock.release()
