"""One input from its first byte to its last record, and the asynchronous face of it."""

import codecs
import io
import os
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from itertools import chain, islice
from types import TracebackType
from typing import BinaryIO, Literal, NamedTuple, Self, TypeVar

from anyio import to_thread

from worker.config import Source
from worker.errors import SourceError
from worker.model import Record
from worker.source.compression import Compression, DamagedError, decompress, plain_suffix, recognise
from worker.source.decoder import CsvDecoder, Decoder, NdjsonDecoder, likely_delimiter
from worker.source.encoding import LineCounter, find_fault, suggest, suggest_at_top, suggest_wide
from worker.source.head import begins_json, misread, stranger
from worker.source.input import Input, Pipe, Stamp, open_stdin

BATCH_RECORDS = 512
"""Enough to make a hop between threads cheap, few enough to hold in memory many times."""

_HEAD_BYTES = 512
_BLANK = " \t\r\n"  # not the spaces of other scripts: those are somebody's characters

_MARKS = {
    "utf-8-sig": (codecs.BOM_UTF8,),
    "utf-16": (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE),
    "utf-32": (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE),
}
_SUFFIXES: dict[str, Literal["csv", "ndjson"]] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "csv",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".json": "ndjson",
}

T = TypeVar("T")


class Count(NamedTuple):
    """What a first pass over a file found: its records, malformed ones included, and the stamp it had."""

    records: int
    stamp: Stamp


class Reader:
    """Reads one input as batches of records, in file order. Open it with `with`, or with `open_reader`.

    counted: the result of `count`; a file that has another stamp is refused. stdin: read instead of the process's own.

    Once open: `format`; `header`, the header's text as it stands in the file, without a byte-order mark, and "" for
    NDJSON; `header_line`, where it begins, from 1, and 0 for NDJSON; `columns`, None for NDJSON and for an input
    without any line; `delimiter`, "" for NDJSON; `encoding`; `compression`, None without; `stamp`, of the compressed
    file, None for stdin; `byte_order_mark`, its bytes, if any. That + header + the texts of all records are the input,
    decompressed, without its blank lines.

    Opening and reading raise SourceError, naming file and line: cannot be read, compressed and not whole, a pipe that
    ends without a line end (after all whole records), not text in this encoding, a header or a quote after which no
    record can be trusted, empty (unless `allow_empty`), changed meanwhile.
    """

    format: Literal["csv", "ndjson"]
    header: str
    header_line: int
    columns: tuple[str, ...] | None
    delimiter: str
    compression: Compression | None
    stamp: Stamp | None
    byte_order_mark: bytes

    def __init__(
        self, source: Input, settings: Source, *, counted: Count | None = None, stdin: BinaryIO | None = None
    ) -> None:
        self.source = source
        self.encoding = settings.encoding
        self._settings = settings
        self._counted = counted
        self._stdin = stdin
        self._pipe: Pipe | None = None
        self._may_be_cut = False
        self._text: io.TextIOWrapper | None = None
        self._decoder: Decoder | None = None
        self._batches: Iterator[list[Record]] = iter(())
        # A thread may still be reading when the task that waited for it is gone: then that thread closes.
        self._at_work = threading.Lock()
        self._closing = False

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[list[Record]]:
        while batch := self.pull():
            yield batch

    def open(self) -> None:
        """Open the input and read as far as its header. Blocks on a stdin where nothing arrives."""
        with self._working():
            try:
                self._open()
            except BaseException:
                self._closing = True
                raise

    def pull(self) -> list[Record] | None:
        """Return the next batch, of at most BATCH_RECORDS records; None at the end, and after closing."""
        with self._working():
            return None if self._closing else next(self._batches, None)

    def close(self) -> None:
        """Close the input and end a read of stdin that waits in another thread. Never blocks; may be repeated."""
        self._closing = True
        if self._at_work.acquire(blocking=False):
            try:
                if self._text is not None:
                    self._text.close()
            finally:
                self._at_work.release()
        elif self._pipe is not None:
            self._pipe.interrupt()

    @contextmanager
    def _working(self) -> Iterator[None]:
        try:
            with self._at_work:
                yield
        finally:
            if self._closing:
                self.close()

    @property
    def offset(self) -> int:
        """How far into the file, compressed or not, reading has come; a little ahead of the records. Not of stdin."""
        return 0 if self._text is None else os.lseek(self._text.fileno(), 0, os.SEEK_CUR)

    def _open(self) -> None:
        with self._explained():
            binary, self.compression = decompress(self._open_bytes(), self.source.path)
            # A pipe looks the same whether its writer came to its end or died. Compressed data has an end of its own.
            self._may_be_cut = not (self.source.path or self.compression or (self._pipe and self._pipe.is_file))
            # Lines keep their ends, and every kind of end is one: what a record looks like is the decoder's business.
            self._text = io.TextIOWrapper(binary, encoding=self.encoding, newline="")
            self.stamp = None if self.source.path is None else Stamp.of(binary.fileno())
            if self._counted and self._counted.stamp != self.stamp:
                raise SourceError(
                    f"{self.source.name}: changed since it was counted; run again when nothing writes to it any more"
                )
            head = binary.peek(_HEAD_BYTES)[:_HEAD_BYTES]
            self._check_head(head)
            self.byte_order_mark = next((mark for mark in self._marks() if head.startswith(mark)), b"")
            top = list(_through_first_not_blank(self._text))
            self.format = self._choose_format(top[-1] if top else "")
            self._check_top(top)
            lines = chain(top, self._text, self._end())
            self.header, self.header_line, self.columns, self.delimiter = "", 0, None, ""
            if top and top[-1].strip(_BLANK):
                self._decoder = self._decode(lines, top[-1])
            elif not self._settings.allow_empty:
                raise SourceError(f"{self.source.name}: is empty; {_ALLOW_EMPTY}")
        if self._decoder is not None:
            self.header, self.header_line = self._decoder.header, self._decoder.header_line
            self.columns, self.delimiter = self._decoder.columns, self._decoder.delimiter
            if self._is_cut(self.header):
                raise self._cut_off(self.header_line)
            self._batches = self._read(self._decoder)

    def _decode(self, lines: Iterator[str], first: str) -> Decoder:
        if self.format == "ndjson":
            return NdjsonDecoder(lines)
        delimiter = self._settings.delimiter
        if delimiter == "auto":
            tabs = "\t" in first and self.source.path is not None and plain_suffix(self.source.path) == ".tsv"
            delimiter = "\t" if tabs else likely_delimiter(first)
        return CsvDecoder(lines, delimiter, self.source.name)

    def _open_bytes(self) -> io.BufferedReader:
        if self.source.path is not None:
            return self.source.path.open("rb")
        stream, self._pipe = open_stdin(self._stdin)
        if self._closing and self._pipe is not None:  # closed by a task that could not see the pipe yet
            self._pipe.interrupt()
        return stream

    def _choose_format(self, first: str) -> Literal["csv", "ndjson"]:
        if self._settings.format != "auto":
            return self._settings.format
        suffix = "" if self.source.path is None else plain_suffix(self.source.path)
        return _SUFFIXES.get(suffix, "ndjson" if begins_json(first) else "csv")

    def _check_head(self, head: bytes) -> None:
        if self.compression and recognise(head):
            raise SourceError(f"{self.source.name}: is compressed twice; take the outer layer off")
        what = stranger(head)
        if what:
            raise SourceError(f"{self.source.name}: {what}")
        if head in (codecs.BOM_UTF8[:1], codecs.BOM_UTF8[:2]):  # which Python takes for nothing
            raise SourceError(f"{self.source.name}: ends inside its byte-order mark; is it complete?")
        right = suggest_at_top(head, self.encoding)
        if right:
            raise SourceError(f"{self.source.name}: line 1: does not look like {self.encoding}; {right}")

    def _check_top(self, top: list[str]) -> None:
        if not top:
            return
        where = f"{self.source.name}: line 1"
        if top[0].startswith("\ufeff") and self._marks():
            raise SourceError(f"{where}: begins with two byte-order marks; remove one")
        if top[0].startswith(("\ufeff", "\ufffe")):
            right = "utf-16" if self.encoding.lower().startswith("utf-16") else "utf-8-sig"
            raise SourceError(f'{where}: begins with a byte-order mark; set source.encoding = "{right}"')
        wide = suggest_wide(top[0].encode("latin-1", "replace"))
        if wide:
            raise SourceError(f"{where}: is full of NUL characters; {wide}")
        what = misread(top[-1], self.format, told=self._settings.format != "auto")
        if what:
            raise SourceError(f"{self.source.name}: line {len(top)}: {what}")

    def _marks(self) -> tuple[bytes, ...]:
        """Return the byte-order marks that this encoding takes as no text."""
        return _MARKS.get(codecs.lookup(self.encoding).name, ())

    def _read(self, decoder: Decoder) -> Iterator[list[Record]]:
        found = False
        with self._explained():
            records = decoder.records()
            while batch := list(islice(records, BATCH_RECORDS)):
                found = True
                self._check_unchanged()  # its last record may have been half written when it was read
                last = batch.pop() if self._is_cut(batch[-1].text) else None
                if batch:
                    yield batch
                if last:
                    raise self._cut_off(last.line)
        if self._is_cut(decoder.tail) and decoder.tail.strip(" \r\n"):  # a record of empty fields, so far
            raise self._cut_off(decoder.line - 1)
        if not found and not self._settings.allow_empty:
            raise SourceError(f"{self.source.name}: has a header and no records; {_ALLOW_EMPTY}")

    def _end(self) -> Iterator[str]:
        """Come after the last line and yield nothing: a record cut short by a change is not taken for a damaged one."""
        self._check_unchanged()
        yield from ()

    def _is_cut(self, text: str) -> bool:
        """Tell whether the input may have been cut off inside this text: nothing else follows without a line end."""
        return self._may_be_cut and text[-1:] not in {"", "\n", "\r"}

    def _cut_off(self, line: int) -> SourceError:
        return SourceError(
            f"{self.source.name}: line {line}: the last line has no line end, so the input may be cut off inside it; "
            "this line was left out. Run again with the whole input: rows that were created are not sent again. If the "
            "input is whole, add the line end: { COMMAND; echo; } | flex-import ..."
        )

    def _check_unchanged(self) -> None:
        if self._text is not None and self.stamp is not None and Stamp.of(self._text.fileno()) != self.stamp:
            raise self._changed()

    def _changed(self) -> SourceError:
        return SourceError(f"{self.source.name}: changed while it was read; run again when it is complete")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except UnicodeError as exc:
            raise self._undecodable(exc) from None
        except DamagedError as exc:
            self._check_unchanged()  # perhaps it is still being written
            raise self._damaged(exc) from exc
        except OSError as exc:
            raise SourceError(f"{self._place()}: cannot be read: {exc.strerror or exc}") from exc

    def _place(self) -> str:
        return f"{self.source.name}: line {self._decoder.line}" if self._decoder else self.source.name

    def _damaged(self, exc: DamagedError) -> SourceError:
        return SourceError(f"{self._place()}: is cut off or damaged: {exc}; get the file again")

    def _undecodable(self, exc: UnicodeError) -> SourceError:
        name, encoding = self.source.name, self.encoding
        if not isinstance(exc, UnicodeDecodeError):  # the codec itself refuses, as UTF-16 does without a mark
            return SourceError(f'{name}: is not {encoding}: {exc}; set source.encoding to "utf-16-le" or "utf-8-sig"')
        if self.source.path is None:
            before = exc.object[: exc.start]
            counter = LineCounter(universal=True)
            counter.feed(before.decode(encoding, "replace"))
            line = (self._decoder.line if self._decoder else 1) + counter.ends
            hint = suggest(exc, exc.object, encoding, ascii_before=before.isascii())
            return SourceError(f"{name}: line {line}: byte 0x{exc.object[exc.start]:02x} is not {encoding}; {hint}")
        universal = (self._decoder.format if self._decoder else self._choose_format("")) == "csv"
        fault = None
        try:
            with decompress(self.source.path.open("rb"), self.source.path)[0] as again:
                fault = find_fault(again, encoding, universal=universal)
        except DamagedError as damage:
            return self._damaged(damage)
        except UnicodeError as codec:
            return self._undecodable(codec)
        except OSError:
            pass
        if fault is None:  # it is no longer what was read
            return self._changed()
        inside = " of the decompressed data" if self.compression else ""
        return SourceError(
            f"{name}: line {fault.line}: byte 0x{fault.byte:02x} at offset {fault.offset} (0x{fault.offset:x}){inside} "
            f"is not {encoding}; {fault.hint}"
        )


_ALLOW_EMPTY = "if that is as it should be, set source.allow_empty = true"


def _through_first_not_blank(lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        yield line
        if line.strip(_BLANK):
            return


# ---- off the event loop ---------------------------------------------------------------------------------------------


@asynccontextmanager
async def open_reader(
    source: Input, settings: Source, *, counted: Count | None = None, stdin: BinaryIO | None = None
) -> AsyncIterator[Reader]:
    """Open a reader in a thread and close it whatever happens. Arguments and errors: as of `Reader`."""
    reader = Reader(source, settings, counted=counted, stdin=stdin)
    try:
        await to_thread.run_sync(reader.open, abandon_on_cancel=source.path is None)
        yield reader
    finally:
        reader.close()


async def batches(reader: Reader, then: Callable[[list[Record]], T]) -> AsyncGenerator[T, None]:
    """Yield what `then` makes of each batch. It runs in the thread that read the batch, never in two at once.

    Cancellation waits for the batch of a file, which is milliseconds. It does not wait for stdin, but for a `then`
    that has begun: what that uses may be closed as soon as this has ended.
    """

    def step() -> tuple[T] | None:
        batch = reader.pull()
        return None if batch is None else (then(batch),)

    if reader.source.path is not None:
        while made := await to_thread.run_sync(step):
            yield made[0]
        return
    while batch := await to_thread.run_sync(reader.pull, abandon_on_cancel=True):
        yield await to_thread.run_sync(then, batch)


async def count(source: Input, settings: Source) -> Count:
    """Read a whole file and send nothing, so that what makes it unreadable shows before the first row is sent.

    Raises SourceError as `Reader` does; ValueError for stdin, which can be read only once.
    """
    if source.path is None:
        raise ValueError("stdin can be read only once: it is not counted")
    async with open_reader(source, settings) as reader:
        records = sum([size async for size in batches(reader, len)])
        assert reader.stamp is not None  # noqa: S101 - for the type: every file has one
        return Count(records, reader.stamp)
