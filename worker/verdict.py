"""The only place where a status or a code becomes a decision.

One question decides everything: can this row have been created? Below status 500 a code of Twilio's outranks the
status; from 500 on the row is in doubt whatever the body says. What is certainly created or certainly refused is
settled; what was certainly not processed is tried again; whatever cannot be known is in doubt, and that is also the
default: an unforeseen answer never leads to sending again.

Codes and their meaning are from Twilio's error dictionary [docs] unless marked.
"""

import json
import re
from dataclasses import dataclass, replace
from typing import Any, assert_never
from urllib.parse import parse_qs

from worker.mask import masked, without_form
from worker.model import (
    Answer,
    Created,
    Document,
    Existed,
    Failed,
    Halt,
    InDoubt,
    Lost,
    NotSent,
    Rejected,
    Reply,
    Retry,
    Row,
    Verdict,
)

ALREADY_MEMBER = {
    45202: "is a participant of this channel already",
    45206: "is a participant of this channel already",
    50404: "is a participant of this conversation already",
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
    50419: "wrong state for now",
    50449: "wrong state for now",
}

WALL = {
    20003: "the credentials were refused",
    20005: "the account is not active",
    20006: "access was denied to this account",
    20008: "test credentials cannot do this",
    20010: "the account is suspended",
    45002: "the credentials were refused",
    45003: "the credentials may not do this",
    45377: "the account is not that of the credentials",
}

CLOSED = {
    20404: "no such interaction or channel",
    45006: "no such interaction or channel",
    45354: "the conversation is closed",
    45376: "the conversation is gone",
    50417: "the conversation is full",
}

FULL_OF_NON_CHAT = {
    50418: "the conversation is full of non-chat participants (50); agents and chat participants still fit",
    50422: "the conversation is full of non-chat participants (50); agents and chat participants still fit",
}

_BOUND_ELSEWHERE = (
    "this address pair is bound to an open conversation, perhaps another one; nothing in the file needs repair"
)

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
    50425: "the participant is invalid",
    50453: "the participant is invalid",
    50416: _BOUND_ELSEWHERE,
    80102: _BOUND_ELSEWHERE,
    **dict.fromkeys((*range(50407, 50416), 50420), "the participant's address or identity was refused"),
}

_GONE = dict.fromkeys(("404", "20404", "45006", "45310", "45362"), "no such participant: it may be gone already")

NOT_CLOSED = "not_closed"
"""The code of an answer to a closing that does not say that the participant is closed."""

MISCONFIGURED = "misconfigured"
"""The code of a request that could not be made because of a setting."""

UNKNOWABLE = frozenset({20500, 20503, 45001, 45005, 45350, 45361, 45372})
FORBIDDEN = frozenset({20403, 50056})
NEVER_PROCESSED = frozenset({407, 413, 414, 431})
"""Statuses with which a proxy or a server refuses a request before it reads what is asked."""

_SID = re.compile(rb"UT[0-9a-fA-F]{32}")
_CODES = range(10_000, 1_000_000)
"""Twilio's error codes; smaller ones are those of gRPC or repeat the status."""

_CLASSIC_NAMES = frozenset({"status", "message", "code", "more_info", "details", "params", "user_error"})
"""What a body of Twilio's without a code consists of; Spring's has `timestamp`, `path` and `error`."""


def judge(answer: Answer, row: Row | None = None) -> Verdict:
    """Return what an answer to a create means for its row and for the run.

    row: a success that names another channel, interaction or type is the answer of another request. None: not compared.
    """
    match answer:
        case Reply():
            return _judge_reply(answer, row)
        case NotSent():
            return _judge_unsent(answer)
        case Lost(reason):
            return InDoubt("lost", reason)
        case _:
            assert_never(answer)


def _judge_unsent(answer: NotSent) -> Retry | Halt:
    if answer.misconfigured:
        return Halt(MISCONFIGURED, answer.reason, misconfigured=True)
    return Retry("no_connection", answer.reason)


def _judge_reply(reply: Reply, row: Row | None = None) -> Verdict:
    status = reply.status
    if 200 <= status < 300:
        return _judge_success(reply.body, row)
    if 300 <= status < 400:
        return InDoubt(str(status), f"redirected (status {status}), not followed: may exist", stranger=True)
    if status < 200:
        return InDoubt(str(status), f"status {status}, which ends no request: may exist", stranger=True)
    error = _read_error(reply.body, status)
    code, message = error or (None, "")
    if status >= 500 or status == 408:
        words = "the service failed" if status >= 500 else "the service timed out"
        known = THROTTLED.get(code or 0)
        reason = f"{words} (status {status}{f', {known}' if known else ''}): may exist"
        return InDoubt(str(code or status), reason, stranger=error is None, throttled=known is not None)
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
    """The participant was not closed, and asking again will not change that.

    forbidden: it is not allowed at all. gone: there is no such participant (any more).
    """

    code: str
    reason: str
    forbidden: bool = False
    gone: bool = False


def judge_closing(answer: Answer, sid: str) -> Closed | Refused | Retry | Halt:
    """Return what an answer to the closing of this participant means; it may be repeated [infer].

    Closed only if the answer says so for this sid. Anything else that cannot be known is asked again.
    """
    if isinstance(answer, NotSent):
        return _judge_unsent(answer)
    if isinstance(answer, Lost):
        return Retry("lost", answer.reason)
    status = answer.status
    if 200 <= status < 300:
        return _judge_closed(answer, sid)
    match _judge_reply(answer):
        case Retry() | Halt() as verdict:
            return verdict
        case InDoubt(code, _, stranger=stranger):
            return Retry(code, f"status {status}", stranger=stranger)
        case Rejected(code, _) if code in _GONE:
            return Refused(code, _GONE[code], gone=True)
        case Rejected(code, _, closes_channel=True):
            return Refused(code, CLOSED.get(int(code), "cannot be closed"))
        case Rejected(code, _):
            known = REFUSED.get(int(code)) if code.isdigit() else None
            return Refused(code, known or f"refused with status {status}")
        case Failed(code, reason, forbidden=forbidden):
            return Refused(code, reason, forbidden=forbidden)
        case verdict:
            return Refused(getattr(verdict, "code", str(status)), f"status {status}, which says nothing about it")


def _judge_closed(reply: Reply, sid: str) -> Closed | Retry:
    try:
        document = json.loads(reply.body)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict) or "sid" not in document:
        unread = f"status {reply.status} with a body that is not the API's: nothing says that it is closed"
        return Retry(NOT_CLOSED, unread, stranger=True)
    said = document.get("sid")
    if isinstance(said, str) and said.casefold() == sid.casefold() and document.get("status") == "closed":
        return Closed()
    return Retry(NOT_CLOSED, "the answer does not say that this participant is closed")


def _judge_success(body: bytes, row: Row | None) -> Verdict:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return InDoubt("unreadable", "accepted, with a body that is not JSON: may exist", stranger=True)
    sid = document.get("sid") if isinstance(document, dict) else None
    if isinstance(sid, str) and _SID.fullmatch(sid.encode(errors="replace")):
        if row is not None and (other := _contradiction(document, row)):
            return InDoubt("other_answer", f"the answer of another request (it names another {other}): may exist")
        return Created(sid)
    is_ours = isinstance(document, dict) and ("sid" in document or _read_error(body, None) is not None)
    return InDoubt("no_sid", "accepted, without a participant's sid: probably exists", stranger=not is_ours)


def _contradiction(document: dict[str, Any], row: Row) -> str:
    """Return what a created participant's body says otherwise than its request; sids are compared without case."""
    asked = {"interaction_sid": row.interaction_sid, "channel_sid": row.channel_sid, "type": row.type}
    for name, value in asked.items():
        said = document.get(name)
        if said is not None and (not isinstance(said, str) or said.casefold() != value.casefold()):
            return name
    return ""


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
    if code in FULL_OF_NON_CHAT:
        return Rejected(name, FULL_OF_NON_CHAT[code], closes_to_non_chat=True)
    if code in REFUSED:
        return Rejected(name, REFUSED[code])
    if code in UNKNOWABLE:
        return InDoubt(name, "the service failed: may exist")
    if code in FORBIDDEN:
        return Failed(name, "forbidden", forbidden=True)
    return None


def _judge_status(status: int, code: str, message: str, *, is_ours: bool, reply: Reply) -> Verdict:
    match status:
        case 401:
            return Halt(code, "the credentials were refused", may_exist=not is_ours)
        case 403 if is_ours:
            return Failed(code, "forbidden", forbidden=True)
        case 404 if is_ours:
            return Rejected(code, CLOSED[20404], closes_channel=True)
        case 409 if is_ours:
            return Retry(code, CONFLICT[20409], after_seconds=reply.retry_after_seconds)
        case _ if is_ours:
            return Rejected(code, masked(message) or f"refused with status {status}")
        case _ if status in NEVER_PROCESSED:
            return Failed(code, f"status {status} with a body that is not the API's (a proxy's?)", stranger=True)
        case _:
            foreign = f"status {status} with a body that is not the API's (a gateway's?): may exist"
            return InDoubt(code, foreign, stranger=True)


def is_chat(row: Row) -> bool:
    """Tell whether a row's participant counts as a chat one."""
    texts = parse_qs(row.body.decode("ascii", "replace")).get("MediaProperties", ("{}",))
    return counts_as_chat(row.type, texts[0])


def counts_as_chat(type_: str, media: Document) -> bool:
    """Tell whether a participant counts as a chat one: an agent, a supervisor, or one with an identity [infer]."""
    if type_ in {"agent", "supervisor"}:
        return True
    if isinstance(media, str):
        if "identity" not in media and "\\" not in media:  # a name may be escaped; reading JSON takes time
            return False
        media = json.loads(media)
    return isinstance(media, dict) and bool(media.get("identity")) and not media.get("address")


def without_values(verdict: Verdict | Halt, body: bytes) -> Verdict | Halt:
    """Return a verdict whose reason quotes nothing of the row's form: a service may repeat what it was told.

    Only what it refuses has a reason in its own words. body: as of `Row`.
    """
    if not isinstance(verdict, Rejected) or verdict.closes_channel:
        return verdict
    return replace(verdict, reason=without_form(verdict.reason, body) or f"refused ({verdict.code})")


def code_of(body: bytes) -> str:
    """Return the code that an error's body names, or nothing."""
    code, _ = _read_error(body, None) or (None, "")
    return str(code or "")


def _read_error(body: bytes, status: int | None) -> tuple[int | None, str] | None:
    """Return (code, message) from any of the three shapes that Twilio uses [docs, code], or None for anybody else's.

    status: the response's; a body without a code has to repeat it. None: not compared. A message alone is not proof:
    gateways write `{"message": "no Route matched"}`, frameworks `{"timestamp": …, "status": 404, "path": …}`.
    """
    try:
        document: Any = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if isinstance(document, dict) and isinstance(document.get("errors"), list) and document["errors"]:
        document = document["errors"][0]
    if not isinstance(document, dict):
        return None
    texts = (document.get(name) for name in ("message", "detail", "title"))
    message = next((text for text in texts if isinstance(text, str)), None)
    code = _read_code(document.get("code"))
    if code is None and not (message is not None and _is_codeless(document, status)):
        return None
    return code, message or ""


def _is_codeless(document: dict[str, Any], status: int | None) -> bool:
    """Tell whether a body without a code has Twilio's own shape: the classic one, or RFC 9457 with Twilio's type."""
    said = document.get("status")
    if not isinstance(said, int) or (status is not None and said != status):
        return False
    kind = document.get("type")
    return document.keys() <= _CLASSIC_NAMES or (isinstance(kind, str) and "twilio.com/" in kind)


def _read_code(value: Any) -> int | None:
    text = str(value) if isinstance(value, str) or (isinstance(value, int) and abs(value) < _CODES.stop) else ""
    is_number = text.isascii() and text.isdigit() and len(text) < len(str(_CODES.stop))
    return int(text) if is_number and int(text) in _CODES else None
