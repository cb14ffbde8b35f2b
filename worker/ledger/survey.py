"""What the ledger and the input itself say about each row that is read: send it, or count it where it belongs.

The keys of the whole input are kept in a private database on disk, not in memory, so that a duplicate is found
wherever it stands. Used from the reader's thread; the ledger is only looked at.
"""

import sqlite3
import threading
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self, assert_never

from worker.errors import LedgerError
from worker.ledger import Finding, Known, Standing, standing_of
from worker.ledger.opening import open_readonly
from worker.ledger.waiving import has_waivers, is_waived
from worker.model import Misfit, Row, State

_SEEN = """
CREATE TABLE seen (key TEXT PRIMARY KEY, fingerprint BLOB NOT NULL, source INTEGER NOT NULL, line INTEGER NOT NULL)
WITHOUT ROWID
"""


class _First(NamedTuple):
    fingerprint: bytes
    source: int
    line: int


@dataclass(slots=True)
class Surveyed:
    """A batch of one input, sorted. counts: tally name → rows that are not sent. read: records in the batch."""

    source: int = 0
    read: int = 0
    last_line: int = 0
    send: list[Row] = field(default_factory=list)
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
        self._waivers = self._ledger if self._ledger and has_waivers(self._ledger) else None
        # an empty name is a private file that SQLite removes by itself
        self._seen = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        for pragma in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -2000"):
            self._seen.execute(f"PRAGMA {pragma}")
        self._seen.execute(_SEEN)

    def close(self) -> None:
        """Forget the input's keys."""
        with self._working:  # a thread may still be at it when its task is gone; closing under it crashes SQLite
            self._seen.close()
            if self._ledger:
                self._ledger.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def sort(self, batch: Sequence[Row | Misfit]) -> Surveyed:
        """Return the batch, sorted. Raises LedgerError when the ledger, or the disk for the keys, gives out."""
        try:
            with self._working:
                return self._sort(batch)
        except sqlite3.Error as exc:
            raise LedgerError(
                f"the input's keys could not be compared, with the ledger or in a temporary file: {exc} "
                "(the folder for temporary files is $SQLITE_TMPDIR, $TMPDIR or /var/tmp)"
            ) from exc

    def _sort(self, batch: Sequence[Row | Misfit]) -> Surveyed:
        keys = {item.key for item in batch if isinstance(item, Row)}
        first = self._seen_before(keys)
        known = self._known(keys)
        new: dict[str, _First] = {}
        surveyed = Surveyed(read=len(batch))
        for item in batch:
            surveyed.source, surveyed.last_line = item.source, item.line
            if isinstance(item, Misfit) and self._waivers and is_waived(self._waivers, item.text):
                surveyed.count("waived")
            elif isinstance(item, Misfit):
                surveyed.count("rejected")
                surveyed.findings.append(_misfit(item))
            elif earlier := first.get(item.key) or new.get(item.key):
                self._repeated(item, earlier, surveyed)
            else:
                new[item.key] = _First(item.fingerprint, item.source, item.line)
                self._place(item, known.get(item.key), surveyed)
        self._seen.execute("BEGIN")
        self._seen.executemany(
            "INSERT INTO seen VALUES (?, ?, ?, ?)", sorted((key, *found) for key, found in new.items())
        )
        self._seen.execute("COMMIT")
        return surveyed

    def _seen_before(self, keys: Iterable[str]) -> dict[str, _First]:
        query = f"SELECT key, fingerprint, source, line FROM seen WHERE key IN ({_marks(keys)})"
        return {key: _First(*rest) for key, *rest in self._seen.execute(query, tuple(keys))}

    def _known(self, keys: Iterable[str]) -> dict[str, Known]:
        if self._ledger is None:
            return {}
        query = f"SELECT key, fingerprint, state, source_id, line FROM rows WHERE key IN ({_marks(keys)})"
        return {
            key: Known(key, fingerprint, State(state), source, line)
            for key, fingerprint, state, source, line in self._ledger.execute(query, tuple(keys))
        }

    def _repeated(self, row: Row, first: _First, surveyed: Surveyed) -> None:
        where = f"the first one is {self._names.get(first.source, 'input')}:{first.line}"
        if row.fingerprint == first.fingerprint:
            surveyed.count("duplicate")
            kind, code, reason, text = "duplicate", "duplicate", "the same record again", None
        elif self._waivers and is_waived(self._waivers, row.text):
            surveyed.count("waived")
            return
        else:
            surveyed.count("rejected")
            kind, code, reason, text = "rejected", "key_conflict", "another row of the input has this key", row.text
        surveyed.findings.append(Finding(kind, row.source, row.line, row.key, code, reason, text, where))

    def _place(self, row: Row, known: Known | None, surveyed: Surveyed) -> None:
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
            case Standing.ALREADY_DONE | Standing.REJECTED | Standing.PARKED | Standing.WAIVED | Standing.IN_DOUBT:
                surveyed.count(standing.value)
            case _:
                assert_never(standing)


def _misfit(misfit: Misfit) -> Finding:
    code, reason, detail = misfit.problem
    return Finding("rejected", misfit.source, misfit.line, misfit.key, code, reason, misfit.text, detail)


def _marks(keys: Iterable[str]) -> str:
    return ",".join("?" for _ in keys)
