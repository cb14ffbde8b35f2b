"""Text templates over a record's columns: `"{first} {last}"`. Braces are doubled to stand for themselves.

A column may pass filters: `{Phone | digits | whatsapp}`. A name or an argument that holds what has a meaning here is
written in quotes, and a quote inside it twice: `{"a|b" | default:"a ""c"" d"}`.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
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

_LONG_NUMBER = 10
"""Digits of a place in a list that no list has."""


@dataclass(frozen=True)
class Expression:
    """A column and the filters that its text passes, in order.

    find: the column's own value, for one record; None when there is none. read: what comes out of the last filter;
    raises UnknownValueError.
    """

    column: str
    filters: tuple[Filter, ...] = ()
    find: Callable[[Mapping[str, Any]], Any] = field(init=False, compare=False, repr=False)
    read: Callable[[Mapping[str, Any]], str] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "find", _finder(self.column))
        object.__setattr__(self, "read", self._reader())

    @property
    def source(self) -> str:
        """What stands between the braces; parsed again it is the same."""
        return " | ".join((_quoted(self.column), *(step.source for step in self.filters)))

    def apply(self, text: str) -> str:
        """Return what comes out of the last filter. Raises UnknownValueError."""
        for step in self.filters:
            text = step.apply(text)
        return text

    def _reader(self) -> Callable[[Mapping[str, Any]], str]:
        find, steps = self.find, tuple(step.apply for step in self.filters)

        def read(values: Mapping[str, Any]) -> str:
            value = find(values)
            text = value if isinstance(value, str) else as_text(value)
            for step in steps:
                text = step(text)
            return text

        return read


@dataclass(frozen=True)
class Template:
    """A parsed template: constant text and expressions, one after the other.

    render: the text for one record; None when it reads columns and nothing comes of any. value: for one record, a lone
    column's own JSON value, otherwise the rendered text, or None. Both raise UnknownValueError for a value of which a
    filter can make nothing.
    """

    pieces: tuple[str | Expression, ...]
    render: Callable[[Mapping[str, Any]], str | None] = field(init=False, compare=False, repr=False)
    value: Callable[[Mapping[str, Any]], Any] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        render = self._renderer()
        object.__setattr__(self, "render", render)
        object.__setattr__(self, "value", self._lone_value() or render)

    @property
    def expressions(self) -> tuple[Expression, ...]:
        """What it reads, in order."""
        return tuple(piece for piece in self.pieces if isinstance(piece, Expression))

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it reads, in order."""
        return tuple(expression.column for expression in self.expressions)

    @property
    def filters(self) -> tuple[Filter, ...]:
        """The filters that it has, in order."""
        return tuple(step for expression in self.expressions for step in expression.filters)

    @property
    def source(self) -> str:
        """The template as text; parsed again it is the same."""
        return "".join(
            piece.replace("{", "{{").replace("}", "}}") if isinstance(piece, str) else f"{{{piece.source}}}"
            for piece in self.pieces
        )

    def fill(self, values: Mapping[str, Any]) -> tuple[str, list[str]]:
        """Return the text for one record without the space around its values, and the columns of which nothing came."""
        parts, empty = [], []
        for piece in self.pieces:
            if isinstance(piece, str):
                parts.append(piece)
                continue
            part = piece.apply(as_text(piece.find(values)).strip()).strip()
            if not part:
                empty.append(piece.column)
            parts.append(part)
        return "".join(parts), empty

    def _renderer(self) -> Callable[[Mapping[str, Any]], str | None]:
        if not self.expressions:
            text = "".join(map(str, self.pieces))
            return lambda _: text
        if len(self.pieces) == 1:
            (expression,) = self.expressions
            read_one = expression.read
            return lambda values: read_one(values) or None
        steps = [(piece, None) if isinstance(piece, str) else ("", piece.read) for piece in self.pieces]

        def render(values: Mapping[str, Any]) -> str | None:
            filled = False
            parts = []
            for text, read in steps:
                if read is not None:
                    text = read(values)  # noqa: PLW2901 - the constant one was empty
                    filled = filled or text != ""
                parts.append(text)
            return "".join(parts) if filled else None

        return render

    def _lone_value(self) -> Callable[[Mapping[str, Any]], Any] | None:
        if len(self.pieces) != 1 or isinstance(self.pieces[0], str) or self.pieces[0].filters:
            return None  # filters make text of any value
        find = self.pieces[0].find

        def value(values: Mapping[str, Any]) -> Any:
            found = find(values)
            return None if found == "" else found

        return value


def parse(text: str, where: str, *, maps: Maps | None = None, lookups: Lookups | None = None) -> Template:
    """Parse a template. where: the key path to name in a ConfigError. maps, lookups: those that there are."""
    pieces: list[str | Expression] = []
    for found in _PIECE.finditer(text):
        piece, place = found.group(), found.start() + 1
        if piece in {"{{", "}}"}:
            pieces.append(piece[0])
        elif piece in {"{", "}"}:
            raise ConfigError(f"{where}: {_fault(text, piece, place)}")
        elif piece[0] == "{":
            expression = _expression(found.group(1), where, maps or {}, lookups or {})
            if not expression.column:
                raise ConfigError(f"{where}: empty {{}} at character {place}; name a column inside")
            pieces.append(expression)
        else:
            pieces.append(piece)
    return Template(tuple(pieces))


def _finder(column: str) -> Callable[[Mapping[str, Any]], Any]:
    """Return what finds a column: by its name, or, with dots in it, by a path into a JSON value."""
    if "." not in column:
        return lambda values: values.get(column)
    steps = column.split(".")

    def find(values: Mapping[str, Any]) -> Any:
        if column in values:
            return values[column]
        found: Any = values
        for step in steps:
            if isinstance(found, list):
                place = int(step) if step.isdecimal() and len(step) < _LONG_NUMBER else len(found)
                found = found[place] if place < len(found) else None
            elif isinstance(found, Mapping):
                found = found.get(step)
            else:
                return None
        return found

    return find


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
