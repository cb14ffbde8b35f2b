"""From inputs to sorted batches: count them first, then read, map and survey them in the reader's thread."""

import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from worker.errors import SourceError
from worker.ledger import SourceFile
from worker.ledger.survey import Met, Survey, Surveyed
from worker.model import Draft, Misfit, Record, Row
from worker.payload import Mapper, ready
from worker.rules import Ruled, Rules
from worker.source import Count, Input, Reader, batches, count, open_reader

T = TypeVar("T")

Register = Callable[[SourceFile], Awaitable[int]]
"""Gives an input its number in the ledger."""


class Intake:
    """All inputs of one command, in the order of the command line. An async context manager.

    Counting and reading raise SourceError, also for fewer rows than `min_rows`, and ConfigError for a column that the
    mapping needs and a header lacks.
    """

    def __init__(self, inputs: Sequence[Ruled], min_rows: int = 0) -> None:
        self._inputs = inputs
        self._min_rows = min_rows
        self._read_rows = 0
        self._counts: dict[Input, Count] = {}
        self._opened: dict[Input, Reader] = {}
        self._stack = AsyncExitStack()
        self._reading: Reader | None = None
        self._bytes_before = 0
        self.names: dict[int, str] = {}
        self.compressions: dict[int, str] = {}

    async def __aenter__(self) -> Self:
        await self._stack.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return await self._stack.__aexit__(kind, error, trace)

    async def check_headers(self) -> None:
        """Open every input and compare its columns with the mapping; stdin stays open until it is read."""
        for source, rules in self._inputs:
            if source.path is None:
                self._opened[source] = await self._stack.enter_async_context(open_reader(source, rules.source))
                check_columns(self._opened[source], rules)
            else:
                async with open_reader(source, rules.source) as reader:
                    check_columns(reader, rules)

    async def count(self) -> int | None:
        """Read every file once and return how many rows there are; None when stdin is among them."""
        await self.check_headers()
        for source, rules in self._inputs:
            if source.path is not None:
                self._counts[source] = await count(source, rules.source)
        if self._opened:
            return None
        rows = sum(counted.records for counted in self._counts.values())
        self._refuse_few(rows)
        return rows

    @property
    def bytes_read(self) -> int:
        """How many bytes of the files were read, as they lie on disk. To be asked between two batches."""
        reader = self._reading
        return self._bytes_before + (reader.offset if reader and reader.stamp else 0)

    async def drafts(self, survey: Survey, register: Register) -> AsyncGenerator[Surveyed[Draft], None]:
        """Yield every batch, mapped and sorted. `check_headers` or `count` comes first."""
        async with aclosing(self._read(survey, register, lambda batch, _: batch)) as batches:
            async for batch in batches:
                yield batch

    async def rows(self, survey: Survey, register: Register) -> AsyncGenerator[Surveyed[Row], None]:
        """Yield every batch as `drafts` does, what is to be sent made ready.

        Of an input that was not counted, nothing comes before there are `min_rows` of them.
        """

        def finish(batch: Surveyed[Draft], mapper: Mapper) -> Surveyed[Row]:
            send = [ready(draft, mapper.mark(draft.text)) for draft in batch.send]
            parts = (batch.findings, batch.repairs, batch.counts, batch.again)
            return Surveyed(batch.source, batch.read, batch.last_line, send, *parts)

        held: list[Surveyed[Row]] = []
        async with aclosing(self._read(survey, register, finish)) as batches:
            async for batch in batches:
                held.append(batch)
                if not self._opened or self._read_rows >= self._min_rows:
                    for one in held:
                        yield one
                    held.clear()

    def _refuse_few(self, rows: int) -> None:
        if rows < self._min_rows:
            raise SourceError(
                f"the input has {rows:,} rows, and source.min_rows says that there are at least {self._min_rows:,}: "
                "is it whole? If it is, lower source.min_rows"
            )

    async def _read(
        self, survey: Survey, register: Register, finish: Callable[[Surveyed[Draft], Mapper], T]
    ) -> AsyncGenerator[T, None]:
        for source, rules in self._inputs:
            async with AsyncExitStack() as stack:
                reader = self._opened.get(source)
                if reader is None:
                    opening = open_reader(source, rules.source, counted=self._counts.get(source))
                    reader = await stack.enter_async_context(opening)
                number = await register(describe(reader, rules.profile))
                self.names[number] = source.name
                self.compressions[number] = reader.compression or ""
                self._reading = reader

                def sort(records: list[Record], number: int = number, mapper: Mapper = rules.mapper) -> T:
                    self._read_rows += len(records)
                    return finish(_sorted(records, number, mapper, survey), mapper)

                async with aclosing(batches(reader, sort)) as sorted_batches:
                    async for batch in sorted_batches:
                        yield batch
                self._reading = None
                self._bytes_before += reader.stamp.size if reader.stamp else 0
        self._refuse_few(self._read_rows)


def _sorted(records: list[Record], number: int, mapper: Mapper, survey: Survey) -> Surveyed[Draft]:
    settled = survey.settled(number, records[0].line, records[-1].line)
    if not settled:
        return survey.sort([mapper.map(record, number) for record in records])
    rows: list[int] = []
    others: list[Draft | Misfit] = []
    for record in records:
        row = settled.get((record.line, mapper.mark(record.text)))
        if row is None:
            others.append(mapper.map(record, number))
        else:
            rows.append(row)
    return survey.sort(others, Met(number, records[-1].line, rows) if rows else None)


def check_columns(reader: Reader, rules: Rules) -> None:
    """Raise ConfigError, naming the file and line, for columns that the rules do not fit."""
    if reader.columns is not None:
        where = f"{reader.source.name}:{reader.header_line}"
        if len(reader.columns) == 1:  # rarely meant
            sign = "tab" if reader.delimiter == "\t" else reader.delimiter
            where += f' (one column, with source.delimiter = "{sign}")'
        rules.mapper.check_columns(reader.columns, where)


def stored_path(path: Path) -> str:
    """Return how the ledger calls a file."""
    return os.fsencode(path.absolute()).decode("utf-8", "backslashreplace")


def describe(reader: Reader, profile: str) -> SourceFile:
    """Return an open input as the ledger knows it."""
    path = reader.source.path
    return SourceFile(
        "-" if path is None else stored_path(path),
        reader.format,
        reader.encoding,
        reader.delimiter,
        reader.header,
        profile,
        reader.byte_order_mark.hex(),
    )
