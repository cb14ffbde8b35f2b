"""What is wrong with a record, fault by fault, and how a value is shown: masked, as it may be somebody's name. Pure."""

from collections.abc import Sequence
from typing import NamedTuple

from worker.model import Problem

NAMED_FIELDS = 10
"""So many unknown fields of a record are named; of the others only the number is told."""

_NAME_CHARACTERS = 60
_HIDDEN = "***"
_HEAD = 3
_LONG = 8
_TAIL = 2


class Fault(NamedTuple):
    """One fault of a record. path: the field, and the key in it. rule: what is wrong, to follow the path.

    value: what stands there, None when nothing does, or nothing that helps. where: places that help to find out.
    """

    path: str
    rule: str
    value: str | None = None
    where: str | None = None

    @property
    def shown(self) -> str | None:
        """This record's own part of it: the value, masked."""
        shown = "" if self.value is None else mask(self.value)
        value = f'{self.path} is "{shown}"' if shown.strip(_HIDDEN) else None
        return ", ".join(filter(None, (value, self.where))) or None

    @property
    def said_once(self) -> str | None:
        """What is said once for all fields that it breaks: what is wrong with a column's value; None of others."""
        return self.rule if self.rule.startswith("column ") else None

    @property
    def sentence(self) -> str:
        """Path and rule: the same for all records with this fault."""
        return f"{self.path}: {self.rule}"


class UnfitError(Exception):
    """The record, or a field of it, cannot become what is sent. faults: all that is wrong; code: of the problem."""

    def __init__(self, faults: Sequence[Fault], code: str = "invalid") -> None:
        super().__init__()
        self.faults = faults
        self.code = code

    @property
    def problem(self) -> Problem:
        """What is said of the record."""
        reason = "; ".join(_sentences(self.faults))
        shown: dict[str | int, str] = {}
        for number, fault in enumerate(self.faults):
            if fault.shown:
                shown.setdefault(fault.said_once or number, fault.shown)
        return Problem(self.code, reason, "; ".join(dict.fromkeys(shown.values())) or None)


def strange(names: Sequence[str]) -> list[Fault]:
    """Return the faults of a record with fields that no participant has."""
    faults = [Fault(shown(name), "is no field of a participant") for name in names[:NAMED_FIELDS]]
    more = names[NAMED_FIELDS:]
    return faults + [Fault("and more", "are no fields of a participant")] * bool(more)


def shown(name: str) -> str:
    """Return a name of the record's own so that a reason with it stays short."""
    return name if len(name) <= _NAME_CHARACTERS else f"{name[:_NAME_CHARACTERS]}…"


def _sentences(faults: Sequence[Fault]) -> list[str]:
    """Return what is wrong; what a column's value breaks in several fields is said once."""
    paths: dict[str, list[str]] = {}
    for fault in faults:
        paths.setdefault(fault.said_once or fault.sentence, []).append(fault.path)
    return [f"{_listed(named)}: {rule}" if rule.startswith("column ") else rule for rule, named in paths.items()]


def _listed(names: Sequence[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def mask(text: str) -> str:
    """Return the beginning of a text, at most a third of it, and its last digits if it is long and ends in some.

    As much of a value as helps to find it in a file, and no more.
    """
    head = text[: min(_HEAD, len(text) // 3)]
    tail = text[-_TAIL:] if len(text) >= _LONG and text[-_TAIL:].isdecimal() else ""
    return f"{head}{_HIDDEN}{tail}"
