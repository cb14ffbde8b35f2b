"""The only place where a status or a code becomes a decision.

One question decides everything: can this row have been created? A code in the body outranks the status. What is
certainly created or certainly refused is settled; what was certainly not processed is tried again; whatever cannot be
known is in doubt, and that is also the default: an answer that nobody foresaw never leads to sending again.

Codes and their meaning are from Twilio's error dictionary [docs] unless marked.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, assert_never
from urllib.parse import parse_qs

from worker.model import (
    Answer,
    Created,
    Existed,
    Failed,
    Halt,
    InDoubt,
    Lost,
    NotSent,
    Rejected,
    Reply,
    Retry,
    Verdict,
)

ALREADY_MEMBER = {
    45206: "is a participant of this channel already",
    50433: "is a participant of this conversation already",
    50437: "is a participant of this conversation already",
}

THROTTLED = {
    20429: "too many requests at once",
    45010: "too many requests",
    45719: "too many requests",
    45780: "over the rate limit of this endpoint",
    50063: "too many participant actions in one conversation",
    50074: "too many requests to one conversation",
}

CONFLICT = {
    20162: "another change is under way",
    20409: "conflict with another change",
    45307: "wrong state for now",
    45308: "wrong state for now",
    45796: "another change of this channel is under way",
}

WALL = {
    20003: "the credentials were refused",
    20005: "the account is not active",
    20006: "access was denied to this account",
    20008: "test credentials cannot do this",
    20010: "the account is suspended",
    45002: "the credentials were refused",
    45003: "the credentials may not do this",
}

CLOSED = {
    20404: "no such interaction or channel",
    45006: "no such interaction or channel",
    45354: "the conversation is closed",
    45376: "the conversation is gone",
    50417: "the conversation is full",
    50418: "the conversation is full",
    50422: "the conversation is full",
}

REFUSED = {
    20001: "a parameter is invalid",
    20413: "the request is too large",
    20422: "a parameter is invalid",
    20423: "the resource is locked",
    45004: "a parameter is invalid or missing",
    45008: "the request was refused",
    45351: "exactly one of identity and address has to be given",
    45366: "the media properties are invalid",
    45367: "the routing properties are invalid",
    45377: "the participant cannot be added to this channel",
    50425: "the participant is invalid",
    50453: "the participant is invalid",
    **dict.fromkeys(range(50407, 50421), "the participant's address or identity was refused"),
}

_NOT_CLOSED = dict.fromkeys(("404", "20404", "45006"), "no such participant: it may be gone already")

UNKNOWABLE = frozenset({20500, 20503, 45001, 45005, 45350, 45361, 45372})
FORBIDDEN = 20403

_SID = re.compile(rb"UT[0-9a-fA-F]{32}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")
_PERSONAL = re.compile(r"[^\s@]+@[^\s@]+|\+?\d[\d\s().-]{5,}\d|\"[^\"]*\"|'[^']*'|\b([A-Z]{2})[0-9a-fA-F]{32}\b")
_REASON_CHARACTERS = 160
_CODE_DIGITS = 6
_TELLING = 3
"""Shorter texts are in too many words of a reason."""

_WORDS_OF_THE_API = frozenset({"type", "level"})
"""Keys of media properties whose values are the API's own words."""


def judge(answer: Answer) -> Verdict:
    """Return what an answer to a create means for its row and for the run."""
    match answer:
        case Reply():
            return _judge_reply(answer)
        case NotSent(reason):
            return Retry("no_connection", reason)
        case Lost(reason):
            return InDoubt("lost", reason)
        case _:
            assert_never(answer)


def _judge_reply(reply: Reply) -> Verdict:
    status = reply.status
    if 200 <= status < 300:
        return _judge_success(reply.body)
    if 300 <= status < 400:
        return InDoubt(str(status), f"redirected (status {status}), not followed: may exist", stranger=True)
    error = _read_error(reply.body)
    code, message = error or (None, "")
    if status == 429 or code in THROTTLED:
        known = THROTTLED.get(code or 0, "too many requests")
        return Retry(str(code or 429), known, after_seconds=reply.retry_after_seconds, throttled=True)
    if code is not None and (verdict := _judge_code(code, reply)) is not None:
        return verdict
    return _judge_status(status, str(code or status), message, is_ours=error is not None, reply=reply)


@dataclass(frozen=True, slots=True)
class Closed:
    """The participant is closed now, whether it was before or not."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The participant was not closed, and asking again will not change that. forbidden: it is not allowed at all."""

    code: str
    reason: str
    forbidden: bool = False


def judge_closing(answer: Answer) -> Closed | Refused | Retry | Halt:
    """Return what an answer to the closing of a participant means. It may be repeated: closed twice is closed [infer].

    So nothing is ever in doubt here: whatever cannot be known is asked again.
    """
    if not isinstance(answer, Reply):
        return Retry("no_connection" if isinstance(answer, NotSent) else "lost", answer.reason)
    status = answer.status
    if 200 <= status < 300:
        return Closed()
    if status >= 500 or status == 408:
        return Retry(str(status), f"status {status}")
    match _judge_reply(answer):
        case Retry() | Halt() as verdict:
            return verdict
        case Rejected(code, _, closes_channel=True):
            return Refused(code, _NOT_CLOSED.get(code, CLOSED.get(int(code), "cannot be closed")))
        case Rejected(code, _):
            known = REFUSED.get(int(code)) if code.isdigit() else None
            return Refused(code, known or f"refused with status {status}")
        case Failed(code, reason, forbidden=forbidden):
            return Refused(code, reason, forbidden=forbidden)
        case verdict:
            return Refused(getattr(verdict, "code", str(status)), f"status {status}, which says nothing about it")


def _judge_success(body: bytes) -> Verdict:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return InDoubt("unreadable", "accepted, with a body that is not JSON: may exist", stranger=True)
    sid = document.get("sid") if isinstance(document, dict) else None
    if isinstance(sid, str) and _SID.fullmatch(sid.encode(errors="replace")):
        return Created(sid)
    is_ours = isinstance(document, dict) and ("sid" in document or _read_error(body) is not None)
    return InDoubt("no_sid", "accepted, without a participant's sid: probably exists", stranger=not is_ours)


def _judge_code(code: int, reply: Reply) -> Verdict | None:
    name = str(code)
    if code in ALREADY_MEMBER:
        return Existed(name, ALREADY_MEMBER[code])
    if code in CONFLICT:
        return Retry(name, CONFLICT[code], after_seconds=reply.retry_after_seconds)
    if code in WALL:
        return Halt(name, WALL[code])
    if code in CLOSED:
        return Rejected(name, CLOSED[code], closes_channel=True)
    if code in REFUSED:
        return Rejected(name, REFUSED[code])
    if code in UNKNOWABLE:
        return InDoubt(name, "the service failed: may exist")
    if code == FORBIDDEN:
        return Failed(name, "forbidden", forbidden=True)
    return None


def _judge_status(status: int, code: str, message: str, *, is_ours: bool, reply: Reply) -> Verdict:
    match status:
        case 401:
            return Halt(code, "the credentials were refused")
        case 403:
            return Failed(code, "forbidden", forbidden=True)
        case 408:
            return InDoubt(code, "the service timed out: may exist")
        case 404 if is_ours:
            return Rejected(code, CLOSED[20404], closes_channel=True)
        case 409 if is_ours:
            return Retry(code, CONFLICT[20409], after_seconds=reply.retry_after_seconds)
        case _ if 400 <= status < 500 and is_ours:
            return Rejected(code, _masked(message) or f"refused with status {status}")
        case _ if 400 <= status < 500:
            return Failed(code, f"status {status} with a body that is not the API's (a proxy's?)", stranger=True)
        case _:
            return InDoubt(code, f"status {status}: may exist", stranger=not is_ours)


def without_values(verdict: Verdict | Halt, body: bytes) -> Verdict | Halt:
    """Return a verdict whose reason quotes nothing of the row's form: a service may repeat what it was told.

    Only what it refuses has a reason in its own words. body: as of `Row`.
    """
    if not isinstance(verdict, Rejected) or verdict.closes_channel:
        return verdict
    form = parse_qs(body.decode("ascii", "replace"))
    documents = [json.loads(text) for name in ("MediaProperties", "RoutingProperties") for text in form.get(name, ())]
    values = {text for document in documents for text in _texts(document)}
    told = {word for value in values for word in (value, *re.findall(r"\w{4,}", value)) if len(word) >= _TELLING}
    if not told:
        return verdict
    pattern = "|".join(map(re.escape, sorted(told, key=len, reverse=True)))
    return replace(verdict, reason=re.sub(pattern, "***", verdict.reason, flags=re.IGNORECASE))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for name, inner in value.items():
            if name not in _WORDS_OF_THE_API:
                yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)
    elif isinstance(value, str):
        yield value


def code_of(body: bytes) -> str:
    """Return the code that an error's body names, or nothing."""
    code, _ = _read_error(body) or (None, "")
    return str(code or "")


def _read_error(body: bytes) -> tuple[int | None, str] | None:
    """Return (code, message) from any of the three shapes that Twilio uses [docs, code], or None for a stranger's.

    A message alone is nobody's in particular: gateways write `{"message": "no Route matched"}`.
    """
    try:
        document: Any = json.loads(body)
    except (ValueError, RecursionError):
        return None
    is_list = isinstance(document, dict) and isinstance(document.get("errors"), list) and bool(document["errors"])
    if is_list:
        document = document["errors"][0]
    if not isinstance(document, dict):
        return None
    texts = (document.get(name) for name in ("message", "detail", "title"))
    message = next((text for text in texts if isinstance(text, str)), None)
    code = _read_code(document.get("code"))
    if code is None and (message is None or not (is_list or "status" in document)):
        return None
    return code, message or ""


def _read_code(value: Any) -> int | None:
    text = str(value) if isinstance(value, int | str) else ""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _CODE_DIGITS else None


def _masked(message: str) -> str:
    """Take out what may be a person's, and what would make every row's reason different."""
    masked = _PERSONAL.sub(lambda found: f"{found.group(1)}…" if found.group(1) else "***", message)
    masked = _CONTROL.sub(" ", masked)
    return " ".join(masked.split())[:_REASON_CHARACTERS]
