"""How the value of each field is found in a record: by a template, in its own column, or in dotted columns. Pure."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from worker.filter import UnknownValueError
from worker.payload.fault import Fault, UnfitError, shown
from worker.payload.request import FIELDS, JSON_FIELDS
from worker.template import Template

Read = Callable[[Mapping[str, Any]], Any]

_SHAPES = 256
"""How many sets of columns are remembered: a CSV has one, NDJSON as many as its rows have kinds."""


class Shape(NamedTuple):
    """What is known about records with the same columns. strangers: those that no field knows.

    absent: JSON fields without a column. parts: JSON field → its dotted columns, each with the path that it stands for.
    flat: JSON fields without deep paths.
    """

    strangers: tuple[str, ...]
    absent: frozenset[str]
    parts: Mapping[str, tuple[tuple[str, tuple[str, ...]], ...]]
    flat: Mapping[str, tuple[tuple[str, str], ...]]


class Shapes:
    """The shapes of records, each worked out once. keys: columns that are known besides the fields."""

    def __init__(self, keys: tuple[str, ...]) -> None:
        self._keys = frozenset(keys)
        self._known: dict[tuple[str, ...], Shape] = {}
        self._last: tuple[Mapping[str, Any] | None, Shape] = (None, Shape((), frozenset(), {}, {}))

    def of(self, values: Mapping[str, Any]) -> Shape:
        """Return the shape of a record."""
        last, shape = self._last
        return shape if last is values else self._find(values)

    def _find(self, values: Mapping[str, Any]) -> Shape:
        columns = tuple(values)
        found = self._known.get(columns)
        if found is None:
            if len(self._known) >= _SHAPES:
                self._known.clear()
            found = self._known[columns] = self._work_out(columns)
        self._last = values, found
        return found

    def _work_out(self, columns: tuple[str, ...]) -> Shape:
        strangers = tuple(
            column for column in columns if not is_field(column) and not is_ours(column) and column not in self._keys
        )
        parts = {
            field: tuple(
                (column, tuple(column[len(field) + 1 :].split(".")))
                for column in columns
                if column.startswith(f"{field}.")
            )
            for field in JSON_FIELDS
        }
        flat = {
            field: tuple((column, path[0]) for column, path in found)
            for field, found in parts.items()
            if all(len(path) == 1 for _, path in found)
        }
        absent = frozenset(field for field in JSON_FIELDS if field not in columns and not parts[field])
        return Shape(strangers, absent, parts, flat)


def is_ours(column: str) -> bool:
    """Tell whether flex-import has added a column to an export, so that it says nothing about the participant."""
    return column.startswith("flex_")


def is_field(column: str) -> bool:
    """Tell whether a column is a field of the request, or a part of one."""
    return column in FIELDS or column.partition(".")[0] in JSON_FIELDS


def reader_of(field: str, template: Template | Mapping[str, Template] | None, shapes: Shapes) -> Read:
    """Return what finds a field's value.

    It raises ValueError with what is wrong, to follow the field's name, or UnfitError with the faults of its parts.
    """
    if template is None:
        return _nested(field, shapes) if field in JSON_FIELDS else lambda values: values.get(field)
    if isinstance(template, Template):
        return template.value if field in JSON_FIELDS else template.render
    return _assembled(field, template)


def _assembled(field: str, parts: Mapping[str, Template]) -> Read:
    values_of = tuple((name, part.value) for name, part in parts.items())

    def read(values: Mapping[str, Any]) -> dict[str, Any] | None:
        found, faults = {}, []
        for name, value_of in values_of:
            try:
                value = value_of(values)
            except UnknownValueError as exc:
                faults.append(Fault(f"{field}.{name}", str(exc), exc.value, exc.where))
            else:
                if value is not None:
                    found[name] = value
        if faults:
            raise UnfitError(faults)
        return found or None

    return read


def _nested(field: str, shapes: Shapes) -> Read:
    def read(values: Mapping[str, Any]) -> Any:
        shape = shapes.of(values)
        if field in shape.absent:
            return None
        whole = values.get(field)
        document: dict[str, Any]
        if (flat := shape.flat.get(field)) is not None:
            document = {name: value for column, name in flat if (value := values[column]) is not None and value != ""}
        else:
            document = {}
            for column, path in shape.parts[field]:
                if (value := values[column]) is not None and value != "":
                    _place(document, path, value)
        if whole is None or whole == "":
            return document or None
        if document:
            raise ValueError(f'is given whole and as "{field}.…"')
        return whole

    return read


class _Branch(dict[str, Any]):
    """An object that dotted columns make; one that a record brings is a value, and is not added to."""


def _place(document: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    *steps, last = path
    for step in steps:
        document = document.setdefault(step, _Branch())
        if not isinstance(document, _Branch):
            raise ValueError(f'has a value at "{shown(step)}" and one below it')  # noqa: TRY004 - a bad value, not a bad call
    if last in document:
        raise ValueError(f'has a value at "{shown(last)}" and one below it')
    document[last] = value
