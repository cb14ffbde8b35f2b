"""The ledger in one SQLite file: WAL, synchronous=FULL, one writer, one process.

What `write` has returned from is on the disk: SQLite syncs the log at each commit [sqlite.org/pragma.html].
"""

import os
import socket
import sqlite3
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import assert_never

from worker import __version__
from worker.errors import LedgerError, LedgerRefusedError
from worker.ledger import Entry, Finding, Intent, Known, Settle, SourceFile
from worker.ledger.binding import Binding, compare
from worker.ledger.lock import Lock, refuse_network
from worker.ledger.schema import check, prepare
from worker.model import Created, Row, Settlement, State, state_of

_BARRIERS = "('started', 'created', 'existed', 'waived', 'in_doubt', 'closed')"

_INTENT = f"""
INSERT INTO rows (key, fingerprint, state, run_id, source_id, line, channel_id, type, started_at)
VALUES (?, ?, 'started', ?, ?, ?, ?, ?, ?)
ON CONFLICT (key) DO UPDATE SET
    fingerprint = excluded.fingerprint, state = 'started', run_id = excluded.run_id, source_id = excluded.source_id,
    line = excluded.line, channel_id = excluded.channel_id, type = excluded.type, code = NULL, reason = NULL,
    http_status = NULL, request_id = NULL, started_at = excluded.started_at, settled_at = NULL
WHERE rows.state NOT IN {_BARRIERS}
RETURNING id
"""
_PAYLOAD = "INSERT OR REPLACE INTO payloads (row_id, record, request) VALUES (?, ?, ?)"
_SETTLE = """
UPDATE rows SET state = ?, sid = ?, code = ?, reason = ?, http_status = ?, attempts = attempts + ?, request_id = ?,
    settled_at = ?
WHERE id = ? AND key = ? AND state = 'started'
"""
_FINDING = """
INSERT INTO findings (run_id, source_id, line, kind, key, code, reason, record) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
"""
_HELD = f"SELECT count(*) FILTER (WHERE state = 'created'), count(*) FROM rows WHERE state IN {_BARRIERS}"
_CRASHED = """
UPDATE rows SET state = 'in_doubt', code = 'crash', reason = 'the run ended before the answer was recorded: may exist',
    settled_at = ?
WHERE state = 'started'
"""


class SqliteLedger:
    """The writing side of a ledger file; see `worker.ledger.Ledger` for the contract."""

    def __init__(self, connection: sqlite3.Connection, path: Path, lock: Lock) -> None:
        self.path = path
        self._connection = connection
        self._lock = lock
        self._run = 0
        self._channels: dict[tuple[str, str], int] = {}
        self.crashed = self._settle_crashed()

    def _settle_crashed(self) -> int:
        """Rows that an earlier run left as started may exist: they are in doubt. Only the lock's holder may say so."""
        with _guarded(self._connection, self.path):
            return self._connection.execute(_CRASHED, (_now(),)).rowcount

    def bind(self, binding: Binding, *, accept_target: bool, accept_new_keys: bool) -> None:
        """Bind the ledger at its first use, or compare; raises LedgerRefusedError for a difference not accepted."""
        with _guarded(self._connection, self.path):
            known: dict[str, str] = dict(self._connection.execute("SELECT field, value FROM binding"))
            done, kept = self._connection.execute(_HELD).fetchone()
            changed = compare(
                known, binding.fields(), done, kept=kept, accept_target=accept_target, accept_new_keys=accept_new_keys
            )
            self._connection.executemany("INSERT OR REPLACE INTO binding VALUES (?, ?)", changed.items())

    def start_run(self, command: str) -> int:
        with _guarded(self._connection, self.path):
            cursor = self._connection.execute(
                "INSERT INTO runs (command, version, host, pid, started_at) VALUES (?, ?, ?, ?, ?)",
                (command, __version__, socket.gethostname(), os.getpid(), _now()),
            )
        self._run = cursor.lastrowid or 0
        return self._run

    def end_run(self, exit_code: int, reason: str, summary: str) -> None:
        with _guarded(self._connection, self.path):
            self._connection.execute(
                "UPDATE runs SET ended_at = ?, exit_code = ?, reason = ?, summary = ? WHERE id = ?",
                (_now(), exit_code, reason, summary, self._run),
            )

    def register(self, source: SourceFile) -> int:
        with _guarded(self._connection, self.path):
            self._connection.execute(
                "INSERT OR IGNORE INTO sources (path, format, encoding, delimiter, header) VALUES (?, ?, ?, ?, ?)",
                source,
            )
            where = "path = ? AND format = ? AND encoding = ? AND delimiter = ? AND header = ?"
            found: int = self._connection.execute(f"SELECT id FROM sources WHERE {where}", source).fetchone()[0]
            return found

    def write(self, group: Sequence[Entry]) -> list[int | Known | None]:
        now = _now()
        try:
            with _guarded(self._connection, self.path):
                return [self._enter(entry, now) for entry in group]
        except BaseException:
            self._channels.clear()  # their numbers may have been rolled back, and be given to others
            raise

    def _enter(self, entry: Entry, now: int) -> int | Known | None:
        match entry:
            case Intent(row):
                return self._intend(row, now)
            case Settle(number, settlement):
                self._settle(number, settlement, now)
            case Finding():
                self._find(entry)
            case _:
                assert_never(entry)
        return None

    def _intend(self, row: Row, now: int) -> int | Known:
        execute = self._connection.execute
        channel = self._channel(row)
        values = (row.key, row.fingerprint, self._run, row.source, row.line, channel, row.type, now)
        found = execute(_INTENT, values).fetchone()
        if found is None:
            known = execute("SELECT key, fingerprint, state, source_id, line FROM rows WHERE key = ?", (row.key,))
            key, fingerprint, state, source, line = known.fetchone()
            return Known(key, fingerprint, State(state), source, line)
        number: int = found[0]
        execute(_PAYLOAD, (number, row.text, row.body))
        return number

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
        sid, code, reason = None, None, None
        if isinstance(outcome, Created):
            sid = outcome.sid
        else:
            code, reason = _storable(outcome.code), _storable(outcome.reason)
        updated = self._connection.execute(
            _SETTLE,
            (
                state,
                sid,
                code,
                reason,
                settlement.http_status,
                settlement.attempts,
                settlement.request_id,
                now,
                number,
                settlement.key,
            ),
        )
        if updated.rowcount != 1:
            raise LedgerError(f"{self.path}: row {settlement.key} is no longer started: something else wrote here")
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
                finding.reason,
                finding.record,
            ),
        )

    def supersede(self, source: int, through_line: int) -> None:
        with _guarded(self._connection, self.path):
            self._connection.execute(
                "UPDATE findings SET superseded_by = ?1 WHERE superseded_by IS NULL AND run_id < ?1 AND line <= ?2 "
                "AND source_id IN (SELECT id FROM sources WHERE path = (SELECT path FROM sources WHERE id = ?3))",
                (self._run, through_line, source),
            )

    def settled_by_run(self) -> dict[State, int]:
        query = "SELECT state, count(*) FROM rows WHERE run_id = ? AND settled_at IS NOT NULL GROUP BY state"
        with _guarded(self._connection, self.path):
            return {State(state): count for state, count in self._connection.execute(query, (self._run,))}

    def channels_in_doubt(self) -> set[str]:
        query = (
            "SELECT DISTINCT channel_sid FROM rows JOIN channels ON channels.id = channel_id "
            "WHERE state IN ('started', 'in_doubt')"
        )
        with _guarded(self._connection, self.path):
            return {channel for (channel,) in self._connection.execute(query)}

    def close(self) -> None:
        try:
            self._connection.close()
        finally:
            self._lock.release()


_REMEMBERED_CHANNELS = 10_000


def open_ledger(path: Path) -> SqliteLedger:
    """Open an existing ledger for writing and take its lock.

    Raises LedgerRefusedError when there is none at this path or it cannot be used, LedgerHeldError when another
    process has it.
    """
    _require_file(path)
    refuse_network(path)
    lock = Lock(path.resolve())
    try:
        connection = _connect(path)
        try:
            _require_tables(connection, path)
            prepare(connection, path)
            _configure(connection, path)
            return SqliteLedger(connection, path, lock)
        except BaseException:
            connection.close()
            raise
    except BaseException:
        lock.release()
        raise


def create_ledger(path: Path) -> None:
    """Make a new, empty ledger that only its owner can read; it appears whole or not at all.

    Raises LedgerRefusedError when there is one already, LedgerError when it cannot be made.
    """
    refuse_network(path)
    try:
        _refuse_leftovers(path)
        descriptor, name = tempfile.mkstemp(".new", f".{path.name}.", path.parent)
        os.close(descriptor)
        temporary = Path(name)
        try:
            connection = _connect(temporary)
            try:
                prepare(connection, temporary)
            finally:
                connection.close()
            path.hardlink_to(temporary)  # unlike a rename, this never replaces a ledger made meanwhile
            _sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)
    except FileExistsError:
        raise LedgerRefusedError(
            f"{path}: there is a ledger already; leave out --new-ledger to go on with it"
        ) from None
    except OSError as exc:
        raise LedgerError(f"{path}: the ledger cannot be made: {exc.strerror}") from exc


def open_readonly(path: Path) -> sqlite3.Connection:
    """Open a ledger for looking, beside a run or after it.

    Raises LedgerRefusedError when it is none, LedgerError when it cannot be read.
    """
    _require_file(path)
    try:
        return _look(path, "mode=ro")
    except LedgerError as exc:
        # SQLite wants to make its index of the log, which a read-only folder forbids; without a log it needs none
        why = getattr(exc.__cause__, "sqlite_errorcode", 0) & 0xFF
        real = path.resolve()
        if why not in {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY} or real.with_name(f"{real.name}-wal").exists():
            raise
        return _look(path, "mode=ro&immutable=1")


def _look(path: Path, how: str) -> sqlite3.Connection:
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?{how}", uri=True, check_same_thread=False)
    except sqlite3.Error as exc:
        raise LedgerError(f"{path}: cannot be opened: {exc}") from exc
    try:
        connection.execute("PRAGMA busy_timeout = 5000")
        _require_tables(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _require_file(path: Path) -> None:
    try:
        if not path.exists():
            raise LedgerRefusedError(f"there is no ledger at {path}")
    except OSError as exc:
        raise LedgerError(f"{path}: the ledger cannot be reached: {exc.strerror}") from exc
    if not path.is_file():
        raise LedgerRefusedError(f"{path}: is not a file, so it is no ledger")


def _require_tables(connection: sqlite3.Connection, path: Path) -> None:
    if check(connection, path) == 0:  # to fill it would be to make a ledger silently
        raise LedgerRefusedError(
            f"{path}: is empty, so it is no ledger (was it cut off while it was copied?); restore it, or move it away"
        )


def _refuse_leftovers(path: Path) -> None:
    """Refuse a place where an earlier ledger's log lies: SQLite would play it back into the new one."""
    if path.exists():
        return
    for suffix in ("-wal", "-journal"):
        log = path.resolve().with_name(f"{path.resolve().name}{suffix}")
        if log.exists():
            raise LedgerRefusedError(
                f"{log}: is the log of an earlier ledger, whose own file is gone; put that back, or move the log away"
            )


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _connect(path: Path) -> sqlite3.Connection:
    try:
        # the journal's thread writes while the main thread opens and closes; never two at once
        return sqlite3.connect(path.absolute(), isolation_level=None, check_same_thread=False)
    except sqlite3.Error as exc:
        raise LedgerError(f"{path}: cannot be opened: {exc}") from exc


def _configure(connection: sqlite3.Connection, path: Path) -> None:
    try:
        mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        if mode != "wal":
            raise LedgerError(f"{path}: the file system does not allow SQLite's write-ahead log (mode {mode})")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA busy_timeout = 5000")
    except sqlite3.Error as exc:
        raise LedgerError(f"{path}: cannot be written: {exc}") from exc


@contextmanager
def _guarded(connection: sqlite3.Connection, path: Path) -> Iterator[None]:
    """Run one transaction; what SQLite or the disk says against it becomes a LedgerError."""
    try:
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")
    except sqlite3.Error as exc:
        if connection.in_transaction:  # a commit that failed, on a full disk say, is still open
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
        raise LedgerError(f"{path}: the ledger cannot be written: {exc}") from exc


def _storable(text: str) -> str:
    """Return a text of the service's without halves of surrogate pairs, which JSON can carry and UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode()


def _now() -> int:
    return time.time_ns() // 1_000_000
