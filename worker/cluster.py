"""Clusters: rows that need something for the same reason, under an id that stays the same. Pure.

`check`, `failures`, `retry --group` and `waive --group` all mean the same rows by the same id.
"""

import re
from collections.abc import Iterable
from hashlib import blake2b
from typing import NamedTuple

from worker.wording import NOTHING_GIVEN, Given

_SHORTEST = 4

_ONE_FIELD = re.compile(r"(\w+(?:\.[^:;]+)?): ([^;]+)")
"""`field: problem`. A second field follows a semicolon; what is said of a whole record begins with several words."""

_RETRY = "send its rows again"
"""Advice that ends so is followed by a command that does it."""

_LOOKED_UP = re.compile(r" a value that lookup\.\S+ (does not have|has twice)")
_LOOKUP_ADVICE = {
    "does not have": "add the value to the lookup's file, or correct it in the input",
    "has twice": "keep one of the two in the lookup's file",
}

_CHANNEL = {
    # by Twilio's code: what to do about a channel that takes nobody, for who was refused there and who was parked
    "404": "correct the sids in the file",
    "20404": "correct the sids in the file",
    "45006": "correct the sids in the file",
    "45354": f"open it again, then {_RETRY}",
    "45376": "name another channel in the file",
    "50417": f"make room in it, then {_RETRY}",
    "50418": f"make room in it, then {_RETRY}",
    "50422": f"make room in it, then {_RETRY}",
}

_ADVICE = {
    **{(state, code): advice for state in ("rejected", "parked") for code, advice in _CHANNEL.items()},
    ("rejected", "key_conflict"): "give one of the two another key, or drop it",
    ("failed", "pruned"): "give the files that hold them to flex-import run once more",
    ("failed", "undone"): "give the files that hold them to flex-import run once more",
    ("failed", "403"): "allow it to this account; the next run sends them",
    ("failed", "20403"): "allow it to this account; the next run sends them",
}

_ADVICE_OTHERWISE = {
    "rejected": "repair it in the file",
    "parked": f"once it takes people, {_RETRY}",
    "failed": "nothing to do: the next run sends them",
    "in_doubt": "look at its candidates",
}


class Cluster(NamedTuple):
    """Rows in one state for one reason.

    id: 16 hexadecimal digits; short: its beginning, as people see it. places: input and line of the first few; detail:
    the first one's own part of the reason, its values masked.
    """

    id: str
    short: str
    state: str
    code: str
    reason: str
    rows: int
    places: tuple[tuple[str, int], ...]
    detail: str | None = None

    @property
    def local(self) -> bool:
        """Whether its rows were rejected before they were sent: the service's codes are numbers, ours are words."""
        return self.state == "rejected" and not self.code.isdigit()

    @property
    def why(self) -> str:
        """The reason, behind the service's code if it is the service's."""
        return f"{self.code} {self.reason}" if self.code.isdigit() else self.reason

    @property
    def field(self) -> str | None:
        """The field that kept its rows from being sent; None when it was not just one."""
        found = _ONE_FIELD.fullmatch(self.reason) if self.local else None
        return found.group(1) if found else None

    @property
    def problem(self) -> str:
        """What is wrong with the field; all of the reason when it is not just one field's."""
        return self.reason if self.field is None else self.reason.removeprefix(f"{self.field}: ")

    @property
    def advice(self) -> str:
        """What to do about it, in one short sentence."""
        if self.local and (found := _LOOKED_UP.search(self.reason)):
            return _LOOKUP_ADVICE[found.group(1)]
        return _ADVICE.get((self.state, self.code)) or _ADVICE_OTHERWISE[self.state]

    def command(self, given: Given = NOTHING_GIVEN) -> str:
        """Return the command that carries the advice out; "" when it takes a person's hand."""
        if self.state == "in_doubt":
            return given.command("failures", "--state in_doubt")
        return given.command("retry", f"--group {self.short}") if self.advice.endswith(_RETRY) else ""

    @property
    def where(self) -> str:
        """Its places, with the detail behind the first one; an input is not named again for its next line."""
        named, before = [], None
        for path, line in self.places:
            named.append(f":{line}" if path == before else f"{path}:{line}")
            before = path
        detail = f" ({self.detail})" if self.detail else ""
        return ", ".join([named[0] + detail, *named[1:]])


def cluster_id(state: str, code: str, reason: str) -> str:
    """Return 16 hexadecimal digits that depend on nothing but these three."""
    return blake2b(f"{state}\0{code}\0{reason}".encode("utf-8", "replace"), digest_size=8).hexdigest()


def short_ids(ids: Iterable[str]) -> dict[str, str]:
    """Return id → the beginning that people see: at least 4 digits, and enough to tell it from the others."""
    ordered = sorted(set(ids))
    shown = {}
    for before, one, after in zip(["", *ordered], ordered, [*ordered[1:], ""], strict=False):
        length = _SHORTEST
        while length < len(one) and one[:length] in {before[:length], after[:length]}:
            length += 1
        shown[one] = one[:length]
    return shown
