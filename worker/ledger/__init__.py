"""The ledger: what is true of every row, durable before anybody moves on.

This is its door: the protocol that every ledger keeps (`tests/ledger_contract.py` is its proof) and the values that
pass through it. `sqlite` is the one for one host.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple, Protocol

from worker.model import Row, Settlement, State


class SourceFile(NamedTuple):
    """An input as it is read: with header and dialect, so that its records can be written back as they were."""

    path: str
    format: str
    encoding: str
    delimiter: str
    header: str


@dataclass(frozen=True, slots=True)
class Intent:
    """A row is about to be sent. `write` answers with its number in the ledger, or with what forbids sending it."""

    row: Row


@dataclass(frozen=True, slots=True)
class Settle:
    """What became of a row. number: as `write` answered its intent."""

    number: int
    settlement: Settlement


@dataclass(frozen=True, slots=True)
class Finding:
    """What reading found out about a record that is not sent: kind is rejected, duplicate or changed."""

    kind: str
    source: int
    line: int
    key: str | None
    code: str
    reason: str
    record: str | None = None


Entry = Intent | Settle | Finding


class Known(NamedTuple):
    """What the ledger holds for a key. source: the input's number in the ledger; line: where the row stood in it."""

    key: str
    fingerprint: bytes
    state: State
    source: int
    line: int


class Standing(Enum):
    """What the ledger means for a row that is read (again)."""

    SEND = "send"
    ALREADY_DONE = "already_done"
    REJECTED = "rejected"
    PARKED = "parked"
    WAIVED = "waived"
    IN_DOUBT = "in_doubt"


_STANDING = {
    State.STARTED: Standing.IN_DOUBT,
    State.CREATED: Standing.ALREADY_DONE,
    State.EXISTED: Standing.ALREADY_DONE,
    State.REJECTED: Standing.REJECTED,
    State.PARKED: Standing.PARKED,
    State.WAIVED: Standing.WAIVED,
    State.FAILED: Standing.SEND,
    State.IN_DOUBT: Standing.IN_DOUBT,
    State.CLOSED: Standing.ALREADY_DONE,
}


def standing_of(known: Known | None, fingerprint: bytes) -> Standing:
    """Decide what to do with a row of this content, given what the ledger holds for its key.

    A refusal ends when the content changes; what was sent, or may have been, is never overwritten by input.
    """
    if known is None:
        return Standing.SEND
    if known.fingerprint != fingerprint and known.state in {State.REJECTED, State.PARKED}:
        return Standing.SEND
    return _STANDING[known.state]


class Ledger(Protocol):
    """The writing side, for one run at a time. Every method raises LedgerError when the ledger cannot be written."""

    def start_run(self, command: str) -> int:
        """Record that a run begins and return its number."""
        ...

    def end_run(self, exit_code: int, reason: str, summary: str) -> None:
        """Record how the run ended. summary: its account as JSON."""
        ...

    def register(self, source: SourceFile) -> int:
        """Return the number of an input; the same input as before keeps its number."""
        ...

    def write(self, group: Sequence[Entry]) -> list[int | Known | None]:
        """Make a group durable in one commit: all of it or nothing.

        Returns, in the group's order, for an intent its number or the `Known` that forbids it; None for the others.
        """
        ...

    def supersede(self, source: int, through_line: int) -> None:
        """Retire the earlier findings about an input up to a line that this run has read again."""
        ...

    def settled_by_run(self) -> dict[State, int]:
        """Return how many rows this run brought to each state, counted in the ledger itself."""
        ...

    def channels_in_doubt(self) -> set[str]:
        """Return the channels that hold a row in doubt: nothing more may be sent to them."""
        ...

    def close(self) -> None:
        """Give the ledger back."""
        ...
