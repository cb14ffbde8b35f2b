"""The vocabulary that all rooms share: rows, answers, verdicts, outcomes and their tally. Pure values, no IO.

A row travels: `Record` (as read) → `Row` (as it will be sent) → `Answer` (what came back) → `Verdict` (what that
means) → `Outcome` (what is true of the row from now on).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Any, NamedTuple


class State(StrEnum):
    """What the ledger knows of a row. The names are part of the contract."""

    STARTED = "started"
    CREATED = "created"
    EXISTED = "existed"
    REJECTED = "rejected"
    PARKED = "parked"
    WAIVED = "waived"
    FAILED = "failed"
    IN_DOUBT = "in_doubt"
    CLOSED = "closed"


# ---- rows -----------------------------------------------------------------------------------------------------------


class Problem(NamedTuple):
    """Why a row is rejected before it is sent: a stable code, and a sentence that names every bad field."""

    code: str
    reason: str


class Record(NamedTuple):
    """One input record as it was read.

    line: the number of the record's first line in its file, from 1. text: the record as it stands in the file, line
    end included, in the file's own quoting. values: column → value; None when the record could not be read, and then
    `problem` says why.
    """

    line: int
    text: str
    values: Mapping[str, Any] | None
    problem: Problem | None = None


class Row(NamedTuple):
    """One participant to be added, ready to be sent.

    key: what makes it the same row in any file. fingerprint: 16 bytes, the digest of the canonical request. body: the
    form-encoded request body. source: the number of the input in this ledger; line and text: as in `Record`.
    number: the row's own number in the ledger when it was taken from there, 0 when it was read from an input.
    """

    key: str
    fingerprint: bytes
    source: int
    line: int
    interaction_sid: str
    channel_sid: str
    type: str
    body: bytes
    text: str
    number: int = 0


class Misfit(NamedTuple):
    """One record that cannot become a row, for a reason found here. Recomputed at every reading, never a barrier."""

    key: str | None
    source: int
    line: int
    problem: Problem
    text: str


# ---- answers --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reply:
    """A complete HTTP response. retry_after_seconds: what Retry-After asks for, if it came and could be read."""

    status: int
    body: bytes
    request_id: str | None = None
    retry_after_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class NotSent:
    """The request certainly never left: no connection was made."""

    reason: str


@dataclass(frozen=True, slots=True)
class Lost:
    """The request left, or may have left, and no complete answer came back: the service may have acted on it."""

    reason: str


Answer = Reply | NotSent | Lost


# ---- lists ----------------------------------------------------------------------------------------------------------


class Listed(NamedTuple):
    """One participant as the API lists it; each part may be missing. There is no address and no date [spec]."""

    sid: str | None
    type: str | None
    routing: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Listing:
    """All participants of a channel, from all pages."""

    participants: tuple[Listed, ...]


@dataclass(frozen=True, slots=True)
class Unlisted:
    """The channel could not be listed. refused: asking again, or for another channel, would get the same answer.

    missing: this channel is not found. throttled: everybody has to slow down.
    """

    reason: str
    refused: bool = False
    missing: bool = False
    throttled: bool = False
    retry_after_seconds: float | None = None


# ---- outcomes and verdicts ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Created:
    """The participant exists and this is its sid."""

    sid: str


@dataclass(frozen=True, slots=True)
class Existed:
    """The API says that it is a member already: the wanted state is there, with no sid of ours."""

    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class Rejected:
    """A definite no, final until the row changes. closes_channel: no other row of its channel can succeed either."""

    code: str
    reason: str
    closes_channel: bool = False


@dataclass(frozen=True, slots=True)
class Parked:
    """Not sent, because its channel is closed, gone or full."""

    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class Failed:
    """Certainly not created, and nothing wrong with the row: it is sent again next time.

    forbidden: a plain 403, which halts the run when a second channel gets one too.
    stranger: the answer was not the API's own (a proxy's page, say).
    """

    code: str
    reason: str
    forbidden: bool = False
    stranger: bool = False


@dataclass(frozen=True, slots=True)
class InDoubt:
    """It may or may not exist; it is never sent again before that is known. stranger: as in `Failed`."""

    code: str
    reason: str
    stranger: bool = False


Outcome = Created | Existed | Rejected | Parked | Failed | InDoubt

NOT_SENT = Failed("not_sent", "the run was stopped before it left")
"""The outcome of a row whose intent is on record and whose first attempt never began."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Certainly not processed: worth another attempt.

    after_seconds: how long the service asked us to wait, or None. throttled: everybody has to slow down, not just
    this row.
    """

    code: str
    reason: str
    after_seconds: float | None = None
    throttled: bool = False


@dataclass(frozen=True, slots=True)
class Halt:
    """Every other row would meet the same wall: stop the run. This row was not created."""

    code: str
    reason: str


Verdict = Outcome | Retry | Halt


@dataclass(frozen=True, slots=True)
class Settlement:
    """An outcome with the facts of how it came about.

    http_status and request_id: of the last answer, if there was one. attempts: requests that left or may have left.
    ends_doubt: the row is in doubt until this. reconciled: the sid was found by listing.
    """

    key: str
    outcome: Outcome
    http_status: int | None = None
    attempts: int = 0
    request_id: str | None = None
    ends_doubt: bool = False
    reconciled: bool = False


def state_of(outcome: Outcome) -> State:
    """Return the state in which the ledger keeps this outcome."""
    return _STATES[type(outcome)]


_STATES: dict[type[Outcome], State] = {
    Created: State.CREATED,
    Existed: State.EXISTED,
    Rejected: State.REJECTED,
    Parked: State.PARKED,
    Failed: State.FAILED,
    InDoubt: State.IN_DOUBT,
}


# ---- the account of a run -------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Tally:
    """Where every input row went, in rows; below the line, what it took.

    input_rows is None when the input cannot be counted first (stdin). last_request: when the last request left, in
    seconds since 1970. settled: rows that this run brought to a state, as the ledger counts them. earlier: those among
    them that were left over from earlier runs.
    """

    input_rows: int | None = None
    read: int = 0
    created: int = 0
    existed: int = 0
    already_done: int = 0
    duplicate: int = 0
    rejected: int = 0
    parked: int = 0
    waived: int = 0
    failed: int = 0
    in_doubt: int = 0
    not_sent: int = 0

    changed: int = 0
    requests: int = 0
    retries: int = 0
    throttled: int = 0
    in_flight: int = 0
    last_request: float | None = None
    settled: dict[State, int] = field(default_factory=dict)
    earlier: dict[State, int] = field(default_factory=dict)

    @property
    def unread(self) -> int:
        """Rows of the input that this run did not read."""
        return 0 if self.input_rows is None else self.input_rows - self.read

    @property
    def accounted(self) -> int:
        """Rows that were read and have a place in the account."""
        return sum(getattr(self, name) for name in BUCKETS)

    def settle(self, outcome: Outcome, *, of_input: bool = True) -> None:
        """Count a row that this run brought to an outcome; one that was stopped before it left is not sent.

        of_input: whether the row is one of the input's; rows that were left over from earlier runs are counted aside.
        """
        self._count(outcome, 1, of_input=of_input)

    def add(self, bucket: str, rows: int = 1) -> None:
        """Count rows of the input in a bucket."""
        setattr(self, bucket, getattr(self, bucket) + rows)

    def remain_in_doubt(self, rows: int) -> None:
        """Count rows that earlier runs left in doubt and that stay so; this run brought them to no state."""
        if rows:
            self.earlier[State.IN_DOUBT] = self.earlier.get(State.IN_DOUBT, 0) + rows

    def unsettle(self, outcome: Outcome, *, of_input: bool = True) -> None:
        """Take back what `settle` counted: the row goes on to another outcome."""
        self._count(outcome, -1, of_input=of_input)

    def _count(self, outcome: Outcome, by: int, *, of_input: bool) -> None:
        state = state_of(outcome)
        self.settled[state] = self.settled.get(state, 0) + by
        if not self.settled[state]:
            del self.settled[state]
        if of_input:
            self.add("not_sent" if outcome == NOT_SENT else state.value, by)
        else:
            self.earlier[state] = self.earlier.get(state, 0) + by

    def holds(self) -> bool:
        """Tell whether input = the sum of all outcomes + unread."""
        return self.read == self.accounted and self.unread >= 0


BUCKETS = (
    "created",
    "existed",
    "already_done",
    "duplicate",
    "rejected",
    "parked",
    "waived",
    "failed",
    "in_doubt",
    "not_sent",
)
"""The outcomes of the identity, in the order in which they are shown; `unread` completes them."""


class Exit(IntEnum):
    """What a command's exit code says. Part of the contract."""

    DONE = 0
    BAD_ROWS = 1
    USAGE = 2
    HALTED = 3
    DOUBT = 4
    HELD = 5
    STOPPED = 6
    BUG = 70
    SIGHUP = 129
    SIGINT = 130
    SIGTERM = 143

    @property
    def meaning(self) -> str:
        """One sentence for people."""
        return _MEANINGS[self]


_MEANINGS = {
    Exit.DONE: "finished, every row is done",
    Exit.BAD_ROWS: "finished; some rows were rejected, parked or failed",
    Exit.USAGE: "usage or configuration; nothing was sent",
    Exit.HALTED: "halted; every row is intact, run it again",
    Exit.DOUBT: "finished; some rows are in doubt",
    Exit.HELD: "another run holds the ledger",
    Exit.STOPPED: "stopped as asked; run it again to go on",
    Exit.BUG: "a bug in flex-import",
    Exit.SIGHUP: "stopped by SIGHUP, everything recorded",
    Exit.SIGINT: "stopped by SIGINT, everything recorded",
    Exit.SIGTERM: "stopped by SIGTERM, everything recorded",
}


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a run ends before its input does. reason: a sentence for people."""

    exit: Exit
    reason: str
