"""From a record to a request: the mapping, the rules that are certain, and the key. Pure, no IO.

This is the door of its room: `request` has the rules, the digest and the form, `document` reads JSON. What is certain
is checked here (sids, type, JSON); what only the service can know is left to the service. Reasons name fields and
rules, never values: values can be people's names and addresses.
"""

import difflib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from pydantic import ValidationError

from worker.config import FieldMapping
from worker.errors import ConfigError
from worker.filter import Lookups, Maps, UnknownValueError
from worker.model import Misfit, Problem, Record, Row
from worker.payload.document import TOO_DEEP, document
from worker.payload.request import CANONICAL_VERSION, FIELDS, JSON_FIELDS, RULES, Request, digest, form, validate
from worker.template import Template, parse

__all__ = ["CANONICAL_VERSION", "FIELDS", "Mapper"]


class Mapper:
    """Turns records into rows by a mapping and a key template. maps, lookups: those that templates may use.

    Raises ConfigError, naming the key path, for a template that cannot be parsed.
    """

    def __init__(
        self, mapping: FieldMapping | None, key: str = "", *, maps: Maps | None = None, lookups: Lookups | None = None
    ) -> None:
        self._explicit = mapping is not None
        read = partial(parse, maps=maps, lookups=lookups)
        self._key = read(key, "source.key") if key else None
        if self._key and not self._key.columns:
            raise ConfigError("source.key: reads no column, so that all rows would be one; write a column in braces")
        self._templates: dict[str, Template | dict[str, Template]] = {}
        for field in FIELDS:
            given = getattr(mapping, field, None)
            if isinstance(given, str):
                self._templates[field] = _whole(field, read(given, f"mapping.{field}"))
            elif given is not None:
                self._templates[field] = {name: read(given[name], f"mapping.{field}.{name}") for name in given}
        self._readers: dict[str, Callable[[Mapping[str, Any]], Any]] = {field: self._reader(field) for field in FIELDS}
        self._definitions = {f"map.{name}": dict(values) for name, values in (maps or {}).items()}
        # what stands in a lookup's file is data, as that in an input is; only its key is a rule
        self._definitions |= {f"lookup.{name}": {"key": finder.key} for name, finder in (lookups or {}).items()}
        self.key_template = key
        if self._key and (used := self._described([self._key])):  # another content makes other keys, as a template does
            self.key_template += f" with {json.dumps(used, ensure_ascii=False)}"

    def describe(self) -> dict[str, str]:
        """Return key path → template, or → a value map or a lookup in use, for everything that shapes a request: what
        a digest key depends on.
        """  # noqa: D205 - the rule is one sentence
        templates = dict(self._paths())
        return {path: template.source for path, template in templates.items()} | self._described(templates.values())

    def _described(self, templates: Iterable[Template]) -> dict[str, str]:
        used = {step.definition for template in templates for step in template.filters} - {""}
        return {path: json.dumps(self._definitions[path], sort_keys=True) for path in sorted(used)}

    def asked(self) -> dict[str, dict[str, str]]:
        """Return what is asked of lookups: name → column → the key path of the template that asks for it."""
        found: dict[str, dict[str, str]] = {}
        templates = [("source.key", self._key)] if self._key else []
        for path, template in (*templates, *self._paths()):
            for name, column in filter(None, (step.asked for step in template.filters)):
                found.setdefault(name, {}).setdefault(column, path)
        return found

    def check_columns(self, columns: Iterable[str], where: str) -> None:
        """Raise ConfigError when a template reads a column that a header does not have, or, without a mapping, when
        the header has a column that no field knows. where: the file and line to name.
        """  # noqa: D205 - the rule is one sentence
        present = list(columns)
        for path, wanted in self._wanted():
            if wanted not in present:
                raise ConfigError(f'{where}: there is no column "{wanted}", which {path} reads{_hint(wanted, present)}')
        for field in JSON_FIELDS:
            if field not in self._templates and field in present and any(c.startswith(f"{field}.") for c in present):
                raise ConfigError(f'{where}: "{field}" and "{field}.…" cannot both be columns; keep one form')
        known = {column.partition(".")[0] if _is_field(column) else column for column in present} | set(self._templates)
        missing = [field for field in FIELDS if field != "routing_properties" and field not in known]
        if missing:
            raise ConfigError(
                f'{where}: there is no column "{missing[0]}"{_hint(missing[0], present)}; '
                f"rename it, or say in [mapping] which column is the {missing[0]}"
            )
        if not self._explicit:
            self._refuse_unknown(present, where)

    def _refuse_unknown(self, present: list[str], where: str) -> None:
        keys = self._key.columns if self._key else ()
        for column in present:
            if not _is_field(column) and column not in keys:
                raise ConfigError(
                    f'{where}: column "{column}" is no field of a participant{_hint(column, FIELDS)}; rename it, '
                    "remove it, or write a [mapping]: with one, columns that it does not name are ignored"
                )

    def _wanted(self) -> Iterator[tuple[str, str]]:
        if self._key:
            yield from (("source.key", column) for column in self._key.columns)
        for path, template in self._paths():
            yield from ((path, column) for column in template.columns)

    def _paths(self) -> Iterator[tuple[str, Template]]:
        for field, template in self._templates.items():
            if isinstance(template, Template):
                yield f"mapping.{field}", template
            else:
                yield from ((f"mapping.{field}.{name}", part) for name, part in template.items())

    def map(self, record: Record, source: int) -> Row | Misfit:
        """Return the row that a record of this source makes, or a misfit with every field's error."""
        values = record.values
        if values is None:
            return Misfit(None, source, record.line, record.problem or Problem("malformed", "unreadable"), record.text)
        key = None
        try:
            if self._key is not None:
                filled, empty = self._key.fill(values)
                if empty:
                    problem = Problem("key_empty", f"source.key: {' and '.join(dict.fromkeys(empty))} empty")
                    return Misfit(None, source, record.line, problem, record.text)
                key = filled
            request, texts = self._request(values)
            fingerprint = digest(request)
            body = form(request.type, texts)
        except _UnfitError as unfit:
            return Misfit(key, source, record.line, Problem("invalid", str(unfit)), record.text)
        except UnknownValueError as unknown:  # a field's is one of its errors: this is the key's
            return Misfit(None, source, record.line, Problem("invalid", f"source.key: {unknown}"), record.text)
        except RecursionError:
            return Misfit(key, source, record.line, Problem("invalid", f"a field {TOO_DEEP}"), record.text)
        return Row(
            fingerprint.hex() if key is None else key,
            fingerprint,
            source,
            record.line,
            request.interaction_sid,
            request.channel_sid,
            request.type,
            body,
            record.text,
        )

    def _request(self, values: Mapping[str, Any]) -> tuple[Request, dict[str, str]]:
        errors = {} if self._explicit else self._strangers(values)
        fields: dict[str, Any] = {}
        texts: dict[str, str] = {}
        for field, read in self._readers.items():
            try:
                value = read(values)
                if isinstance(value, str):
                    value = value.strip()
                if value is None or value == "":
                    if field != "routing_properties":
                        errors[field] = "is missing"
                elif field in JSON_FIELDS:
                    fields[field], texts[field] = document(value)
                else:
                    fields[field] = value
            except ValueError as exc:
                errors[field] = str(exc)
        try:
            request: Request = validate(fields)
        except ValidationError as exc:
            for error in exc.errors(include_url=False, include_input=False, include_context=False):
                name = str(error["loc"][0])
                errors.setdefault(name, RULES[name])
            raise _unfit(errors) from None
        if errors:
            raise _unfit(errors)
        return request, texts

    def _strangers(self, values: Mapping[str, Any]) -> dict[str, str]:
        keys = self._key.columns if self._key else ()
        return {name: "is no field of a participant" for name in values if not _is_field(name) and name not in keys}

    def _reader(self, field: str) -> Callable[[Mapping[str, Any]], Any]:
        template = self._templates.get(field)
        if template is None:
            return _nested_reader(field) if field in JSON_FIELDS else lambda values: values.get(field)
        if isinstance(template, Template):
            return template.value if field in JSON_FIELDS else template.render
        parts = template

        def read(values: Mapping[str, Any]) -> dict[str, Any] | None:
            found, unknown, details = {}, [], []
            for name, part in parts.items():
                try:
                    value = part.value(values)
                except UnknownValueError as exc:
                    unknown.append(f"{name}: {exc}")
                    details += [exc.detail] if exc.detail else []
                else:
                    if value is not None:
                        found[name] = value
            if unknown:
                raise UnknownValueError("; ".join(unknown), "; ".join(dict.fromkeys(details)) or None)
            return found or None

        return read


def _whole(field: str, template: Template) -> Template:
    """Refuse to build JSON text around a column: a quotation mark in the data would break it, or change its meaning."""
    if field in JSON_FIELDS and len(template.pieces) > 1 and template.columns:
        raise ConfigError(
            f"mapping.{field}: JSON cannot be put together from text and columns; name one column that holds it, or "
            f'write a table: [mapping.{field}] address = "{{email}}"'
        )
    return template


class _UnfitError(Exception):
    """The record cannot become a request; the message has every field's error."""


def _unfit(errors: Mapping[str, str]) -> _UnfitError:
    return _UnfitError("; ".join(f"{name}: {rule}" for name, rule in errors.items()))


def _nested_reader(field: str) -> Callable[[Mapping[str, Any]], Any]:
    prefix = f"{field}."

    def read(values: Mapping[str, Any]) -> Any:
        whole = values.get(field)
        document: dict[str, Any] = {}
        for column, value in values.items():
            if column.startswith(prefix) and value is not None and value != "":
                _place(document, column[len(prefix) :].split("."), value)
        if whole is None or whole == "":
            return document or None
        if document:
            raise ValueError(f'is given whole and as "{prefix}…"')
        return whole

    return read


class _Branch(dict[str, Any]):
    """An object that dotted columns make; one that a record brings is a value, and is not added to."""


def _place(document: dict[str, Any], path: list[str], value: Any) -> None:
    *steps, last = path
    for step in steps:
        document = document.setdefault(step, _Branch())
        if not isinstance(document, _Branch):
            raise ValueError(f'has a value at "{step}" and one below it')  # noqa: TRY004 - a bad value, not a bad call
    if last in document:
        raise ValueError(f'has a value at "{last}" and one below it')
    document[last] = value


def _is_field(column: str) -> bool:
    return column in FIELDS or column.partition(".")[0] in JSON_FIELDS


def _hint(word: str, known: Iterable[str]) -> str:
    names = list(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.7)
    return f' (did you mean "{close[0]}"?)' if close else f" (columns: {', '.join(names)})"
