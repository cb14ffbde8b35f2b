"""The promises, checked in every state."""

from collections.abc import Sequence

from tests.explore.ledger_state import LedgerState, RowRecord
from tests.explore.world import World
from worker.model import Row

_DENIED = frozenset({"failed", "rejected", "parked"})
"""Rows in these states may be sent again, by a run or after a repair of their record: they must not exist."""


def broken_promise(world: World, held: LedgerState, rows: Sequence[Row], names: dict[str, str]) -> str:
    """Return which promise is broken, in words; nothing if none is. names: key → how people call the row."""
    for row in rows:
        name, ours, kept = names[row.key], world.ours(row.key), held.row(row.key)
        if len(ours) > 1:
            return f"{name} was created twice: {' and '.join(one.name for one in ours)}"
        if kept is None and ours:
            return f"{name} was created, and the ledger does not have it"
        if kept is not None and (wrong := _untrue(world, kept)):
            return f"{name} is recorded as {wrong}"
    return ""


def _untrue(world: World, kept: RowRecord) -> str:
    """Return how the ledger's record of a row is untrue, in words; nothing if it is true."""
    ours = world.ours(kept.key)
    if kept.state == "created" and kept.sid not in {one.sid for one in ours}:
        owner = next((one.name for one in world.people if one.sid == kept.sid), "nobody in this channel")
        return f"created with the sid of {owner}"
    if kept.state == "existed" and not world.of_row(kept.key):
        return "a member, and is none"
    return f"{kept.state}, and exists" if kept.state in _DENIED and ours else ""
