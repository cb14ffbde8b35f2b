"""Columns that an export adds to records, which otherwise stay as they were: dialect, quoting and line ends."""

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from worker.ledger import SourceFile

_LINE_ENDS = ("\r\n", "\n", "\r")


class AddedColumns:
    """Adds columns at the end of an input's records; in NDJSON, keys. A column that is there already is set.

    Args:
        source: the input, with its format, delimiter, encoding and header.
        names: of the columns.
    """

    def __init__(self, source: SourceFile, names: Sequence[str]) -> None:
        self._source = source
        self._names = tuple(names)
        self._columns: list[str] = []
        if source.format == "csv":
            cells = _cells(source.header, source.delimiter) or []
            self._columns = cells[: _used(cells)]
            self._rewrites = len(self._columns) < len(cells) or bool({*names} & {*self._columns})

    @property
    def header(self) -> str:
        """The header with the columns; empty for NDJSON."""
        return self._csv(self._source.header, self._names) if self._columns else ""

    def record(self, text: str, values: Sequence[str]) -> str:
        """Return a record with the columns; one that cannot be read gets them at its end, or not at all in NDJSON."""
        fitting = [self._fitting(value) for value in values]
        return (
            self._csv(text, fitting) if self._columns else _in_json(text, dict(zip(self._names, fitting, strict=True)))
        )

    def _fitting(self, value: str) -> str:
        """Return a value on one line, of characters that the input's encoding has."""
        encoding = self._source.encoding
        return " ".join(value.splitlines()).encode(encoding, "replace").decode(encoding)

    def _csv(self, text: str, values: Sequence[str]) -> str:
        body, end = _parted(text)
        delimiter = self._source.delimiter
        cells = _cells(text, delimiter)
        if cells is None:
            return f"{body}{delimiter}{_joined(values, delimiter)}{end}"
        width = len(self._columns)
        if not self._rewrites:
            return f"{body}{delimiter * max(0, width - len(cells))}{delimiter}{_joined(values, delimiter)}{end}"
        if not any(cells[width:]):
            del cells[width:]
        cells += [""] * (width - len(cells))
        for name, value in zip(self._names, values, strict=True):
            if name in self._columns:
                cells[self._columns.index(name)] = value
            else:
                cells.append(value)
        return _joined(cells, delimiter) + end


def _used(cells: Sequence[str]) -> int:
    """Return how many cells there are before the empty ones at the end."""
    return max((place for place, cell in enumerate(cells, 1) if cell.strip()), default=0)


def _parted(text: str) -> tuple[str, str]:
    end = next((end for end in _LINE_ENDS if text.endswith(end)), "")
    return text.removesuffix(end), end


def _cells(text: str, delimiter: str) -> list[str] | None:
    """Return the fields of a record; None when it is not one record."""
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except csv.Error:
        return None
    return rows[0] if len(rows) == 1 else None


def _joined(cells: Sequence[str], delimiter: str) -> str:
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter, lineterminator="").writerow(cells)
    return out.getvalue()


def _in_json(text: str, added: dict[str, str]) -> str:
    try:
        known: Any = json.loads(text)
    except (ValueError, RecursionError):
        return text
    if not isinstance(known, dict):
        return text
    body, end = _parted(text)
    if known.keys() & added.keys():
        return json.dumps(known | added, ensure_ascii=False) + end
    pairs = json.dumps(added, ensure_ascii=False)[1:]
    return f"{body.rstrip()[:-1].rstrip()}{', ' if known else ''}{pairs}{end}"
