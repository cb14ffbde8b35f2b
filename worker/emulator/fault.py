"""What may go wrong with one request, and the words to script it with."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final


class Call(StrEnum):
    """The calls of the Flex API that the emulator knows, so that a script or a refusal can name one."""

    CREATE = "create"
    LIST = "list"
    UPDATE = "update"
    CHANNEL = "channel"


class Fault(StrEnum):
    """How the network or the service lets a client down instead of answering it."""

    # The connection breaks, or what comes over it is not HTTP that a client can read.
    RESET = "reset"  # TCP RST
    HANG = "hang"  # no byte for `hang_seconds`, then closed
    TRUNCATED = "truncated"  # a Content-Length longer than what follows, then closed
    BAD_STATUS_LINE = "bad_status_line"
    BAD_CHUNK = "bad_chunk"  # a chunk without a length; the connection stays open for `hang_seconds`
    CUT_HEADERS = "cut_headers"  # closed in the middle of a header
    HUGE_HEADERS = "huge_headers"  # one of 256 KiB
    ENDLESS_CONTINUE = "endless_continue"  # `100 Continue` again and again, for `hang_seconds`

    # The answer says something else than what happened.
    SERVER_ERROR = "server_error"  # 500 with 20500
    UNAVAILABLE = "unavailable"  # 503 with 20503
    BAD_GATEWAY = "bad_gateway"  # 502 with HTML, as a gateway sends it
    MISCODED = "miscoded"  # 5xx with one of Twilio's codes that mean a definite no: 20404, 20409, 20429, 45004, 50433
    STRANGERS_PAGE = "strangers_page"  # 400, 403, 409, 451 or 499 of a gateway: HTML, or JSON of Spring or gRPC
    DEEP_JSON = "deep_json"  # 400 with 20001 and details that are nested 100,000 deep
    LONG_MESSAGE = "long_message"  # 500 with a message of 900 kB
    REDIRECT = "redirect"  # 307 to a place where the emulator counts who follows

    # The answer is a success that says too little.
    EMPTY = "empty"  # 2xx without a body
    NULL_SID = "null_sid"  # 2xx whose sid is null, which the API allows [card]
    GARBAGE = "garbage"  # 2xx that is no JSON
    PORTAL_PAGE = "portal_page"  # 200 with the HTML of a captive portal
    ERROR_BODY = "error_body"  # 2xx with an error of Twilio's as its body

    # Creates: the answer is another request's, or names another participant. Where there is none to name: 500.
    SWAPPED = "swapped"  # exchanged with that of the next create in another channel; ordinary after `hang_seconds`
    PREVIOUS = "previous"  # the success before it on this connection, of whatever call
    CACHED_HERE = "cached_here"  # the 201 of the create before it in this channel
    CACHED_ELSEWHERE = "cached_elsewhere"  # the 201 of the last create in another channel
    LISTED_SID = "listed_sid"  # a 201 that fits, with the sid of somebody who was in the channel's list before
    FOREIGN_SID = (
        "foreign_sid"  # a 201 that fits, with the sid of the first create that was answered in another channel
    )
    UNRECORDED_SID = "unrecorded_sid"  # the same of the last one, whose own answer may be lost
    ALREADY_MEMBER = "already_member"  # 409 with 50433, though nobody was; before: half the time somebody else is now
    STRANGER_JOINS = "stranger_joins"  # reset, and somebody else joins the channel at that moment

    # Lists.
    OTHER_LIST = "other_list"  # the entries of another channel
    HIDDEN_ENTRY = "hidden_entry"  # one entry is missing, and back in the next list; no entry is ever missing twice
    SAME_PAGE = "same_page"  # its next page is itself
    ENDLESS_PAGES = "endless_pages"  # there is always a next page, and it is empty

    # Updates.
    STILL_OPEN = "still_open"  # 200 with the participant and `status: open`


class When(StrEnum):
    """On which side of the making of the participant the client is let down."""

    BEFORE = "before"  # nothing is made
    AFTER = "after"  # it is made, then the client is let down
    LATE = "late"  # the client is let down, and it is made `late_seconds` later


_OF_CREATES: Final = (
    *(Fault.SWAPPED, Fault.PREVIOUS, Fault.CACHED_HERE, Fault.CACHED_ELSEWHERE, Fault.LISTED_SID, Fault.FOREIGN_SID),
    *(Fault.UNRECORDED_SID, Fault.ALREADY_MEMBER, Fault.STRANGER_JOINS),
)
_OF_LISTS: Final = (Fault.OTHER_LIST, Fault.HIDDEN_ENTRY, Fault.SAME_PAGE, Fault.ENDLESS_PAGES)
PRESUPPOSES_MAKING: Final = frozenset({Fault.NULL_SID, Fault.TRUNCATED, Fault.SWAPPED, *_OF_LISTS})
"""Faults for which the call must have been carried out."""

_OF_UPDATES: Final = (Fault.STILL_OPEN,)
_OF_EVERY_CALL: Final = tuple(fault for fault in Fault if fault not in {*_OF_CREATES, *_OF_LISTS, *_OF_UPDATES})

FAULTS: Final = {
    Call.CREATE: _OF_EVERY_CALL + _OF_CREATES,
    Call.LIST: _OF_EVERY_CALL + _OF_LISTS,
    Call.UPDATE: _OF_EVERY_CALL + _OF_UPDATES,
    Call.CHANNEL: _OF_EVERY_CALL,
}
"""The faults that each call may meet."""

UNDECIDABLE: Final = frozenset({Fault.UNRECORDED_SID, Fault.ALREADY_MEMBER, Fault.STRANGER_JOINS, Fault.HIDDEN_ENTRY})
"""Faults after which a client cannot know the truth, as the API tells no addresses and no dates."""


class ErrorShape(StrEnum):
    """The three bodies in which Twilio describes an error [docs, code]."""

    CLASSIC = "classic"  # status, message, code, more_info
    PROBLEM = "problem"  # RFC 9457: type, title, status, code, detail
    ERRORS = "errors"  # a list of code and message


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A reply given word for word. Without `body` it is an error in `shape` (the behaviour's when None)."""

    status: int
    code: int | None = None
    message: str = "Scripted answer"
    shape: ErrorShape | None = None
    body: bytes | None = None
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scripted:
    """What one request will meet. `what=None` is an ordinary answer, which is good for skipping a turn.

    The request waits for `gate` instead of the behaviour's latency: a test can hold a request exactly as long as it
    needs. `late_seconds` overrides the behaviour's. Raises ValueError for a fault that cannot come before the making.
    """

    what: Fault | Answer | None = None
    when: When = When.BEFORE
    gate: asyncio.Event | None = None
    late_seconds: float | None = None

    def __post_init__(self) -> None:
        if self.when is When.BEFORE and isinstance(self.what, Fault):
            forbid_before(self.what)
        if self.late_seconds is not None and self.late_seconds < 0:
            raise ValueError(f"late_seconds is {self.late_seconds}, but time does not run backwards")


ORDINARY: Final = Scripted()


def forbid_for(call: Call, *faults: Fault) -> None:
    """Raise ValueError when one of these faults cannot happen to this call."""
    for fault in faults:
        if fault not in FAULTS[call]:
            raise ValueError(f"the fault {fault} cannot happen to a call of the kind {call}")


def forbid_before(fault: Fault) -> None:
    """Raise ValueError when this fault only makes sense once the call was carried out."""
    if fault in PRESUPPOSES_MAKING:
        raise ValueError(f"the fault {fault} presupposes that the call was carried out: it cannot come before")


def before(what: Fault | Answer, *, gate: asyncio.Event | None = None) -> Scripted:
    """Let the client down with nothing made."""
    return Scripted(what=what, when=When.BEFORE, gate=gate)


def after(what: Fault | Answer, *, gate: asyncio.Event | None = None) -> Scripted:
    """Make the participant, then let the client down."""
    return Scripted(what=what, when=When.AFTER, gate=gate)


def late(what: Fault | Answer, *, seconds: float | None = None, gate: asyncio.Event | None = None) -> Scripted:
    """Let the client down, and make the participant `seconds` later (the behaviour's `late_seconds` when None)."""
    return Scripted(what=what, when=When.LATE, gate=gate, late_seconds=seconds)


def ordinary(*, gate: asyncio.Event | None = None) -> Scripted:
    """Answer as usual, once the gate is open."""
    return Scripted(gate=gate)


def throttled(*, code: int = 45780, retry_after: str | None = None) -> Answer:
    """Answer 429 [docs], with any `Retry-After` text (seconds or an HTTP date), which Flex does not document."""
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    return Answer(status=429, code=code, message="Too many requests", headers=headers)
