"""The ledger in one SQLite file: WAL, synchronous=FULL, one writer, one process.

What `write` has returned from is on the disk: SQLite syncs the log at each commit [sqlite.org/pragma.html].
"""

import json
import os
import socket
import sqlite3
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import assert_never

from worker import __version__
from worker.errors import LedgerError
from worker.ledger import (
    BASELINE_FIRST,
    Asked,
    Baseline,
    Close,
    Decision,
    Entry,
    Finding,
    Free,
    Intent,
    Known,
    Look,
    Reopen,
    Sample,
    Settle,
    SourceFile,
    Surroundings,
    Thin,
    Waive,
    Why,
)
from worker.ledger.attaching import BARRIERS, bind
from worker.ledger.binding import Binding
from worker.ledger.lock import Identity, Lock
from worker.ledger.transaction import guarded, milliseconds, storable
from worker.ledger.undoing import close, free
from worker.ledger.waiving import waive
from worker.model import Created, Row, Settlement, State, state_of

_INTENT = f"""
INSERT INTO rows (key, fingerprint, state, run_id, source_id, line, mark, channel_id, type, started_at)
VALUES (?, ?, 'started', ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (key) DO UPDATE SET
    fingerprint = excluded.fingerprint, state = 'started', run_id = excluded.run_id, source_id = excluded.source_id,
    line = excluded.line, mark = excluded.mark, channel_id = excluded.channel_id, type = excluded.type, code = NULL,
    reason = NULL, http_status = NULL, request_id = NULL, started_at = excluded.started_at, settled_at = NULL
WHERE rows.state NOT IN {BARRIERS} AND rows.run_id <> excluded.run_id
RETURNING id
"""
_REFUSAL = f"""
SELECT key, fingerprint, state, source_id, line FROM rows
WHERE key = ? AND (state IN {BARRIERS} OR run_id = ?)
"""
_PAYLOAD = "INSERT OR REPLACE INTO payloads (row_id, record, request) VALUES (?, ?, ?)"
_SETTLE = """
UPDATE rows SET state = ?, sid = ?, code = ?, reason = ?, http_status = coalesce(?, http_status),
    attempts = attempts + ?, request_id = coalesce(?, request_id), settled_at = ?, reconciled = ?, run_id = ?
WHERE id = ? AND key = ? AND state = ?
"""
_REOPEN = """
UPDATE rows SET state = 'started', run_id = ?, code = NULL, reason = NULL, settled_at = NULL
WHERE id = ? AND key = ? AND state = 'in_doubt'
"""
_BASELINE = "INSERT OR REPLACE INTO baselines (channel_id, run_id, taken_at, sids) VALUES (?, ?, ?, ?)"
_STORED = """
SELECT key, fingerprint, source_id, line, interaction_sid, channel_sid, type, request, record, rows.id, mark
FROM rows JOIN payloads ON payloads.row_id = rows.id JOIN channels ON channels.id = channel_id
WHERE state IN ({states}) AND state NOT IN ('created', 'existed') AND run_id < ? AND rows.id > ? {why}
ORDER BY rows.id LIMIT ?
"""
_SAME_CHANNEL = """
channel_id IN (SELECT id FROM channels WHERE channel_sid = (
    SELECT channel_sid FROM channels JOIN rows ON channels.id = rows.channel_id WHERE rows.id = ?))
"""
_KNOWN_SIDS = f"""
SELECT sid FROM rows WHERE sid IS NOT NULL AND {_SAME_CHANNEL}
UNION SELECT closures.sid FROM closures JOIN rows ON rows.id = row_id WHERE {_SAME_CHANNEL}
"""
_UNPROVEN = """
UPDATE rows SET unproven = NOT EXISTS (
    SELECT 1 FROM baselines WHERE baselines.channel_id = rows.channel_id AND baselines.run_id = rows.run_id)
WHERE id = ?
"""
_SAMPLE = "INSERT OR REPLACE INTO samples VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_THIN = """
DELETE FROM samples WHERE run_id = ?1 AND at IN (
    SELECT at FROM (SELECT at, row_number() OVER (ORDER BY at) AS place FROM samples WHERE run_id = ?1)
    WHERE place % 2 = 0)
"""
_FINDING = """
INSERT INTO findings (run_id, source_id, line, kind, key, code, reason, record, detail)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_DECISION = """
INSERT INTO decisions (row_id, run_id, decided_at, decided_by, decision, sid) VALUES (?, ?, ?, ?, ?, ?)
"""
_REMEMBERED_CHANNELS = 10_000
_IDENTITY_SECONDS = 0.2

_CRASHED = """
UPDATE rows SET state = 'in_doubt', code = 'crash', reason = 'the run ended before the answer was recorded: may exist',
    settled_at = ?
WHERE state = 'started' AND state NOT IN ('created', 'existed')
"""


class SqliteLedger:
    """The writing side of a ledger file; see `worker.ledger.Ledger` for the contract."""

    def __init__(self, connection: sqlite3.Connection, path: Path, lock: Lock) -> None:
        self.path = path
        self._connection = connection
        self._lock = lock
        self._run = 0
        self._identity = Identity(path)
        self._checked_at = 0.0
        self._channels: dict[tuple[str, str], int] = {}
        self.crashed = self._settle_crashed()

    def _settle_crashed(self) -> int:
        """Rows that an earlier run left as started may exist: they are in doubt. Only the lock's holder may say so."""
        with guarded(self._connection, self.path):
            return self._connection.execute(_CRASHED, (milliseconds(),)).rowcount

    def bind(self, binding: Binding, *, accept_target: bool, accept_new_keys: bool, target_only: bool = False) -> None:
        """Bind the ledger at its first use, or compare; raises LedgerRefusedError for a difference not accepted.

        target_only: for what reads no input, so that its keys do not matter.
        """
        with guarded(self._connection, self.path):
            bind(
                self._connection,
                binding,
                accept_target=accept_target,
                accept_new_keys=accept_new_keys,
                target_only=target_only,
            )

    def transaction(self) -> AbstractContextManager[sqlite3.Connection]:
        """Yield the connection for one transaction of somebody who knows these tables."""
        return guarded(self._connection, self.path)

    def start_run(self, command: str) -> int:
        with guarded(self._connection, self.path):
            cursor = self._connection.execute(
                "INSERT INTO runs (command, version, host, pid, started_at) VALUES (?, ?, ?, ?, ?)",
                (command, __version__, socket.gethostname(), os.getpid(), milliseconds()),
            )
        self._run = cursor.lastrowid or 0
        return self._run

    def end_run(self, exit_code: int, reason: str, summary: str) -> None:
        self._identity.check()
        with guarded(self._connection, self.path):
            self._connection.execute(
                "UPDATE runs SET ended_at = ?, exit_code = ?, reason = ?, summary = ? WHERE id = ?",
                (milliseconds(), exit_code, storable(reason), summary, self._run),
            )

    def register(self, source: SourceFile) -> int:
        with guarded(self._connection, self.path):
            self._connection.execute(
                "INSERT INTO sources (path, format, encoding, delimiter, header, profile) VALUES (?, ?, ?, ?, ?, ?) "
                "ON CONFLICT DO UPDATE SET profile = excluded.profile WHERE profile <> excluded.profile",
                source,
            )
            where = "path = ? AND format = ? AND encoding = ? AND delimiter = ? AND header = ?"
            found: int = self._connection.execute(f"SELECT id FROM sources WHERE {where}", source[:-1]).fetchone()[0]
            return found

    def write(self, group: Sequence[Entry]) -> list[int | Known | Asked | None]:
        now = milliseconds()
        self._check_identity()
        try:
            with guarded(self._connection, self.path):
                return [self._enter(entry, now) for entry in group]
        except BaseException:
            self._channels.clear()  # their numbers may have been rolled back, and be given to others
            raise

    def _check_identity(self) -> None:
        if time.monotonic() - self._checked_at > _IDENTITY_SECONDS:
            self._identity.check()
            self._lock.check()
            self._checked_at = time.monotonic()

    def _enter(self, entry: Entry, now: int) -> int | Known | Asked | None:
        execute = self._connection.execute
        match entry:
            case Intent(row, baseline_first):
                if baseline_first and self._lacks_baseline(row):
                    return self._refusal(row) or BASELINE_FIRST
                return self._intend(row, now)
            case Baseline(row, sids):
                execute(_BASELINE, (self._channel(row), self._run, now, json.dumps(sids)))
            case Reopen(number, row, sids):
                self._reopen(number, row)
                execute(_BASELINE, (self._channel(row), self._run, now, json.dumps(sids)))
            case Settle(number, settlement):
                self._settle(number, settlement, now)
            case Finding():
                self._find(entry)
            case _:
                return self._enter_rare(entry, now)
        return None

    def _enter_rare(self, entry: Look | Decision | Waive | Sample | Thin | Close | Free, now: int) -> int | None:
        execute = self._connection.execute
        match entry:
            case Look(number, reason, candidates):
                look = "INSERT OR REPLACE INTO looks (row_id, looked_at, reason, candidates) VALUES (?, ?, ?, ?)"
                execute(look, (number, now, storable(reason), json.dumps(candidates)))
            case Decision(number, by, decision, sid):
                execute(_DECISION, (number, self._run, now, storable(by), decision, sid))
            case Waive(state, why, by, reason):
                return waive(self._connection, self._run, now, state, why, by=storable(by), reason=storable(reason))
            case Sample():
                execute(_SAMPLE, (self._run, now, *entry))
            case Thin():
                execute(_THIN, (self._run,))
            case Close(number, key):
                close(self._connection, self._run, now, number, key)
            case Free():
                return free(self._connection, self._run, now)
            case _:
                assert_never(entry)
        return None

    def _reopen(self, number: int, row: Row) -> None:
        if self._connection.execute(_REOPEN, (self._run, number, row.key)).rowcount != 1:
            raise LedgerError(f"{self.path}: row {row.key} is no longer in doubt: something else wrote here")
        self._connection.execute("DELETE FROM looks WHERE row_id = ?", (number,))

    def _intend(self, row: Row, now: int) -> int | Known:
        execute = self._connection.execute
        channel = self._channel(row)
        values = (row.key, row.fingerprint, self._run, row.source, row.line, row.mark, channel, row.type, now)
        found = execute(_INTENT, values).fetchone()
        if found is None:
            refusal = self._refusal(row)
            if refusal is None:
                raise LedgerError(f"{self.path}: the intent of row {row.key} was neither taken nor refused")
            return refusal
        number: int = found[0]
        execute(_PAYLOAD, (number, row.text, row.body))
        return number

    def _refusal(self, row: Row) -> Known | None:
        found = self._connection.execute(_REFUSAL, (row.key, self._run)).fetchone()
        if found is None:
            return None
        key, fingerprint, state, source, line = found
        return Known(key, fingerprint, State(state), source, line)

    def _lacks_baseline(self, row: Row) -> bool:
        query = "SELECT 1 FROM baselines WHERE channel_id = ? AND run_id = ?"
        return self._connection.execute(query, (self._channel(row), self._run)).fetchone() is None

    def surroundings(self, number: int) -> Surroundings:
        with guarded(self._connection, self.path):
            execute = self._connection.execute
            known = execute(_KNOWN_SIDS, (number, number)).fetchall()
            doubts = f"SELECT count(*) FROM rows WHERE state IN ('started', 'in_doubt') AND {_SAME_CHANNEL}"
            unresolved = execute(doubts, (number,)).fetchone()[0]
            # a baseline of another run than the row's may lack what others added in between
            query = "SELECT sids FROM baselines JOIN rows USING (channel_id, run_id) WHERE rows.id = ?"
            taken = execute(query, (number,)).fetchone()
        baseline = frozenset(json.loads(taken[0])) if taken else None
        return Surroundings(frozenset(sid for (sid,) in known), baseline, unresolved)

    def stored(self, states: Sequence[State], after: int, limit: int, why: Why | None = None) -> list[Row]:
        query = _STORED.format(
            states=", ".join("?" for _ in states), why="" if why is None else "AND code = ? AND reason = ?"
        )
        values = (*states, self._run, after, *(why or ()), limit)
        with guarded(self._connection, self.path):
            return [Row(*found) for found in self._connection.execute(query, values)]

    def _channel(self, row: Row) -> int:
        name = (row.channel_sid, row.interaction_sid)
        number = self._channels.get(name)
        if number is None:
            where = "channel_sid = ? AND interaction_sid = ?"
            found = self._connection.execute(f"SELECT id FROM channels WHERE {where}", name).fetchone()
            if found is None:
                insert = "INSERT INTO channels (channel_sid, interaction_sid) VALUES (?, ?) RETURNING id"
                found = self._connection.execute(insert, name).fetchone()
            if len(self._channels) >= _REMEMBERED_CHANNELS:
                self._channels.clear()
            number = self._channels[name] = int(found[0])
        return number

    def _settle(self, number: int, settlement: Settlement, now: int) -> None:
        outcome = settlement.outcome
        state = state_of(outcome)
        before = State.IN_DOUBT if settlement.ends_doubt else State.STARTED
        if settlement.reconciled:  # before the row is this run's: the baseline is that of the run that sent it
            self._connection.execute(_UNPROVEN, (number,))
        sid, code, reason = None, None, None
        if isinstance(outcome, Created):
            sid = outcome.sid
        else:
            code, reason = storable(outcome.code), storable(outcome.reason)
        updated = self._connection.execute(
            _SETTLE,
            (
                state,
                sid,
                code,
                reason,
                settlement.http_status,
                settlement.attempts,
                settlement.request_id and storable(settlement.request_id),
                now,
                settlement.reconciled,
                self._run,
                number,
                settlement.key,
                before,
            ),
        )
        if updated.rowcount != 1:
            raise LedgerError(
                f"{self.path}: row {settlement.key} is no longer {before.value}: something else wrote here"
            )
        if settlement.ends_doubt:
            self._connection.execute("DELETE FROM looks WHERE row_id = ?", (number,))
        if state in {State.CREATED, State.EXISTED}:
            self._connection.execute("DELETE FROM payloads WHERE row_id = ?", (number,))

    def _find(self, finding: Finding) -> None:
        self._connection.execute(
            _FINDING,
            (
                self._run,
                finding.source,
                finding.line,
                finding.kind,
                finding.key,
                finding.code,
                storable(finding.reason),
                finding.record,
                finding.detail and storable(finding.detail),
            ),
        )

    def supersede(self, source: int, through_line: int) -> None:
        with guarded(self._connection, self.path):
            self._connection.execute(
                "UPDATE findings SET superseded_by = ?1 WHERE superseded_by IS NULL AND run_id < ?1 AND line <= ?2 "
                "AND source_id IN (SELECT id FROM sources WHERE path <> '-' "
                "AND path = (SELECT path FROM sources WHERE id = ?3))",
                (self._run, through_line, source),
            )

    def settled_by_run(self) -> dict[State, int]:
        self._identity.check()
        query = "SELECT state, count(*) FROM rows WHERE run_id = ? AND state <> 'started' GROUP BY state"
        with guarded(self._connection, self.path):
            return {State(state): count for state, count in self._connection.execute(query, (self._run,))}

    def channels_in_doubt(self) -> dict[str, set[str]]:
        query = (
            "SELECT channel_sid, key FROM rows JOIN channels ON channels.id = channel_id "
            "WHERE state IN ('started', 'in_doubt') AND state NOT IN ('created', 'existed')"
        )
        found: dict[str, set[str]] = {}
        with guarded(self._connection, self.path):
            for channel, key in self._connection.execute(query):
                found.setdefault(channel, set()).add(key)
        return found

    def close(self) -> None:
        try:
            self._connection.close()
        finally:
            self._lock.release()
