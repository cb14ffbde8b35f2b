"""Records that wait for a repair, written back as they stood in their input, with the reasons beside them.

One file for each input, with its header, in its encoding and with its line ends, so that the repaired file is an input
again. Streams: only one record is in memory at a time.
"""

import codecs
import csv
import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import count, groupby
from operator import attrgetter
from pathlib import Path, PurePath
from typing import BinaryIO, NamedTuple

from worker.added import AddedColumns
from worker.errors import ConfigError, LedgerError
from worker.ledger import Finding, SourceFile, record_digest
from worker.ledger.view import Reject
from worker.model import REFERENCE

REASONS = ("record", "line", "key", "state", "code", "reason")
"""The columns of a file of reasons. record: the number of the record in the file of rejects; empty when it is gone."""

ADDED = (REFERENCE, "flex_reason")
"""The columns that tie a record to its rejection and say what is wrong with it."""

REASONS_SUFFIX = ".reasons.csv"

_COMPRESSED = frozenset({".gz", ".bz2", ".xz", ".zst"})
_SUFFIXES = {
    # what tells the format when the file is read; the first one where an input's name does not
    "csv": (".csv", ".tsv", ".txt"),
    "ndjson": (".ndjson", ".jsonl", ".json"),
}
_LINE_ENDS = {"csv": ("\r\n", "\n", "\r"), "ndjson": ("\r\n", "\n")}  # a carriage return alone is a space in JSON
_STEM_BYTES = 200
_OPTION = "--rejects"
_NAMED_LINES = 3


class Written(NamedTuple):
    """What was written for one input.

    path: None when not one record was left. records: in that file; failed: those of them that the next run sends by
    itself. missing: rows whose record is gone; missing_lines: of the first few.
    """

    source: SourceFile
    path: Path | None
    reasons: Path
    records: int
    failed: int
    missing: int
    missing_lines: tuple[int, ...]


class Spool:
    """Rejected records on disk, until all of an input are known. scratch: where; a table of its own is made in it."""

    def __init__(self, scratch: sqlite3.Connection) -> None:
        self._scratch = scratch
        scratch.execute(
            "CREATE TABLE rejects "
            "(source INTEGER, line INTEGER, key TEXT, ref TEXT, code TEXT, reason TEXT, record TEXT)"
        )

    def add(self, findings: Iterable[Finding]) -> None:
        """Keep those among the findings of a batch that are rejections."""
        kept = (
            (one.source, one.line, one.key, one.ref or "", one.code, _whole_reason(one), one.record)
            for one in findings
            if one.kind == "rejected"
        )
        self._scratch.executemany("INSERT INTO rejects VALUES (?, ?, ?, ?, ?, ?, ?)", kept)

    def rejects(self) -> Iterator[Reject]:
        """Yield them in the order in which they came: input by input."""
        query = "SELECT source, line, key, ref, 'rejected', code, reason, record FROM rejects ORDER BY rowid"
        return map(Reject._make, self._scratch.execute(query))


def write_rejects(
    folder: Path, rejects: Iterable[Reject], describe: Callable[[int], SourceFile], *, with_reasons: bool = False
) -> list[Written]:
    """Write rejects, which come input by input, into a folder that is made when it is missing; all files or none.

    describe: an input's number → the input. with_reasons: whether the records get the columns `ADDED`. Raises
    ConfigError for a file that exists already (it may hold repairs) or cannot be written, LedgerError for an encoding
    that the records do not fit in. Without rejects nothing is made.
    """
    parts: list[tuple[Path, Path]] = []
    written: list[Written] = []
    taken: set[str] = set()
    with explained(folder, _OPTION):
        try:
            for number, group in groupby(rejects, key=attrgetter("source")):
                source = describe(number)
                path, reasons = (folder / name for name in names_in(source, taken))
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                records_part, reasons_part = part_of(path, parts, _OPTION), part_of(reasons, parts, _OPTION)
                done = _write(source, group, records_part, reasons_part, with_reasons=with_reasons)
                if not done.records:
                    parts.remove((records_part, path))
                    records_part.unlink()
                written.append(done._replace(path=path if done.records else None, reasons=reasons))
            publish(parts, _OPTION)
        finally:
            for part, _ in parts:
                part.unlink(missing_ok=True)
    return written


@contextmanager
def explained(folder: Path, option: str) -> Iterator[None]:
    """Turn what the disk says against writing into a folder into a ConfigError that names the option."""
    try:
        yield
    except OSError as exc:
        raise ConfigError(f"{option}: {folder}: cannot be written: {exc.strerror}") from exc


def part_of(path: Path, parts: list[tuple[Path, Path]], option: str) -> Path:
    """Make the temporary file that is to get this name, readable for its owner only."""
    _refuse_existing(path, option)
    descriptor, name = tempfile.mkstemp(".part", ".rejects-", path.parent)
    os.close(descriptor)
    parts.append((Path(name), path))
    return Path(name)


def publish(parts: Iterable[tuple[Path, Path]], option: str) -> None:
    """Give temporary files their names, which must not exist. option: for the message."""
    for part, path in parts:
        _refuse_existing(path, option)
        part.rename(path)


def _refuse_existing(path: Path, option: str) -> None:
    if os.path.lexists(path):
        raise ConfigError(
            f"{option}: {path}: exists already and may hold repairs; move it away, or name another folder"
        )


def names_in(source: SourceFile, taken: set[str]) -> tuple[str, str]:
    """Return the names of an input's two files, which no other input of this export has."""
    name = PurePath("stdin" if source.path == "-" else source.path).name
    if PurePath(name).suffix.lower() in _COMPRESSED:
        name = PurePath(name).stem
    suffixes = _SUFFIXES[source.format]
    stem, suffix = PurePath(name).stem, PurePath(name).suffix
    if suffix.lower() not in suffixes:
        stem, suffix = name, suffixes[0]
    stem = stem.lstrip(".").encode()[:_STEM_BYTES].decode(errors="ignore") or "rejects"  # a * does not match .hidden
    names = stem + suffix, stem + REASONS_SUFFIX
    numbers = count(2)
    while taken & {name.casefold() for name in names}:  # on many a disk A.csv is a.csv
        numbered = f"{stem}-{next(numbers)}"
        names = numbered + suffix, numbered + REASONS_SUFFIX
    taken |= {name.casefold() for name in names}
    return names


def _write(
    source: SourceFile, group: Iterable[Reject], records_part: Path, reasons_part: Path, *, with_reasons: bool
) -> Written:
    records = failed = missing = 0
    lines: list[int] = []
    added = AddedColumns(source, ADDED) if with_reasons else None
    with records_part.open("wb") as binary, reasons_part.open("w", encoding="utf-8", newline="") as text:
        out = RecordFile(binary, source._replace(header=added.header) if added else source)
        reasons = csv.writer(text, lineterminator="\n")
        reasons.writerow(REASONS)
        for reject in group:
            if reject.record is None:
                missing += 1
                lines += [reject.line] * (len(lines) < _NAMED_LINES)
            else:
                records += 1
                failed += reject.state == "failed"
                out.put(added.record(reject.record, _explanation(reject)) if added else reject.record)
            number = "" if reject.record is None else records
            reasons.writerow((number, reject.line, reject.key, reject.state, reject.code, reject.reason))
        out.end()
    return Written(source, records_part, reasons_part, records, failed, missing, tuple(lines))


def _explanation(reject: Reject) -> tuple[str, str]:
    """Return what the columns `ADDED` say of a record."""
    ref = reject.ref or record_digest(reject.record or "").hex()
    return ref, f"{reject.state}: {reject.reason} ({reject.code})"


def _whole_reason(finding: Finding) -> str:
    whole = finding.reason + (f": {finding.detail}" if finding.detail else "")
    return whole.encode("utf-8", "replace").decode()  # the name of a file may be no text


def _unmarked(source: SourceFile) -> str:
    """Return the encoding that writes text as it stood in its input, which is known by its byte-order mark."""
    name, mark = codecs.lookup(source.encoding).name, source.byte_order_mark
    if mark is None:  # recorded by an earlier version; JSON should have none [RFC 8259, 8.1]
        return "utf-8" if (source.format, name) == ("ndjson", "utf-8-sig") else source.encoding
    if name in {"utf-16", "utf-32"}:
        return f"{name}-{'be' if mark.endswith('feff') else 'le'}"
    return "utf-8" if name == "utf-8-sig" else source.encoding


class RecordFile:
    """A file that takes records as they were. A record without a line end gets one only when another one follows."""

    def __init__(self, stream: BinaryIO, source: SourceFile) -> None:
        self._stream = stream
        self._source = source
        self._ends = _LINE_ENDS[source.format]
        self._usual_end = ""
        self._before = ""
        with self._fitting():
            self._encode = codecs.getincrementalencoder(_unmarked(source))().encode
        if source.byte_order_mark:
            stream.write(bytes.fromhex(source.byte_order_mark))
        if source.header:
            self.put(source.header)

    def put(self, text: str) -> None:
        """Write the header or the next record."""
        if self._before and not self._end_of(self._before):
            text = (self._usual_end or self._end_of(text) or "\n") + text
        self._usual_end = self._usual_end or self._end_of(text)
        self._before = text
        with self._fitting():
            self._stream.write(self._encode(text))

    def end(self) -> None:
        """Write what the encoding wants at its end."""
        with self._fitting():
            self._stream.write(self._encode("", final=True))

    def _end_of(self, text: str) -> str:
        return next((end for end in self._ends if text.endswith(end)), "")

    @contextmanager
    def _fitting(self) -> Iterator[None]:
        try:
            yield
        except (UnicodeError, LookupError) as exc:
            source = self._source
            raise LedgerError(f"{source.path}: its records cannot be written as {source.encoding}: {exc}") from exc
