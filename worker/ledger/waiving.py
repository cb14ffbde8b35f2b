"""Signing off a group in the ledger, and taking that back.

The rows of a group become waived; its records are remembered by their digest.
"""

from typing import Any, NamedTuple

from worker.cluster import cluster_id, short_ids
from worker.ledger import Why, record_digest
from worker.ledger.connection import Connection, read
from worker.ledger.statement import OPEN_FINDING, REPAIRED_ROW
from worker.model import State

_DECISIONS = f"""
INSERT INTO decisions (row_id, run_id, decided_at, decided_by, decision, reason, state)
SELECT id, :run, :now, :by, 'waived', :words, state FROM rows
WHERE state = :state AND state IN ('rejected', 'parked', 'failed') AND code = :code AND reason = :reason
    AND NOT ({REPAIRED_ROW})
"""
_ROWS = f"""
UPDATE rows SET state = 'waived', run_id = :run, settled_at = :now
WHERE state = :state AND state IN ('rejected', 'parked', 'failed') AND code = :code AND reason = :reason
    AND NOT ({REPAIRED_ROW})
"""
_GROUP = f"{OPEN_FINDING} AND findings.kind = :state AND findings.code = :code AND findings.reason = :reason"
_RECORDS = f"""
SELECT record FROM findings
WHERE kind = 'rejected' AND superseded_by IS NULL AND record IS NOT NULL
    AND (({_GROUP}) OR ref IN (SELECT findings.ref FROM findings WHERE {_GROUP}))
"""
"""Those of a group, and the same records as they stand in other inputs."""

_WAIVER = """
INSERT INTO waivers (digest, run_id, waived_at, waived_by, reason, code, cause) VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (digest) DO NOTHING
"""
_FINDINGS = f"UPDATE findings SET superseded_by = :run WHERE {_GROUP}"
_SAME_FINDINGS = """
UPDATE findings SET superseded_by = :run WHERE kind = 'rejected' AND superseded_by IS NULL AND ref IN (
    SELECT waived.ref FROM findings AS waived WHERE waived.superseded_by = :run AND waived.kind = 'rejected')
"""

_BEFORE = """
coalesce((SELECT waived.state FROM decisions AS waived WHERE waived.row_id = rows.id AND waived.decision = 'waived'
    ORDER BY waived.id DESC LIMIT 1), 'rejected')
"""
"""What a waived row was before. Older versions did not record it; a rejected row is not sent by itself."""

_OF_GROUP = f"""
rows.state = 'waived' AND rows.state NOT IN ('created', 'existed') AND rows.code = :code AND rows.reason = :reason
    AND {_BEFORE} = :state
"""
_UNDECIDED = f"""
INSERT INTO decisions (row_id, run_id, decided_at, decided_by, decision)
SELECT id, :run, :now, :by, 'unwaived' FROM rows WHERE {_OF_GROUP}
"""
_RESTORED = f"UPDATE rows SET state = :state, run_id = :run, settled_at = :now WHERE {_OF_GROUP}"
_RETIRED = """
kind = 'rejected' AND code = :code AND reason = :reason
    AND superseded_by IN (SELECT id FROM runs WHERE command = 'waive')
"""
_RETIRED_RECORDS = f"SELECT record FROM findings WHERE {_RETIRED} AND record IS NOT NULL"
_STANDING_AGAIN = f"UPDATE findings SET superseded_by = NULL WHERE {_RETIRED}"
_DROPPED = "DELETE FROM waivers WHERE code = :code AND cause = :reason"

_RECORDS_DECIDED = """
INSERT INTO decisions (run_id, decided_at, decided_by, decision, reason, what) VALUES (?, ?, ?, ?, ?, ?)
"""

DECIDED = """
SELECT count(*) OVER (), max(decided_at), decided_by,
    coalesce(what, min(key) || CASE WHEN count(*) > 1 THEN ' and ' || (count(*) - 1) || ' more' ELSE '' END),
    decision, detail
FROM (
    SELECT decisions.id, decided_at, decided_by, key, decision, what,
        coalesce(decisions.sid, decisions.reason, '') AS detail, decisions.run_id,
        CASE WHEN decision IN ('waived', 'unwaived') AND row_id IS NOT NULL THEN 0 ELSE decisions.id END AS alone
    FROM decisions LEFT JOIN rows ON rows.id = row_id
) AS each_one
GROUP BY run_id, decided_by, decision, detail, alone, what ORDER BY max(id) DESC LIMIT ?
"""
"""People's decisions, the newest first, with their number. The rows of one waiver are one line."""

_WAIVED_ROWS = """
SELECT coalesce(decisions.state, 'rejected'), rows.code, rows.reason, count(*), min(path || ':' || line),
    decided_at, decided_by, decisions.reason, decisions.run_id
FROM rows JOIN sources ON sources.id = source_id JOIN decisions ON decisions.row_id = rows.id
    AND decisions.run_id = rows.run_id AND decisions.decision = 'waived'
WHERE rows.state = 'waived' AND rows.state NOT IN ('created', 'existed')
GROUP BY 1, 2, 3, 6, 7, 8, 9
"""
_WAIVED_RECORDS = """
SELECT 'rejected', waivers.code, cause, count(*), (
    SELECT min(path || ':' || line) FROM findings JOIN sources ON sources.id = source_id
    WHERE superseded_by = waivers.run_id AND findings.code = waivers.code AND findings.reason = cause
), waived_at, waived_by, reason, run_id
FROM waivers WHERE waivers.code IS NOT NULL GROUP BY 2, 3, 6, 7, 8, 9
"""
_WAIVED_BEFORE = """
SELECT 'rejected', findings.code, findings.reason, count(*), min(path || ':' || line), waived_at, waived_by,
    waivers.reason, waivers.run_id
FROM findings JOIN sources ON sources.id = source_id
    JOIN (SELECT DISTINCT run_id, waived_at, waived_by, reason FROM waivers WHERE code IS NULL) AS waivers
        ON waivers.run_id = superseded_by
WHERE kind = 'rejected' GROUP BY 2, 3, 6, 7, 8, 9
"""
"""Waivers of older versions do not know their group; their findings do."""


class Waived(NamedTuple):
    """What one waiver signed off of a group. id, short, state, code, reason: the group's, as before the waiver.

    rows: rows and records. at: milliseconds since 1970. by, words: who did it, and why. run: the command's.
    """

    id: str
    short: str
    state: str
    code: str
    reason: str
    rows: int
    example: str | None
    at: int
    by: str
    words: str
    run: int


def waive(connection: Connection, run: int, now: int, state: State, why: Why, *, by: str, reason: str) -> int:
    """Sign a group off inside the transaction under way; returns how many rows and records there were.

    A record that several inputs hold is one. A row keeps its code and reason. A record that was rejected before it was
    sent is retired like one that was read again; its next reading finds its digest. by, reason: as in `Waive`, as text
    that can be stored.
    """
    values = {"run": run, "now": now, "state": state, "code": why.code, "reason": why.reason, "by": by, "words": reason}
    connection.execute(_DECISIONS, values)
    rows = connection.execute(_ROWS, values).rowcount
    for (record,) in connection.each(_RECORDS, values):
        connection.execute(_WAIVER, (record_digest(read(record) or ""), run, now, by, reason, *why))
    if records := connection.execute(_FINDINGS, values).rowcount:
        connection.execute(_SAME_FINDINGS, {"run": run})
        connection.execute(_RECORDS_DECIDED, (run, now, by, "waived", reason, _what(records, why)))
    return rows + records


def unwaive(connection: Connection, run: int, now: int, state: State, why: Why, *, by: str) -> int:
    """Take back every waiver of a group inside the transaction under way.

    Rows get the state that they had. Records are forgotten as waived, and stand as they were found; their next reading
    looks anew. by: as text that can be stored.

    Returns:
        The number of rows and records.
    """
    values = {"run": run, "now": now, "state": state, "code": why.code, "reason": why.reason, "by": by}
    connection.execute(_UNDECIDED, values)
    rows = connection.execute(_RESTORED, values).rowcount
    if state is not State.REJECTED:
        return rows
    for (record,) in connection.each(_RETIRED_RECORDS, values):
        connection.execute("DELETE FROM waivers WHERE digest = ?", (record_digest(read(record) or ""),))
    records = connection.execute(_DROPPED, values).rowcount  # those whose findings were pruned
    records += connection.execute(_STANDING_AGAIN, values).rowcount
    if records:
        connection.execute(_RECORDS_DECIDED, (run, now, by, "unwaived", None, _what(records, why)))
    return rows + records


def _what(records: int, why: Why) -> str:
    return f"{records} record{'s' * (records != 1)}: {why.reason}"


def waived_groups(connection: Connection) -> list[Waived]:
    """Return what is signed off now, the newest waiver first."""
    found: list[tuple[Any, ...]] = []
    for query in (_WAIVED_ROWS, _WAIVED_RECORDS, _WAIVED_BEFORE):
        found += connection.execute(query).fetchall()
    ids = [cluster_id(*one[:3]) for one in found]
    short = short_ids(ids)
    waived = [Waived(id_, short[id_], *one) for id_, one in zip(ids, found, strict=True)]
    return sorted(waived, key=lambda one: (-one.run, -one.rows, one.id))


def has_waivers(connection: Connection) -> bool:
    """Tell whether any record was ever signed off: mostly none was, which spares looking for each."""
    return connection.execute("SELECT 1 FROM waivers LIMIT 1").fetchone() is not None


def is_waived(connection: Connection, record: str) -> bool:
    """Tell whether this very record was signed off, in whatever input it stood."""
    query = "SELECT 1 FROM waivers WHERE digest = ?"
    return connection.execute(query, (record_digest(record),)).fetchone() is not None
