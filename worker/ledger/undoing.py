"""Closing in the ledger: what `undo` did to a row, and how the row may be sent once more."""

from worker.errors import LedgerError
from worker.ledger.connection import Connection

_REMEMBER = """
INSERT INTO closures (row_id, run_id, closed_at, sid)
SELECT id, ?, ?, sid FROM rows WHERE id = ? AND key = ? AND state = 'created'
"""
_CLOSE = "UPDATE rows SET state = 'closed', run_id = ?, settled_at = ? WHERE id = ? AND key = ? AND state = 'created'"
_FREE = """
UPDATE rows SET state = 'failed', sid = NULL, code = 'undone', run_id = ?, settled_at = ?, reconciled = 0, unproven = 0,
    reason = 'was closed by undo, and is free to be sent again'
WHERE state = 'closed' AND state NOT IN ('created', 'existed')
"""


def close(connection: Connection, run: int, now: int, number: int, key: str) -> None:
    """Make a created row a closed one inside the transaction under way. Raises LedgerError when it is not created."""
    connection.execute(_REMEMBER, (run, now, number, key))
    if connection.execute(_CLOSE, (run, now, number, key)).rowcount != 1:
        raise LedgerError(f"row {key} is no longer created: something else wrote here")


def free(connection: Connection, run: int, now: int) -> int:
    """Make closed rows ones that failed: the next reading of their records sends them. Returns how many there were.

    Their participants stay known as ours: lists may still show them.
    """
    return connection.execute(_FREE, (run, now)).rowcount
