"""A ledger as a whole: what it is, and copies of it, made beside a run without disturbing it."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from worker.errors import LedgerError, LedgerRefusedError
from worker.ledger.connection import Connection, SqliteConnection
from worker.ledger.file import sync_folder
from worker.ledger.moving import move
from worker.ledger.opening import create_ledger, footprint, holders_of, open_beside, open_ledger, open_readonly
from worker.ledger.schema import keep_copy
from worker.ledger.transaction import guarded
from worker.place import Place

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


def describe(place: Place) -> Info:
    """Return what a ledger is. Raises LedgerRefusedError when there is none, LedgerError when it cannot be read."""
    with closing(open_readonly(place)) as connection:
        try:
            counts = [
                connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
                for table in ("rows", "payloads", "runs", "sources", "channels")
            ]
            rows, records, runs, inputs, channels = counts
            records += connection.execute("SELECT count(*) FROM findings WHERE record IS NOT NULL").fetchone()[0]
            first, last = connection.execute("SELECT min(started_at), max(started_at) FROM runs").fetchone()
            binding = dict(connection.execute("SELECT field, value FROM binding ORDER BY field").fetchall())
        except sqlite3.Error as exc:
            raise LedgerError(f"{place}: the ledger cannot be read: {exc}") from exc
    return Info(
        *footprint(place),
        binding,
        rows,
        records,
        runs,
        first,
        last,
        inputs,
        channels,
        ", ".join(holders_of(place)) or None,
    )


def back_up(place: Place, copy: Path) -> int:
    """Copy a ledger into a file, as it is at this moment, a run may be at work on it; returns the rows in the copy.

    The copy is one file, on the disk, read through once, for its owner only. Raises LedgerRefusedError when it would
    replace a file, LedgerError when it cannot be written.
    """
    with closing(open_readonly(place)) as connection, _appearing(copy) as partial:
        if isinstance(connection, SqliteConnection):
            keep_copy(connection, partial)
        else:
            create_ledger(partial)
            connection.snapshot()
            _move(connection, partial)
        return _read_through(partial)


def copy_ledger(place: Place, copy: Place) -> int:
    """Copy a ledger on which no run is at work, and none can begin meanwhile; returns the rows in the copy.

    A file as `back_up`; in a database the copy appears whole, in tables that are made for it. Raises LedgerHeldError
    when another process has it.
    """
    ledger = open_ledger(place)
    try:
        _refuse_queued(place)
        if isinstance(copy, Path):
            return back_up(place, copy)
        create_ledger(copy)
        with closing(open_readonly(place)) as connection:
            return _move(connection, copy)
    finally:
        ledger.close()


def _refuse_queued(place: Place) -> None:
    """Raise LedgerRefusedError for a ledger with rows in its queue: they would stay behind, and be missed by nobody."""
    if isinstance(place, Path):
        return
    with closing(open_readonly(place)) as connection:
        queued = connection.execute("SELECT count(*) FROM queued").fetchone()[0]
    if queued:
        raise LedgerRefusedError(
            f"{place}: {queued:,} rows are queued for workers, and a copy of the ledger would not have them; let the "
            "workers send them first"
        )


def _move(source: Connection, target: Place) -> int:
    with closing(open_beside(target)) as writing, guarded(writing, target):
        return move(source, writing)


@contextmanager
def _appearing(copy: Path) -> Iterator[Path]:
    """Yield the name under which to make a file; what is there in the end gets the right one, unless that is taken."""
    partial = copy.with_name(f".{copy.name}.{os.getpid()}.part")
    if os.path.lexists(copy):
        raise LedgerRefusedError(_EXISTS.format(copy))
    try:
        yield partial
        copy.hardlink_to(partial)  # unlike a rename, this never replaces what was made meanwhile
        partial.unlink()
        sync_folder(copy.parent)
    except FileExistsError:
        raise LedgerRefusedError(_EXISTS.format(copy)) from None
    except (OSError, sqlite3.Error) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else exc
        raise LedgerError(f"{copy}: the copy cannot be made: {reason}") from exc
    finally:
        for suffix in ("", "-wal", "-shm"):
            partial.with_name(partial.name + suffix).unlink(missing_ok=True)


def _read_through(copy: Path) -> int:
    with closing(open_readonly(copy)) as connection:
        verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok":
            raise LedgerError(f"the ledger is damaged, and so would be its copy ({verdict}); restore a backup of it")
        rows: int = connection.execute("SELECT count(*) FROM rows").fetchone()[0]
        return rows
