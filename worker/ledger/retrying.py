"""What a retry needs to know of the ledger before it begins."""

from worker.ledger import FreePruned, Why
from worker.ledger.connection import Connection

_PRUNED = """
WHERE state IN ({states}) AND state NOT IN ('created', 'existed') {why}
    AND coalesce(code, '') NOT IN ('pruned', 'undone')
    AND NOT EXISTS (SELECT 1 FROM payloads WHERE row_id = rows.id)
"""
_FREE_PRUNED = """
UPDATE rows SET state = 'failed', code = 'pruned', run_id = ?, settled_at = ?,
    reason = 'its record was pruned, and it is free to be sent again'
"""
_CLOSED_CHANNELS = """
SELECT DISTINCT code, reason FROM rows WHERE state = 'rejected' AND state NOT IN ('created', 'existed') AND EXISTS (
    SELECT 1 FROM rows AS parked WHERE parked.channel_id = rows.channel_id AND parked.state = 'parked'
        AND parked.state NOT IN ('created', 'existed') AND parked.code = rows.code AND parked.reason = rows.reason)
ORDER BY code, reason
"""


def pruned(connection: Connection, entry: FreePruned) -> int:
    """Return how many rows `free_pruned` would free."""
    found = connection.execute(f"SELECT count(*) FROM rows {_of(entry)}", (*entry.states, *(entry.why or ())))
    return int(found.fetchone()[0])


def free_pruned(connection: Connection, run: int, now: int, entry: FreePruned) -> int:
    """As `undoing.free`, for rows whose records were pruned: there is nothing left here to send them from."""
    return connection.execute(_FREE_PRUNED + _of(entry), (run, now, *entry.states, *(entry.why or ()))).rowcount


def closed_channels(connection: Connection) -> list[Why]:
    """Return why channels took nothing more: of the rows that met it, which are rejected, and those parked behind."""
    return [Why(*found) for found in connection.execute(_CLOSED_CHANNELS).fetchall()]


def _of(entry: FreePruned) -> str:
    states = ", ".join("?" for _ in entry.states)
    return _PRUNED.format(states=states, why="" if entry.why is None else "AND code = ? AND reason = ?")
