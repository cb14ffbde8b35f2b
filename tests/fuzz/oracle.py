"""What must be true of any input: it is read whole or refused, always alike, and what is made of it can be sent."""

import io
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import parse_qs

import pytest
from pydantic import ValidationError

from tests.fuzz.example import Example
from tests.samples_of import sid
from tests.test_filter import LOOKUPS
from worker.config import FieldMapping, Source
from worker.errors import ConfigError, SourceError
from worker.filter import UnknownValueError
from worker.model import Draft, Misfit, Record, Row
from worker.payload import FIELDS, Mapper, ready
from worker.source import Input, Reader
from worker.template import parse

MAPS = {"kind": {"Agent": "agent", "": "none"}, "any": {"a": "b", "*": "c"}}
VALUES: tuple[dict[str, Any], ...] = (
    {},
    {"k": "1", "v": "a"},
    {"k": None, "v": {"x": [1.5]}},
    {"k": " Ä|b:c ", "v": ""},
)


def examine(example: Example, folder: Path) -> str:
    """Try an example; returns what became of it in a word. An AssertionError, or any error but ours, is a bug.

    folder: where its file may be written.
    """
    _examine_template(example.template)
    try:
        settings = _settings(example.format, example.encoding, example.delimiter)
        mapper = _mapper(example)
    except (ValidationError, ConfigError):
        return "misconfigured"
    path, (packed, whole) = folder / example.name, example.packed()
    path.write_bytes(packed)
    source = Input(example.name, path)
    try:
        reader, records = _read(source, settings)
    except SourceError as exc:
        assert str(exc).startswith(example.name), "no name"  # noqa: PT017 - what it says is half of what is examined
        with pytest.raises(SourceError, match=re.escape(str(exc))):
            _read(source, settings)
        return "refused"
    assert whole or not example.pack or not reader.compression, "a cut was taken for the end"
    alike = _settings(reader.format, example.encoding, reader.delimiter or "auto")
    _examine_piped(packed, alike, reader, records)
    if whole:
        _examine_texts(example, reader, records)
    return _examine_rows(mapper, reader, records)


def _examine_piped(packed: bytes, settings: Source, reader: Reader, records: list[Record]) -> None:
    """Piped, it gives the same records, unless it ends inside a line: then that line is refused."""
    last = "" if reader.compression else re.split(r"[\r\n]", packed.decode(settings.encoding))[-1]
    try:
        piped, again = _read(Input("stdin", None), settings, io.BytesIO(packed))
    except SourceError as exc:
        assert last.strip(" "), "refused, though it ends with a line end"
        assert "the last line has no line end" in str(exc)  # noqa: PT017 - what it says is half of what is examined
    else:
        assert not last.strip(" \t"), "a cut was taken for the end"
        assert (piped.header, again) == (reader.header, records), "a file and stdin give other records"


def _settings(format_: str, encoding: str, delimiter: str) -> Source:
    given = {"format": format_, "encoding": encoding, "delimiter": delimiter, "allow_empty": True}
    return Source.model_validate(given)


def _read(source: Input, settings: Source, stdin: BinaryIO | None = None) -> tuple[Reader, list[Record]]:
    with Reader(source, settings, stdin=stdin) as reader:
        return reader, [record for batch in reader for record in batch]


def _examine_template(text: str) -> None:
    try:
        template = parse(text, "mapping.type", maps=MAPS, lookups=LOOKUPS)
    except ConfigError:
        return
    again = parse(template.source, "mapping.type", maps=MAPS, lookups=LOOKUPS)
    assert (again.source, again.columns, again.filters) == (template.source, template.columns, template.filters)
    for values in VALUES:
        try:
            made = template.render(values), template.fill(values)
        except UnknownValueError:
            continue
        assert made == (again.render(values), again.fill(values))


def _mapper(example: Example) -> Mapper:
    mapping = None
    if example.template:
        mapping = FieldMapping(
            interaction_sid=sid("KD", 1),
            channel_sid=sid("UO", 1),
            type="customer",
            media_properties={"address": example.template, "name": "{v}"},
        )
    return Mapper(mapping, example.key, maps=MAPS, lookups=LOOKUPS)


def _examine_texts(example: Example, reader: Reader, records: list[Record]) -> None:
    """Header and texts stand where their lines say, and between them is nothing but blank lines."""
    content = example.content if example.pack == (reader.compression or "") else None
    if content is None:
        return  # the content itself is compressed: what is inside is the business of its own tests
    text = content.decode(example.encoding)
    lines = list(_lines(text, universal=reader.format == "csv"))
    place = 0
    spoken = [(reader.header_line, reader.header)] if reader.header else []
    for line, told in spoken + [(record.line, record.text) for record in records]:
        assert line - 1 >= place, f"line {line} is not behind the one before"
        _assert_blank(lines[place : line - 1], reader)
        place = line - 1
        size = 0
        while size < len(told):
            size += len(lines[place])
            place += 1
        assert "".join(lines[line - 1 : place]) == told, f"line {line} is not what stands there"
    _assert_blank(lines[place:], reader)


def _lines(text: str, *, universal: bool) -> Iterable[str]:
    return io.StringIO(text, newline="" if universal else "\n")


def _assert_blank(lines: Iterable[str], reader: Reader) -> None:
    empty = f'"{reader.delimiter}' if reader.format == "csv" else ""
    for line in lines:
        assert not line.strip(f" \t\r\n{empty}"), f"lost: {line!r}"


def _examine_rows(mapper: Mapper, reader: Reader, records: list[Record]) -> str:
    if reader.columns is not None:
        try:
            mapper.check_columns(reader.columns, "odd:1")
        except ConfigError:
            return "other columns"
    sent = list(_rows(mapper, records))
    return "sent" if any(sent) else "rejected"


def _rows(mapper: Mapper, records: list[Record]) -> Iterator[bool]:
    for record in records:
        record.text.encode()  # the ledger keeps it
        made = mapper.map(record, 7)
        assert made == mapper.map(record, 7)
        assert (made.source, made.line, made.text) == (7, record.line, record.text)
        if isinstance(made, Misfit):
            assert made.problem.code
            assert made.problem.reason
            (made.problem.reason + (made.key or "")).encode()
        else:
            _examine_row(ready(made, mapper.mark(made.text)))
        yield isinstance(made, Draft)


def _examine_row(row: Row) -> None:
    assert row.key
    row.key.encode()
    form = parse_qs(row.body.decode("ascii"), strict_parsing=True, keep_blank_values=True, errors="strict")
    assert set(form) <= {"Type", "MediaProperties", "RoutingProperties"}
    assert form["Type"] == [row.type]
    for field in ("MediaProperties", "RoutingProperties"):
        for text in form.get(field, []):
            document = json.loads(text, parse_constant=_refuse)
            assert isinstance(document, dict)
            assert document or field not in FIELDS


def _refuse(name: str) -> None:
    raise AssertionError(f"{name} would be sent")
