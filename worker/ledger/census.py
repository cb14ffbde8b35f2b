"""The keys of a whole input, kept in a private database on disk, so that memory stays flat.

A key is kept as 16 bytes: a digest key as it is, another one as its digest. A batch is one statement over one text of
bytes, for which the interpreter is not needed: a statement for each row takes twice the time.
"""

import sqlite3
from collections.abc import Sequence
from hashlib import blake2b
from struct import Struct
from typing import NamedTuple

_new = tuple.__new__  # what Seen(…) does in the end, without the detour

_NAME_BYTES = 16
_PLACE = Struct(">iq")  # in bytes, as in numbers, an earlier line of an input comes first
_AT_ONCE = 512

_SEEN = "CREATE TABLE seen (name BLOB PRIMARY KEY, entry BLOB NOT NULL) WITHOUT ROWID"
"""entry: the place, and the fingerprint where the name is another one."""

_ENTER = """
INSERT OR IGNORE INTO seen
SELECT substr(:packed, number * :width + 1, 16), substr(:packed, number * :width + 17, :width - 16)
FROM numbers WHERE number < :rows
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
    name = blake2b(key.encode("utf-8", "surrogatepass"), digest_size=_NAME_BYTES).digest()
    return _new(Seen, (name, fingerprint, source, line))


class Census:
    """Raises sqlite3.Error when the disk for temporary files gives out."""

    def __init__(self) -> None:
        # an empty name is a private file that SQLite removes by itself
        self._connection = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        for pragma in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -8000"):
            self._connection.execute(f"PRAGMA {pragma}")
        self._connection.execute(_SEEN)
        self._connection.execute("CREATE TABLE numbers (number INTEGER PRIMARY KEY)")
        self._connection.execute("BEGIN")  # and never an end: nobody else reads it, and nothing of it is to last
        numbers = ((number,) for number in range(_AT_ONCE))
        self._connection.executemany("INSERT INTO numbers VALUES (?)", numbers)

    def close(self) -> None:
        """Forget all keys."""
        self._connection.close()

    def enter(self, batch: Sequence[Seen]) -> dict[bytes, Seen]:
        """Keep those that are new. If any is not: return name → the first of this name, for all names of the batch."""
        connection = self._connection
        before = connection.total_changes
        pack = _PLACE.pack
        digests = all(one[1] is None for one in batch)
        # in the order of the names pages are met once; of the same name the first one comes first still
        packed = sorted(
            [name + pack(source, line) for name, _, source, line in batch]
            if digests
            else [name + pack(source, line) + (fingerprint or name) for name, fingerprint, source, line in batch]
        )
        for start in range(0, len(packed), _AT_ONCE):
            part = packed[start : start + _AT_ONCE]
            connection.execute(_ENTER, {"packed": b"".join(part), "width": len(part[0]), "rows": len(part)})
        if connection.total_changes - before == len(batch):
            return {}
        names = {one.name for one in batch}
        query = f"SELECT name, entry FROM seen WHERE name IN ({','.join('?' for _ in names)})"
        return {name: _unpacked(name, entry) for name, entry in connection.execute(query, tuple(names))}


def _unpacked(name: bytes, entry: bytes) -> Seen:
    fingerprint = entry[_PLACE.size :]
    return Seen(name, None if fingerprint in {b"", name} else fingerprint, *_PLACE.unpack_from(entry))
