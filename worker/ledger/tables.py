"""The writing side of a ledger in tables, whatever engine keeps them: which statement each entry is.

`sqlite` and `postgres` add what is the engine's own: how it is locked, and how it is known to be still the same.
"""

import json
import os
import socket
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from math import inf
from typing import NamedTuple, assert_never

from worker import __version__
from worker.errors import LedgerError
from worker.ledger import (
    BASELINE_FIRST,
    KNOWN_SID,
    SID_KNOWN,
    Asked,
    Baseline,
    Close,
    Decision,
    Entry,
    Fenced,
    Finding,
    Free,
    FreePruned,
    Intent,
    Known,
    Look,
    Rare,
    Reopen,
    Repair,
    Settle,
    SourceFile,
    Surroundings,
    Thin,
    Unwaive,
    Verification,
    Waive,
    Why,
    statement,
)
from worker.ledger.attaching import bind
from worker.ledger.binding import Binding
from worker.ledger.connection import Connection, read
from worker.ledger.retrying import free_pruned
from worker.ledger.transaction import guarded, milliseconds, storable
from worker.ledger.undoing import close, free
from worker.ledger.waiving import unwaive, waive
from worker.model import Created, Row, Sample, Settlement, State, comparable, state_of
from worker.place import Place

REMEMBERED_CHANNELS = 10_000


class Settled(NamedTuple):
    """What an outcome is in the columns of a row."""

    state: State
    sid: str | None
    code: str | None
    reason: str | None


def settled(settlement: Settlement) -> Settled:
    """Return the columns of an outcome."""
    outcome = settlement.outcome
    if isinstance(outcome, Created):
        return Settled(State.CREATED, outcome.sid, None, None)
    return Settled(state_of(outcome), None, storable(outcome.code), storable(outcome.reason))


def oldest(now: int, seconds: float) -> int:
    """Return from when on a baseline is fresh, in milliseconds; one that does not hold any more is from 0."""
    return max(1, now - round(1000 * seconds)) if seconds < inf else 1


def channel_name(row: Row) -> tuple[str, str]:
    """Return what a row's channel is remembered by."""
    return row.channel, comparable(row.interaction_sid)


class Tables(ABC):
    """The writing side of a ledger; see `worker.ledger.Ledger` for the contract. path: where it is, as people name it.

    crashed: how many rows an earlier run left as started, which are in doubt from now on.
    """

    def __init__(self, connection: Connection, path: Place) -> None:
        self.path = path
        self._connection = connection
        self._run = 0
        self._channels: dict[tuple[str, str], int] = {}
        self.crashed = 0

    def settle_crashed(self) -> None:
        """Rows that an earlier run left as started may exist: they are in doubt. Only the lock's holder may say so."""
        with guarded(self._connection, self.path):
            self.crashed = self._connection.execute(statement.CRASHED, (milliseconds(),)).rowcount

    def beat(self) -> None:
        """Raise LedgerError when the engine is not there any more."""
        self._connection.execute("SELECT 1")

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

    def transaction(self) -> AbstractContextManager[Connection]:
        """Yield the connection for one transaction of somebody who knows these tables."""
        return guarded(self._connection, self.path)

    def start_run(self, command: str) -> int:
        with guarded(self._connection, self.path):
            insert = "INSERT INTO runs (command, version, host, pid, started_at) VALUES (?, ?, ?, ?, ?) RETURNING id"
            values = (command, __version__, socket.gethostname(), os.getpid(), milliseconds())
            self._run = int(self._connection.execute(insert, values).fetchone()[0])
        return self._run

    def end_run(self, exit_code: int, reason: str, summary: str) -> None:
        self._check(soon=True)
        with guarded(self._connection, self.path):
            self._connection.execute(
                "UPDATE runs SET ended_at = ?, exit_code = ?, reason = ?, summary = ? WHERE id = ?",
                (milliseconds(), exit_code, storable(reason), summary, self._run),
            )

    def register(self, source: SourceFile) -> int:
        with guarded(self._connection, self.path):
            execute = self._connection.execute
            found = execute(statement.SOURCE, source.identity).fetchone()
            if found is None:
                found = execute(statement.NEW_SOURCE, source).fetchone()
            else:
                execute(statement.KNOWN_SOURCE, (source.profile, source.byte_order_mark, *found))
            return int(found[0])

    def write(self, group: Sequence[Entry]) -> list[int | Known | Asked | None]:
        now = milliseconds()
        self._check()
        try:
            with guarded(self._connection, self.path):
                return [self._enter(entry, now) for entry in group]
        except BaseException:
            self._channels.clear()  # their numbers may have been rolled back, and be given to others
            raise

    @abstractmethod
    def _check(self, *, soon: bool = False) -> None:
        """Raise LedgerError when this is no longer the ledger that was opened. soon: even if asked just now."""

    def _enter(self, entry: Entry, now: int) -> int | Known | Asked | None:
        match entry:
            case Intent(row, baseline_first, seconds):
                if baseline_first and self._lacks_baseline(row, now, seconds):
                    return self._refusal(row) or BASELINE_FIRST
                return self._intend(row, now)
            case Baseline(row, sids):
                self._list(row, sids, now)
            case Reopen(number, row, sids):
                self._reopen(number, row)
                self._list(row, sids, now)
            case Settle(number, settlement):
                return self._settle(number, settlement, now)
            case Finding():
                self._find(entry)
            case Repair(ref, key):
                self._connection.execute(statement.REPAIR, (storable(ref), key))
            case Fenced(inner):  # who is alone needs no fence
                return self._enter(inner, now)
            case _:
                return self._enter_rare(entry, now)
        return None

    def _enter_rare(self, entry: Rare, now: int) -> int | None:
        execute = self._connection.execute
        match entry:
            case Look(number, reason, candidates):
                execute(statement.LOOK, (number, now, storable(reason), json.dumps(candidates)))
            case Decision(number, by, decision, sid):
                execute(statement.DECISION, (number, self._run, now, storable(by), decision, sid))
            case Waive(state, why, by, reason):
                return waive(self._connection, self._run, now, state, why, by=storable(by), reason=storable(reason))
            case Unwaive(state, why, by):
                return unwaive(self._connection, self._run, now, state, why, by=storable(by))
            case Verification(number, result, detail):
                execute(statement.VERIFICATION, (number, self._run, now, result.value, detail and storable(detail)))
            case Sample():
                execute(statement.SAMPLE, (self._run, now, *entry))
            case Thin():
                execute(statement.THIN, (self._run, self._run))
            case Close(number, key):
                close(self._connection, self._run, now, number, key)
            case Free() | FreePruned():
                return self._free(entry, now)
            case _:
                assert_never(entry)
        return None

    def _free(self, entry: Free | FreePruned, now: int) -> int:
        if isinstance(entry, Free):
            return free(self._connection, self._run, now)
        return free_pruned(self._connection, self._run, now, entry)

    def _reopen(self, number: int, row: Row) -> None:
        if self._connection.execute(statement.REOPEN, (self._run, number, row.key)).rowcount != 1:
            raise LedgerError(f"{self.path}: row {row.key} is no longer in doubt: something else wrote here")
        self._connection.execute("DELETE FROM looks WHERE row_id = ?", (number,))

    def _intend(self, row: Row, now: int) -> int | Known:
        execute = self._connection.execute
        channel = self._channel(row)
        values = (row.key, row.fingerprint, self._run, row.source, row.line, row.mark, channel, row.type, now)
        found = execute(statement.INTENT, values).fetchone()
        if found is None:
            refusal = self._refusal(row)
            if refusal is None:
                raise LedgerError(f"{self.path}: the intent of row {row.key} was neither taken nor refused")
            return refusal
        number: int = found[0]
        execute(statement.PAYLOAD, (number, self._connection.kept(row.text), row.body))
        return number

    def _refusal(self, row: Row) -> Known | None:
        found = self._connection.execute(statement.REFUSAL, (row.key, self._run)).fetchone()
        if found is None:
            return None
        key, fingerprint, state, source, line, run = found
        return Known(key, fingerprint, State(state), source, line, run == self._run)

    def _list(self, row: Row, sids: Sequence[str] | None, now: int) -> None:
        execute, channel = self._connection.execute, self._channel(row)
        if sids is None:
            execute(statement.EXPIRE_BASELINE, (channel,))
            return
        before = execute(statement.LISTED_BEFORE, (channel,)).fetchone()
        listed = dict.fromkeys((*sids, *(json.loads(before[0]) if before else ())))
        execute(statement.BASELINE, (channel, self._run, now, json.dumps(list(listed))))

    def _lacks_baseline(self, row: Row, now: int, seconds: float) -> bool:
        values = (self._channel(row), self._run, oldest(now, seconds), now)
        return self._connection.execute(statement.FRESH_BASELINE, values).fetchone() is None

    def surroundings(self, number: int) -> Surroundings:
        with guarded(self._connection, self.path):
            execute = self._connection.execute
            known = execute(statement.KNOWN_SIDS, (number, number)).fetchall()
            doubts = f"SELECT count(*) FROM rows WHERE state IN ('started', 'in_doubt') AND {statement.SAME_CHANNEL}"
            unresolved = execute(doubts, (number,)).fetchone()[0]
            # a baseline of another run than the row's may lack what others added in between
            taken = execute(statement.BASELINE_OF_ROW, (number,)).fetchone()
            look = execute("SELECT candidates FROM looks WHERE row_id = ?", (number,)).fetchone()
        baseline = frozenset(json.loads(taken[0])) if taken else None
        seen = frozenset(json.loads(look[0])) if look else frozenset()
        return Surroundings(frozenset(sid for (sid,) in known), baseline, unresolved, seen)

    def stored(self, states: Sequence[State], after: int, limit: int, why: Why | None = None) -> list[Row]:
        query = statement.STORED.format(
            states=", ".join("?" for _ in states),
            why="" if why is None else "AND code = ? AND reason = ?",
            repaired=statement.REPAIRED_ROW,
        )
        values = (*states, self._run, after, *(why or ()), limit)
        with guarded(self._connection, self.path):
            found = self._connection.execute(query, values).fetchall()
        return [Row._make((*one[:8], read(one[8]), *one[9:])) for one in found]

    def _channel(self, row: Row) -> int:
        name = channel_name(row)
        number = self._channels.get(name)
        if number is None:
            written = (row.channel_sid, row.interaction_sid)
            where = "lower(channel_sid) = lower(?) AND lower(interaction_sid) = lower(?)"
            found = self._connection.execute(f"SELECT id FROM channels WHERE {where}", written).fetchone()
            if found is None:
                insert = "INSERT INTO channels (channel_sid, interaction_sid) VALUES (?, ?) RETURNING id"
                found = self._connection.execute(insert, written).fetchone()
            if len(self._channels) >= REMEMBERED_CHANNELS:
                self._channels.clear()
            number = self._channels[name] = int(found[0])
        return number

    def _is_known(self, number: int, settlement: Settlement, sid: str) -> bool:
        """Tell whether a sid cannot be this row's. Raises LedgerError when a person says it is, but it is another's."""
        by_person = settlement.ends_doubt and not settlement.reconciled
        execute = self._connection.execute
        if execute(statement.KNOWN_SID, {"sid": sid}).fetchone()[0]:
            if by_person:
                raise LedgerError(f"{self.path}: row {settlement.key}: {sid} is another row's participant")
            return True
        return not by_person and bool(execute(statement.LISTED_SID, {"number": number, "sid": sid}).fetchone()[0])

    def _settle(self, number: int, settlement: Settlement, now: int) -> Asked | None:
        known = isinstance(settlement.outcome, Created) and self._is_known(number, settlement, settlement.outcome.sid)
        if known:
            if settlement.ends_doubt:
                return SID_KNOWN
            settlement = replace(settlement, outcome=KNOWN_SID, reconciled=False)
        state, sid, code, reason = settled(settlement)
        before = State.IN_DOUBT if settlement.ends_doubt else State.STARTED
        if settlement.reconciled:  # before the row is this run's: the baseline is that of the run that sent it
            self._connection.execute(statement.UNPROVEN, (number,))
        updated = self._connection.execute(
            statement.SETTLE,
            (
                state,
                sid,
                code,
                reason,
                settlement.http_status,
                settlement.attempts,
                settlement.request_id and storable(settlement.request_id),
                now,
                int(settlement.reconciled),
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
        return SID_KNOWN if known else None

    def _find(self, finding: Finding) -> None:
        self._connection.execute(
            statement.FINDING,
            (
                self._run,
                finding.source,
                finding.line,
                finding.kind,
                finding.key,
                finding.code,
                storable(finding.reason),
                self._connection.kept(finding.record),
                finding.detail and storable(finding.detail),
                finding.ref and storable(finding.ref),
            ),
        )

    def supersede(self, source: int, through_line: int) -> None:
        with guarded(self._connection, self.path):
            self._connection.execute(
                "UPDATE findings SET superseded_by = :run WHERE superseded_by IS NULL AND run_id < :run "
                "AND line <= :line AND source_id IN (SELECT id FROM sources WHERE path <> '-' "
                "AND path = (SELECT path FROM sources WHERE id = :source))",
                {"run": self._run, "line": through_line, "source": source},
            )

    def settled_by_run(self) -> dict[State, int]:
        self._check(soon=True)
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
                found.setdefault(comparable(channel), set()).add(key)
        return found

    @abstractmethod
    def close(self) -> None:
        """Give the ledger back."""
