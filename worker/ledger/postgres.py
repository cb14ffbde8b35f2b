"""The ledger in PostgreSQL: made, opened and locked; `pgledger` writes to it.

What `write` has returned from is on the server's disk (`synchronous_commit`, and a server without `fsync` is refused).
The lock is the session's (an advisory lock): it goes with its connection and is never stale.
"""

from contextlib import closing

from worker.errors import LedgerHeldError, LedgerRefusedError
from worker.ledger.fleet import FleetLedger
from worker.ledger.moving import TABLES
from worker.ledger.pgconnection import PostgresConnection, connect
from worker.ledger.pgledger import PostgresLedger
from worker.ledger.pgschema import prepare, require, version
from worker.ledger.transaction import guarded
from worker.place import Server

_LOCK = (0x464C5849, "hashtext(current_schema())")
"""`FLXI`, and the schema: what in a database is locked."""

_TAKE = f"SELECT pg_try_advisory_lock({_LOCK[0]}, {_LOCK[1]})"
_SHARE = f"SELECT pg_try_advisory_lock_shared({_LOCK[0]}, {_LOCK[1]})"
_HOLDER = f"""
SELECT application_name FROM pg_locks JOIN pg_stat_activity USING (pid)
WHERE locktype = 'advisory' AND classid = {_LOCK[0]} AND objid = {_LOCK[1]}::bigint & 4294967295 AND granted
    AND pg_locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())
ORDER BY pid
"""


# ---- opening


def exists(server: Server) -> bool:
    """Tell whether there is a ledger."""
    with closing(connect(server, "looks", readonly=True)) as connection:
        return version(connection) > 0


def create_ledger(server: Server) -> None:
    """As `opening.create_ledger`; the schema must be there."""
    with closing(connect(server, "makes a ledger")) as connection:
        if connection.execute("SELECT current_schema()").fetchone()[0] is None:
            raise LedgerRefusedError(f"{server}: its search_path names no schema that is there; CREATE SCHEMA first")
        if version(connection):
            raise LedgerRefusedError(f"{server}: there is a ledger already; leave out --new-ledger to go on with it")
        with guarded(connection, server):
            prepare(connection)


def open_ledger(server: Server) -> PostgresLedger:
    """As `opening.open_ledger`."""
    connection = _locked(server, shared=False)
    try:
        ledger = PostgresLedger(connection, server)
        ledger.settle_crashed()
    except BaseException:
        connection.close()
        raise
    return ledger


def open_together(server: Server) -> FleetLedger:
    """Open a ledger that workers of several hosts write at once; nobody else may write it meanwhile.

    Raises what `opening.open_ledger` does.
    """
    return FleetLedger(_locked(server, shared=True), server)


def _locked(server: Server, *, shared: bool) -> PostgresConnection:
    connection = connect(server, "works")
    try:
        require(connection, server, older=True)
        _refuse_forgetful(connection, server)
        _lock(connection, server, shared=shared)
        with guarded(connection, server):
            connection.hold("ledger_version")
            prepare(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _refuse_forgetful(connection: PostgresConnection, server: Server) -> None:
    if connection.execute("SHOW fsync").fetchone()[0] != "on":
        raise LedgerRefusedError(
            f"{server}: has fsync off, so that a power cut would lose what it says is recorded; set fsync = on"
        )


def _lock(connection: PostgresConnection, server: Server, *, shared: bool) -> None:
    if not connection.execute(_SHARE if shared else _TAKE).fetchone()[0]:
        holder = ", ".join(_holders(connection)) or "another session"
        raise LedgerHeldError(f"{server}: {holder} is working on this ledger; wait until it has ended")


def open_readonly(server: Server) -> PostgresConnection:
    """As `opening.open_readonly`."""
    return _look(server, "looks", readonly=True)


def open_beside(server: Server) -> PostgresConnection:
    """As `opening.open_beside`."""
    return _look(server, "has a word", readonly=False)


def footprint(server: Server) -> tuple[int, int]:
    """As `opening.footprint`."""
    with closing(open_readonly(server)) as connection:
        tables = [f"'{name}'" for name in TABLES]
        query = f"SELECT sum(pg_total_relation_size(name::regclass)) FROM unnest(ARRAY[{', '.join(tables)}]) AS name"
        return int(connection.execute(query).fetchone()[0]), version(connection)


def shrink(server: Server) -> None:
    """As `opening.shrink`: what is free is used again; only VACUUM FULL, which locks all out, would make it smaller."""
    with closing(open_beside(server)) as connection:
        for table in TABLES:
            connection.execute(f"VACUUM ANALYZE {table}")


def _look(server: Server, role: str, *, readonly: bool) -> PostgresConnection:
    connection = connect(server, role, readonly=readonly)
    try:
        require(connection, server)
    except BaseException:
        connection.close()
        raise
    return connection


def holders_of(server: Server) -> list[str]:
    """As `opening.holders_of`."""
    with closing(connect(server, "looks", readonly=True)) as connection:
        return _holders(connection)


def _holders(connection: PostgresConnection) -> list[str]:
    found = [str(name).rpartition(", ")[2] for (name,) in connection.execute(_HOLDER).fetchall()]
    return list(dict.fromkeys(found))
