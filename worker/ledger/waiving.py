"""Signing off a cluster in the ledger: its rows become waived, its records are remembered by their digest."""

from worker.ledger import Why, record_digest
from worker.ledger.connection import Connection, read
from worker.ledger.statement import OPEN_FINDING, REPAIRED_ROW
from worker.model import State

_DECISIONS = f"""
INSERT INTO decisions (row_id, run_id, decided_at, decided_by, decision, reason)
SELECT id, :run, :now, :by, 'waived', :words FROM rows
WHERE state = :state AND state IN ('rejected', 'parked', 'failed') AND code = :code AND reason = :reason
    AND NOT ({REPAIRED_ROW})
"""
_ROWS = f"""
UPDATE rows SET state = 'waived', run_id = :run, settled_at = :now
WHERE state = :state AND state IN ('rejected', 'parked', 'failed') AND code = :code AND reason = :reason
    AND NOT ({REPAIRED_ROW})
"""
_RECORDS = f"""
SELECT record FROM findings
WHERE {OPEN_FINDING} AND kind = :state AND code = :code AND reason = :reason AND record IS NOT NULL
"""
_WAIVER = """
INSERT INTO waivers (digest, run_id, waived_at, waived_by, reason) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (digest) DO NOTHING
"""
_FINDINGS = f"""
UPDATE findings SET superseded_by = :run
WHERE {OPEN_FINDING} AND kind = :state AND code = :code AND reason = :reason
"""


def waive(connection: Connection, run: int, now: int, state: State, why: Why, *, by: str, reason: str) -> int:
    """Sign a cluster off inside the transaction under way; returns how many rows and records there were.

    A row keeps its code and reason. A record that was rejected before it was sent is retired like one that was read
    again; its next reading finds its digest. by, reason: as in `Waive`, as text that can be stored.
    """
    values = {"run": run, "now": now, "state": state, "code": why.code, "reason": why.reason, "by": by, "words": reason}
    connection.execute(_DECISIONS, values)
    rows = connection.execute(_ROWS, values).rowcount
    for (record,) in connection.each(_RECORDS, values):
        connection.execute(_WAIVER, (record_digest(read(record) or ""), run, now, by, reason))
    return rows + connection.execute(_FINDINGS, values).rowcount


def has_waivers(connection: Connection) -> bool:
    """Tell whether any record was ever signed off: mostly none was, which spares looking for each."""
    return connection.execute("SELECT 1 FROM waivers LIMIT 1").fetchone() is not None


def is_waived(connection: Connection, record: str) -> bool:
    """Tell whether this very record was signed off, in whatever input it stood."""
    query = "SELECT 1 FROM waivers WHERE digest = ?"
    return connection.execute(query, (record_digest(record),)).fetchone() is not None
