"""What happens to a row. Pure values, no IO.

A row travels: `Record` (as read) → `Draft` (mapped and checked) → `Row` (as it will be sent) → `Answer` (what came
back) → `Verdict` (what that means) → `Outcome` (what is true of the row from now on).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from worker.state import State

# ---- rows -----------------------------------------------------------------------------------------------------------


class Problem(NamedTuple):
    """Why a row is rejected before it is sent: a stable code, and a sentence that names every bad field.

    reason: the same for all records with this problem, never with a value. detail: this record's own part, its values
    masked.
    """

    code: str
    reason: str
    detail: str | None = None


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


REFERENCE = "flex_ref"
"""The column that ties a repaired record to the rejection that it repairs."""

Document = str | dict[str, Any]
"""A JSON object: the text that it was read from, which is kept as it was, or its value."""


class Draft(NamedTuple):
    """One participant to be added, whose form is not made yet: most rows of an input that was sent before need none.

    key, fingerprint, source, line, text: as of `Row`. media, routing: what is sent, as JSON; routing may be
    absent. warnings: what about it is unusual, though it is sent; the same sentence for all such rows. repairs: the
    reference of the rejection that this record repairs, as `export --rejects --with-reasons` gave it; "" for none.
    """

    key: str
    fingerprint: bytes
    source: int
    line: int
    interaction_sid: str
    channel_sid: str
    type: str
    media: Document
    routing: Document | None
    text: str
    warnings: tuple[str, ...] = ()
    repairs: str = ""


class Row(NamedTuple):
    """One participant to be added, ready to be sent.

    key: what makes it the same row in any file. fingerprint: 16 bytes, the digest of the canonical request. body: the
    form-encoded request body. source: the number of the input in this ledger; line and text: as in `Record`.
    number: the row's own number in the ledger when it was taken from there, 0 when it was read from an input. mark: of
    the record and how it was read, as 64 bits, so that the same record is known again before it is mapped; 0 for none.
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
    mark: int = 0

    @property
    def channel(self) -> str:
        """Its channel in the form in which channels are compared."""
        return comparable(self.channel_sid)

    @property
    def path(self) -> str:
        """Where its create is posted to [card]."""
        return f"/v1/Interactions/{self.interaction_sid}/Channels/{self.channel_sid}/Participants"


def comparable(sid: str) -> str:
    """Return a sid as sids are compared: the case of their digits does not matter."""
    return sid[:2] + sid[2:].lower()


class Misfit(NamedTuple):
    """One record that cannot become a row, for a reason found here. Recomputed at every reading, never a barrier.

    repairs: as of `Draft`.
    """

    key: str | None
    source: int
    line: int
    problem: Problem
    text: str
    repairs: str = ""


# ---- answers --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reply:
    """A complete HTTP response. retry_after_seconds: what Retry-After asks for, if it came and could be read.

    concurrent: how many requests the account had under way, if it was told (`Twilio-Concurrent-Requests`).
    """

    status: int
    body: bytes
    request_id: str | None = None
    retry_after_seconds: float | None = None
    concurrent: int | None = None


@dataclass(frozen=True, slots=True)
class NotSent:
    """The request certainly never reached the service: no connection was made, or a proxy of ours refused it.

    misconfigured: a setting makes every request meet the same wall; the reason names it, and what to do.
    """

    reason: str
    misconfigured: bool = False


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
    """All participants of a channel, from all pages.

    statuses: casefolded sid → status, of those that are listed with one. None is documented for lists.
    """

    participants: tuple[Listed, ...]
    statuses: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Unlisted:
    """The channel could not be listed. refused: this caller may not list it (401, 403, 405).

    missing: this channel is not found. throttled: everybody has to slow down. failed: a server error, or no
    answer. unreachable: no connection was made. misconfigured: as in `NotSent`.
    code: the service's own, if there was one.
    """

    reason: str
    refused: bool = False
    missing: bool = False
    throttled: bool = False
    failed: bool = False
    unreachable: bool = False
    misconfigured: bool = False
    code: str = ""
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
    """A definite no, final until the row changes.

    closes_channel: no other row of its channel can succeed either. closes_to_non_chat: none of its non-chat rows can.
    """

    code: str
    reason: str
    closes_channel: bool = False
    closes_to_non_chat: bool = False


@dataclass(frozen=True, slots=True)
class Parked:
    """Not sent, because its channel is closed, gone or full."""

    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class Failed:
    """Certainly not created, and nothing wrong with the row: it is sent again next time.

    forbidden: a plain 403, which halts the run when several channels on end get one.
    stranger: the answer was not the API's own (a proxy's page, say).
    """

    code: str
    reason: str
    forbidden: bool = False
    stranger: bool = False


@dataclass(frozen=True, slots=True)
class InDoubt:
    """It may or may not exist; it is never sent again before that is known.

    stranger: as in `Failed`. throttled: as in `Retry`.
    """

    code: str
    reason: str
    stranger: bool = False
    throttled: bool = False


Outcome = Created | Existed | Rejected | Parked | Failed | InDoubt

NOT_SENT = Failed("not_sent", "the run was stopped before it left")
"""The outcome of a row whose intent is on record and whose first attempt never began."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Certainly not processed: worth another attempt.

    after_seconds: how long the service asked us to wait, or None. throttled: everybody has to slow down, not just
    this row. stranger: as in `Failed`.
    """

    code: str
    reason: str
    after_seconds: float | None = None
    throttled: bool = False
    stranger: bool = False


@dataclass(frozen=True, slots=True)
class Halt:
    """Every other row would meet the same wall: stop the run.

    may_exist: the answer was not the API's own, so this row is in doubt; otherwise it was not created.
    misconfigured: as in `NotSent`; the row counts as not sent.
    """

    code: str
    reason: str
    may_exist: bool = False
    misconfigured: bool = False


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
