"""What became of records, one by one: for `annotate`, which writes it beside each record of an input."""

from collections.abc import Collection, Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

from worker.ledger import KEY_CONFLICT, SourceFile, record_digest
from worker.ledger.opening import open_readonly
from worker.ledger.statement import DONE, SOURCE
from worker.ledger.waiving import is_waived
from worker.model import Draft, Misfit, State
from worker.place import Place

_DONE = {State.CREATED, State.EXISTED, State.CLOSED}
_REFUSED = {State.REJECTED, State.PARKED, State.FAILED, State.WAIVED}
_COLUMNS = "key, state, sid, code, reason, fingerprint, source_id, line"


class Fate(NamedTuple):
    """What became of a record. Empty texts where there is nothing to say; a record that was never sent is not_sent."""

    state: str
    sid: str = ""
    code: str = ""
    reason: str = ""


class _Row(NamedTuple):
    key: str
    state: State
    sid: str | None
    code: str | None
    reason: str | None
    fingerprint: bytes
    source: int
    line: int

    @property
    def fate(self) -> Fate:
        """What became of it; what was under way when a run ended is in doubt."""
        state = State.IN_DOUBT if self.state is State.STARTED else self.state
        return Fate(state.value, self.sid or "", self.code or "", self.reason or "")


class Fates:
    """Looks records up in a ledger. A context manager. Every method raises LedgerError when it cannot be read."""

    def __init__(self, ledger: Place) -> None:
        self._connection = open_readonly(ledger)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def number_of(self, source: SourceFile) -> int:
        """Return the number of an input in the ledger; 0 for one that it has never read."""
        found = self._connection.execute(SOURCE, source.identity).fetchone()
        return int(found[0]) if found else 0

    def of(self, items: Sequence[Draft | Misfit]) -> list[Fate]:
        """Return what became of each record, in their order."""
        names = {name for item in items for name in _names_of(item)}
        rows, repaired = self._rows(names), self._repaired(names)
        return [self._of(item, rows, repaired) for item in items]

    def _rows(self, keys: Collection[str]) -> dict[str, _Row]:
        found = self._query(f"SELECT {_COLUMNS} FROM rows WHERE key IN ({{}})", keys)
        return {key: _Row(key, State(state), *rest) for key, state, *rest in found}

    def _repaired(self, refs: Collection[str]) -> dict[str, _Row]:
        """Return the reference of a rejection → the row that repaired it under another key and is done."""
        columns = ", ".join(f"rows.{name.strip()}" for name in _COLUMNS.split(","))
        joined = "repairs JOIN rows ON rows.key = repairs.key"
        found = self._query(f"SELECT ref, {columns} FROM {joined} WHERE ref IN ({{}}) AND state IN {DONE}", refs)
        return {ref: _Row(key, State(state), *rest) for ref, key, state, *rest in found}

    def _query(self, query: str, names: Collection[str]) -> list[Any]:
        if not names:
            return []
        return list(self._connection.execute(query.format(", ".join("?" * len(names))), tuple(names)).fetchall())

    def _of(self, item: Draft | Misfit, rows: Mapping[str, _Row], repaired: Mapping[str, _Row]) -> Fate:
        if isinstance(item, Misfit):
            return self._of_misfit(item, rows, repaired)
        row = rows.get(item.key)
        if row is None:
            return Fate("not_sent")
        if row.fingerprint != item.fingerprint:
            return _of_other_content(item, row)
        if row.state in _REFUSED and (mended := repaired.get(item.key)):
            return _mended(mended)
        return row.fate

    def _of_misfit(self, item: Misfit, rows: Mapping[str, _Row], repaired: Mapping[str, _Row]) -> Fate:
        for name in _names_of(item):
            row = rows.get(name)
            if row and row.state in _DONE and (row.source != item.source or row.line == item.line):
                return _mended(row)
            if mended := repaired.get(name):
                return _mended(mended)
        code, reason, detail = item.problem
        if is_waived(self._connection, item.text):
            return Fate(State.WAIVED.value, "", code, reason)
        return Fate(State.REJECTED.value, "", code, f"{reason}: {detail}" if detail else reason)


def _of_other_content(item: Draft, row: _Row) -> Fate:
    """Return what became of a record whose key is that of a row with other content."""
    if row.source == item.source and row.line != item.line:
        return Fate(State.REJECTED.value, "", KEY_CONFLICT, "another row of the input has this key")
    if row.state in _REFUSED:
        return Fate("not_sent", "", "changed", "has other content than the record that was refused")
    return row.fate._replace(code="changed", reason="has other content than the record that was sent")


def _names_of(item: Draft | Misfit) -> list[str]:
    if isinstance(item, Draft):
        return [item.key]
    return [name for name in (item.repairs, item.key, record_digest(item.text).hex()) if name]


def _mended(row: _Row) -> Fate:
    return row.fate._replace(code="repaired", reason="was rejected, and was repaired")
