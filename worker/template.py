"""Text templates over a record's columns: `"{first} {last}"`. Braces are doubled to stand for themselves."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from worker.errors import ConfigError

_PIECE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]|[^{}]+")


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed template: constant text and columns in turn.

    pieces: (text, None) for constant text, ("", column) for a column.
    """

    pieces: tuple[tuple[str, str | None], ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it reads, in order."""
        return tuple(column for _, column in self.pieces if column is not None)

    def render(self, values: Mapping[str, Any]) -> str | None:
        """Return the text for one record; None when it reads columns and all of them are empty or absent."""
        filled = False
        constant = True
        parts = []
        for text, column in self.pieces:
            if column is None:
                parts.append(text)
                continue
            constant = False
            part = as_text(values.get(column))
            filled = filled or part != ""
            parts.append(part)
        return "".join(parts) if filled or constant else None

    def value(self, values: Mapping[str, Any]) -> Any:
        """Return the value for one record: a lone column's own JSON value, otherwise the rendered text, or None."""
        if len(self.pieces) == 1 and self.pieces[0][1] is not None:
            value = values.get(self.pieces[0][1])
            return None if value == "" else value
        return self.render(values)


def parse(text: str, where: str) -> Template:
    """Parse a template. where: the key path to name in a ConfigError."""
    pieces: list[tuple[str, str | None]] = []
    for found in _PIECE.finditer(text):
        piece = found.group()
        if piece in {"{{", "}}"}:
            pieces.append((piece[0], None))
        elif piece in {"{", "}"}:
            raise ConfigError(f"{where}: lone {piece} at character {found.start() + 1}; write {piece * 2} for itself")
        elif piece[0] == "{":
            column = found.group(1).strip()
            if not column:
                raise ConfigError(f"{where}: empty {{}} at character {found.start() + 1}; name a column inside")
            pieces.append(("", column))
        else:
            pieces.append((piece, None))
    return Template(tuple(pieces))


def as_text(value: Any) -> str:
    """Return a record's value as text: nothing for null, JSON for what is not text already."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
