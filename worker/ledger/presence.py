"""Which runs are at work on a ledger now: they have no end on record, and their process holds the lock.

A row that is `started` is in flight while its run is at work. Afterwards it may exist: it reads as in doubt, which the
next opening of the ledger records.
"""

from collections.abc import Sequence

from worker.ledger.connection import Connection
from worker.ledger.lock import UNNAMED
from worker.ledger.opening import holders_of
from worker.ledger.statement import CRASH_REASON
from worker.place import Place

_UNENDED = "SELECT id, command, pid, host FROM runs WHERE ended_at IS NULL ORDER BY id DESC LIMIT 100"
_CRASHED = {"state": "in_doubt", "code": "crash", "reason": CRASH_REASON}
_STARTED = "SELECT DISTINCT run_id FROM rows WHERE state = 'started' AND state NOT IN ('created', 'existed')"


def runs_at_work(connection: Connection, holders: Sequence[str]) -> list[tuple[int, str]]:
    """Return number and command of the runs at work, the newest first. holders: as `holders_of` names them."""
    found = connection.execute(_UNENDED).fetchall()
    return [(run, command) for run, command, pid, host in found if _works(holders, pid, host)]


def _works(holders: Sequence[str], pid: int, host: str) -> bool:
    far = f"process {pid} on {host}"  # a database cuts off long names
    return any(one in {f"process {pid}", UNNAMED} or (" on " in one and far.startswith(one)) for one in holders)


def as_read(connection: Connection, place: Place) -> dict[str, str]:
    """Return the SQL for `state`, `code` and `reason` of a row as they read now.

    Also `abandoned`: the condition for the `started` rows whose run is no longer at work. The lock is asked about after
    the rows, as a run that begins in between has none of them.
    """
    runs = [run for (run,) in connection.execute(_STARTED).fetchall()]
    if runs:
        at_work = {run for run, _ in runs_at_work(connection, holders_of(place))}
        runs = [run for run in runs if run not in at_work]
    if not runs:
        return {"abandoned": "1 = 0"} | {column: f"rows.{column}" for column in _CRASHED}
    abandoned = f"(rows.state = 'started' AND rows.run_id IN ({', '.join(map(str, runs))}))"
    return {"abandoned": abandoned} | {
        column: f"CASE WHEN {abandoned} THEN '{value}' ELSE rows.{column} END" for column, value in _CRASHED.items()
    }
