"""Created rows by channel, for `verify`: which are left to look for, and what was found so far.

Short queries, a few channels at a time: nothing is held in memory or in a long transaction, however many rows there
are.
"""

import heapq
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from itertools import groupby
from typing import Any, NamedTuple

from worker.errors import LedgerError
from worker.ledger import Member, Verified
from worker.ledger.connection import Connection
from worker.ledger.opening import open_readonly
from worker.place import Place

_AT_ONCE = 200
_COUNTED_AT_ONCE = 500

_FINISHED = (0, 1, 4)
"""Exit codes of a `verify` that has looked at everything: the next one begins anew."""

# an OR, so that no index of runs is taken instead of that of channels
_CREATED = "rows.state = 'created' AND (:run IS NULL OR rows.run_id = :run)"
_LEFT = f"""
{_CREATED} AND NOT EXISTS (
    SELECT 1 FROM verifications WHERE row_id = rows.id AND verifications.run_id >= :since
        AND result IN ('confirmed', 'departed') AND checked_at >= rows.settled_at)
"""
_ABSENT = f"""
{_CREATED} AND EXISTS (
    SELECT 1 FROM verifications WHERE row_id = rows.id AND verifications.run_id = :me AND result = 'absent')
"""
_CHANNELS = "SELECT id FROM channels WHERE id > ? ORDER BY id LIMIT ?"
_MEMBERS = """
SELECT channel_id, rows.id, key, sid, path || ':' || line, interaction_sid, channel_sid
FROM rows JOIN channels ON channels.id = channel_id JOIN sources ON sources.id = source_id
WHERE {what} AND channel_id IN ({channels}) ORDER BY channel_id, rows.id
"""
_COUNT = f"""
SELECT count(*), count(DISTINCT channel_id), count(CASE WHEN result = 'confirmed' THEN 1 END),
    count(CASE WHEN result = 'departed' THEN 1 END)
FROM rows LEFT JOIN verifications ON row_id = rows.id AND verifications.run_id >= :since
    AND checked_at >= rows.settled_at
WHERE {_CREATED}
"""
_ALL_CHANNELS = f"""
SELECT id, channel_sid, interaction_sid FROM channels
WHERE EXISTS (SELECT 1 FROM rows WHERE channel_id = channels.id AND {_CREATED})
"""
_RUNS = "SELECT id, exit_code FROM runs WHERE command = 'verify' AND id < ? ORDER BY id DESC"
_RESULTS = "SELECT result, count(*) FROM verifications WHERE run_id = ? GROUP BY result"


class Extent(NamedTuple):
    """How much there is to look at. confirmed, departed: rows that an unfinished `verify` has found already."""

    rows: int
    channels: int
    confirmed: int
    departed: int


@dataclass(frozen=True, slots=True)
class Scope:
    """What a `verify` looks at. number: its own run. run: whose rows; None for all. sample: of how many channels."""

    number: int
    run: int | None = None
    sample: int | None = None


class CreatedRows:
    """Looks at the created rows of one scope. Raises LedgerError when reading fails. number: the run of `verify`."""

    def __init__(self, place: Place, scope: Scope) -> None:
        self._place = place
        self._connection = open_readonly(place)
        self.number = scope.number
        try:
            with self._reading() as connection:
                self._values = {"run": scope.run, "me": scope.number, "since": self._unfinished(connection)}
                self._sample = None if scope.sample is None else self._drawn(connection, scope.sample)
        except BaseException:
            self._connection.close()
            raise

    def close(self) -> None:
        """End the look."""
        self._connection.close()

    def extent(self) -> Extent:
        """Count the rows, their channels, and what an unfinished `verify` has found of them."""
        with self._reading() as connection:
            if self._sample is None:
                return Extent._make(connection.execute(_COUNT, self._given()).fetchone())
            counts = [0, 0, 0, 0]
            for begin in range(0, len(self._sample), _COUNTED_AT_ONCE):
                query = f"{_COUNT} AND channel_id IN ({_listed(self._sample[begin : begin + _COUNTED_AT_ONCE])})"
                found = connection.execute(query, self._given()).fetchone()
                counts = [one + more for one, more in zip(counts, found, strict=True)]
            return Extent._make(counts)

    def left(self) -> Iterator[list[Member]]:
        """Yield the rows of each channel that no unfinished `verify` has found yet."""
        return self._by_channel(_LEFT, "since")

    def absent(self) -> Iterator[list[Member]]:
        """Yield the rows of each channel that were not in its first list."""
        return self._by_channel(_ABSENT, "me")

    def results(self) -> dict[Verified, int]:
        """Return how many rows this `verify` brought to each result."""
        with self._reading() as connection:
            return {Verified(result): count for result, count in connection.execute(_RESULTS, (self.number,))}

    def _by_channel(self, what: str, name: str) -> Iterator[list[Member]]:
        for channels in self._channels():
            query = _MEMBERS.format(what=what, channels=_listed(channels))
            with self._reading() as connection:
                found = connection.execute(query, self._given(name)).fetchall()
            for _, rows in groupby(found, key=lambda row: row[0]):
                yield [Member._make(row[1:]) for row in rows]

    def _channels(self) -> Iterator[Sequence[int]]:
        if self._sample is not None:
            yield from (self._sample[begin : begin + _AT_ONCE] for begin in range(0, len(self._sample), _AT_ONCE))
            return
        found = [0]
        while found:
            with self._reading() as connection:
                found = [number for (number,) in connection.execute(_CHANNELS, (found[-1], _AT_ONCE))]
            if found:
                yield found

    def _given(self, name: str = "since") -> dict[str, Any]:
        return {"run": self._values["run"], name: self._values[name]}

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        try:
            yield self._connection
        except sqlite3.Error as exc:
            raise LedgerError(f"{self._place}: the ledger cannot be read: {exc}") from exc

    def _unfinished(self, connection: Connection) -> int:
        """Return the first of the runs of `verify` since the last one that finished: this one goes on with them."""
        first = self.number
        for number, exit_code in connection.execute(_RUNS, (self.number,)):
            if exit_code in _FINISHED:
                break
            first = number
        return first

    def _drawn(self, connection: Connection, size: int) -> list[int]:
        """Draw channels by a hash of their sids: at random, and the same ones each time."""
        channels = connection.each(_ALL_CHANNELS, {"run": self._values["run"]})
        return sorted(number for _, number in heapq.nsmallest(size, ((_lot(*sids), id_) for id_, *sids in channels)))


def _lot(channel_sid: str, interaction_sid: str) -> bytes:
    return blake2b(f"{channel_sid} {interaction_sid}".lower().encode(), digest_size=8).digest()


def _listed(channels: Sequence[int]) -> str:
    return ", ".join(map(str, channels))
