"""Looking at a ledger, beside a run or after it, without disturbing it. Streams; never loads a ledger into memory."""

import json
import sqlite3
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, NamedTuple, Self

from worker.cluster import Cluster
from worker.errors import LedgerError
from worker.ledger import SourceFile
from worker.ledger.connection import Connection, read
from worker.ledger.grouping import gather
from worker.ledger.opening import open_readonly
from worker.ledger.presence import as_read
from worker.ledger.statement import OPEN_FINDING, REPAIRED_ROW, WAIVED_FINDING
from worker.ledger.waiving import DECIDED
from worker.model import Sample
from worker.place import Place

COLUMNS = (
    "key",
    "source",
    "line",
    "state",
    "sid",
    "interaction_sid",
    "channel_sid",
    "type",
    "code",
    "reason",
    "http_status",
    "attempts",
    "request_id",
    "reconciled",
    "run",
    "started_at",
    "settled_at",
)
"""The columns of an export, in their order. Part of the contract."""

_ROWS = """
SELECT key, path AS source, line, {state} AS state, sid, interaction_sid, channel_sid, type, {code} AS code,
    {reason} AS reason, http_status, attempts, request_id, reconciled, run_id AS run, {started_at} AS started_at,
    {settled_at} AS settled_at
FROM rows JOIN channels ON channels.id = channel_id JOIN sources ON sources.id = source_id
"""
_MISFITS = """
SELECT findings.key, path AS source, line, '{state}' AS state, NULL, NULL, NULL, NULL, code,
    reason || coalesce(': ' || detail, ''), NULL, 0, NULL, 0, run_id AS run, NULL, NULL
FROM findings JOIN sources ON sources.id = source_id
WHERE kind = 'rejected'
"""

_RUNS = "SELECT id, command, started_at, ended_at, exit_code, reason, summary FROM runs"
_SAMPLES = """
SELECT at, settled, created, requests, retries, throttled, in_flight, rate, slots, p50, p90, p99,
    accounted, input_rows FROM samples
"""

_IN_DOUBT = """
SELECT rows.id, key, path || ':' || line, interaction_sid, channel_sid, type,
    coalesce(looks.reason, {reason}), coalesce(settled_at, rows.started_at), coalesce(candidates, '[]')
FROM rows JOIN channels ON channels.id = channel_id JOIN sources ON sources.id = source_id
    LEFT JOIN looks ON looks.row_id = rows.id
WHERE state IN ('started', 'in_doubt') AND state NOT IN ('created', 'existed')
    AND {state} = 'in_doubt' AND substr(key, 1, :length) = :beginning AND (:run IS NULL OR run_id = :run)
ORDER BY rows.id
"""

_REVERSIBLE = """
SELECT count(*) FILTER (WHERE state = 'created' AND unproven = 0),
    count(DISTINCT lower(channel_sid)) FILTER (WHERE state = 'created' AND unproven = 0),
    count(*) FILTER (WHERE state = 'created' AND unproven = 1), count(*) FILTER (WHERE state = 'existed')
FROM rows JOIN channels ON channels.id = channel_id WHERE :run IS NULL OR run_id = :run
"""
_TYPES = """
SELECT type, count(*) FROM rows
WHERE state = 'created' AND unproven = 0 AND (:run IS NULL OR run_id = :run)
GROUP BY type ORDER BY type
"""
_OWNER = """
SELECT key, CASE WHEN state = 'closed' THEN 1 ELSE 0 END FROM rows WHERE sid IS NOT NULL AND lower(sid) = lower(:sid)
UNION ALL SELECT key, 1 FROM closures JOIN rows ON rows.id = row_id WHERE lower(closures.sid) = lower(:sid)
"""
_CREATED = """
SELECT rows.id, key, sid, interaction_sid, channel_sid, type FROM rows JOIN channels ON channels.id = channel_id
WHERE state = 'created' AND unproven = 0 AND (:run IS NULL OR run_id = :run)
ORDER BY lower(channel_sid), rows.id DESC
"""

_REJECTS = f"""
SELECT source_id, line, key, coalesce(ref, ''), state, code, reason, record FROM (
    SELECT source_id, line, key, key AS ref, state, code, reason, record, run_id, id AS number
    FROM rows LEFT JOIN payloads ON row_id = rows.id
    WHERE state IN ('rejected', 'parked', 'failed') AND state NOT IN ('created', 'existed') AND NOT ({REPAIRED_ROW})
    UNION ALL
    SELECT source_id, line, key, ref, 'rejected', code, reason || coalesce(': ' || detail, ''), record, run_id, id
    FROM findings WHERE {OPEN_FINDING}
) AS found WHERE :run IS NULL OR run_id = :run ORDER BY source_id, line, run_id, number
"""


_REPAIRED = f"SELECT state, count(*) FROM rows WHERE {REPAIRED_ROW} GROUP BY state"


class InDoubt(NamedTuple):
    """A row in doubt, with what the last look at it found. candidates: sids that may be its participant.

    since: when its attempt ended, or a ledger with it was opened after a crash, in milliseconds since 1970, UTC.
    """

    number: int
    key: str
    place: str
    interaction_sid: str
    channel_sid: str
    type: str
    reason: str
    since: int
    candidates: tuple[str, ...]


class Reject(NamedTuple):
    """A row that waits for a repair. record: as it stood in its input, line end included; None when it is gone.

    ref: what its repair names; "" for a finding of an earlier version.
    """

    source: int
    line: int
    key: str | None
    ref: str
    state: str
    code: str
    reason: str
    record: str | None


class Run(NamedTuple):
    """One run as the ledger has it; times in milliseconds since 1970, UTC; None while it goes on or after a crash."""

    number: int
    command: str
    started_at: int
    ended_at: int | None
    exit_code: int | None
    reason: str | None
    summary: str | None


class Decided(NamedTuple):
    """What a person decided; at: milliseconds since 1970. detail: the sid, or the reason of a waiver.

    key: of the row, or what else it was about.
    """

    at: int
    by: str
    key: str
    decision: str
    detail: str


class Owner(NamedTuple):
    """Whose participant a sid is. closed: it was closed by `undo`."""

    key: str
    closed: bool


class Reversible(NamedTuple):
    """What was created, in rows. unproven: adopted without a baseline, so that it may be somebody else's.

    types: of `created`, how many rows there are of each type.
    """

    created: int
    channels: int
    unproven: int
    existed: int
    types: dict[str, int]


class View:
    """A read-only look at one ledger. Raises LedgerRefusedError when there is none, LedgerError when reading fails."""

    def __init__(self, path: Place) -> None:
        self._path = path
        self._connection = open_readonly(path)

    def close(self) -> None:
        """End the look."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        try:
            yield self._connection
        except sqlite3.Error as exc:
            raise LedgerError(f"{self._path}: the ledger cannot be read: {exc}") from exc

    def counts(self) -> dict[str, int]:
        """Return state → rows, as they read, and records: those rejected here that still stand, or were signed off."""
        with self._reading() as connection:
            state = as_read(connection, self._path)["state"]
            states = connection.execute(f"SELECT {state}, count(*) FROM rows GROUP BY 1")
            found: dict[str, int] = dict(states.fetchall())
            local = connection.execute(f"SELECT count(*) FROM findings WHERE {OPEN_FINDING}").fetchone()[0]
            waived = connection.execute(f"SELECT count(*) FROM findings WHERE {WAIVED_FINDING}").fetchone()[0]
            repaired = connection.execute(_REPAIRED).fetchall()
        for state, rows in repaired:
            found[state] -= rows
        for state, rows in (("rejected", local), ("waived", waived)):
            if rows:
                found[state] = found.get(state, 0) + rows
        return found

    def last_run(self) -> Run | None:
        """Return the newest run, or None when there was none."""
        with self._reading() as connection:
            found = connection.execute(f"{_RUNS} ORDER BY id DESC LIMIT 1").fetchone()
        return Run(*found) if found else None

    def runs(self) -> Generator[Run, None, None]:
        """Yield every run, the oldest first."""
        with self._reading() as connection:
            yield from map(Run._make, connection.each(f"{_RUNS} ORDER BY id"))

    def samples(self, run: int) -> list[tuple[int, Sample]]:
        """Return the samples of a run in their order, each with its time in milliseconds since 1970."""
        with self._reading() as connection:
            found = connection.execute(f"{_SAMPLES} WHERE run_id = ? ORDER BY at", (run,))
            return [(at, Sample(*sample)) for at, *sample in found]

    def binding(self) -> dict[str, str]:
        """Return what the ledger belongs to: field → value."""
        with self._reading() as connection:
            return dict(connection.execute("SELECT field, value FROM binding").fetchall())

    def a_channel(self) -> tuple[str, str] | None:
        """Return the interaction and the sid of the newest channel that was sent to, None when there is none."""
        with self._reading() as connection:
            query = "SELECT interaction_sid, channel_sid FROM channels ORDER BY id DESC LIMIT 1"
            found = connection.execute(query).fetchone()
        return None if found is None else (str(found[0]), str(found[1]))

    def decisions(self, most: int) -> tuple[int, list[Decided]]:
        """Return the number of people's decisions, and the newest of them. What one waiver did to rows is one."""
        with self._reading() as connection:
            found = connection.execute(DECIDED, (most,)).fetchall()
        return (found[0][0] if found else 0), [Decided._make(one[1:]) for one in found]

    def clusters(self, run: int | None = None) -> list[Cluster]:
        """Return what needs something, the largest cluster first.

        run: of each, only what this run brought to its state. Ids are as short as they can be among all of the ledger.
        """
        with self._reading() as connection:
            return gather(connection, self._path, run)

    def in_doubt(self, beginning: str = "", run: int | None = None) -> list[InDoubt]:
        """Return the rows in doubt whose key begins so, in the order in which they were first sent.

        run: only what this run left in doubt.
        """
        values = {"beginning": beginning, "length": len(beginning), "run": run}
        with self._reading() as connection:
            query = _IN_DOUBT.format_map(as_read(connection, self._path))
            found = connection.execute(query, values).fetchall()
        return [InDoubt._make((*row[:-1], tuple(json.loads(row[-1])))) for row in found]

    def reversible(self, run: int | None = None) -> Reversible:
        """Count what an undo would close, or keep. run: only of what this run brought to its state."""
        with self._reading() as connection:
            counts = connection.execute(_REVERSIBLE, {"run": run}).fetchone()
            types = dict(connection.execute(_TYPES, {"run": run}).fetchall())
        return Reversible._make((*counts, types))

    def created(self, run: int | None = None) -> Generator[tuple[int, str, str, str, str, str], None, None]:
        """Yield what an undo would close, by channel, the newest first.

        Each as its number, key, sid, interaction, channel and type.
        """
        with self._reading() as connection:
            yield from connection.each(_CREATED, {"run": run})

    def owners(self, sids: Iterable[str]) -> dict[str, Owner]:
        """Return sid → whose participant it is or was, for those that are some row's. Case does not count."""
        found: dict[str, Owner] = {}
        with self._reading() as connection:
            for sid in sids:
                if owner := connection.execute(_OWNER, {"sid": sid}).fetchone():
                    found[sid] = Owner(owner[0], bool(owner[1]))
        return found

    def export(self, states: Sequence[str] = (), run: int | None = None) -> Generator[tuple[Any, ...], None, None]:
        """Yield the columns of `COLUMNS` for each row, in the order in which rows were first sent.

        states: only these; run: only what this run brought to its state. Times are RFC 3339, UTC. Local rejections
        follow the rows: those that still stand, or with `run` those that it found.
        """
        of_rows: list[str] = []
        of_rows.append(f"NOT ({REPAIRED_ROW})")
        of_misfits = [OPEN_FINDING if run is None else "run_id = :run"]
        values: dict[str, Any] = {"run": run}
        with self._reading() as connection:
            read_as = as_read(connection, self._path)
        if states:
            names = {f"state{number}": state for number, state in enumerate(states)}
            values |= names
            of_rows.append(f"{read_as['state']} IN ({', '.join(f':{name}' for name in names)})")
        if run is not None:
            of_rows.append("run_id = :run")
        times = {column: self._connection.rfc3339(column) for column in ("started_at", "settled_at")}
        rows = _ROWS.format_map(read_as | times)
        queries = [f"{rows} WHERE {' AND '.join(of_rows)} ORDER BY rows.id"]
        if not states or "rejected" in states:
            queries.append(f"{_MISFITS.format(state='rejected')} AND {' AND '.join(of_misfits)} ORDER BY findings.id")
        if not states or "waived" in states:
            of_run = "" if run is None else "AND superseded_by = :run"
            queries.append(f"{_MISFITS.format(state='waived')} AND {WAIVED_FINDING} {of_run} ORDER BY findings.id")
        with self._reading() as connection:
            for query in queries:
                yield from connection.each(query, values)

    def rejects(self, run: int | None = None) -> Generator[Reject, None, None]:
        """Yield what is rejected, here or by the API, parked or failed, input by input and in the order of lines.

        run: only what this run brought to its state, and of its local rejections those that still stand.
        """
        with self._reading() as connection:
            for *what, record in connection.each(_REJECTS, {"run": run}):
                yield Reject._make((*what, read(record)))

    def source(self, number: int) -> SourceFile:
        """Return an input that a row or a finding names."""
        query = "SELECT path, format, encoding, delimiter, header, profile, byte_order_mark FROM sources WHERE id = ?"
        with self._reading() as connection:
            return SourceFile._make(connection.execute(query, (number,)).fetchone())
