"""A ledger that several workers write at once: each entry is fenced, and rows leave the queue when they are settled.

A fence is procrastinate's job and how often it was taken: whoever takes a chunk over changes it, in the same moment as
nobody else's entry can be on its way to the disk. So a worker that was frozen, or cut off, records nothing more for a
chunk that another one has, and what has no intent on record is not sent.
"""

from collections.abc import Collection, Sequence
from typing import NamedTuple

from worker.errors import LedgerError
from worker.ledger import FENCED, SID_KNOWN, Entry, Fence, Fenced, Known, Settle
from worker.ledger.connection import read
from worker.ledger.pgledger import Answers, PostgresLedger
from worker.ledger.transaction import guarded, milliseconds
from worker.model import Failed, InDoubt, Row, Settlement, State, comparable

_VALID = """
SELECT id, attempts FROM procrastinate_jobs JOIN unnest(%(jobs)s::bigint[], %(times)s::integer[]) AS fence (job, taken)
    ON job = id AND taken = attempts
WHERE status = 'doing' FOR SHARE OF procrastinate_jobs
"""
_DONE = "DELETE FROM queued WHERE key = ANY(%(keys)s::text[]) RETURNING 1"
_QUEUED = """
SELECT place, key, fingerprint, source_id, line, interaction_sid, channel_sid, type, request, record, mark FROM queued
WHERE chunk_id = ? AND place > ? ORDER BY place LIMIT ?
"""
_LEFT_STARTED = """
UPDATE rows SET state = 'in_doubt', code = 'crash', settled_at = ?,
    reason = 'its worker was gone before the answer was recorded: may exist'
WHERE state = 'started' AND state NOT IN ('created', 'existed')
    AND key IN (SELECT key FROM queued WHERE chunk_id = ?)
"""
_DOUBTS = """
SELECT key, fingerprint, source_id, line, interaction_sid, channel_sid, type, request, record, rows.id, mark
FROM rows JOIN payloads ON payloads.row_id = rows.id JOIN channels ON channels.id = channel_id
WHERE state = 'in_doubt' AND state NOT IN ('created', 'existed') AND rows.id > ?
    AND lower(channel_sid) IN (SELECT lower(channel_sid) FROM queued WHERE chunk_id = ?)
ORDER BY rows.id LIMIT ?
"""
_HELD = """
SELECT channel_sid, key FROM rows JOIN channels ON channels.id = channel_id
WHERE state IN ('started', 'in_doubt') AND state NOT IN ('created', 'existed')
    AND lower(channel_sid) IN (SELECT lower(channel_sid) FROM queued WHERE chunk_id = ?)
"""


class Placed(NamedTuple):
    """A row in its chunk. place: its order there."""

    place: int
    row: Row


class FleetLedger(PostgresLedger):
    """The writing side for one of several workers. What is not fenced (samples, findings) is written as usual.

    A row that failed may be sent again by the worker that it failed at: it is in the queue once for each time.
    """

    _again = True

    def _admitted(self, group: Sequence[Entry], answers: Answers) -> list[tuple[int, Entry]]:
        fences = {entry.fence for entry in group if isinstance(entry, Fenced)}
        valid = self._valid(fences)
        admitted: list[tuple[int, Entry]] = []
        for place, one in enumerate(group):
            if not isinstance(one, Fenced):
                admitted.append((place, one))
            elif one.fence in valid:
                admitted.append((place, one.entry))
            else:
                answers[place] = FENCED
        return admitted

    def _valid(self, fences: Collection[Fence]) -> set[Fence]:
        """Return the fences that hold, and go on holding until the transaction ends."""
        if not fences:
            return set()
        values = {"jobs": [job for job, _ in fences], "times": [taken for _, taken in fences]}
        return {Fence(*found) for found in self._connection.batch(_VALID, values)}

    def _follow_up(self, written: Sequence[tuple[int, Entry]], answers: Answers) -> None:
        """Take out of the queue what needs no sending any more: it is settled, or the ledger forbids it."""
        done = []
        for place, entry in written:
            answer = answers[place]
            if isinstance(entry, Settle) and answer is not SID_KNOWN and _is_over(entry.settlement):
                done.append(entry.settlement.key)
            elif isinstance(answer, Known) and answer.state not in {State.STARTED, State.IN_DOUBT}:
                done.append(answer.key)
        if done:
            self._connection.batch(_DONE, {"keys": done})

    def take_over(self, chunk: int, fence: Fence) -> None:
        """Say of what another worker had begun that it may exist. Raises LedgerError for who has not got the chunk."""
        with guarded(self._connection, self.path):
            if not self._valid({fence}):
                raise LedgerError(f"{self.path}: another worker has taken this chunk over")
            self._connection.execute(_LEFT_STARTED, (milliseconds(), chunk))

    def queued(self, chunk: int, after: int, limit: int) -> list[Placed]:
        """Return rows of a chunk in their order, from the place after `after`."""
        with guarded(self._connection, self.path):
            found = self._connection.execute(_QUEUED, (chunk, after, limit)).fetchall()
        return [
            Placed(place, Row._make((*row[:7], bytes(row[7]), read(record), 0, mark)))
            for place, *row, record, mark in found
        ]

    def doubts(self, chunk: int, after: int, limit: int) -> list[Row]:
        """Return the rows in doubt of a chunk's channels, whoever sent them, as `stored` does."""
        with guarded(self._connection, self.path):
            found = self._connection.execute(_DOUBTS, (after, chunk, limit)).fetchall()
        return [Row._make((*one[:8], read(one[8]), *one[9:])) for one in found]

    def held(self, chunk: int) -> dict[str, set[str]]:
        """Return, of a chunk's channels, what `channels_in_doubt` does."""
        found: dict[str, set[str]] = {}
        with guarded(self._connection, self.path):
            for channel, key in self._connection.execute(_HELD, (chunk,)).fetchall():
                found.setdefault(comparable(channel), set()).add(key)
        return found


def _is_over(settlement: Settlement) -> bool:
    """Tell whether a row need not be sent any more. What was stopped before it left is for the next worker."""
    match settlement.outcome:
        case InDoubt() | Failed(code="not_sent"):
            return False
        case _:
            return True
