"""A connection to PostgreSQL that takes the ledger's SQL: the only room that knows how psycopg is called."""

import os
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus

from worker.errors import LedgerError
from worker.ledger.connection import Answer, Values
from worker.place import Server

_CONNECT_SECONDS = 10
_LOCK_SECONDS = 20
"""How long a statement waits for somebody else's lock, before the ledger counts as dead."""

_BATCH = 2000
_PART = re.compile(r"'[^']*'|\?|(?<!:):([a-z]\w*)|%")

_SETTINGS = (
    "SET synchronous_commit = on",  # whatever the server's default is: what a write returned from is on its disk
    "SET client_encoding = 'UTF8'",
    f"SET lock_timeout = '{_LOCK_SECONDS}s'",
    "SET client_min_messages = warning",
)
_ALIVE: dict[str, Any] = {
    # a host that is gone is noticed by the other side, so that its lock ends
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 12_000,
}


@lru_cache(maxsize=512)
def _translated(query: str) -> str:
    """Return a statement with psycopg's placeholders; what stands in quotes stays as it is."""

    def placeholder(found: re.Match[str]) -> str:
        if found[1]:
            return f"%({found[1]})s"
        return "%s" if found[0] == "?" else found[0].replace("%", "%%")

    return _PART.sub(placeholder, query)


def connect(server: Server, role: str, *, readonly: bool = False) -> "PostgresConnection":
    """Connect to a database. role: what for, for those who look at its sessions. Raises LedgerError."""
    name = f"flex-import {role}, process {os.getpid()} on {socket.gethostname()}"
    try:
        connection: psycopg.Connection[Any] = psycopg.connect(
            server,
            autocommit=True,
            connect_timeout=_CONNECT_SECONDS,
            application_name=name[:63],
            cursor_factory=psycopg.ClientCursor,
            **_ALIVE,
        )
        try:
            for setting in _SETTINGS:
                connection.execute(setting)
            if readonly:
                connection.execute("SET default_transaction_read_only = on")
        except BaseException:
            connection.close()
            raise
    except psycopg.Error as exc:
        raise LedgerError(f"{server}: cannot be reached: {first_line(exc)}") from exc
    return PostgresConnection(connection, server)


def first_line(exc: psycopg.Error) -> str:
    """Return what an error says without the statement that it was about: that has people's data in it."""
    return (exc.diag.message_primary or str(exc)).strip().partition("\n")[0]


class TakenMeanwhileError(LedgerError):
    """Another session has recorded what only one row may have."""


class PostgresConnection:
    """A `Connection` to PostgreSQL. Raises LedgerError for whatever the database says against a statement."""

    def __init__(self, connection: psycopg.Connection[Any], server: Server) -> None:
        self._connection = connection
        self._server = server
        self._typed = psycopg.Cursor(connection)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except psycopg.errors.UniqueViolation as exc:
            raise TakenMeanwhileError(f"{self._server}: the ledger cannot be used: {first_line(exc)}") from exc
        except psycopg.Error as exc:
            raise LedgerError(f"{self._server}: the ledger cannot be used: {first_line(exc)}") from exc

    @property
    def in_transaction(self) -> bool:
        """Whether one is under way; one whose connection is lost is not."""
        return self._connection.info.transaction_status in {TransactionStatus.INTRANS, TransactionStatus.INERROR}

    def execute(self, query: str, values: Values = (), /) -> Answer:
        """Run one statement, or several without values."""
        with self._explained():
            if not values:
                return self._connection.execute(query.encode())
            return self._connection.execute(_translated(query).encode(), _plain(values))

    def batch(self, query: str, values: Mapping[str, Any]) -> list[Any]:
        """Run a statement over arrays, prepared from its fifth time on; return its rows."""
        with self._explained():
            return self._typed.execute(query.encode(), values).fetchall()

    def each(self, query: str, values: Values = (), /) -> Iterator[Any]:
        """Yield the rows of a query by a cursor of the server's, so many at a time."""
        with self._explained():
            text = psycopg.ClientCursor(self._connection).mogrify(_translated(query).encode(), _plain(values))
            with self._connection.transaction(), psycopg.ServerCursor(self._connection, "each") as cursor:
                cursor.itersize = _BATCH
                yield from cursor.execute(text.encode())

    def begin(self) -> None:
        """Begin."""
        self.execute("BEGIN")

    def hold(self, table: str, /) -> None:
        """Lock it against writing."""
        self.execute(f"LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE")

    def snapshot(self) -> None:
        """Begin to look."""
        self.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")

    def renumber(self, table: str, /) -> None:
        """Move the table's sequence on."""
        self.execute(f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), max(id)) FROM {table}")

    def commit(self) -> None:
        """Return once it is on the server's disk."""
        with self._explained():
            self._connection.commit()

    def rollback(self) -> None:
        """Undo it."""
        with self._explained():
            self._connection.rollback()

    def rfc3339(self, column: str, /) -> str:
        """Let the server format it."""
        moment = f"to_timestamp({column} / 1000.0) AT TIME ZONE 'UTC'"
        return f"""to_char({moment}, 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')"""

    def kept(self, record: str | None, /) -> str | bytes | None:
        """Keep records as bytes: text must not hold NUL."""
        return None if record is None else record.encode()

    def close(self) -> None:
        """Give it back, and its locks at once: the server ends a session some time after its client is gone."""
        with suppress(psycopg.Error):
            self._connection.execute("SELECT pg_advisory_unlock_all()")
        self._connection.close()


def _plain(values: Values) -> Sequence[Any] | Mapping[str, Any]:
    return values if isinstance(values, Mapping) else tuple(values)
