"""Clusters: rows that need something for the same reason, under an id that stays the same. Pure.

`check`, `failures`, `retry --cluster` and `waive --cluster` all mean the same rows by the same id.
"""

from collections.abc import Iterable
from hashlib import blake2b

_SHORTEST = 4


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
