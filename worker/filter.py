"""Filters: what a template does to a column's text on its way, as in `{Kind | trim | map:kind}`. Pure, no IO.

Whatever is wrong with a filter itself shows when the template is parsed; a row can only have a value of which a filter
can make nothing. An empty text stays empty in all of them but `default`, so that an empty column is still an empty one.
"""

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from worker.errors import ConfigError
from worker.phone import e164

Maps = Mapping[str, Mapping[str, str]]
"""The value maps of the config: name → value → what becomes of it."""


class Ambiguous(NamedTuple):
    """What a lookup says of a key that it has twice, with different values. where: both places in its file."""

    where: str


class Finder(Protocol):
    """A lookup: what a second file says about a row."""

    @property
    def key(self) -> str:
        """The file's column that is compared with a value."""
        ...

    @property
    def digest(self) -> bytes:
        """Of all that it may answer: other bytes for another content."""
        ...

    def find(self, value: str, column: str) -> str | Ambiguous | None:
        """Return what stands in a column of the record with this key; None when there is none."""
        ...


Lookups = Mapping[str, Finder]
"""The lookups of the config, by name."""

FALLBACK = "*"
"""The key of a map that stands for every value that is not in it."""

EXCEL_NUMBER = "is an Excel number, like 4.41E+11, and has lost its digits (export its column as text)"

_NO_DIGITS = re.compile(r"\D+")
_WHATSAPP = "whatsapp:"
_SCIENTIFIC = re.compile(r"(?:whatsapp:)?[+-]?\d(?:[.,]\d+)?[eE]\+\d{1,3}").fullmatch
_NAMED_VALUES = 10

Apply = Callable[[str], str]


class UnknownValueError(ValueError):
    """A filter can make nothing of a row's value; the message names the column and the rule, never the value.

    value: what it was; it may be a person's. where: places that have to do with it.
    """

    def __init__(self, message: str, value: str, where: str | None = None) -> None:
        super().__init__(message)
        self.value = value
        self.where = where


def is_excel_number(text: str) -> bool:
    """Tell whether a spreadsheet has written a long number as 4.41E+11, so that its digits are gone."""
    return ("E+" in text or "e+" in text) and _SCIENTIFIC(text) is not None


@dataclass(frozen=True, slots=True)
class Filter:
    """One step between a column and its place. apply: raises UnknownValueError."""

    name: str
    arguments: tuple[str, ...]
    apply: Apply = field(compare=False, repr=False)

    @property
    def source(self) -> str:
        """The filter as a template has it."""
        return ":".join((self.name, *(_quoted(argument) for argument in self.arguments)))

    @property
    def definition(self) -> str:
        """The key path of what it uses besides its arguments, as map.kind; empty for what uses nothing."""
        if self.asked:
            return f"lookup.{self.asked[0]}"
        return f"map.{self.arguments[0]}" if self.name == "map" else ""

    @property
    def asked(self) -> tuple[str, str] | None:
        """The lookup that it is, and the column that it asks for."""
        return _asked(self.arguments[0]) if self.name == "lookup" else None


class _Place(NamedTuple):
    """What a filter may have to know. where: the template's key path. column: whose text comes in."""

    where: str
    column: str
    maps: Maps
    lookups: Lookups


def make_filter(
    name: str, arguments: Sequence[str], *, where: str, column: str, maps: Maps, lookups: Lookups
) -> Filter:
    """Return the filter of this name. Raises ConfigError, naming where, for one that is not written right."""
    if name not in _KINDS:
        aside = '; a column with | in its name is written in quotes: {"a|b"}'
        raise ConfigError(f'{where}: there is no filter "{name}"{_hint(name, _KINDS, "filters", aside)}')
    usage, build = _KINDS[name]
    if len(arguments) != usage.count(":"):
        raise ConfigError(f"{where}: filter {name} has {_arguments(len(arguments))}; it is written {usage}")
    apply = build(arguments, _Place(where, column, maps, lookups))
    if name == "lookup":
        arguments = (_written(*_asked(arguments[0])),)
    return Filter(name, tuple(arguments), apply)


def _trim(_: Sequence[str], __: _Place) -> Apply:
    return str.strip


def _lower(_: Sequence[str], __: _Place) -> Apply:
    return str.lower


def _upper(_: Sequence[str], __: _Place) -> Apply:
    return str.upper


def _default(arguments: Sequence[str], _: _Place) -> Apply:
    (default,) = arguments
    return lambda text: text or default


def _prefix(arguments: Sequence[str], _: _Place) -> Apply:
    (prefix,) = arguments
    return lambda text: prefix + text if text else ""


def _whatsapp(_: Sequence[str], __: _Place) -> Apply:
    return lambda text: _WHATSAPP + text if text and not text.startswith(_WHATSAPP) else text


def _map(arguments: Sequence[str], place: _Place) -> Apply:
    (name,) = arguments
    if name not in place.maps:
        aside = f"; it is a section [map.{name}]"
        raise ConfigError(f'{place.where}: there is no map "{name}"{_hint(name, place.maps, "maps", aside)}')
    values = {"": "", **place.maps[name]}
    known = _listed([value for value in place.maps[name] if value]) or "none"
    refusal = f'column "{place.column}" has a value that map.{name} does not know (known: {known})'

    def apply(text: str) -> str:
        found = values.get(text, values.get(FALLBACK))
        if found is None:
            raise UnknownValueError(refusal, text)
        return found

    return apply


def _split(arguments: Sequence[str], place: _Place) -> Apply:
    separator, number = arguments
    if not separator:
        raise ConfigError(f"{place.where}: filter split has an empty separator; it is written split:SEP:N")
    if not re.fullmatch("[1-9][0-9]{0,5}", number):
        raise ConfigError(f'{place.where}: filter split counts parts from 1; "{number}" is no number of a part')
    index = int(number) - 1

    def apply(text: str) -> str:
        parts = text.split(separator, index + 1)
        return parts[index] if index < len(parts) else ""

    return apply


def _digits(_: Sequence[str], place: _Place) -> Apply:
    refuse = _no_excel_number(place.column)

    def apply(text: str) -> str:
        refuse(text)
        digits = _NO_DIGITS.sub("", text)
        plus = "+" if digits and "+" in text[: text.index(digits[0])] else ""
        return plus + (digits if digits.isascii() else "".join(str(int(digit)) for digit in digits))

    return apply


def _e164(arguments: Sequence[str], place: _Place) -> Apply:
    (region,) = arguments
    write = e164(region, place.where)
    refusal = f'column "{place.column}" has a value that is no valid phone number (e164:{region})'
    refuse = _no_excel_number(place.column)

    def apply(text: str) -> str:
        refuse(text)
        written = write(text) if text else ""
        if written is None:
            raise UnknownValueError(refusal, text)
        return written

    return apply


def _lookup(arguments: Sequence[str], place: _Place) -> Apply:
    name, column = _asked(arguments[0])
    if not column:
        raise ConfigError(
            f'{place.where}: filter lookup is written lookup:NAME.COLUMN; "{arguments[0]}" names no column'
        )
    if name not in place.lookups:
        aside = f"; it is a section [lookup.{name}]"
        raise ConfigError(f'{place.where}: there is no lookup "{name}"{_hint(name, place.lookups, "lookups", aside)}')
    find = place.lookups[name].find
    refusal = f'column "{place.column}" has a value that lookup.{name}'

    def apply(text: str) -> str:
        value = text.strip()
        found = find(value, column) if value else ""
        if found is None:
            raise UnknownValueError(f"{refusal} does not have", value)
        if isinstance(found, Ambiguous):
            raise UnknownValueError(f"{refusal} has twice, with different values", value, found.where)
        return found

    return apply


def _no_excel_number(column: str) -> Callable[[str], None]:
    refusal = f'column "{column}" {EXCEL_NUMBER}'

    def refuse(text: str) -> None:
        if is_excel_number(text.strip()):
            raise UnknownValueError(refusal, text)

    return refuse


def _asked(argument: str) -> tuple[str, str]:
    """Return a lookup's name and its column, which may be in quotes of its own."""
    name, _, column = argument.partition(".")
    if len(column) > 1 and column[0] == column[-1] == '"':
        column = column[1:-1].replace('""', '"')
    return name, column


def _written(name: str, column: str) -> str:
    quoted = column.startswith('"')
    return f"{name}." + ('"' + column.replace('"', '""') + '"' if quoted else column)


_KINDS: dict[str, tuple[str, Callable[[Sequence[str], _Place], Apply]]] = {
    # how each is written, one argument for each colon, and what makes it
    "trim": ("trim", _trim),
    "lower": ("lower", _lower),
    "upper": ("upper", _upper),
    "default": ("default:TEXT", _default),
    "prefix": ("prefix:TEXT", _prefix),
    "whatsapp": ("whatsapp", _whatsapp),
    "map": ("map:NAME", _map),
    "split": ("split:SEP:N", _split),
    "digits": ("digits", _digits),
    "e164": ("e164:REGION", _e164),
    "lookup": ("lookup:NAME.COLUMN", _lookup),
}

USAGES = tuple(usage for usage, _ in _KINDS.values())
"""How each filter is written."""


def _quoted(argument: str) -> str:
    plain = argument and not re.search(r'[\s{}|:"]', argument)
    return argument if plain else '"' + argument.replace('"', '""') + '"'


def _arguments(count: int) -> str:
    return f"{count or 'no'} argument{'' if count == 1 else 's'}"


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _NAMED_VALUES
    return ", ".join(names[:_NAMED_VALUES]) + (f" and {more} more" if more > 0 else "")


def _hint(word: str, known: Iterable[str], plural: str, aside: str) -> str:
    names = list(known)
    if close := difflib.get_close_matches(word, names, n=1):
        return f' (did you mean "{close[0]}"?)'
    return f" ({plural}: {', '.join(names) or 'none'}{aside})"
