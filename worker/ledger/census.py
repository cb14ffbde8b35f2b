"""The keys of a whole input, kept in a private database on disk, so that memory stays flat.

A key is kept as 16 bytes: a digest key as it is, another one as its digest.
"""

import sqlite3
from collections.abc import Sequence
from hashlib import blake2b
from operator import itemgetter
from typing import NamedTuple

_new = tuple.__new__  # what Seen(…) does in the end, without the detour

_SEEN = """
CREATE TABLE seen (name BLOB PRIMARY KEY, fingerprint BLOB, source INTEGER NOT NULL, line INTEGER NOT NULL)
WITHOUT ROWID
"""


class Seen(NamedTuple):
    """One key. name: what it is kept as; fingerprint: of its row, None when the name is it; source, line: its place."""

    name: bytes
    fingerprint: bytes | None
    source: int
    line: int


def seen(key: str, fingerprint: bytes, source: int, line: int) -> Seen:
    """Return what is kept of a row."""
    if key == fingerprint.hex():
        return _new(Seen, (fingerprint, None, source, line))
    name = blake2b(key.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    return _new(Seen, (name, fingerprint, source, line))


class Census:
    """Raises sqlite3.Error when the disk for temporary files gives out."""

    def __init__(self) -> None:
        # an empty name is a private file that SQLite removes by itself
        self._connection = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        for pragma in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -8000"):
            self._connection.execute(f"PRAGMA {pragma}")
        self._connection.execute(_SEEN)

    def close(self) -> None:
        """Forget all keys."""
        self._connection.close()

    def enter(self, batch: Sequence[Seen]) -> dict[bytes, Seen]:
        """Keep those that are new. If any is not: return name → the first of this name, for all names of the batch."""
        connection = self._connection
        before = connection.total_changes
        connection.execute("BEGIN")
        # in the order of the names pages are met once; of the same name the first one comes first still
        connection.executemany("INSERT OR IGNORE INTO seen VALUES (?, ?, ?, ?)", sorted(batch, key=itemgetter(0)))
        connection.execute("COMMIT")
        if connection.total_changes - before == len(batch):
            return {}
        names = {one.name for one in batch}
        query = f"SELECT name, fingerprint, source, line FROM seen WHERE name IN ({','.join('?' for _ in names)})"
        return {found[0]: Seen(*found) for found in connection.execute(query, tuple(names))}
