"""Lookups: a second file with a key, from which templates take columns: `{ConvID | lookup:NAME.channel_sid}`.

A file is read once, into a private database on disk, so that memory stays flat however large it is. What is wrong with
it stops the command before anything is sent: a row must not get another one's sids.
"""

import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import Self

from worker.config import Lookup, Source
from worker.errors import ConfigError, SourceError
from worker.filter import Ambiguous
from worker.model import Record
from worker.source import Input, Reader, find_inputs
from worker.template import as_text

_REMEMBERED_KEYS = 4096
"""Columns of one key are asked for together, and the rows of one conversation often stand together."""


class Table:
    """One lookup. name: as in `[lookup.NAME]`. path: its file. shown: how messages call the file.

    digest: as of `Finder`, once it is loaded. Found from the reader's thread; key and value are compared without the
    space around them.
    """

    def __init__(self, name: str, settings: Lookup, path: Path, shown: str) -> None:
        self.key = settings.key
        self._name = name
        self._path = path
        self._shown = shown
        self._settings = settings.model_dump(include={"format", "encoding", "delimiter"})
        self.digest = b""
        self._columns: dict[str, int] = {}
        self._working = threading.Lock()
        self._record = lru_cache(_REMEMBERED_KEYS)(self._select)
        # an empty name is a private file that SQLite removes by itself
        self._known = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        for pragma in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -2000"):
            self._known.execute(f"PRAGMA {pragma}")

    def close(self) -> None:
        """Forget what was read."""
        with self._working:
            self._known.close()

    def find(self, value: str, column: str) -> str | Ambiguous | None:
        """Return what stands in a column of the record with this key. Raises SourceError when the disk gives out."""
        record = self._record(value)
        return record if record is None or isinstance(record, Ambiguous) else record[self._columns[column]]

    def load(self, asked: Mapping[str, str]) -> None:
        """Read the file, once. asked: each column that templates ask for → the key path of one that does.

        Raises ConfigError for a column that the file does not have, SourceError, with file and line, for a file that is
        missing, cannot be read, has nothing to be found, or has a record that cannot be trusted.
        """
        self._columns = {column: number for number, column in enumerate(asked)}
        names = ", ".join(f"c{number}" for number in self._columns.values())
        insert = f"INSERT INTO known VALUES (?, ?{', ?' * len(asked)})"
        told = blake2b(repr(list(asked)).encode(), digest_size=16)
        with self._explained(), Reader(self._input(), Source(**self._settings, allow_empty=True)) as reader:
            self._known.execute(f"CREATE TABLE known (key, line, {names})")
            missing = dict.fromkeys((self.key, *asked))
            if reader.columns is not None:
                self._require(reader.columns, missing, asked, f"{self._shown}:{reader.header_line}")
            first: Record | None = None
            for batch in reader:
                first = first or batch[0]
                rows = [self._row(record, missing) for record in batch]
                told.update(repr(rows).encode("utf-8", "surrogatepass"))
                self._known.execute("BEGIN")
                self._known.executemany(insert, (row for row in rows if row[0]))
                self._known.execute("COMMIT")
            if first is None:
                raise SourceError(f"{self._shown}: has no records, so lookup.{self._name} would find nothing")
            if missing:
                self._require(first.values or (), missing, asked, f"{self._shown}:{first.line}")
            self.digest = told.digest()
            self._known.execute("CREATE INDEX by_key ON known (key)")  # sorting at the end is twice as fast

    def _input(self) -> Input:
        try:
            found = find_inputs([str(self._path)])
        except SourceError as exc:
            raise SourceError(f"lookup.{self._name}.file: {exc}") from None
        if len(found) > 1:
            raise ConfigError(f"lookup.{self._name}.file: {self._shown}: {len(found):,} files match; name one")
        return Input(self._shown, found[0].path)

    def _row(self, record: Record, missing: dict[str, None]) -> tuple[str | int, ...]:
        values = record.values
        if values is None:
            problem = record.problem.reason if record.problem else "is malformed"
            raise SourceError(
                f"{self._shown}: line {record.line}: {problem}; repair it: each record of a lookup has to be right"
            )
        for column in list(missing):
            if column in values:
                del missing[column]
        found = (as_text(values.get(column)) for column in self._columns)
        return (as_text(values.get(self.key)).strip(), record.line, *found)

    def _require(self, present: Iterable[str], wanted: Iterable[str], asked: Mapping[str, str], where: str) -> None:
        names = list(present)
        for column in wanted:
            if column not in names:
                path = asked.get(column, f"lookup.{self._name}.key")
                close = get_close_matches(column, names, n=1, cutoff=0.7)
                hint = f'did you mean "{close[0]}"?' if close else f"columns: {', '.join(names)}"
                raise ConfigError(f'{where}: there is no column "{column}", which {path} reads ({hint})')

    def _select(self, value: str) -> tuple[str, ...] | Ambiguous | None:
        found: tuple[str, ...] | None = None
        begins = 0
        query = "SELECT * FROM known WHERE key = ? ORDER BY rowid"
        with self._explained(), self._working:
            for _, line, *values in self._known.execute(query, (value,)):
                if found is None:
                    begins, found = line, tuple(values)
                elif found != tuple(values):
                    return Ambiguous(f"{self._shown}:{begins} and {self._shown}:{line}")
        return found

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except SourceError as exc:  # the reader knows one section only
            raise SourceError(str(exc).replace("source.encoding", f"lookup.{self._name}.encoding")) from None
        except sqlite3.Error as exc:
            raise SourceError(
                f"{self._shown}: could not be kept in a temporary file: {exc} "
                "(the folder for temporary files is $SQLITE_TMPDIR, $TMPDIR or /var/tmp)"
            ) from exc


class Lookups:
    """All lookups of a command. Each is loaded if a template uses it. A context manager. tables: by name."""

    def __init__(self, tables: Mapping[str, Table]) -> None:
        self.tables = tables

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for table in self.tables.values():
            table.close()

    def load(self, asked: Mapping[str, Mapping[str, str]]) -> None:
        """Load those that templates ask: name → column → key path, as of `Mapper.asked`. Raises as `Table.load`."""
        for name, columns in asked.items():
            self.tables[name].load(columns)
