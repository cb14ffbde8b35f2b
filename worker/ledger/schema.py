"""The tables of a ledger in SQLite, and how an older ledger becomes a newer one.

A migration is a step from one version to the next, is never changed once released, and runs in one transaction after
a copy of the ledger was made. The version is `PRAGMA user_version`.
"""

import os
import sqlite3
from contextlib import suppress
from pathlib import Path

from worker.errors import LedgerError, LedgerRefusedError

APPLICATION_ID = 0x464C5849
"""`FLXI` in the file's header: how a ledger is told from any other SQLite file."""

INCOMPLETE_ID = 0x464C584A
"""`FLXJ`: the same, of a file that is incomplete without its log (`logmark`)."""

MIGRATIONS: tuple[str, ...] = (
    """
    -- what this ledger belongs to: target, account, key template, canonical form, mapping
    CREATE TABLE binding (
        field TEXT PRIMARY KEY,
        value TEXT NOT NULL
    ) WITHOUT ROWID;

    -- one line for each run; summary: its account as JSON; times: milliseconds since 1970, UTC
    CREATE TABLE runs (
        id INTEGER PRIMARY KEY,
        command TEXT NOT NULL,
        version TEXT NOT NULL,
        host TEXT NOT NULL,
        pid INTEGER NOT NULL,
        started_at INTEGER NOT NULL,
        ended_at INTEGER,
        exit_code INTEGER,
        reason TEXT,
        summary TEXT
    );

    -- one line for each file as it was read: what is needed to write its records back as they were
    CREATE TABLE sources (
        id INTEGER PRIMARY KEY,
        path TEXT NOT NULL,
        format TEXT NOT NULL,
        encoding TEXT NOT NULL,
        delimiter TEXT NOT NULL,
        header TEXT NOT NULL,
        UNIQUE (path, format, encoding, delimiter, header)
    );

    CREATE TABLE channels (
        id INTEGER PRIMARY KEY,
        channel_sid TEXT NOT NULL,
        interaction_sid TEXT NOT NULL,
        UNIQUE (channel_sid, interaction_sid)
    );

    -- one line for each row that was ever to be sent
    CREATE TABLE rows (
        id INTEGER PRIMARY KEY,
        key TEXT NOT NULL UNIQUE,
        fingerprint BLOB NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('started', 'created', 'existed', 'rejected', 'parked', 'waived',
                                             'failed', 'in_doubt', 'closed')),
        run_id INTEGER NOT NULL REFERENCES runs (id),
        source_id INTEGER NOT NULL REFERENCES sources (id),
        line INTEGER NOT NULL,
        channel_id INTEGER NOT NULL REFERENCES channels (id),
        type TEXT NOT NULL,
        sid TEXT,
        code TEXT,
        reason TEXT,
        http_status INTEGER,
        attempts INTEGER NOT NULL DEFAULT 0,
        request_id TEXT,
        reconciled INTEGER NOT NULL DEFAULT 0,
        started_at INTEGER NOT NULL,
        settled_at INTEGER,
        CHECK ((state IN ('created', 'closed')) = (sid IS NOT NULL))
    );
    CREATE INDEX rows_channel ON rows (channel_id);
    CREATE INDEX rows_unfinished ON rows (state) WHERE state NOT IN ('created', 'existed');

    -- the record as read and the request as sent, until the row is created or existed
    CREATE TABLE payloads (
        row_id INTEGER PRIMARY KEY REFERENCES rows (id),
        record TEXT NOT NULL,
        request BLOB NOT NULL
    );

    -- what a reading of an input found out without sending: local rejections, duplicates, changed rows
    CREATE TABLE findings (
        id INTEGER PRIMARY KEY,
        run_id INTEGER NOT NULL REFERENCES runs (id),
        source_id INTEGER NOT NULL REFERENCES sources (id),
        line INTEGER NOT NULL,
        kind TEXT NOT NULL CHECK (kind IN ('rejected', 'duplicate', 'changed')),
        key TEXT,
        code TEXT NOT NULL,
        reason TEXT NOT NULL,
        record TEXT,
        superseded_by INTEGER REFERENCES runs (id)
    );
    CREATE INDEX findings_current ON findings (source_id, line) WHERE superseded_by IS NULL;
    """,
    """
    -- what distinguishes one record from others with the same reason
    ALTER TABLE findings ADD COLUMN detail TEXT;

    -- the participants that a channel had before the first create of a run; sids: a JSON array
    CREATE TABLE baselines (
        channel_id INTEGER PRIMARY KEY REFERENCES channels (id),
        run_id INTEGER NOT NULL REFERENCES runs (id),
        taken_at INTEGER NOT NULL,
        sids TEXT NOT NULL
    );

    -- the last look at a row in doubt that did not decide it; candidates: a JSON array of sids
    CREATE TABLE looks (
        row_id INTEGER PRIMARY KEY REFERENCES rows (id),
        looked_at INTEGER NOT NULL,
        reason TEXT NOT NULL,
        candidates TEXT NOT NULL
    );

    -- what a person decided about a row: when, by whom, and which sid if it was created
    CREATE TABLE decisions (
        id INTEGER PRIMARY KEY,
        row_id INTEGER NOT NULL REFERENCES rows (id),
        run_id INTEGER NOT NULL REFERENCES runs (id),
        decided_at INTEGER NOT NULL,
        decided_by TEXT NOT NULL,
        decision TEXT NOT NULL CHECK (decision IN ('created', 'not_created')),
        sid TEXT,
        CHECK ((decision = 'created') = (sid IS NOT NULL))
    );
    """,
    """
    -- what a person told a run that was at work: when and by whom; rate: requests a second at most
    CREATE TABLE orders (
        id INTEGER PRIMARY KEY,
        run_id INTEGER NOT NULL REFERENCES runs (id),
        given_at INTEGER NOT NULL,
        given_by TEXT NOT NULL,
        command TEXT NOT NULL CHECK (command IN ('rate', 'pause', 'resume', 'drain')),
        rate REAL CHECK (rate > 0),
        CHECK ((command = 'rate') = (rate IS NOT NULL))
    );
    """,
    """
    -- of a row's record and how it was read, as 64 bits; 0: none. A record that is met again with it need not be mapped
    ALTER TABLE rows ADD COLUMN mark INTEGER NOT NULL DEFAULT 0;
    CREATE INDEX rows_place ON rows (source_id, line);
    """,
    """
    -- a person may sign a row off, too: the reason is theirs
    ALTER TABLE decisions RENAME TO decisions_before;
    CREATE TABLE decisions (
        id INTEGER PRIMARY KEY,
        row_id INTEGER NOT NULL REFERENCES rows (id),
        run_id INTEGER NOT NULL REFERENCES runs (id),
        decided_at INTEGER NOT NULL,
        decided_by TEXT NOT NULL,
        decision TEXT NOT NULL CHECK (decision IN ('created', 'not_created', 'waived')),
        sid TEXT,
        reason TEXT,
        CHECK ((decision = 'created') = (sid IS NOT NULL)),
        CHECK ((decision = 'waived') = (reason IS NOT NULL))
    );
    INSERT INTO decisions (id, row_id, run_id, decided_at, decided_by, decision, sid)
    SELECT id, row_id, run_id, decided_at, decided_by, decision, sid FROM decisions_before;
    DROP TABLE decisions_before;

    -- records that a person signed off although they can never be rows; digest: of the record without its line end
    CREATE TABLE waivers (
        digest BLOB PRIMARY KEY,
        run_id INTEGER NOT NULL REFERENCES runs (id),
        waived_at INTEGER NOT NULL,
        waived_by TEXT NOT NULL,
        reason TEXT NOT NULL
    ) WITHOUT ROWID;
    """,
    """
    -- by whose rules an input was read the last time; empty: by those of no profile
    ALTER TABLE sources ADD COLUMN profile TEXT NOT NULL DEFAULT '';
    """,
    """
    -- how a run went: its counters since its beginning, its limits at that moment, and how long the answers since the
    -- sample before took, in milliseconds; at: milliseconds since 1970, UTC; rate: requests a second, NULL: no limit
    CREATE TABLE samples (
        run_id INTEGER NOT NULL REFERENCES runs (id),
        at INTEGER NOT NULL,
        settled INTEGER NOT NULL,
        created INTEGER NOT NULL,
        requests INTEGER NOT NULL,
        retries INTEGER NOT NULL,
        throttled INTEGER NOT NULL,
        in_flight INTEGER NOT NULL,
        rate REAL,
        slots INTEGER NOT NULL,
        p50 REAL,
        p90 REAL,
        p99 REAL,
        PRIMARY KEY (run_id, at)
    ) WITHOUT ROWID;

    -- participants that `undo` closed; what they were the sids of may be sent again, and gets another one then
    CREATE TABLE closures (
        id INTEGER PRIMARY KEY,
        row_id INTEGER NOT NULL REFERENCES rows (id),
        run_id INTEGER NOT NULL REFERENCES runs (id),
        closed_at INTEGER NOT NULL,
        sid TEXT NOT NULL
    );
    CREATE INDEX closures_row ON closures (row_id);

    -- 1: the sid was adopted without a baseline, by the routing alone. Of older rows nobody knows
    ALTER TABLE rows ADD COLUMN unproven INTEGER NOT NULL DEFAULT 0;
    UPDATE rows SET unproven = reconciled WHERE reconciled;
    """,
    """
    -- what a run brought to which state, without reading all rows; most entries come at its end, where that is cheap
    CREATE INDEX rows_run ON rows (run_id, state);
    """,
    """
    -- a participant is one row's. Rows that share one were given the answer of another request: any of them may exist
    UPDATE rows SET state = 'in_doubt', sid = NULL, code = 'known_sid', reconciled = 0, unproven = 0,
        reason = 'several rows were recorded with the same sid, which is one row''s at most: may exist'
    WHERE sid IS NOT NULL AND lower(sid) IN (
        SELECT lower(sid) FROM rows WHERE sid IS NOT NULL GROUP BY lower(sid) HAVING count(*) > 1);
    CREATE UNIQUE INDEX rows_sid ON rows (lower(sid)) WHERE sid IS NOT NULL;
    CREATE INDEX closures_sid ON closures (lower(sid));

    -- ref: what a rejected record is known by in whatever input, its key or its digest. A repaired record under another
    -- key names the ref of what it repairs; key: of the row that it became
    ALTER TABLE findings ADD COLUMN ref TEXT;
    UPDATE findings SET ref = key WHERE kind = 'rejected' AND code <> 'key_conflict';
    CREATE INDEX findings_ref ON findings (ref) WHERE kind = 'rejected';
    CREATE TABLE repairs (
        ref TEXT PRIMARY KEY,
        key TEXT NOT NULL
    ) WITHOUT ROWID;

    -- a channel is one, however its sids are written. Where two lines were one, neither baseline saw all creates
    CREATE TEMP TABLE doubled AS SELECT id, kept FROM (
        SELECT id, min(id) OVER (PARTITION BY lower(channel_sid), lower(interaction_sid)) AS kept FROM channels
    ) WHERE id <> kept;
    UPDATE rows SET channel_id = (SELECT kept FROM doubled WHERE doubled.id = channel_id)
    WHERE channel_id IN (SELECT id FROM doubled);
    DELETE FROM baselines WHERE channel_id IN (SELECT id FROM doubled UNION SELECT kept FROM doubled);
    CREATE TABLE channels_once (
        id INTEGER PRIMARY KEY,
        channel_sid TEXT NOT NULL,
        interaction_sid TEXT NOT NULL
    );
    INSERT INTO channels_once SELECT id, channel_sid, interaction_sid FROM channels
    WHERE id NOT IN (SELECT id FROM doubled);
    DROP TABLE channels;
    ALTER TABLE channels_once RENAME TO channels;
    CREATE UNIQUE INDEX channels_sids ON channels (lower(channel_sid), lower(interaction_sid));
    DROP TABLE doubled;
    """,
    """
    -- the byte-order mark that the input begins with, in hexadecimal; empty: none; NULL: read before this was recorded
    ALTER TABLE sources ADD COLUMN byte_order_mark TEXT;

    -- whether the participant of a created row is in its channel, as `verify` found it the last time; `absent`: not in
    -- the first of two lists; detail: the status that is listed, or why the channel could not be
    CREATE TABLE verifications (
        row_id INTEGER PRIMARY KEY REFERENCES rows (id),
        run_id INTEGER NOT NULL REFERENCES runs (id),
        checked_at INTEGER NOT NULL,
        result TEXT NOT NULL CHECK (result IN ('confirmed', 'departed', 'absent', 'missing', 'not_listable')),
        detail TEXT
    );

    -- a waiver can be taken back; state: what the row was before it, NULL in waivers of older versions. Of records that
    -- are not rows there is one line a group, and what: how many, and why they were rejected
    ALTER TABLE decisions RENAME TO decisions_before;
    CREATE TABLE decisions (
        id INTEGER PRIMARY KEY,
        row_id INTEGER REFERENCES rows (id),
        run_id INTEGER NOT NULL REFERENCES runs (id),
        decided_at INTEGER NOT NULL,
        decided_by TEXT NOT NULL,
        decision TEXT NOT NULL CHECK (decision IN ('created', 'not_created', 'waived', 'unwaived')),
        sid TEXT,
        reason TEXT,
        state TEXT CHECK (state IN ('rejected', 'parked', 'failed')),
        what TEXT,
        CHECK ((row_id IS NULL) = (what IS NOT NULL)),
        CHECK ((decision = 'created') = (sid IS NOT NULL)),
        CHECK ((decision = 'waived') = (reason IS NOT NULL))
    );
    INSERT INTO decisions (id, row_id, run_id, decided_at, decided_by, decision, sid, reason)
    SELECT id, row_id, run_id, decided_at, decided_by, decision, sid, reason FROM decisions_before;
    INSERT INTO decisions (run_id, decided_at, decided_by, decision, reason, what)
    SELECT run_id, waived_at, waived_by, 'waived', reason, count(*) || ' records' FROM waivers
    GROUP BY run_id, waived_at, waived_by, reason;
    DROP TABLE decisions_before;
    CREATE INDEX decisions_row ON decisions (row_id);

    -- code, cause: why the record was rejected, which is its group; NULL in waivers of older versions
    ALTER TABLE waivers ADD COLUMN code TEXT;
    ALTER TABLE waivers ADD COLUMN cause TEXT;

    -- how far a run is in its input, for those who look at it from outside; of older samples nobody knows
    ALTER TABLE samples ADD COLUMN accounted INTEGER;
    ALTER TABLE samples ADD COLUMN input_rows INTEGER;
    """,
)


def prepare(connection: sqlite3.Connection, path: Path, migrations: tuple[str, ...] = MIGRATIONS) -> None:
    """Bring a ledger to this program's version; a copy is kept beside it as `NAME.vN.bak` when it had an older one.

    Raises LedgerRefusedError when it is of a newer version or is no ledger, LedgerError when a step fails.
    """
    try:
        found = check(connection, path, migrations)
        if found == len(migrations):
            return
        if found:
            keep_copy(connection, path.with_name(f"{path.name}.v{found}.bak"))
        for step in range(found, len(migrations)):
            connection.executescript(
                f"BEGIN IMMEDIATE; {migrations[step]}; PRAGMA user_version = {step + 1}; "
                f"PRAGMA application_id = {APPLICATION_ID}; COMMIT"
            )
    except (sqlite3.Error, OSError) as exc:
        with suppress(sqlite3.Error):
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        raise LedgerError(f"{path}: the ledger could not be prepared: {exc}") from exc


def keep_copy(connection: sqlite3.Connection, copy: Path) -> None:
    """Copy a ledger; whole and on the disk when this returns, and never readable for others in between."""
    partial = copy.with_name(f"{copy.name}.part")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
    try:
        connection.execute("VACUUM INTO ?", (str(partial),))
        os.fsync(descriptor)
        partial.replace(copy)
    finally:
        os.close(descriptor)
        partial.unlink(missing_ok=True)


def check(connection: sqlite3.Connection, path: Path, migrations: tuple[str, ...] = MIGRATIONS) -> int:
    """Return the schema's version; 0 for a database with nothing in it.

    Raises LedgerRefusedError for a newer version, or for a file that is no ledger; LedgerError for one that is damaged
    or cannot be read.
    """
    try:
        version = int(connection.execute("PRAGMA user_version").fetchone()[0])
        application = connection.execute("PRAGMA application_id").fetchone()[0]
        tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    except sqlite3.DatabaseError as exc:
        if exc.sqlite_errorcode == sqlite3.SQLITE_NOTADB:
            raise LedgerRefusedError(f"{path}: is not a ledger ({exc}); name another with --ledger") from exc
        if exc.sqlite_errorcode & 0xFF == sqlite3.SQLITE_CORRUPT:
            raise LedgerError(f"{path}: the ledger is damaged ({exc}); restore a backup of it") from exc
        raise LedgerError(f"{path}: the ledger cannot be read: {exc}") from exc
    if application == INCOMPLETE_ID:
        raise LedgerRefusedError(
            f"{path}: is incomplete: the log that stood beside it ({path.name}-wal) is missing, and with it the rows "
            "that were recorded last. They would be sent again.\n"
            "  Copy both files from where this one came from, or make the copy there with flex-import ledger backup.\n"
            "  If the log is lost for good: docs/ledger.md says what to do"
        )
    if (tables or version) and application != APPLICATION_ID:
        raise LedgerRefusedError(f"{path}: is a database of something else, not a ledger; name another with --ledger")
    if version > len(migrations):
        raise LedgerRefusedError(
            f"{path}: was written by a newer flex-import (schema {version}, this one knows {len(migrations)}); "
            "use that version"
        )
    return version
