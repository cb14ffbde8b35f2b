"""From a record to a request: the mapping, the rules that are certain, and the key. Pure, no IO.

This is the door of its room: `field` finds each field's value, `document` reads JSON, `request` has the rules, the
digest and the form, `convention` what is unusual. What is certain is checked here (sids, type, JSON, damage); what only
the service can know is left to the service. Reasons name fields and rules, never values: values can be people's names
and addresses. What is shown of them is masked.
"""

import difflib
import json
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property, partial
from hashlib import blake2b
from typing import Any

from worker.config import FieldMapping
from worker.errors import ConfigError
from worker.filter import EXCEL_NUMBER, Lookups, Maps, UnknownValueError, is_excel_number
from worker.model import REFERENCE, Document, Draft, Misfit, Problem, Record, Row
from worker.payload import document
from worker.payload.convention import damage, oddities
from worker.payload.document import TOO_DEEP
from worker.payload.fault import Fault, UnfitError, strange
from worker.payload.field import Read, Shapes, is_field, is_ours, reader_of
from worker.payload.request import (
    CANONICAL_VERSION,
    FIELDS,
    JSON_FIELDS,
    RULES,
    Request,
    broken,
    canonical,
    digest,
    form,
    unwritable,
)
from worker.template import Template, as_text, parse

__all__ = ["CANONICAL_VERSION", "FIELDS", "Mapper", "ready"]


MOST_KEY_BYTES = 2_000
"""In UTF-8: what every engine's index takes, so that a ledger can move. Nor does every engine take NUL."""

_new = tuple.__new__  # what Draft(...) does in the end, without the detour


class Mapper:
    """Turns records into drafts by a mapping and a key template.

    maps, lookups: those that templates may use; lookups may be loaded later. strict: whether what is unusual is an
    error of its row, not a warning. key_at, mapping_at: the key paths of both, for messages.
    Raises ConfigError, naming the key path, for a template that cannot be parsed.
    """

    def __init__(
        self,
        mapping: FieldMapping | None,
        key: str = "",
        *,
        maps: Maps | None = None,
        lookups: Lookups | None = None,
        strict: bool = False,
        key_at: str = "source.key",
        mapping_at: str = "mapping",
    ) -> None:
        self._key_at, self._mapping_at = key_at, mapping_at
        self._lookups = lookups or {}
        self._explicit = mapping is not None
        read = partial(parse, maps=maps, lookups=lookups)
        self._key = read(key, key_at) if key else None
        if self._key and not self._key.columns:
            raise ConfigError(f"{key_at}: reads no column, so that all rows would be one; write a column in braces")
        self._templates: dict[str, Template | dict[str, Template]] = {}
        for field in FIELDS:
            given = getattr(mapping, field, None)
            path = f"{mapping_at}.{field}"
            if isinstance(given, str):
                self._templates[field] = _whole(field, path, read(given, path))
            elif given is not None:
                self._templates[field] = {name: read(given[name], f"{path}.{name}") for name in given}
        self._strict = strict
        self._shapes = Shapes(self._key.columns if self._key else ())
        readers = [(field, reader_of(field, self._templates.get(field), self._shapes)) for field in FIELDS]
        self._text_readers = [(field, read, RULES[field][0]) for field, read in readers if field in RULES]
        self._media_reader, self._routing_reader = [item for item in readers if item[0] in JSON_FIELDS]
        self._definitions = {f"map.{name}": dict(values) for name, values in (maps or {}).items()}
        # what stands in a lookup's file is data, as that in an input is; only its key is a rule
        self._definitions |= {f"lookup.{name}": {"key": finder.key} for name, finder in self._lookups.items()}
        self.key_template = key
        if self._key and (used := self._described([self._key])):  # another content makes other keys, as a template does
            self.key_template += f" with {json.dumps(used, ensure_ascii=False)}"

    @cached_property
    def _recipe(self) -> bytes:
        """All that makes a request and a key of a record; the lookups in use have to be loaded."""
        rules = [CANONICAL_VERSION, self._explicit, self.key_template, self.describe()]
        data = {name: self._lookups[name].digest.hex() for name in self.asked()}
        return blake2b(json.dumps([rules, data], sort_keys=True).encode(), digest_size=32).digest()

    def mark(self, text: str) -> int:
        """Return 64 bits, signed, of a record's text and of all that makes a request and a key of it; never 0."""
        found = blake2b(text.encode("utf-8", "surrogatepass"), key=self._recipe, digest_size=8).digest()
        return int.from_bytes(found, signed=True) or 1

    def describe(self) -> dict[str, str]:
        """Return key path → template, or → a value map or a lookup in use, for everything that shapes a request: what
        a digest key depends on.
        """  # noqa: D205 - the rule is one sentence
        templates = dict(self._paths("mapping"))  # wherever they stand
        return {path: template.source for path, template in templates.items()} | self._described(templates.values())

    def _described(self, templates: Iterable[Template]) -> dict[str, str]:
        used = {step.definition for template in templates for step in template.filters} - {""}
        return {path: json.dumps(self._definitions[path], sort_keys=True) for path in sorted(used)}

    def asked(self) -> dict[str, dict[str, str]]:
        """Return what is asked of lookups: name → column → the key path of the template that asks for it."""
        found: dict[str, dict[str, str]] = {}
        templates = [(self._key_at, self._key)] if self._key else []
        for path, template in (*templates, *self._paths(self._mapping_at)):
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
        known = {column.partition(".")[0] if is_field(column) else column for column in present} | set(self._templates)
        missing = [field for field in FIELDS if field != "routing_properties" and field not in known]
        if missing:
            raise ConfigError(
                f'{where}: there is no column "{missing[0]}"{_hint(missing[0], present)}; '
                f"rename it, or say in [{self._mapping_at}] which column is the {missing[0]}"
            )
        if not self._explicit:
            self._refuse_unknown(present, where)

    def _refuse_unknown(self, present: list[str], where: str) -> None:
        keys = self._key.columns if self._key else ()
        for column in present:
            if not is_field(column) and not is_ours(column) and column not in keys:
                raise ConfigError(
                    f'{where}: column "{column}" is no field of a participant{_hint(column, FIELDS)}; rename it, '
                    f"remove it, or write a [{self._mapping_at}]: with one, columns that it does not name are ignored"
                )

    def _wanted(self) -> Iterator[tuple[str, str]]:
        if self._key:
            yield from ((self._key_at, column) for column in self._key.columns)
        for path, template in self._paths(self._mapping_at):
            yield from ((path, column) for column in template.columns)

    def _paths(self, root: str) -> Iterator[tuple[str, Template]]:
        for field, template in self._templates.items():
            if isinstance(template, Template):
                yield f"{root}.{field}", template
            else:
                yield from ((f"{root}.{field}.{name}", part) for name, part in template.items())

    def map(self, record: Record, source: int) -> Draft | Misfit:
        """Return what a record of this source would send, or a misfit with every field's error."""
        line, text, values, problem = record
        if values is None:
            return Misfit(None, source, line, problem or Problem("malformed", "unreadable"), text)
        repairs = _text(values[REFERENCE]) if REFERENCE in values else ""
        key = None
        try:
            if self._key is not None:
                key = self._key_of(values, self._key)
            request, media, routing = self._request(values)
            canonical = self._canonical(request)
            warnings = self._warnings(request)
        except UnfitError as unfit:
            keyless = key is None and self._key is not None
            problem = (self._with_others(unfit, values) if keyless else unfit).problem
            return Misfit(key, source, line, problem, text, repairs)
        except RecursionError:
            return Misfit(key, source, line, Problem("invalid", f"a field {TOO_DEEP}"), text, repairs)
        fingerprint = digest(canonical)
        interaction, channel, kind, _, _ = request
        key = fingerprint.hex() if key is None else key
        made = (key, fingerprint, source, line, interaction, channel, kind, media, routing, text, warnings, repairs)
        return _new(Draft, made)

    def _key_of(self, values: Mapping[str, Any], template: Template) -> str:
        try:
            key, empty = template.fill(values)
        except UnknownValueError as unknown:
            raise UnfitError([Fault("source.key", str(unknown), unknown.value, unknown.where)]) from None
        if empty:
            raise UnfitError([Fault("source.key", f"{' and '.join(dict.fromkeys(empty))} empty")], "key_empty")
        if "E+" in key or "e+" in key:  # other rows have got the same key by the same damage
            texts = {one.column: as_text(one.find(values)).strip() for one in template.expressions}
            damaged = [column for column, text in texts.items() if is_excel_number(text)]
            if damaged:
                where = " and ".join(f'column "{column}"' for column in damaged)
                raise UnfitError([Fault(f"source.key: {where}", EXCEL_NUMBER, texts[damaged[0]])])
        if 4 * len(key) > MOST_KEY_BYTES and len(key.encode("utf-8", "surrogatepass")) > MOST_KEY_BYTES:
            rule = f"more than {MOST_KEY_BYTES:,} bytes; let it read fewer columns"
            raise UnfitError([Fault("source.key", rule)], "key_unfit")
        if "\0" in key:
            raise UnfitError([Fault("source.key", "a NUL character")], "key_unfit")
        return key

    def _with_others(self, unfit: UnfitError, values: Mapping[str, Any]) -> UnfitError:
        """Add what is wrong with the fields to what is wrong with the key."""
        try:
            self._canonical(self._request(values)[0])
        except UnfitError as others:
            return UnfitError([*unfit.faults, *others.faults], unfit.code)
        return unfit

    def _request(self, values: Mapping[str, Any]) -> tuple[Request, Document, Document | None]:
        """Return the request, and its media and routing properties as they are to be written."""
        faults: list[Fault] = []
        if not self._explicit and (strangers := self._shapes.of(values).strangers):
            faults += strange(strangers)
        texts: list[str] = []
        for field, read, holds in self._text_readers:
            try:
                value = read(values)
            except UnknownValueError as unknown:
                faults.append(Fault(field, str(unknown), unknown.value, unknown.where))
                continue
            if isinstance(value, str):
                value = value.strip()
                if holds(value):
                    texts.append(value)
                    continue
            faults.append(broken(field, value))
        media, media_source = self._document(*self._media_reader, values, faults)
        routing, routing_source = self._document(*self._routing_reader, values, faults)
        if media is None and not any(fault.path.startswith("media_properties") for fault in faults):
            faults.append(Fault("media_properties", "is missing"))
        if faults:
            raise UnfitError(faults + (damage(media) if media else []) + unwritable(media, routing))
        interaction, channel, kind = texts
        return Request(interaction, channel, kind, media or {}, routing), media_source or {}, routing_source

    def _document(
        self, field: str, read: Read, values: Mapping[str, Any], faults: list[Fault]
    ) -> tuple[dict[str, Any] | None, Document | None]:
        """Return a JSON object, and itself or the text that it was read from; nothing when there is none."""
        try:
            value = read(values)
            if isinstance(value, dict):
                return value, value
            if isinstance(value, str):
                text = value.strip()
                return (document.read(text), text) if text else (None, None)
            if value is not None:
                faults.append(Fault(field, document.NO_OBJECT))
        except UnknownValueError as unknown:
            faults.append(Fault(field, str(unknown), unknown.value, unknown.where))
        except ValueError as exc:
            sentence, *where = exc.args
            faults.append(Fault(field, sentence, None, *where))
        except UnfitError as unfit:
            faults += unfit.faults
        return None, None

    def _canonical(self, request: Request) -> str:
        try:
            text = canonical(request)
        except (ValueError, RecursionError):
            raise UnfitError(unwritable(request.media_properties, request.routing_properties)) from None
        faults = damage(request.media_properties) if "E+" in text or "e+" in text else []
        if "\\ud" in text:  # a pair, or half of one
            faults += unwritable(request.media_properties, request.routing_properties)
        if faults:
            raise UnfitError(faults)
        return text

    def _warnings(self, request: Request) -> tuple[str, ...]:
        found = oddities(request.media_properties, request.routing_properties)
        if not found:
            return ()
        if self._strict:
            raise UnfitError(found)
        return tuple([fault.sentence for fault in found])


def ready(draft: Draft, mark: int = 0) -> Row:
    """Return the row that is sent for a draft. mark: as of `Row`."""
    key, fingerprint, source, line, interaction, channel, kind, media, routing, text, *_ = draft
    body = form(kind, _text_of(media), None if routing is None else _text_of(routing))
    return Row(key, fingerprint, source, line, interaction, channel, kind, body, text, 0, mark)


def _text(value: object) -> str:
    return value.strip() if isinstance(value, str) else ""


def _text_of(source: Document) -> str:
    return source if isinstance(source, str) else document.write(source)


def _whole(field: str, path: str, template: Template) -> Template:
    """Refuse to build JSON text around a column: a quotation mark in the data would break it, or change its meaning."""
    if field in JSON_FIELDS and len(template.pieces) > 1 and template.columns:
        raise ConfigError(
            f"{path}: JSON cannot be put together from text and columns; name one column that holds it, or "
            f'write a table: [{path}] address = "{{email}}"'
        )
    return template


def _hint(word: str, known: Iterable[str]) -> str:
    names = list(known)
    close = [name for name in names if name.casefold() == word.casefold()]
    close = close or difflib.get_close_matches(word, names, n=1, cutoff=0.7)
    return f' (did you mean "{close[0]}"?)' if close else f" (columns: {', '.join(names)})"
