"""The ledger: what is true of every row, durable before anybody moves on.

This is its door: the protocol that every ledger keeps (`tests/ledger_contract.py` is its proof) and the values that
pass through it. `sqlite` is the one for one host.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from hashlib import blake2b
from math import inf
from typing import NamedTuple, Protocol

from worker.model import InDoubt, Row, Sample, Settlement, State, comparable


class SourceFile(NamedTuple):
    """An input as it is read: with header and dialect, so that its records can be written back as they were.

    profile: whose rules it is read by; "" for those of none. byte_order_mark: that it begins with, in hexadecimal, ""
    without one; None when it is not known.
    """

    path: str
    format: str
    encoding: str
    delimiter: str
    header: str
    profile: str = ""
    byte_order_mark: str | None = None

    @property
    def identity(self) -> tuple[str, ...]:
        """What tells it from every other input; the rest is how it was read the last time."""
        return (self.path, self.format, self.encoding, self.delimiter, self.header)


@dataclass(frozen=True, slots=True)
class Intent:
    """A row is about to be sent. `write` answers with its number in the ledger, or with what forbids sending it.

    baseline_first: answer BASELINE_FIRST, and record nothing, when its channel has no baseline of this run, or one that
    is older than baseline_seconds or does not hold any more.
    """

    row: Row
    baseline_first: bool = False
    baseline_seconds: float = inf


@dataclass(frozen=True, slots=True)
class Baseline:
    """The participants that a row's channel has before this run's next create in it.

    What lists showed before stays part of it: a list may leave somebody out. sids: None when they are not known, and an
    earlier baseline does not hold any more either.
    """

    row: Row
    sids: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Reopen:
    """A row in doubt was certainly not created and is about to be sent again: its intent. sids: the channel's now."""

    number: int
    row: Row
    sids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Look:
    """A look at a row in doubt that did not decide it. candidates: sids that may be its participant."""

    number: int
    reason: str
    candidates: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Decision:
    """What a person decided about a row. by: who; decision: created or not_created; sid: of the created one."""

    number: int
    by: str
    decision: str
    sid: str | None = None


class Why(NamedTuple):
    """What rows have in common, beside their state, that make one cluster."""

    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class Waive:
    """A person signs a cluster off: rows that are rejected, parked or failed, and records that were rejected unsent.

    by: who; reason: theirs. `write` answers with how many there were.
    """

    state: State
    why: Why
    by: str
    reason: str


@dataclass(frozen=True, slots=True)
class Unwaive:
    """A person takes the waivers of a group back: its rows are what they were before, its records are read anew.

    state: of the rows before they were waived. by: the person. `write` answers with the number of rows and records.
    """

    state: State
    why: Why
    by: str


class Verified(Enum):
    """What a list says about the participant of a created row.

    DEPARTED: it is listed, with a status that says that it has left. ABSENT: it is not in the first list; the second
    one decides. NOT_LISTABLE: its channel cannot be listed.
    """

    CONFIRMED = "confirmed"
    DEPARTED = "departed"
    ABSENT = "absent"
    MISSING = "missing"
    NOT_LISTABLE = "not_listable"


@dataclass(frozen=True, slots=True)
class Verification:
    """What `verify` found out about a created row. number: the row's. detail: the listed status, or a reason."""

    number: int
    result: Verified
    detail: str | None = None


class Member(NamedTuple):
    """A created row, whose participant should be in its channel. place: its input and line."""

    number: int
    key: str
    sid: str
    place: str
    interaction_sid: str
    channel_sid: str

    @property
    def channel(self) -> str:
        """Its channel in the form in which channels are compared."""
        return comparable(self.channel_sid)


@dataclass(frozen=True, slots=True)
class Settle:
    """What became of a row. number: as `write` answered its intent.

    A created row whose sid is known already got the answer of another request: it is recorded as in doubt
    (`KNOWN_SID`), and `write` answers SID_KNOWN. Known are the sids of all rows, those that undo closed, and those of
    the channel's baseline. A doubt that would end with such a sid stays as it is.
    """

    number: int
    settlement: Settlement


KEY_CONFLICT = "key_conflict"
"""The code of a record whose key another record of the same input has: that key is not its own."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What reading found out about a record that is not sent: kind is rejected, duplicate or changed.

    reason: the same for all records with this problem, so that they make one group. detail: this record's own part.
    repairs: the `ref` of an earlier finding, or the key of a row, that the record says it repairs.
    """

    kind: str
    source: int
    line: int
    key: str | None
    code: str
    reason: str
    record: str | None = None
    detail: str | None = None
    repairs: str = ""

    @property
    def ref(self) -> str | None:
        """What a rejected record is known by in whatever input: what it repairs, its key, or its digest."""
        if self.kind != "rejected":
            return None
        if self.repairs:
            return self.repairs
        if self.key is not None and self.code != KEY_CONFLICT:
            return self.key
        return None if self.record is None else record_digest(self.record).hex()


@dataclass(frozen=True, slots=True)
class Repair:
    """A record repairs what was rejected under another key. ref: as of `Finding`; key: of the row that it became."""

    ref: str
    key: str


@dataclass(frozen=True, slots=True)
class Thin:
    """Every second sample of the run is dropped."""


@dataclass(frozen=True, slots=True)
class Close:
    """A participant of ours was closed: its row is closed, too. number, key: of a row that is created."""

    number: int
    key: str


@dataclass(frozen=True, slots=True)
class Free:
    """Closed rows may be sent again once an input has them. `write` answers with how many there were."""


@dataclass(frozen=True, slots=True)
class FreePruned:
    """The same of rows in these states, and of this cluster if one is named, whose records have been pruned."""

    states: Sequence[State]
    why: "Why | None" = None


class Fence(NamedTuple):
    """Who may write for a chunk: the holder of this job, as long as it was taken this often."""

    job: int
    taken: int


@dataclass(frozen=True, slots=True)
class Fenced:
    """An entry of a chunk. `write` answers FENCED, and records nothing of it, when another worker has the chunk."""

    entry: "Entry"
    fence: Fence


Rare = Look | Decision | Waive | Unwaive | Verification | Sample | Thin | Close | Free | FreePruned
Entry = Intent | Settle | Finding | Repair | Baseline | Reopen | Rare | Fenced


class Asked(Enum):
    """What `write` may say instead of recording an entry as it is."""

    BASELINE_FIRST = "baseline_first"
    FENCED = "fenced"
    SID_KNOWN = "sid_known"


BASELINE_FIRST = Asked.BASELINE_FIRST
FENCED = Asked.FENCED
SID_KNOWN = Asked.SID_KNOWN

KNOWN_SID = InDoubt("known_sid", "the answer of another request (its participant was known before): may exist")


class Surroundings(NamedTuple):
    """What the ledger knows about the channel of a row in doubt.

    known: sids of all rows in it. baseline: its participants before the run that sent the row, None when they were not
    listed. unresolved: how many rows of it are in doubt. seen: sids that an earlier look at the row has shown.
    """

    known: frozenset[str]
    baseline: frozenset[str] | None
    unresolved: int
    seen: frozenset[str] = frozenset()


class Known(NamedTuple):
    """What the ledger holds for a key. source: the input's number in the ledger; line: where the row stood in it.

    of_this_run: this run brought it to its state, before the input had it.
    """

    key: str
    fingerprint: bytes
    state: State
    source: int
    line: int
    of_this_run: bool = False


class Standing(Enum):
    """What the ledger means for a row that is read (again)."""

    SEND = "send"
    ALREADY_DONE = "already_done"
    CLOSED = "closed"
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
    State.CLOSED: Standing.CLOSED,
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


def record_digest(record: str) -> bytes:
    """Return what a waiver remembers of a record: 16 bytes, the same with whatever line end, and with none."""
    return blake2b(record.rstrip("\r\n").encode(), digest_size=16).digest()


class Shelf(Protocol):
    """What the rows at hand are asked about while they are sent. Every method raises LedgerError when it cannot be."""

    def surroundings(self, number: int) -> Surroundings:
        """Return what is known about the channel of a row."""
        ...

    def stored(self, states: Sequence[State], after: int, limit: int, why: Why | None = None) -> list[Row]:
        """Return rows of earlier runs in these states from their stored records, by number, from the one after `after`.

        why: only those with this code and reason. Their `number` is set.
        """
        ...

    def supersede(self, source: int, through_line: int) -> None:
        """Retire the earlier findings about an input up to a line that this run has read again."""
        ...

    def channels_in_doubt(self) -> dict[str, set[str]]:
        """Return channel → keys of its rows in doubt: nothing more may be sent to it."""
        ...


class Ledger(Shelf, Protocol):
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

    def write(self, group: Sequence[Entry]) -> list[int | Known | Asked | None]:
        """Make a group durable in one commit: all of it or nothing.

        Returns, in the group's order, for an intent its number, the `Known` that forbids it, or what has to come first;
        for an outcome SID_KNOWN if it was recorded as in doubt; for `Waive`, `Unwaive`, `Free` the number of its rows;
        None for the others.
        """
        ...

    def settled_by_run(self) -> dict[State, int]:
        """Return how many rows this run brought to each state, counted in the ledger itself."""
        ...

    def close(self) -> None:
        """Give the ledger back."""
        ...
