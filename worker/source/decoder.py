"""From lines to records: CSV and NDJSON. Pure generators over physical lines; they open and close nothing.

Lines arrive with their ends, whichever of the three kinds it is. A decoder says what it found at the top (`header`,
`header_line`, `columns`, `delimiter`), where it stands (`line`), and gives its records one by one.
"""

import csv
import json
import math
import re
from collections.abc import Iterable, Iterator
from itertools import islice, tee
from typing import Any, Literal, NoReturn

from worker.errors import SourceError
from worker.model import Problem, Record

_DELIMITERS = ",;\t|"
_JSON_SPACE = " \t\r\n"


# ---- CSV ------------------------------------------------------------------------------------------------------------


class CsvDecoder:
    """Reads CSV strictly. The first record that is not blank is the header.

    lines: at least one is not blank. delimiter: one character. name: of the input, for messages. Raises SourceError
    for a header that cannot be trusted, and while reading where one record cannot be told from the next.
    """

    format: Literal["csv"] = "csv"

    def __init__(self, lines: Iterable[str], delimiter: str, name: str) -> None:
        self._name = name
        # One copy of the lines is parsed, the other gives each record's own text; both run in C.
        parsed, self._texts = tee(lines)
        self.delimiter = delimiter
        self._rows = csv.reader(parsed, delimiter=delimiter, strict=True)
        self.columns = self._read_header()
        self.tail = self.header
        """Once all records were read: the text of the last one, or of what stood there and was none."""

    @property
    def line(self) -> int:
        """The number of the physical line that is read next, from 1."""
        return self._rows.line_num + 1

    def _read_header(self) -> tuple[str, ...]:
        self.header, fields, line = "", [""], 1
        try:
            while _is_blank(self.header):
                line = self.line
                fields = next(self._rows)
                self.header = self._text_since(line)
        except csv.Error as exc:
            raise self._untrusted(line, exc) from None
        self.header_line = line
        columns = tuple(field.strip() for field in fields)
        named = max((number for number, column in enumerate(columns, 1) if column), default=1)
        self._width, columns = len(columns), columns[:named]
        where = f"{self._name}: line {line}"
        if "\0" in self.header:
            raise SourceError(f"{where}: the header has a NUL character; is source.encoding right?")
        seen: dict[str, int] = {}
        for number, column in enumerate(columns, 1):
            first = seen.setdefault(column, number)
            if not column:
                raise SourceError(f"{where}: column {number} of the header has no name; give it one, or remove it")
            if first != number:
                raise SourceError(
                    f'{where}: the header has the column "{column}" twice, as columns {first} and {number}; rename one'
                )
        return columns

    def records(self) -> Iterator[Record]:
        """Yield the records after the header, once."""
        rows, columns, texts = self._rows, self.columns, self._texts
        width, text = self._width, self.tail
        plain = width if width == len(columns) else -1
        make = tuple.__new__  # what Record(...) does in the end; the detour is a tenth of the time of a record
        line = self.line
        while True:
            try:
                for fields in rows:
                    last = rows.line_num
                    text = next(texts) if last == line else "".join(islice(texts, last - line + 1))
                    if len(fields) == plain and "\0" not in text and any(fields):
                        yield make(Record, (line, text, dict(zip(columns, fields)), None))  # noqa: B905 - strict is slow
                    elif any(fields) and not _is_blank(text):
                        problem = _misfit(text, fields, len(columns), width)
                        values = None if problem else dict(zip(columns, fields, strict=False))
                        yield Record(line, text, values, problem)
                    line = last + 1
            except csv.Error as exc:
                text = self._text_since(line)
                if line + 1 != self.line or _leaves_quote_open(text, self.delimiter):
                    raise self._untrusted(line, exc) from None
                yield Record(line, text, None, _OVERLONG if "field limit" in str(exc) else _MISQUOTED)
                line = self.line
            else:
                self.tail = text
                return

    def _text_since(self, line: int) -> str:
        return "".join(islice(self._texts, self.line - line))

    def _untrusted(self, line: int, exc: csv.Error) -> SourceError:
        last = self.line - 1
        if "field limit" in str(exc):
            found = f"a field that begins here has more than {csv.field_size_limit():,} characters by line {last}"
        elif "end of data" in str(exc):
            found = "the record that begins here runs to the end of the file"
        else:
            found = f"the record that begins here has quotes that do not pair up, by line {last}"
        return SourceError(
            f"{self._name}: line {line}: {found}: a quote that opened here is probably never closed, "
            "and after it no record can be told from the next; correct it and run again"
        )


_MISQUOTED = Problem("malformed", 'has text after a closing quote; a quote inside a quoted field is written twice: ""')


_OVERLONG = Problem("malformed", f"has a field of more than {csv.field_size_limit():,} characters")


def _misfit(text: str, fields: list[str], named: int, width: int) -> Problem | None:
    """Return what is wrong with a record. width: columns of the header, with those at its end that have no name."""
    if "\0" in text:
        return Problem("malformed", "has a NUL character")
    empty = not any(fields[named:])
    if named < width and named <= len(fields) <= width:  # a spreadsheet ends some lines with delimiters, some not
        return None if empty else Problem("malformed", "has a value in a column that has no name in the header")
    reason = f"has {len(fields)} field{'s' * (len(fields) != 1)}, the header has {named}"
    if len(fields) > width and empty:
        reason += "; if the lines end with delimiters, let the header end with as many"
    return Problem("malformed", reason)


def _is_blank(text: str) -> bool:
    return not text.strip(" \r\n")


def likely_delimiter(header: str) -> str:
    """Return which of , ; tab | a header has most of, outside quotes; a comma when it has none."""
    bare = re.sub(r'"[^"]*"?', "", header)
    return max(_DELIMITERS, key=bare.count)


def _leaves_quote_open(text: str, delimiter: str) -> bool:
    """Tell whether a forgiving reader would want another line to complete this misquoted or overlong one."""
    short = re.sub(rf'[^"{re.escape(delimiter)}\r\n]{{3,}}', "xx", text)  # the reader's limit is not the question
    forgiving = csv.reader((short, ""), delimiter=delimiter)
    try:
        next(forgiving)
    except csv.Error:
        return True
    return forgiving.line_num > 1


# ---- NDJSON ---------------------------------------------------------------------------------------------------------


class NdjsonDecoder:
    """Reads one JSON object a line. A bad line is a malformed record and never touches the others."""

    format: Literal["ndjson"] = "ndjson"
    header = ""
    header_line = 0
    columns = None
    delimiter = ""
    tail = ""  # what is no record is blank here

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = _join_returns(lines)
        self.line = 1
        """The number of the physical line that is read next, from 1."""

    def records(self) -> Iterator[Record]:
        """Yield the records, once."""
        for text in self._lines:
            if text.strip(_JSON_SPACE):
                yield _json_record(self.line, text)
            self.line += 1


Decoder = CsvDecoder | NdjsonDecoder


def _join_returns(lines: Iterable[str]) -> Iterator[str]:
    """Yield lines that end with a newline: a carriage return alone is a space in JSON."""
    kept = ""
    for line in lines:
        if line.endswith("\r"):
            kept += line
        else:
            yield kept + line
            kept = ""
    if kept:
        yield kept


def _json_record(line: int, text: str) -> Record:
    detail = None
    try:
        value = _decode(text)
        if isinstance(value, dict):
            if "\\ud" in text or "\\uD" in text:
                _write(value).encode()
            return Record(line, text, value)
        reason = f"is a JSON {_KINDS[type(value)]}, not an object"
    except json.JSONDecodeError as exc:
        reason = f"is not JSON: {exc.msg.removesuffix(' at')}"
        detail = f"at character {exc.pos + 1}"
    except UnicodeEncodeError:
        reason = "is not valid Unicode: it has half of a surrogate pair"
    except _UnfitError as exc:
        reason = str(exc)
    except ValueError:  # Python does not read integers of thousands of digits
        reason = _OUT_OF_RANGE
    except RecursionError:
        reason = "is nested too deeply"
    return Record(line, text, None, Problem("malformed", reason, detail))


class _UnfitError(ValueError):
    """Python's reader would take it, but it is not JSON that can be sent on unchanged."""


_MISSING = object()
_NAME_CHARACTERS = 60
_OUT_OF_RANGE = "has a number that is out of range"
_KINDS = {list: "array", str: "string", int: "number", float: "number", bool: "boolean", type(None): "null"}


def _refuse_constant(name: str) -> NoReturn:
    raise _UnfitError(f"is not JSON: {name} is not a JSON value")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise _UnfitError(_OUT_OF_RANGE)
    return number


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        left = dict(found)
        twice = next(name for name, _ in pairs if left.pop(name, _MISSING) is _MISSING)
        name = twice if len(twice) <= _NAME_CHARACTERS else f"{twice[:_NAME_CHARACTERS]}…"
        raise _UnfitError(f'has the key "{name}" twice')
    return found


_decode = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite, object_pairs_hook=_unique).decode
_write = json.JSONEncoder(ensure_ascii=False).encode
