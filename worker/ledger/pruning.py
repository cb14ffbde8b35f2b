"""What a ledger may forget. Never a row: that is what keeps it from being sent twice.

Records of rows that are rejected, parked, waived or closed are what `retry` and `export --rejects` need, and people's
data. Those of failed rows and of rows in doubt stay: the next run needs them.
"""

from typing import NamedTuple

from worker.ledger.connection import Connection

_RECORDS = """
DELETE FROM payloads WHERE row_id IN (
    SELECT id FROM rows WHERE state IN ('rejected', 'parked', 'waived', 'closed')
        AND state NOT IN ('created', 'existed') AND settled_at < ?)
"""
_MISFITS = """
UPDATE findings SET record = NULL, detail = NULL
WHERE (record IS NOT NULL OR detail IS NOT NULL) AND run_id IN (SELECT id FROM runs WHERE started_at < ?)
"""
_CHANGED = "UPDATE findings SET record = NULL WHERE kind = 'changed' AND record IS NOT NULL"
"""Nobody needs what a changed record says; earlier versions kept it."""

_FINDINGS = """
DELETE FROM findings WHERE (superseded_by IS NOT NULL OR kind <> 'rejected')
    AND run_id IN (SELECT id FROM runs WHERE started_at < ?)
"""
_SAMPLES = "DELETE FROM samples WHERE run_id IN (SELECT id FROM runs WHERE started_at < ?)"
_BASELINES = """
DELETE FROM baselines WHERE run_id IN (SELECT id FROM runs WHERE started_at < ?) AND channel_id NOT IN (
    SELECT channel_id FROM rows WHERE state IN ('started', 'in_doubt') AND state NOT IN ('created', 'existed'))
"""


class Pruned(NamedTuple):
    """What was dropped. records: of rows, and of what was rejected before it was sent."""

    records: int
    findings: int
    samples: int
    baselines: int


def forget_records(connection: Connection, before: int) -> int:
    """Drop records settled before this time (milliseconds since 1970), in the transaction under way."""
    misfits = connection.execute(_CHANGED).rowcount + connection.execute(_MISFITS, (before,)).rowcount
    return connection.execute(_RECORDS, (before,)).rowcount + misfits


def prunable(connection: Connection, before: int) -> Pruned:
    """Return what `prune` would drop; leaves a new transaction under way."""
    found = prune(connection, before)
    connection.rollback()
    connection.begin()
    return found


def prune(connection: Connection, before: int) -> Pruned:
    """Drop all that was settled before this time (milliseconds since 1970) and nobody needs, likewise."""
    findings, samples, baselines = (
        connection.execute(query, (before,)).rowcount for query in (_FINDINGS, _SAMPLES, _BASELINES)
    )
    return Pruned(forget_records(connection, before), findings, samples, baselines)
