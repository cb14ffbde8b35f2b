"""Text templates over a record's columns: `"{first} {last}"`. Braces are doubled to stand for themselves.

A column may pass filters: `{Phone | digits | whatsapp}`. A name or an argument that holds what has a meaning here is
written in quotes, and a quote inside it twice: `{"a|b" | default:"a ""c"" d"}`.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from worker.errors import ConfigError
from worker.filter import Filter, Lookups, Maps, make_filter

# quantifiers with a + never give back: a quote opens at the beginning of a name or an argument, or is a character of it
_QUOTED = r'"(?:[^"]|"")*+"\s*+'
_COLUMN = rf'\s*+(?:{_QUOTED}|[^{{}}|"\s][^{{}}|]*+)?+'
_WORD = rf'\s*+(?:{_QUOTED}|[^{{}}|:"\s][^{{}}|:]*+)?+'
_EXPRESSION = rf"{_COLUMN}(?:\|{_WORD}(?::{_WORD})*+)*+"
_PIECE = re.compile(rf"\{{\{{|\}}\}}|\{{({_EXPRESSION})\}}|[{{}}]|[^{{}}]+")
_BROKEN = re.compile(rf"\{{{_EXPRESSION}(?=[^{{}}])")
_BEGINNING = re.compile(_COLUMN)
_FURTHER = re.compile(rf"([|:])({_WORD})")


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

    @property
    def filters(self) -> tuple[Filter, ...]:
        """The filters that it has, in order."""
        return ()

    @property
    def source(self) -> str:
        """The template as text; parsed again it is the same."""
        return _written(self.pieces, _quoted)

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

    def fill(self, values: Mapping[str, Any]) -> tuple[str, list[str]]:
        """Return the text for one record without the space around its values, and the columns that are empty."""
        parts, empty = [], []
        for text, column in self.pieces:
            if column is None:
                parts.append(text)
                continue
            part = as_text(values.get(column)).strip()
            if not part:
                empty.append(column)
            parts.append(part)
        return "".join(parts), empty


@dataclass(frozen=True, slots=True)
class Expression:
    """A column and the filters that its text passes, in order."""

    column: str
    filters: tuple[Filter, ...] = ()

    @property
    def source(self) -> str:
        """What stands between the braces; parsed again it is the same."""
        return " | ".join((_quoted(self.column), *(step.source for step in self.filters)))

    def apply(self, text: str) -> str:
        """Return what comes out of the last filter. Raises UnknownValueError."""
        for step in self.filters:
            text = step.apply(text)
        return text


@dataclass(frozen=True, slots=True)
class FilteredTemplate(Template):
    """A template with filters: one over expressions, each of which is a column of its own, made for each record.

    pieces: ("", source) for the expression with this source. Rendering raises UnknownValueError for a value of which a
    filter can make nothing.
    """

    expressions: Mapping[str, Expression]

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it reads, in order."""
        return tuple(self.expressions[name].column for _, name in self.pieces if name is not None)

    @property
    def filters(self) -> tuple[Filter, ...]:
        """The filters that it has, in order."""
        return tuple(step for expression in self.expressions.values() for step in expression.filters)

    @property
    def source(self) -> str:
        """The template as text; parsed again it is the same."""
        return _written(self.pieces, str)

    def render(self, values: Mapping[str, Any]) -> str | None:
        """Return the text for one record; None when it reads columns and nothing comes of any."""
        made = {name: step.apply(as_text(values.get(step.column))) for name, step in self.expressions.items()}
        return Template.render(self, made)

    def value(self, values: Mapping[str, Any]) -> str | None:
        """Return the rendered text, or None: filters make text of any value."""
        return self.render(values)

    def fill(self, values: Mapping[str, Any]) -> tuple[str, list[str]]:
        """Return the text for one record without the space around its values, and the columns of which nothing came."""
        made = {name: step.apply(as_text(values.get(step.column)).strip()) for name, step in self.expressions.items()}
        text, empty = Template.fill(self, made)
        return text, [self.expressions[name].column for name in empty]


def parse(text: str, where: str, *, maps: Maps | None = None, lookups: Lookups | None = None) -> Template:
    """Parse a template. where: the key path to name in a ConfigError. maps, lookups: those that there are."""
    pieces: list[tuple[str, str | None]] = []
    expressions: dict[str, Expression] = {}
    for found in _PIECE.finditer(text):
        piece, place = found.group(), found.start() + 1
        if piece in {"{{", "}}"}:
            pieces.append((piece[0], None))
        elif piece in {"{", "}"}:
            raise ConfigError(f"{where}: {_fault(text, piece, place)}")
        elif piece[0] == "{":
            expression = _expression(found.group(1), where, maps or {}, lookups or {})
            if not expression.column:
                raise ConfigError(f"{where}: empty {{}} at character {place}; name a column inside")
            expressions[expression.source] = expression
            pieces.append(("", expression.source))
        else:
            pieces.append((piece, None))
    if any(expression.filters for expression in expressions.values()):
        return FilteredTemplate(tuple(pieces), expressions)
    return Template(tuple((part, name and expressions[name].column) for part, name in pieces))


def as_text(value: Any) -> str:
    """Return a record's value as text: nothing for null, JSON for what is not text already."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _expression(text: str, where: str, maps: Maps, lookups: Lookups) -> Expression:
    beginning = _BEGINNING.match(text)
    column, words = _bare(text[: beginning.end()]) if beginning else "", list[list[str]]()
    for sign, word in _FURTHER.findall(text, beginning.end() if beginning else 0):
        if not word.strip():
            what = "| without a filter" if sign == "|" else 'an argument is empty; write "" for an empty one'
            raise ConfigError(f'{where}: "{text.strip()}": {what}')
        if sign == "|":
            words.append([])
        words[-1].append(_bare(word))
    steps = [make_filter(name, rest, where=where, column=column, maps=maps, lookups=lookups) for name, *rest in words]
    return Expression(column, tuple(steps))


def _fault(text: str, brace: str, place: int) -> str:
    if brace == "{" and (broken := _BROKEN.match(text, place - 1)):
        return (
            f"the quotes do not fit at character {broken.end() + 1}; they go around a whole name or argument, and a "
            "quote inside is written twice"
        )
    return f"lone {brace} at character {place}; write {brace * 2} for itself"


def _bare(word: str) -> str:
    word = word.strip()
    return word[1:-1].replace('""', '"') if word.startswith('"') else word


def _quoted(column: str) -> str:
    plain = column == column.strip() and not column.startswith('"') and not re.search(r"[{}|]", column)
    return column if plain else '"' + column.replace('"', '""') + '"'


def _written(pieces: tuple[tuple[str, str | None], ...], inside: Callable[[str], str]) -> str:
    return "".join(
        text.replace("{", "{{").replace("}", "}}") if column is None else f"{{{inside(column)}}}"
        for text, column in pieces
    )
