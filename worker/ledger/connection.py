"""What the ledger's SQL runs on: a connection, and what engines call differently.

Statements are written once, in what SQLite and PostgreSQL have in common: `?` and `:name` for values, numbers for
truth values, `ON CONFLICT` and `RETURNING`. What differs is a method here.
"""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

Values = Sequence[Any] | Mapping[str, Any]


class Answer(Protocol):
    """What a statement answered. rowcount: how many rows it changed."""

    @property
    def rowcount(self) -> int:
        """Return how many rows were changed."""
        ...

    def fetchone(self) -> Any:
        """Return the next row, None after the last."""
        ...

    def fetchall(self) -> list[Any]:
        """Return the rows that are left."""
        ...

    def __iter__(self) -> Iterator[Any]: ...


class Connection(Protocol):
    """A connection in which a statement outside `begin` and `commit` is a transaction of its own."""

    @property
    def in_transaction(self) -> bool:
        """Whether `begin` was called, and neither `commit` nor `rollback` since."""
        ...

    def execute(self, query: str, values: Values = ..., /) -> Answer:
        """Run one statement."""
        ...

    def each(self, query: str, values: Values = ..., /) -> Iterator[Any]:
        """Yield the rows of a query without ever holding all of them in memory."""
        ...

    def begin(self) -> None:
        """Begin a transaction in which nobody else writes what this one does."""
        ...

    def hold(self, table: str, /) -> None:
        """Let nobody else change a table before the transaction ends."""
        ...

    def commit(self) -> None:
        """Make it durable."""
        ...

    def rollback(self) -> None:
        """Undo it."""
        ...

    def rfc3339(self, column: str, /) -> str:
        """Return an expression for a column of milliseconds since 1970 as text, NULL for NULL."""
        ...

    def kept(self, record: str | None, /) -> str | bytes | None:
        """Return a record, which may hold any character, as the engine can keep it; `read` turns it back."""
        ...

    def renumber(self, table: str, /) -> None:
        """Let the next row of a table, into which rows with their ids were put, have an id of its own."""
        ...

    def snapshot(self) -> None:
        """Begin a transaction that only reads, and sees everything as it is at its first look."""
        ...

    def close(self) -> None:
        """Give it back."""
        ...


def read(record: str | bytes | None) -> str | None:
    """Return a record as it was before `Connection.kept`."""
    return record.decode() if isinstance(record, bytes) else record


class SqliteConnection(sqlite3.Connection):
    """SQLite's own connection is nearly all that is needed. For `sqlite3.connect(…, factory=SqliteConnection)`."""

    def each(self, query: str, values: Values = (), /) -> Iterator[Any]:
        """Yield rows as SQLite steps to them."""
        return self.execute(query, values)

    def begin(self) -> None:
        """Take the write lock at once: who would only find out at the first write could not wait for it."""
        self.execute("BEGIN IMMEDIATE")

    def hold(self, table: str, /) -> None:
        """Do nothing: `begin` holds the whole file."""

    def snapshot(self) -> None:
        """Take no lock."""
        self.execute("BEGIN")

    def renumber(self, table: str, /) -> None:
        """Do nothing: a new id follows the largest one."""

    def rfc3339(self, column: str, /) -> str:
        """Put seconds and thousandths together."""
        return f"strftime('%Y-%m-%dT%H:%M:%S', {column} / 1000, 'unixepoch') || printf('.%03dZ', {column} % 1000)"

    def kept(self, record: str | None, /) -> str | bytes | None:
        """Keep text as it is."""
        return record
