"""What must be true of any answer: the table of verdicts, written a second time and from the other end.

The code asks what an answer is, and decides. Here stands what a verdict needs: who finds a row created, refused or
closed must have been told so, and whatever cannot be known is in doubt, or asked again where that is harmless.
"""

import asyncio
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from urllib.parse import urlencode

import anyio

from tests.fakes import free_traffic
from tests.fuzz.answer import HERE, KD, UO, UT, Answered
from tests.samples_of import row, sid
from worker.api import Api, retry_after
from worker.ledger import Surroundings
from worker.model import (
    Answer,
    Created,
    Existed,
    Failed,
    Halt,
    InDoubt,
    Listed,
    Listing,
    Rejected,
    Reply,
    Retry,
    Row,
    Unlisted,
    Verdict,
)
from worker.reconcile import Absent, Adopted, decide
from worker.stopping import Stop
from worker.undo import Reversal, Undoer, Undone
from worker.verdict import Closed, Refused, judge, judge_closing, without_values

LONGEST_MESSAGE = 640
DEEP = 300
"""So many brackets may be more than Python reads here, and fewer than it reads there."""

TEN_YEARS = 10 * 365 * 86_400.0

EXISTED = {50433, 50437, 45206, 50404, 45202}
THROTTLED = {20429, 45010, 45719, 45780, 50063, 50074}
CONFLICT = {20409, 20162, 45796, 45307, 45308, 50419, 50449}
WALL = {20003, 20005, 20006, 20008, 20010, 45002, 45003, 45377}
REJECTED = {
    *(20001, 20413, 20422, 20423, 45004, 45008, 45351, 45366, 45367, *range(50407, 50416), 50420, 50425, 50453),
    *(50416, 80102),
}
CLOSES = {20404, 45006, 45354, 45376, 50417}
CLOSES_TO_SOME = {50418, 50422}
FORBIDDEN = {20403, 50056}
UNKNOWABLE = {20500, 20503, 45001, 45005, 45350, 45361, 45372}
GONE = {"404", "20404", "45006", "45310", "45362"}
SURELY_NOT = {407, 413, 414, 431}

MEDIA = {"address": "zyxwvut.quorl@example.com", "name": "Zyxwvut Quorl", "level": "to", "type": "email", "pin": 48213}
ROUTING = {"task_sid": sid("WT", 1), "note": "+441632960123"}
ROW = row(1)._replace(
    interaction_sid=KD,
    channel_sid=UO,
    body=urlencode(
        {"Type": "customer", "MediaProperties": json.dumps(MEDIA), "RoutingProperties": json.dumps(ROUTING)}
    ).encode(),
)
SECRETS = ("zyxwvut", "quorl", "48213", "441632960123", ROUTING["task_sid"][2:])


class Said(NamedTuple):
    """What a body says, read as leniently as somebody may. ours: whether it is Twilio's."""

    document: Any
    code: int | None
    ours: bool


def examine(answered: Answered, _: Path) -> str:
    """Try an answer as one to everything; returns what it means for a create. Any error is a bug."""
    clock = 1_800_000_000.0
    after = retry_after(answered.retry_after, clock) if answered.retry_after else None
    assert after is None or 0 <= after <= TEN_YEARS
    reply = Reply(answered.status, answered.pages[0], None, after)
    verdict = without_values(judge(reply, ROW), ROW.body)
    check_verdict(verdict, reply, ROW)
    closing = judge_closing(reply, UT)
    check_closing(closing, reply)
    with asyncio.Runner() as runner:
        listing = runner.run(_listed(answered, after))
        runner.run(_check_conclusion(closing, listing))
    _check_listing(listing, answered)
    return f"{type(verdict).__name__}, {type(closing).__name__}, {type(listing).__name__}"


def read_said(body: bytes, status: int) -> Said:
    """Return what a body says."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return Said(None, None, ours=False)
    error = document
    if isinstance(error, dict) and isinstance(error.get("errors"), list) and error["errors"]:
        error = error["errors"][0]
    if not isinstance(error, dict):
        return Said(document, None, ours=False)
    told = error.get("code")
    code = None
    if type(told) is int or (isinstance(told, str) and re.fullmatch("[0-9]{1,6}", told)):
        code = int(told) if 10_000 <= int(told) <= 999_999 else None
    worded = any(isinstance(error.get(name), str) for name in ("message", "detail", "title"))
    typed = isinstance(error.get("type"), str) and "twilio.com/" in error["type"]
    plain = set(error) <= {"status", "message", "code", "more_info", "details", "params", "user_error"}
    codeless = worded and type(error.get("status")) is int and error["status"] == status and (typed or plain)
    return Said(document, code, ours=code is not None or codeless)


def check_verdict(verdict: Verdict, reply: Reply, row: Row) -> None:
    """Raise AssertionError for a verdict that this answer does not allow, and for words that say too much."""
    _check_words(verdict)
    _check_cut(getattr(verdict, "reason", ""), reply.body)
    deep = is_deep(reply.body)
    said = read_said(reply.body, reply.status)
    kind = _kind(verdict)
    allowed = _of_success(said, row) if 200 <= reply.status < 300 else _of_refusal(said, reply.status)
    if deep:
        allowed = allowed | ({"in doubt"} if 200 <= reply.status < 300 else _of_refusal(_NOBODY, reply.status))
    assert kind in allowed, f"{reply.status} is {verdict}, not {allowed}"
    if isinstance(verdict, Created):
        assert verdict.sid == said.document["sid"]
    if isinstance(verdict, Retry):
        assert verdict.after_seconds in (None, reply.retry_after_seconds)
    if reply.status >= 500:
        assert kind == "in doubt"


_NOBODY = Said(None, None, ours=False)


def _of_success(said: Said, row: Row) -> set[str]:
    document = said.document if isinstance(said.document, dict) else {}
    found = document.get("sid")
    if not (isinstance(found, str) and re.fullmatch("UT[0-9a-fA-F]{32}", found, re.ASCII) and len(found) == 34):
        return {"in doubt"}
    asked = {"interaction_sid": row.interaction_sid, "channel_sid": row.channel_sid, "type": row.type}
    fits = all(
        document.get(name) is None or (isinstance(document[name], str) and document[name].lower() == value.lower())
        for name, value in asked.items()
    )
    return {"created"} if fits else {"in doubt"}


def _of_refusal(said: Said, status: int) -> set[str]:
    if status < 400 or status >= 500 or status == 408:
        return {"in doubt"}
    if status == 429:
        return {"throttled"}
    by_code = {
        **dict.fromkeys(EXISTED, "existed"),
        **dict.fromkeys(THROTTLED, "throttled"),
        **dict.fromkeys(CONFLICT, "retry"),
        **dict.fromkeys(WALL, "halt"),
        **dict.fromkeys(REJECTED, "rejected"),
        **dict.fromkeys(CLOSES, "rejected, closes"),
        **dict.fromkeys(CLOSES_TO_SOME, "rejected, closes to some"),
        **dict.fromkeys(FORBIDDEN, "failed, forbidden"),
        **dict.fromkeys(UNKNOWABLE, "in doubt"),
    }
    if said.code in by_code:
        return {by_code[said.code]}
    if said.ours:
        by_status = {401: "halt", 403: "failed, forbidden", 404: "rejected, closes", 409: "retry"}
        return {by_status.get(status, "rejected")}
    if status == 401:
        return {"halt, may exist"}
    return {"failed"} if status in SURELY_NOT else {"in doubt"}


def _kind(verdict: Verdict) -> str:
    match verdict:
        case Rejected():
            also = ", closes" * verdict.closes_channel + ", closes to some" * verdict.closes_to_non_chat
            return f"rejected{also}"
        case Failed():
            return "failed, forbidden" if verdict.forbidden else "failed"
        case Retry():
            return "throttled" if verdict.throttled else "retry"
        case Halt():
            return "halt, may exist" if verdict.may_exist else "halt"
        case _:
            return _PLAIN[type(verdict)]


_PLAIN: dict[type[Verdict], str] = {Created: "created", Existed: "existed", InDoubt: "in doubt"}


def _check_words(verdict: object) -> None:
    reason, code = getattr(verdict, "reason", "x"), getattr(verdict, "code", "x")
    check_reason(reason)
    assert code
    assert len(code) <= 20


def check_reason(reason: str) -> None:
    """Raise AssertionError for a reason that is empty or endless, moves a terminal, or tells what is a person's."""
    assert reason
    assert len(reason) <= LONGEST_MESSAGE
    assert not re.search(r"[\x00-\x1f\x7f-\x9f]", reason)
    for secret in SECRETS:
        assert secret not in reason.lower(), f"{secret} is told: {reason}"


def _check_cut(reason: str, body: bytes) -> None:
    """Where a message is cut, half a name is a name."""
    last = reason.lower().split(" ")[-1]
    cut = len(last) > 3 and any(secret.startswith(last) for secret in SECRETS)
    assert not cut or re.search(rf"{last}(?!\w)", body.decode("utf-8", "replace").lower()), f"half of a name: {reason}"


def is_deep(body: bytes) -> bool:
    """Tell whether it depends on the place whether Python reads a body."""
    return body.count(b"[") + body.count(b"{") > DEEP


# ---- closing --------------------------------------------------------------------------------------------------------


def check_closing(closing: Closed | Refused | Retry | Halt, reply: Reply) -> None:
    """Raise AssertionError for what an answer to a closing cannot mean."""
    said, status = read_said(reply.body, reply.status), reply.status
    document = said.document if isinstance(said.document, dict) else {}
    named = document.get("sid")
    says_closed = isinstance(named, str) and named.lower() == UT.lower() and document.get("status") == "closed"
    deep = is_deep(reply.body)
    match closing:
        case Closed():
            assert 200 <= status < 300
            assert says_closed
            return
        case Retry():
            assert deep or not (200 <= status < 300 and says_closed)
            slows = status == 429 or (400 <= status < 500 and status != 408 and said.code in THROTTLED)
            assert deep or closing.throttled == slows
        case Halt():
            assert status == 401 or (400 <= status < 500 and status not in {408, 429} and said.code in WALL)
        case Refused():
            assert 400 <= status < 500
            assert status not in {408, 429}
            assert said.ours or status in SURELY_NOT
            assert closing.gone <= (closing.code in GONE and said.ours)
            assert closing.forbidden == (said.code in FORBIDDEN or (status == 403 and _kind_by_status(said)))
    _check_words(closing)
    if status >= 500 or status < 200 or 300 <= status < 400:
        assert isinstance(closing, Retry)


def _kind_by_status(said: Said) -> bool:
    coded = (EXISTED, THROTTLED, CONFLICT, WALL, REJECTED, CLOSES, CLOSES_TO_SOME, FORBIDDEN, UNKNOWABLE)
    return not any(said.code in codes for codes in coded)


class _Journal:
    def __init__(self) -> None:
        self.entries: list[object] = []

    async def note(self, entries: list[object]) -> None:
        self.entries += entries


async def _check_conclusion(closing: Closed | Refused | Retry | Halt, listing: Listing | Unlisted) -> None:
    """What an undo records: closed only for who said so, or is not listed, or is gone after an answer was lost."""

    async def list_(*_: object) -> Listing | Unlisted:
        return listing

    for unanswered in (False, True):
        journal, undone, stop, told = _Journal(), Undone(), Stop(), list[str]()
        traffic = free_traffic(stop.draining)
        closer: Any = SimpleNamespace(list=list_)
        keep: Any = journal
        undoer = Undoer(
            closer,
            traffic,
            keep,
            undone,
            stop,
            settle_seconds=0,
            on_error=lambda *error, told=told: told.append(error[1]),
        )
        one = Reversal(1, "k", UT, KD, UO, "agent")
        again = await undoer._conclude(one, closing, unanswered=unanswered)
        unlisted = (
            isinstance(listing, Listing)
            and all(found.sid for found in listing.participants)
            and UT.lower() not in {str(found.sid).lower() for found in listing.participants}
        )
        silent = isinstance(closing, Retry) and closing.code == "not_closed" and not closing.stranger and unlisted
        gone = isinstance(closing, Refused) and closing.gone and unanswered
        assert bool(journal.entries) == (isinstance(closing, Closed) or silent or gone) == bool(undone.closed)
        assert len(told) == undone.errored == (isinstance(closing, Refused) and not gone)
        assert bool(stop.causes) == isinstance(closing, Halt)
        assert (again is closing) == (isinstance(closing, Retry) and not silent)


# ---- lists ----------------------------------------------------------------------------------------------------------


class _Canned(Api):
    """Reads pages as an API does, without a network."""

    answers: Iterator[Answer]

    @property
    def _session(self) -> Any:
        return SimpleNamespace(get=lambda: None)

    async def _exchange(self, *_: Any, **__: Any) -> Answer:
        return next(self.answers)


@cache
def _canned() -> _Canned:
    return _Canned(HERE, "SK1", "secret", concurrency=1)


async def _listed(answered: Answered, after: float | None) -> Listing | Unlisted:
    api = _canned()
    first, *rest = answered.pages
    replies = [Reply(answered.status, first, None, after), *(Reply(200, body) for body in rest)]
    last = Reply(200, b'{"participants": [], "meta": {"next_page_url": null}}')
    api.answers = iter([*replies, *[last] * 200])
    departure: Any = SimpleNamespace(ready=anyio.sleep, left=lambda: None)
    return await api.list(KD, UO, departure)


def _check_listing(listing: Listing | Unlisted, answered: Answered) -> None:
    if isinstance(listing, Unlisted):
        check_reason(listing.reason)
        assert listing.throttled == (answered.status == 429) or answered.pages[1:]
        return
    assert answered.status == 200
    entries: list[Any] = []
    for body in answered.pages:
        document = json.loads(body)
        entries += document["participants"]
        if not document["meta"].get("next_page_url"):
            break
    assert len(listing.participants) == len(entries)
    for found, entry in zip(listing.participants, entries, strict=True):
        right = isinstance(entry["sid"], str) if "sid" in entry else False
        right = right and re.fullmatch("UT[0-9a-fA-F]{32}", entry["sid"]) is not None and len(entry["sid"]) == 34
        assert found.sid == (entry["sid"] if right else None)
        assert str(entry.get("channel_sid") or UO).lower() == UO.lower()
    for around in AROUND:
        _check_difference(listing.participants, around)


AROUND = (
    Surroundings(frozenset(), frozenset(), 1),
    Surroundings(frozenset({sid("UT", 8)}), frozenset({sid("UT", 9).upper()}), 1),
    Surroundings(frozenset({sid("UT", 8)}), None, 1),
    Surroundings(frozenset(), frozenset({sid("UT", 8)}), 2),
    Surroundings(frozenset(), frozenset({sid("UT", 8)}), 1, seen=frozenset({UT.lower()})),
)


def _check_difference(listed: tuple[Listed, ...], around: Surroundings) -> None:
    """A sid is adopted only when it is the only new one, and nobody absent only when all are known."""
    evidence = decide(ROW, listed, around)
    before = {known.lower() for known in (*around.known, *(around.baseline or ()))}
    here = {str(one.sid).lower() for one in listed if one.sid}
    whole = len([one for one in listed if one.sid]) == len(listed) and around.unresolved == 1
    whole = whole and around.seen <= (here | before)
    match evidence:
        case Adopted(found):
            assert whole
            assert here - before == {found.lower()}
            them = [one for one in listed if one.sid and one.sid.lower() == found.lower()]
            ours = [
                one
                for one in them
                if one.type in (None, "customer")
                and (one.routing or {}).get("task_sid") in (None, "", 0, False, ROUTING["task_sid"])
            ]
            sure = any((one.routing or {}).get("task_sid") == ROUTING["task_sid"] for one in them)
            assert ours or any(not (one.routing or {}).get("task_sid") for one in them)
            assert around.baseline is not None or sure
        case Absent(sids):
            assert whole
            assert here <= before
            assert {one.lower() for one in sids} == here
        case _:
            check_reason(evidence.reason)
            assert {one.lower() for one in evidence.candidates} >= here - before
