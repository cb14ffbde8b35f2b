"""A private database on disk, for what is too much for memory. SQLite removes it by itself, whatever happens."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager

from worker.errors import LedgerError


@contextmanager
def scratch(holds: str) -> Iterator[sqlite3.Connection]:
    """Open one until the block ends. holds: what it is for, for the message.

    Raises LedgerError when the disk gives out, in the block.
    """
    try:
        with closing(sqlite3.connect("", isolation_level=None)) as connection:  # an empty name is a private file
            for pragma in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -2000"):
                connection.execute(f"PRAGMA {pragma}")
            yield connection
    except sqlite3.Error as exc:
        raise LedgerError(
            f"{holds} could not be kept in a temporary file: {exc} "
            "(the folder for temporary files is $SQLITE_TMPDIR, $TMPDIR or /var/tmp)"
        ) from exc
