"""Binding a ledger at its first use, and comparing it at every other one."""

from collections.abc import Sequence

from worker.ledger.binding import TARGET_FIELDS, Binding, changed_profiles, compare, refuse_other_rules
from worker.ledger.connection import Connection

BARRIERS = "('started', 'created', 'existed', 'waived', 'in_doubt', 'closed')"
"""The states whose rows no reading of an input sends."""

_UNDER_OTHERS = f"""
SELECT profile, count(*) FROM rows JOIN sources ON sources.id = source_id
WHERE path = ? AND profile <> ? AND state IN {BARRIERS} GROUP BY profile
"""
_BOUND = """
INSERT INTO binding (field, value) VALUES (?, ?) ON CONFLICT (field) DO UPDATE SET value = excluded.value
"""
_HELD = f"SELECT count(*) FILTER (WHERE state = 'created'), count(*) FROM rows WHERE state IN {BARRIERS}"


def bind(
    connection: Connection, binding: Binding, *, accept_target: bool, accept_new_keys: bool, target_only: bool
) -> None:
    """Bind or compare inside the transaction under way; raises LedgerRefusedError for a difference not accepted."""
    wanted = binding.fields()
    if target_only:
        wanted = {field: value for field, value in wanted.items() if field in TARGET_FIELDS}
    known: dict[str, str] = dict(connection.execute("SELECT field, value FROM binding").fetchall())
    same = known.items() >= wanted.items()  # which spares counting millions of rows
    done, kept = (0, 0) if same else _held(connection, changed_profiles(known, wanted))
    changed = compare(known, wanted, done, kept=kept, accept_target=accept_target, accept_new_keys=accept_new_keys)
    if not accept_new_keys:
        for path, profile in binding.inputs:
            for before, rows in connection.execute(_UNDER_OTHERS, (path, profile)).fetchall():
                refuse_other_rules(path, before, profile, rows, known=known, wanted=wanted)
    for field_and_value in changed.items():
        connection.execute(_BOUND, field_and_value)


def _held(connection: Connection, profiles: Sequence[str]) -> tuple[int, int]:
    """Return the rows that are created, and those that must not be sent again; of these profiles, if any."""
    among = f" AND source_id IN (SELECT id FROM sources WHERE profile IN ({', '.join('?' for _ in profiles)}))"
    done, kept = connection.execute(_HELD + (among if profiles else ""), profiles).fetchone()
    return done, kept
