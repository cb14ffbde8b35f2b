"""What the ledger and the input itself say about each row that is read: send it, or count it where it belongs.

The keys of the whole input are kept in a private database on disk, not in memory, so that a duplicate is found
wherever it stands. Used from the reader's thread; the ledger is only looked at.
"""

import sqlite3
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Generic, NamedTuple, Self, TypeVar

from worker.errors import LedgerError
from worker.ledger import KEY_CONFLICT, Finding, Known, Repair, SourceFile, Standing, record_digest, standing_of
from worker.ledger.census import Census, Seen, seen
from worker.ledger.opening import open_readonly
from worker.ledger.statement import DONE, SOURCE
from worker.ledger.waiving import has_waivers, is_waived
from worker.model import Draft, Misfit, State
from worker.place import Place

_SETTLED = """
SELECT line, mark, id FROM rows
WHERE source_id = ? AND line BETWEEN ? AND ? AND state IN ('created', 'existed') AND mark <> 0
    AND run_id <> ?
"""


_REPAIRABLE = {State.REJECTED, State.PARKED, State.WAIVED}

T = TypeVar("T")


class Met(NamedTuple):
    """Records of a batch that are known to be done by their marks. rows: their numbers in the ledger."""

    source: int
    last_line: int
    rows: Sequence[int]


@dataclass(slots=True)
class Surveyed(Generic[T]):
    """A batch of one input, sorted. counts: tally name → rows that are not sent. read: records in the batch.

    repairs: which of its rows repair what was rejected under another key.
    again: state → rows that the run itself brought to it, from their stored records.
    """

    source: int = 0
    read: int = 0
    last_line: int = 0
    send: list[T] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    repairs: list[Repair] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    again: dict[State, int] = field(default_factory=dict)

    def count(self, name: str) -> None:
        """Add one to a tally name."""
        self.counts[name] = self.counts.get(name, 0) + 1

    def count_repaired(self, state: State) -> None:
        """Count a record that was rejected, as what became of its repair."""
        closed = state is State.CLOSED
        self.count(Standing.CLOSED.value if closed else Standing.ALREADY_DONE.value)
        if not closed:
            self.count("repaired")


class Survey:
    """Sorts batches of one input, in its order. ledger: None when there is none to compare with.

    names: the input's number in the ledger → how it is called, for messages about two lines. hand_on: states whose rows
    are handed on instead of counted, since by their turn they may have changed: the run itself is at work on them. run:
    its number, 0 for none.
    """

    def __init__(
        self, ledger: Place | None, names: dict[int, str], *, hand_on: Collection[State] = (), run: int = 0
    ) -> None:
        self._names = names
        self._working = threading.Lock()
        self._hand_on = hand_on
        self._run = run
        self._ledger = open_readonly(ledger) if ledger else None
        self._census = Census()
        self._met = bytearray()  # a bit for each row of the ledger
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
        with self._explained(), self._working:
            found = self._ledger.execute(SOURCE, source.identity).fetchone()
        return found and int(found[0])

    def settled(self, source: int, first_line: int, last_line: int) -> dict[tuple[int, int], int]:
        """Return (line, mark) → the number in the ledger of the created and existed rows that were read there.

        A record of this mark is the one that was sent: it need not be mapped to be known. Raises LedgerError.
        """
        if self._ledger is None:
            return {}
        with self._explained(), self._working:
            found = self._ledger.execute(_SETTLED, (source, first_line, last_line, self._run))
            return {(line, mark): number for line, mark, number in found}

    def sort(self, batch: Sequence[Draft | Misfit], met: Met | None = None) -> Surveyed[Draft]:
        """Return the batch, sorted. met: those of its records that `settled` knows; they count as already done.

        Raises LedgerError when the ledger, or the disk for the keys, gives out.
        """
        with self._explained(), self._working:
            surveyed = Surveyed[Draft]()
            if met:
                self._meet(met, surveyed)
            return self._sort(batch, surveyed)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as exc:
            raise LedgerError(
                f"the input's keys could not be compared, with the ledger or in a temporary file: {exc} "
                "(the folder for temporary files is $SQLITE_TMPDIR, $TMPDIR or /var/tmp)"
            ) from exc

    def _meet(self, met: Met, surveyed: Surveyed[Draft]) -> None:
        source, last_line, rows = met
        bits = self._met
        bits.extend(bytes(max(0, (max(rows) >> 3) + 1 - len(bits))))
        for number in rows:
            bits[number >> 3] |= 1 << (number & 7)
        surveyed.source, surveyed.last_line, surveyed.read = source, last_line, len(rows)
        surveyed.counts[Standing.ALREADY_DONE.value] = len(rows)

    def _was_met(self, number: int) -> bool:
        return number >> 3 < len(self._met) and bool(self._met[number >> 3] & 1 << (number & 7))

    def _sort(self, batch: Sequence[Draft | Misfit], surveyed: Surveyed[Draft]) -> Surveyed[Draft]:
        surveyed.read += len(batch)
        if batch:
            surveyed.source, surveyed.last_line = batch[-1].source, max(batch[-1].line, surveyed.last_line)
        drafts = [item for item in batch if isinstance(item, Draft)]
        first = self._census.enter([seen(*_place_of(item)) for item in drafts])
        known = self._known({name for item in batch for name in (item.key, item.repairs) if name})
        repaired = self._repaired({name for item in batch for name in _names_of(item, known)})
        for item in batch:
            if isinstance(item, Misfit):
                self._unfit(item, known, repaired, surveyed)
            elif first and (earlier := first[seen(*_place_of(item)).name])[2:] != (item.source, item.line):
                self._repeated(item, earlier, surveyed)
            else:
                number, before = known.get(item.key, (0, None))
                _, mended = known.get(item.repairs, (0, None))
                if before and self._was_met(number):
                    self._repeated(item, Seen(b"", before.fingerprint, before.source, before.line), surveyed)
                elif item.key in repaired and before and before.state in _REPAIRABLE:
                    surveyed.count_repaired(repaired[item.key])
                elif before is None and mended and mended.state not in _REPAIRABLE:
                    self._repairs_in_vain(item, mended, surveyed)
                else:
                    self._place(item, before, surveyed)
                    if item.repairs not in {"", item.key}:
                        surveyed.repairs.append(Repair(item.repairs, item.key))
        return surveyed

    def _repaired(self, refs: Collection[str]) -> dict[str, State]:
        """Return the reference of a rejection → the state of the row that repaired it under another key and is done."""
        if self._ledger is None or not refs:
            return {}
        marks = ",".join("?" for _ in refs)
        query = (
            "SELECT ref, state FROM repairs JOIN rows ON rows.key = repairs.key "
            f"WHERE ref IN ({marks}) AND state IN {DONE}"
        )
        return {ref: State(state) for ref, state in self._ledger.execute(query, tuple(refs))}

    def _repairs_in_vain(self, row: Draft, mended: Known, surveyed: Surveyed[Draft]) -> None:
        """Count a record that repairs a row which needs no repair: it exists, or is sent as it was."""
        standing = standing_of(mended, mended.fingerprint)
        if standing is not Standing.SEND and mended.state is not State.STARTED:  # which this run is sending
            surveyed.count(standing.value)
            return
        surveyed.count("duplicate")
        where = f"the first one is {self._names.get(mended.source, 'an earlier input')}:{mended.line}"
        reason = "repairs a row that failed, which is sent again as it was"
        surveyed.findings.append(Finding("duplicate", row.source, row.line, row.key, "duplicate", reason, None, where))

    def _known(self, keys: Collection[str]) -> dict[str, tuple[int, Known]]:
        """Return key → its number in the ledger, and what is known about it."""
        if self._ledger is None or not keys:
            return {}
        marks = ",".join("?" for _ in keys)
        query = f"SELECT id, key, fingerprint, state, source_id, line, run_id FROM rows WHERE key IN ({marks})"
        return {
            key: (number, Known(key, fingerprint, State(state), source, line, run == self._run))
            for number, key, fingerprint, state, source, line, run in self._ledger.execute(query, tuple(keys))
        }

    def _unfit(
        self,
        misfit: Misfit,
        known: Mapping[str, tuple[int, Known]],
        repaired: Mapping[str, State],
        surveyed: Surveyed[Draft],
    ) -> None:
        for name in _names_of(misfit, known):
            _, before = known.get(name, (0, None))
            if before and before.source == misfit.source and before.line != misfit.line:
                before = None  # another record of the same input: one of the two has a wrong key
            state = before.state if before else repaired.get(name)
            if state in {State.CREATED, State.EXISTED, State.CLOSED}:
                surveyed.count_repaired(state)
                return
        if self._waivers and is_waived(self._waivers, misfit.text):
            surveyed.count("waived")
            return
        surveyed.count("rejected")
        code, reason, detail = misfit.problem
        place = ("rejected", misfit.source, misfit.line, misfit.key)
        surveyed.findings.append(Finding(*place, code, reason, misfit.text, detail, misfit.repairs))

    def _repeated(self, row: Draft, first: Seen, surveyed: Surveyed[Draft]) -> None:
        where = f"the first one is {self._names.get(first.source, 'input')}:{first.line}"
        if first.fingerprint in {None, row.fingerprint}:
            surveyed.count("duplicate")
            kind, code, reason, text = "duplicate", "duplicate", "the same record again", None
        elif self._waivers and is_waived(self._waivers, row.text):
            surveyed.count("waived")
            return
        else:
            surveyed.count("rejected")
            kind, code, reason = "rejected", KEY_CONFLICT, "another row of the input has this key"
            text = row.text
        surveyed.findings.append(Finding(kind, row.source, row.line, row.key, code, reason, text, where))

    def _place(self, row: Draft, known: Known | None, surveyed: Surveyed[Draft]) -> None:
        standing = standing_of(known, row.fingerprint)
        if standing is not Standing.SEND and known is not None and known.fingerprint != row.fingerprint:
            surveyed.count("changed")
            where = f"it was {self._names.get(known.source, 'an earlier input')}:{known.line}"
            reason = f"other content than the row with this key that is {known.state.value} already; not sent"
            finding = Finding("changed", row.source, row.line, row.key, "changed", reason, detail=where)
            surveyed.findings.append(finding)
        if known is not None and known.state in self._hand_on:
            standing = Standing.SEND
        if standing is not Standing.SEND and known is not None and known.of_this_run:
            surveyed.again[known.state] = surveyed.again.get(known.state, 0) + 1
            return
        if standing is not Standing.SEND:
            surveyed.count(standing.value)
            return
        surveyed.send.append(row)
        if row.warnings:
            surveyed.count("warned")


def _names_of(item: Draft | Misfit, known: Collection[str]) -> list[str]:
    """Return what a rejection of this record may be known by; see `Finding.ref`. Of a draft, if the ledger has it."""
    if isinstance(item, Draft):
        return [item.key] if item.key in known else []
    return [name for name in (item.repairs, item.key, record_digest(item.text).hex()) if name]


def _place_of(item: Draft) -> tuple[str, bytes, int, int]:
    return item.key, item.fingerprint, item.source, item.line
