"""The ledger's statements, in what its engines have in common; `tables` tells what each is for."""

from worker.ledger import KEY_CONFLICT
from worker.ledger.attaching import BARRIERS

SOURCE = "SELECT id FROM sources WHERE (path, format, encoding, delimiter, header) = (?, ?, ?, ?, ?)"
NEW_SOURCE = """
INSERT INTO sources (path, format, encoding, delimiter, header, profile, byte_order_mark)
VALUES (?, ?, ?, ?, ?, ?, ?) RETURNING id
"""
KNOWN_SOURCE = "UPDATE sources SET profile = ?, byte_order_mark = ? WHERE id = ?"

INTENT = f"""
INSERT INTO rows (key, fingerprint, state, run_id, source_id, line, mark, channel_id, type, started_at)
VALUES (?, ?, 'started', ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (key) DO UPDATE SET
    fingerprint = excluded.fingerprint, state = 'started', run_id = excluded.run_id, source_id = excluded.source_id,
    line = excluded.line, mark = excluded.mark, channel_id = excluded.channel_id, type = excluded.type, code = NULL,
    reason = NULL, http_status = NULL, request_id = NULL, started_at = excluded.started_at, settled_at = NULL
WHERE rows.state NOT IN {BARRIERS} AND rows.run_id <> excluded.run_id
RETURNING id
"""
REFUSAL = f"""
SELECT key, fingerprint, state, source_id, line, run_id FROM rows
WHERE key = ? AND (state IN {BARRIERS} OR run_id = ?)
"""
PAYLOAD = """
INSERT INTO payloads (row_id, record, request) VALUES (?, ?, ?)
ON CONFLICT (row_id) DO UPDATE SET record = excluded.record, request = excluded.request
"""
SETTLE = """
UPDATE rows SET state = ?, sid = ?, code = ?, reason = ?, http_status = coalesce(?, http_status),
    attempts = attempts + ?, request_id = coalesce(?, request_id), settled_at = ?, reconciled = ?, run_id = ?
WHERE id = ? AND key = ? AND state = ?
"""
KNOWN_SID = """
SELECT EXISTS (SELECT 1 FROM rows WHERE sid IS NOT NULL AND lower(sid) = lower(:sid))
    OR EXISTS (SELECT 1 FROM closures WHERE lower(sid) = lower(:sid))
"""
LISTED_SID = """
SELECT EXISTS (
    SELECT 1 FROM baselines JOIN rows USING (channel_id)
    WHERE rows.id = :number AND lower(sids) LIKE '%"' || lower(:sid) || '"%')
"""
REOPEN = """
UPDATE rows SET state = 'started', run_id = ?, code = NULL, reason = NULL, settled_at = NULL
WHERE id = ? AND key = ? AND state = 'in_doubt'
"""
BASELINE = """
INSERT INTO baselines (channel_id, run_id, taken_at, sids) VALUES (?, ?, ?, ?)
ON CONFLICT (channel_id) DO UPDATE SET run_id = excluded.run_id, taken_at = excluded.taken_at, sids = excluded.sids
"""
EXPIRE_BASELINE = """
UPDATE baselines SET taken_at = 0 WHERE channel_id IN (
    SELECT id FROM channels WHERE lower(channel_sid) = (SELECT lower(channel_sid) FROM channels WHERE id = ?))
"""
LISTED_BEFORE = "SELECT sids FROM baselines WHERE channel_id = ?"
FRESH_BASELINE = "SELECT 1 FROM baselines WHERE channel_id = ? AND run_id = ? AND taken_at BETWEEN ? AND ?"
BASELINE_OF_ROW = """
SELECT sids FROM baselines JOIN rows USING (channel_id, run_id) WHERE rows.id = ? AND taken_at > 0
"""
LOOK = """
INSERT INTO looks (row_id, looked_at, reason, candidates) VALUES (?, ?, ?, ?)
ON CONFLICT (row_id) DO UPDATE SET looked_at = excluded.looked_at, reason = excluded.reason,
    candidates = excluded.candidates
"""
STORED = """
SELECT key, fingerprint, source_id, line, interaction_sid, channel_sid, type, request, record, rows.id, mark
FROM rows JOIN payloads ON payloads.row_id = rows.id JOIN channels ON channels.id = channel_id
WHERE state IN ({states}) AND state NOT IN ('created', 'existed') AND run_id < ? AND rows.id > ? {why}
    AND NOT ({repaired})
ORDER BY rows.id LIMIT ?
"""
SAME_CHANNEL = """
channel_id IN (SELECT id FROM channels WHERE lower(channel_sid) = (
    SELECT lower(channel_sid) FROM channels JOIN rows ON channels.id = rows.channel_id WHERE rows.id = ?))
"""
KNOWN_SIDS = f"""
SELECT sid FROM rows WHERE sid IS NOT NULL AND {SAME_CHANNEL}
UNION SELECT closures.sid FROM closures JOIN rows ON rows.id = row_id WHERE {SAME_CHANNEL}
"""
UNPROVEN = """
UPDATE rows SET unproven = CASE WHEN EXISTS (
    SELECT 1 FROM baselines WHERE baselines.channel_id = rows.channel_id AND baselines.run_id = rows.run_id
        AND baselines.taken_at > 0
) THEN 0 ELSE 1 END
WHERE id = ?
"""
SAMPLE = """
INSERT INTO samples (run_id, at, settled, created, requests, retries, throttled, in_flight, rate, slots, p50, p90, p99,
    accounted, input_rows)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (run_id, at) DO NOTHING
"""
THIN = """
DELETE FROM samples WHERE run_id = ? AND at IN (
    SELECT at FROM (SELECT at, row_number() OVER (ORDER BY at) AS place FROM samples WHERE run_id = ?) AS numbered
    WHERE place % 2 = 0)
"""
FINDING = """
INSERT INTO findings (run_id, source_id, line, kind, key, code, reason, record, detail, ref)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
REPAIR = "INSERT INTO repairs (ref, key) VALUES (?, ?) ON CONFLICT (ref) DO UPDATE SET key = excluded.key"
DONE = "('created', 'existed', 'closed')"
_SETTLED = f"""
EXISTS (SELECT 1 FROM rows AS same
    WHERE same.key IN (findings.ref, CASE WHEN findings.code <> '{KEY_CONFLICT}' THEN findings.key END)
    AND (same.source_id <> findings.source_id OR same.line = findings.line))
OR EXISTS (SELECT 1 FROM repairs JOIN rows AS mended ON mended.key = repairs.key
    WHERE repairs.ref = findings.ref AND mended.state IN {DONE})
"""
"""Whether a rejected record became a row, or is repaired by one.

Where another record of the same input is the row with its key, one of them has a wrong key: that settles nothing.
"""

_LATER = """
EXISTS (SELECT 1 FROM findings AS later WHERE later.ref = findings.ref AND later.id > findings.id
    AND later.source_id <> findings.source_id AND later.kind = 'rejected' AND ({stands}))
"""
_WAIVED = "superseded_by IN (SELECT id FROM runs WHERE command = 'waive')"

OPEN_FINDING = f"""
findings.kind = 'rejected' AND findings.superseded_by IS NULL AND (findings.ref IS NULL OR NOT (
    {_SETTLED} OR {_LATER.format(stands="later.superseded_by IS NULL")}))
"""
"""A rejected record that still needs something, counted once for all inputs that it stands in."""

WAIVED_FINDING = f"""
findings.kind = 'rejected' AND findings.{_WAIVED} AND (findings.ref IS NULL OR NOT (
    {_SETTLED} OR {_LATER.format(stands=f"later.superseded_by IS NULL OR later.{_WAIVED}")}))
"""
"""A rejected record that a person signed off, counted once."""

REPAIRED_ROW = f"""
rows.state IN ('rejected', 'parked', 'failed') AND EXISTS (
    SELECT 1 FROM repairs JOIN rows AS mended ON mended.key = repairs.key
    WHERE repairs.ref = rows.key AND mended.state IN {DONE})
"""
"""A row that was repaired under another key, and is done there."""
DECISION = """
INSERT INTO decisions (row_id, run_id, decided_at, decided_by, decision, sid) VALUES (?, ?, ?, ?, ?, ?)
"""
VERIFICATION = """
INSERT INTO verifications (row_id, run_id, checked_at, result, detail) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (row_id) DO UPDATE SET run_id = excluded.run_id, checked_at = excluded.checked_at,
    result = excluded.result, detail = excluded.detail
"""
CRASH_REASON = "the run ended before the answer was recorded: may exist"
CRASHED = f"""
UPDATE rows SET state = 'in_doubt', code = 'crash', reason = '{CRASH_REASON}', settled_at = ?
WHERE state = 'started' AND state NOT IN ('created', 'existed')
"""
