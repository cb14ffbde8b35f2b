"""What the first records of a file show about its columns, in bounded memory."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from worker.template import as_text

CLOSE_RECORDS = 10_000
"""So many records are looked at closely; the further ones only for what is unique, and for further roles."""

MOST_RECORDS = 100_000
MOST_WORDS = 20
"""A column with more different values than this is no column of roles."""

_MOST_COLUMNS = 1_000
_MOST_KEPT = 500_000
_LONGEST = 320  # of an address that can be used
_HEX = "[0-9a-fA-F]{32}"
_KIND = re.compile(
    rf"(?P<KD>KD{_HEX})|(?P<UO>UO{_HEX})|(?P<WT>WT{_HEX})|(?P<WK>WK{_HEX})|(?P<WR>WR{_HEX})"
    r"|(?P<email>[^@\s,;<>]+@[^@\s,;<>]+)"
    r"|(?P<phone>(?:(?:whatsapp|tel):)?\+\(?[0-9][0-9\s()./-]{5,24})"
    r"|(?P<number>\(?[0-9][0-9\s()./-]{5,24})"
)


@dataclass(slots=True)
class Column:
    """One column. filled: records that have something there. close: of those, how many were looked at closely.

    kinds: what their values look like, in records. words: value → records, None when there are too many. keys: what
    its values are told apart by, None when it has two that are the same, or an empty one.
    """

    name: str
    filled: int = 0
    close: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    words: dict[str, int] | None = field(default_factory=dict)
    keys: set[int] | None = field(default_factory=set)
    padded: bool = False
    spaced: bool = False

    @property
    def kind(self) -> str | None:
        """What at least half of its values look like."""
        if not self.kinds:
            return None
        kind, records = self.kinds.most_common(1)[0]
        return kind if records * 2 >= self.close else None

    def take(self, value: Any, *, closely: bool) -> None:
        """Look at the next value."""
        text = as_text(value)
        word = text.strip()
        if not word:
            self.keys = None
            return
        self.filled += 1
        self.padded = self.padded or word != text
        self._keep(word)
        if closely:
            self.close += 1
            if kind := _kind_of(word):
                self.kinds[kind] += 1
                self.spaced = self.spaced or (kind in {"phone", "number"} and re.search(r"[^0-9+]", word) is not None)

    def _keep(self, word: str) -> None:
        if self.keys is not None:
            before = len(self.keys)
            self.keys.add(hash(word))
            if len(self.keys) == before:
                self.keys = None
        if self.words is not None:
            self.words[word] = self.words.get(word, 0) + 1
            if len(self.words) > MOST_WORDS:
                self.words = None


class Sample:
    """The first records of a file. columns: of its header; those of records without one are added as they come.

    Look into `enough` before the next record is given to `take`.
    """

    def __init__(self, columns: Iterable[str] = ()) -> None:
        self._columns = {name: Column(name) for name in columns}
        self.records = 0

    @property
    def columns(self) -> list[Column]:
        """Every column, in order."""
        return list(self._columns.values())

    @property
    def enough(self) -> bool:
        """Whether more records would only cost time, or memory."""
        if self.records < CLOSE_RECORDS:
            return len(self._columns) > _MOST_COLUMNS
        alive = sum(column.keys is not None for column in self._columns.values())
        return not alive or self.records >= MOST_RECORDS or self.records * alive >= _MOST_KEPT

    def take(self, values: Mapping[str, Any]) -> None:
        """Look at the next record."""
        for name in values:
            if name not in self._columns:
                self._columns[name] = Column(name)
        closely = self.records < CLOSE_RECORDS
        for name, column in self._columns.items():
            column.take(values.get(name), closely=closely)
        self.records += 1


def _kind_of(word: str) -> str | None:
    if word.startswith("{") and word.endswith("}"):
        if '"address"' in word or '"identity"' in word:
            return "media"
        return "routing" if re.search(r'"(task|worker|reservation)_sid"', word) else "json"
    found = _KIND.fullmatch(word) if len(word) <= _LONGEST else None
    return found.lastgroup if found else None
