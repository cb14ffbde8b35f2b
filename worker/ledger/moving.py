"""From one ledger to another, whatever keeps them: every table, every row, in their order."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

from worker.ledger.connection import Connection, read

TABLES: dict[str, tuple[str, ...]] = {
    # what refers to another table comes after it
    "binding": ("field", "value"),
    "runs": (*("id", "command", "version", "host", "pid", "started_at", "ended_at", "exit_code", "reason", "summary"),),
    "sources": ("id", "path", "format", "encoding", "delimiter", "header", "profile", "byte_order_mark"),
    "channels": ("id", "channel_sid", "interaction_sid"),
    "rows": (
        *("id", "key", "fingerprint", "state", "run_id", "source_id", "line", "channel_id", "type", "sid", "code"),
        *("reason", "http_status", "attempts", "request_id", "reconciled", "started_at", "settled_at", "mark"),
        "unproven",
    ),
    "payloads": ("row_id", "record", "request"),
    "findings": (
        *("id", "run_id", "source_id", "line", "kind", "key", "code", "reason", "record", "superseded_by", "detail"),
        "ref",
    ),
    "baselines": ("channel_id", "run_id", "taken_at", "sids"),
    "looks": ("row_id", "looked_at", "reason", "candidates"),
    "decisions": ("id", "row_id", "run_id", "decided_at", "decided_by", "decision", "sid", "reason", "state", "what"),
    "waivers": ("digest", "run_id", "waived_at", "waived_by", "reason", "code", "cause"),
    "orders": ("id", "run_id", "given_at", "given_by", "command", "rate"),
    "samples": (
        *("run_id", "at", "settled", "created", "requests", "retries", "throttled", "in_flight", "rate", "slots"),
        *("p50", "p90", "p99", "accounted", "input_rows"),
    ),
    "verifications": ("row_id", "run_id", "checked_at", "result", "detail"),
    "closures": ("id", "row_id", "run_id", "closed_at", "sid"),
    "repairs": ("ref", "key"),
}
"""Table → columns; the first one, or for samples the first two, are its order."""

_AT_ONCE = 200


def move(source: Connection, target: Connection) -> int:
    """Copy all that a ledger holds into an empty one, inside the target's transaction; returns how many rows it has."""
    rows = 0
    for table, columns in TABLES.items():
        order = ", ".join(columns[: 2 if table == "samples" else 1])
        found = source.each(f"SELECT {', '.join(columns)} FROM {table} ORDER BY {order}")
        record = columns.index("record") if "record" in columns else None
        insert = f"INSERT INTO {table} ({', '.join(columns)}) VALUES "
        marks = f"({', '.join('?' * len(columns))})"
        while batch := list(islice(found, _AT_ONCE)):
            values = list(_flat(batch, record, target))
            target.execute(insert + ", ".join([marks] * len(batch)), values)
            rows += len(batch) * (table == "rows")
        if columns[0] == "id":
            target.renumber(table)
    return rows


def _flat(batch: list[Any], record: int | None, target: Connection) -> Iterator[Any]:
    for one in batch:
        for place, value in enumerate(one):
            yield target.kept(read(value)) if place == record else value
