"""What the ledger and the input itself say about each row that is read: send it, or count it where it belongs.

The keys of the whole input are kept in a private database on disk, not in memory, so that a duplicate is found
wherever it stands. Used from the reader's thread; the ledger is only looked at.
"""

import sqlite3
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Generic, Self, TypeVar, assert_never

from worker.errors import LedgerError
from worker.ledger import Finding, Known, SourceFile, Standing, standing_of
from worker.ledger.census import Census, Seen, seen
from worker.ledger.opening import open_readonly
from worker.ledger.waiving import has_waivers, is_waived
from worker.model import Draft, Misfit, State

_SETTLED = """
SELECT line, mark, key, fingerprint, state FROM rows
WHERE source_id = ? AND line BETWEEN ? AND ? AND state IN ('created', 'existed') AND mark <> 0
"""


T = TypeVar("T")


@dataclass(slots=True)
class Surveyed(Generic[T]):
    """A batch of one input, sorted. counts: tally name → rows that are not sent. read: records in the batch."""

    source: int = 0
    read: int = 0
    last_line: int = 0
    send: list[T] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    def count(self, name: str) -> None:
        """Add one to a tally name."""
        self.counts[name] = self.counts.get(name, 0) + 1


class Survey:
    """Sorts batches of one input, in its order. ledger: None when there is none to compare with.

    names: the input's number in the ledger → how it is called, for messages about two lines. hand_on: states whose rows
    are handed on instead of counted, since by their turn they may have changed: the run itself is at work on them.
    """

    def __init__(self, ledger: Path | None, names: dict[int, str], *, hand_on: Collection[State] = ()) -> None:
        self._names = names
        self._working = threading.Lock()
        self._hand_on = hand_on
        self._ledger = open_readonly(ledger) if ledger else None
        self._census = Census()
        self._waivers = self._ledger if self._ledger and has_waivers(self._ledger) else None

    def close(self) -> None:
        """Forget the input's keys."""
        with self._working:  # a thread may still be at it when its task is gone; closing under it crashes SQLite
            self._census.close()
            if self._ledger:
                self._ledger.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def number_of(self, source: SourceFile) -> int | None:
        """Return the number that an input has in the ledger; None when it has none. Raises LedgerError."""
        if self._ledger is None:
            return None
        query = "SELECT id FROM sources WHERE (path, format, encoding, delimiter, header) = (?, ?, ?, ?, ?)"
        with self._explained(), self._working:
            found = self._ledger.execute(query, source[:-1]).fetchone()
        return found and int(found[0])

    def settled(self, source: int, first_line: int, last_line: int) -> dict[tuple[int, int], Known]:
        """Return (line, mark) → what the ledger holds of the created and existed rows that were read there.

        A record of this mark is the one that was sent: it need not be mapped to be known. Raises LedgerError.
        """
        if self._ledger is None:
            return {}
        with self._explained(), self._working:
            return {
                (line, mark): Known(key, fingerprint, State(state), source, line)
                for line, mark, key, fingerprint, state in self._ledger.execute(
                    _SETTLED, (source, first_line, last_line)
                )
            }

    def sort(self, batch: Sequence[Draft | Known | Misfit]) -> Surveyed[Draft]:
        """Return the batch, sorted; what `settled` knows counts as already done.

        Raises LedgerError when the ledger, or the disk for the keys, gives out.
        """
        with self._explained(), self._working:
            return self._sort(batch)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as exc:
            raise LedgerError(
                f"the input's keys could not be compared, with the ledger or in a temporary file: {exc} "
                "(the folder for temporary files is $SQLITE_TMPDIR, $TMPDIR or /var/tmp)"
            ) from exc

    def _sort(self, batch: Sequence[Draft | Known | Misfit]) -> Surveyed[Draft]:
        surveyed = Surveyed[Draft](read=len(batch))
        if batch:
            surveyed.source, surveyed.last_line = batch[-1].source, batch[-1].line
        first = self._census.enter([seen(*_place_of(item)) for item in batch if not isinstance(item, Misfit)])
        known = self._known({item.key for item in batch if isinstance(item, Draft)})
        for item in batch:
            if isinstance(item, Misfit):
                self._unfit(item, surveyed)
            elif first and (earlier := first[seen(*_place_of(item)).name])[2:] != (item.source, item.line):
                self._repeated(item, earlier, surveyed)
            elif isinstance(item, Known):
                surveyed.count(Standing.ALREADY_DONE.value)
            else:
                self._place(item, known.get(item.key), surveyed)
        return surveyed

    def _known(self, keys: Collection[str]) -> dict[str, Known]:
        if self._ledger is None or not keys:
            return {}
        marks = ",".join("?" for _ in keys)
        query = f"SELECT key, fingerprint, state, source_id, line FROM rows WHERE key IN ({marks})"
        return {
            key: Known(key, fingerprint, State(state), source, line)
            for key, fingerprint, state, source, line in self._ledger.execute(query, tuple(keys))
        }

    def _unfit(self, misfit: Misfit, surveyed: Surveyed[Draft]) -> None:
        if self._waivers and is_waived(self._waivers, misfit.text):
            surveyed.count("waived")
            return
        surveyed.count("rejected")
        code, reason, detail = misfit.problem
        finding = Finding("rejected", misfit.source, misfit.line, misfit.key, code, reason, misfit.text, detail)
        surveyed.findings.append(finding)

    def _repeated(self, row: Draft | Known, first: Seen, surveyed: Surveyed[Draft]) -> None:
        where = f"the first one is {self._names.get(first.source, 'input')}:{first.line}"
        if first.fingerprint in {None, row.fingerprint}:
            surveyed.count("duplicate")
            kind, code, reason, text = "duplicate", "duplicate", "the same record again", None
        elif self._waivers and isinstance(row, Draft) and is_waived(self._waivers, row.text):
            surveyed.count("waived")
            return
        else:
            surveyed.count("rejected")
            text = row.text if isinstance(row, Draft) else None
            kind, code, reason = "rejected", "key_conflict", "another row of the input has this key"
        surveyed.findings.append(Finding(kind, row.source, row.line, row.key, code, reason, text, where))

    def _place(self, row: Draft, known: Known | None, surveyed: Surveyed[Draft]) -> None:
        standing = standing_of(known, row.fingerprint)
        if standing is not Standing.SEND and known is not None and known.fingerprint != row.fingerprint:
            surveyed.count("changed")
            where = f"it was {self._names.get(known.source, 'an earlier input')}:{known.line}"
            reason = f"other content than the row with this key that is {known.state.value} already; not sent"
            finding = Finding("changed", row.source, row.line, row.key, "changed", reason, row.text, where)
            surveyed.findings.append(finding)
        if known is not None and known.state in self._hand_on:
            standing = Standing.SEND
        match standing:
            case Standing.SEND:
                surveyed.send.append(row)
                if row.warnings:
                    surveyed.count("warned")
            case Standing.ALREADY_DONE | Standing.REJECTED | Standing.PARKED | Standing.WAIVED | Standing.IN_DOUBT:
                surveyed.count(standing.value)
            case _:
                assert_never(standing)


def _place_of(item: Draft | Known) -> tuple[str, bytes, int, int]:
    return item.key, item.fingerprint, item.source, item.line
