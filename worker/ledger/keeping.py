"""A ledger as a whole: what it is, and copies of it, made beside a run without disturbing it."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from worker.errors import LedgerError, LedgerRefusedError
from worker.ledger.lock import holder_of
from worker.ledger.opening import open_beside, open_ledger, open_readonly, sync_folder
from worker.ledger.schema import check, keep_copy

_EXISTS = "{}: exists, and a copy of a ledger replaces nothing; name another file"


class Info(NamedTuple):
    """What a ledger is. bytes: on the disk, its log included. binding: what it belongs to. runs: first and last start,
    in milliseconds since 1970, None without one. holder: who works on it, as `process 4711`.
    """  # noqa: D205 - one sentence

    bytes: int
    schema: int
    binding: dict[str, str]
    rows: int
    records: int
    runs: int
    first_run_at: int | None
    last_run_at: int | None
    inputs: int
    channels: int
    holder: str | None


def describe(path: Path) -> Info:
    """Return what a ledger is. Raises LedgerRefusedError when there is none, LedgerError when it cannot be read."""
    with closing(open_readonly(path)) as connection:
        try:
            counts = [
                connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
                for table in ("rows", "payloads", "runs", "sources", "channels")
            ]
            rows, records, runs, inputs, channels = counts
            records += connection.execute("SELECT count(*) FROM findings WHERE record IS NOT NULL").fetchone()[0]
            first, last = connection.execute("SELECT min(started_at), max(started_at) FROM runs").fetchone()
            binding = dict(connection.execute("SELECT field, value FROM binding ORDER BY field"))
        except sqlite3.Error as exc:
            raise LedgerError(f"{path}: the ledger cannot be read: {exc}") from exc
        schema = check(connection, path)
    real = path.resolve()
    files = (real, real.with_name(f"{real.name}-wal"))
    size = sum(one.stat().st_size for one in files if one.exists())
    return Info(size, schema, binding, rows, records, runs, first, last, inputs, channels, holder_of(real))


def back_up(path: Path, copy: Path) -> int:
    """Copy a ledger as it is at this moment, a run may be at work on it; returns the rows in the copy.

    The copy is one file, on the disk, read through once, for its owner only. Raises LedgerRefusedError when it would
    replace a file, LedgerError when it cannot be written.
    """
    with closing(open_readonly(path)) as connection:
        return _copy(connection, copy)


def copy_ledger(path: Path, copy: Path) -> int:
    """Copy a ledger on which no run is at work, and none can begin meanwhile; otherwise as `back_up`.

    Raises LedgerHeldError when another process has it.
    """
    ledger = open_ledger(path)
    try:
        return back_up(path, copy)
    finally:
        ledger.close()


def shrink(path: Path) -> None:
    """Give the disk back what was dropped; nobody else may work on the ledger. Takes as much room again for a while."""
    try:
        with closing(open_beside(path)) as connection:
            connection.execute("VACUUM")
    except sqlite3.Error as exc:
        raise LedgerError(f"{path}: was pruned, but could not be made smaller: {exc}") from exc


def _copy(connection: sqlite3.Connection, copy: Path) -> int:
    partial = copy.with_name(f".{copy.name}.{os.getpid()}.part")
    if os.path.lexists(copy):
        raise LedgerRefusedError(_EXISTS.format(copy))
    try:
        keep_copy(connection, partial)
        rows = _read_through(partial)
        copy.hardlink_to(partial)  # unlike a rename, this never replaces what was made meanwhile
        partial.unlink()
        sync_folder(copy.parent)
    except FileExistsError:
        raise LedgerRefusedError(_EXISTS.format(copy)) from None
    except (OSError, sqlite3.Error) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else exc
        raise LedgerError(f"{copy}: the copy cannot be made: {reason}") from exc
    finally:
        partial.unlink(missing_ok=True)
    return rows


def _read_through(copy: Path) -> int:
    with closing(open_readonly(copy)) as connection:
        verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok":
            raise LedgerError(f"the ledger is damaged, and so would be its copy ({verdict}); restore a backup of it")
        rows: int = connection.execute("SELECT count(*) FROM rows").fetchone()[0]
        return rows
