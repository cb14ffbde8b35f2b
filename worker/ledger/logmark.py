"""A mark in the ledger's file: it is incomplete without its log, so a copy of the file alone is refused.

SQLite writes a commit into the log (`imports.db-wal`) and copies it into the file later (a checkpoint). A copy of the
file alone would be a valid ledger without the last rows, or without any, and they would all be sent again.

The mark is another application id, written into the file's header past SQLite. Before it is written, the first page is
committed to the log with the usual id. So whoever opens the file with its log reads the usual id, and each checkpoint
that copies the log into the file, whoever makes it, also removes the mark. A marked file that is read without the usual
id has lost its log. There is no other way to that state, hence no false alarm. While a run goes on, only its own
connection makes checkpoints, and none between that commit and the mark.
"""

import os
import sqlite3
from pathlib import Path

from worker.errors import LedgerError
from worker.ledger.connection import SqliteConnection
from worker.ledger.schema import APPLICATION_ID, INCOMPLETE_ID
from worker.ledger.transaction import guarded

_OFFSET = 68
"""Where the application id is in the header [sqlite.org/fileformat2.html], big-endian."""


class LogMark:
    """The mark of one ledger's file. Open it before SQLite opens the file, and close it afterwards.

    Closing any descriptor of a file drops the locks that the process has on it, SQLite's too.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as exc:
            raise LedgerError(f"{path}: the ledger cannot be opened: {exc.strerror}") from exc

    def renew(self, connection: SqliteConnection) -> None:
        """Mark the file, unless it is marked. Call it between two transactions. Raises LedgerError."""
        try:
            if os.pread(self._descriptor, 4, _OFFSET) == INCOMPLETE_ID.to_bytes(4, "big"):
                return
            pages = connection.execute("PRAGMA wal_autocheckpoint").fetchone()[0]
            connection.execute("PRAGMA wal_autocheckpoint = 0")  # this commit has to stay in the log alone
            with guarded(connection, self._path):
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            os.pwrite(self._descriptor, INCOMPLETE_ID.to_bytes(4, "big"), _OFFSET)
            os.fsync(self._descriptor)
            connection.execute(f"PRAGMA wal_autocheckpoint = {pages}")
        except (OSError, sqlite3.Error) as exc:
            raise LedgerError(f"{self._path}: the ledger cannot be written: {exc}") from exc

    def close(self) -> None:
        """Give the file back; the mark stays as it is."""
        os.close(self._descriptor)
