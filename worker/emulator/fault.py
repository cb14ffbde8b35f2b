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

    RESET = "reset"  # TCP RST
    HANG = "hang"  # no byte for `hang_seconds`, then closed
    SERVER_ERROR = "server_error"  # 500 with 20500
    UNAVAILABLE = "unavailable"  # 503 with 20503
    BAD_GATEWAY = "bad_gateway"  # 502 with HTML, as a gateway sends it
    TRUNCATED = "truncated"  # a Content-Length longer than what follows, then closed
    EMPTY = "empty"  # 2xx without a body
    NULL_SID = "null_sid"  # 2xx whose sid is null, which the API allows [card]
    GARBAGE = "garbage"  # 2xx that is no JSON
    REDIRECT = "redirect"  # 307 to a place where the emulator counts who follows


class When(StrEnum):
    """On which side of the making of the participant the client is let down."""

    BEFORE = "before"  # nothing is made
    AFTER = "after"  # it is made, then the client is let down
    LATE = "late"  # the client is let down, and it is made `late_seconds` later


PRESUPPOSES_MAKING: Final = frozenset({Fault.NULL_SID, Fault.TRUNCATED})


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


def forbid_before(fault: Fault) -> None:
    """Raise ValueError when this fault only makes sense once a participant is made."""
    if fault in PRESUPPOSES_MAKING:
        raise ValueError(f"the fault {fault} presupposes that the participant was made: it cannot come before")


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
