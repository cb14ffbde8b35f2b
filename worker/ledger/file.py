"""Opening and making the files of SQLite ledgers: what is checked before anybody writes or looks.

Its functions are called through `opening`, whose docstrings hold for them.
"""

import os
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

from worker.errors import LedgerError, LedgerRefusedError
from worker.ledger.connection import SqliteConnection
from worker.ledger.lock import Identity, Lock, refuse_network
from worker.ledger.logmark import LogMark
from worker.ledger.schema import MIGRATIONS, check, prepare
from worker.ledger.sqlite import SqliteLedger

_PATIENCE_MILLISECONDS = 20_000
"""How long a record waits for a stranger's lock on the file, before the ledger counts as dead."""

_PATIENCE_BESIDE_MILLISECONDS = 5_000
"""How long who looks at a ledger, or has a word for its run, waits for its writer."""


def open_ledger(path: Path) -> SqliteLedger:
    """Open an existing ledger for writing and take its lock.

    Raises LedgerRefusedError when there is none at this path or it cannot be used, LedgerHeldError when another
    process has it.
    """
    _require_file(path)
    refuse_network(path)
    lock = Lock(path.resolve())
    try:
        _remove_leftovers(path.resolve())
        Identity(path)  # refuses before anything is written
        mark = LogMark(path)
        try:
            return _opened(path, lock, mark)
        except BaseException:
            mark.close()
            raise
    except BaseException:
        lock.release()
        raise


def _opened(path: Path, lock: Lock, mark: LogMark) -> SqliteLedger:
    connection = _connect(path)
    try:
        _require_tables(connection, path)
        prepare(connection, path)
        _configure(connection, path, _PATIENCE_MILLISECONDS)
        return SqliteLedger(connection, path, lock, mark)
    except BaseException:
        connection.close()
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
            sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)
    except FileExistsError:
        raise LedgerRefusedError(
            f"{path}: there is a ledger already; leave out --new-ledger to go on with it"
        ) from None
    except OSError as exc:
        raise LedgerError(f"{path}: the ledger cannot be made: {exc.strerror}") from exc


def open_readonly(path: Path) -> SqliteConnection:
    """Open a ledger for looking, beside a run or after it.

    Raises LedgerRefusedError when it is none or is of an older version, LedgerError when it cannot be read.
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


def open_beside(path: Path) -> SqliteConnection:
    """Open a ledger to write a word to the run that works on it: without its lock, which that run has.

    Raises LedgerRefusedError when it is none or is of an older version, LedgerError when it cannot be used.
    """
    _require_file(path)
    connection = _look(path, "mode=rw")
    try:
        connection.isolation_level = None
        _configure(connection, path, _PATIENCE_BESIDE_MILLISECONDS)
        connection.execute("PRAGMA wal_autocheckpoint = 0")  # that is for the run, whose mark goes with it (`logmark`)
    except BaseException:
        connection.close()
        raise
    return connection


def _look(path: Path, how: str) -> SqliteConnection:
    try:
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?{how}", uri=True, check_same_thread=False, factory=SqliteConnection
        )
    except sqlite3.Error as exc:
        raise LedgerError(f"{path}: cannot be opened: {exc}") from exc
    try:
        connection.execute(f"PRAGMA busy_timeout = {_PATIENCE_BESIDE_MILLISECONDS}")
        _require_this_version(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _remove_leftovers(path: Path) -> None:
    """Remove the other name that a ledger has when its making was cut off between its two names."""
    try:
        for other in path.parent.iterdir():  # a name may hold what means something in a pattern
            name = other.name
            if name.startswith(f".{path.name}.") and name.endswith(".new") and other.samefile(path):
                other.unlink()
    except OSError:
        return  # whoever opens it looks at its names next


def _require_file(path: Path) -> None:
    try:
        if not path.exists():
            raise LedgerRefusedError(f"there is no ledger at {path}")
    except OSError as exc:
        raise LedgerError(f"{path}: the ledger cannot be reached: {exc.strerror}") from exc
    if not path.is_file():
        raise LedgerRefusedError(f"{path}: is not a file, so it is no ledger")


def _require_tables(connection: sqlite3.Connection, path: Path) -> int:
    version = check(connection, path)
    if version == 0:  # to fill it would be to make a ledger silently
        raise LedgerRefusedError(
            f"{path}: is empty, so it is no ledger (was it cut off while it was copied?); restore it, or move it away"
        )
    return version


def _require_this_version(connection: sqlite3.Connection, path: Path) -> None:
    """Refuse a ledger that only who writes could bring up to date: what is to be looked at may not be there yet."""
    version = _require_tables(connection, path)
    if version < len(MIGRATIONS):
        raise LedgerRefusedError(
            f"{path}: was written by an older flex-import (schema {version}, this one needs {len(MIGRATIONS)}); "
            "the next run or reconcile brings it up to date"
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


def footprint(path: Path) -> tuple[int, int]:
    """As `opening.footprint`."""
    with closing(open_readonly(path)) as connection:
        schema = check(connection, path)
    real = path.resolve()
    files = (real, real.with_name(f"{real.name}-wal"))
    return sum(one.stat().st_size for one in files if one.exists()), schema


def shrink(path: Path) -> None:
    """As `opening.shrink`. Takes as much room again for a while."""
    try:
        with closing(open_beside(path)) as connection:
            connection.execute("VACUUM")
    except sqlite3.Error as exc:
        raise LedgerError(f"{path}: was pruned, but could not be made smaller: {exc}") from exc


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _connect(path: Path) -> SqliteConnection:
    try:
        # the journal's thread writes while the main thread opens and closes; never two at once
        return sqlite3.connect(path.absolute(), isolation_level=None, check_same_thread=False, factory=SqliteConnection)
    except sqlite3.Error as exc:
        raise LedgerError(f"{path}: cannot be opened: {exc}") from exc


def _configure(connection: sqlite3.Connection, path: Path, patience_milliseconds: int) -> None:
    try:
        mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        if mode != "wal":
            raise LedgerError(f"{path}: the file system does not allow SQLite's write-ahead log (mode {mode})")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA fullfsync = ON")  # where a plain sync leaves data in the disk's cache: macOS
        connection.execute("PRAGMA checkpoint_fullfsync = ON")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute(f"PRAGMA busy_timeout = {patience_milliseconds}")
    except sqlite3.Error as exc:
        raise LedgerError(f"{path}: cannot be written: {exc}") from exc
