"""Does what the calls ask for: creates, lists, updates, and tells a channel's state."""

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, assert_never

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from worker.emulator import act, reply
from worker.emulator.emulator import Emulator
from worker.emulator.fault import Answer, Call, Fault, Scripted, When
from worker.emulator.forgery import ENDLESS_TOKEN, Forger, is_forged
from worker.emulator.form import Refusal, Wanted, read_create, read_update
from worker.emulator.truth import Condition
from worker.emulator.visit import Visit

_TOKEN: Final = re.compile(r"PT([0-9a-f]{1,15})")
_ENDLESS: Final = re.compile(rf"{ENDLESS_TOKEN}([0-9]{{1,9}})")
_NUMBER: Final = re.compile(r"[0-9]{1,9}")
_PAGE_SIZE: Final = 50  # [spec]
_MAX_PAGE_SIZE: Final = 1000  # [spec]
_OK: Final = 200
_NOTHING: Final[dict[str, Any]] = {}
_SOMEBODY_ELSE: Final = 0.5  # of those who are said to be members: somebody else has just made them one
_FORM: Final = "application/x-www-form-urlencoded"
_NOT_ABOUT_THE_ROW: Final = (401, 429)
_SERVER_ERROR: Final = 500

NOT_FOUND: Final = Refusal(20404, "The requested resource was not found")
_CLOSED: Final = Refusal(45354, "The conversation is closed")
_FULL: Final = Refusal(50417, "The conversation has reached its limit of participants")
_GONE: Final = "The participant is closed already"
_MEMBER: Final = Refusal(50433, "The participant is already in the conversation")
_NO_FORM: Final = Refusal(20001, f"The body must be {_FORM}")

Result = dict[str, Any] | Refusal


class Clerk:
    """Serves the calls that were let in, for one emulator."""

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator
        self._truth = emulator.truth
        self._forger = Forger(emulator)

    async def serve(self, visit: Visit, call: Call) -> web.StreamResponse:
        """Do what a call asks for, or let its client down as chance or a script will have it."""
        match call:
            case Call.CREATE:
                return await self._create(visit)
            case Call.LIST:
                return await self._do(visit, call, self._list)
            case Call.UPDATE:
                return await self._do(visit, call, self._update)
            case Call.CHANNEL:
                return await self._do(visit, call, self._channel)
            case _:
                assert_never(call)

    def refuse(self, visit: Visit, refusal: Refusal, headers: Mapping[str, str] | None = None) -> web.Response:
        """Answer with a definite no."""
        status = reply.STATUSES[refusal.code]
        if visit.number is not None:
            self._truth.amend(visit.number, status=status, code=refusal.code)
            if status not in _NOT_ABOUT_THE_ROW and status < _SERVER_ERROR:
                self._truth.counts["refused"] += 1
        shape = self._emulator.behaviour.error_shape
        return reply.render_error(refusal.code, refusal.message, shape, {**self._headers(visit), **(headers or {})})

    def give(self, visit: Visit, answer: Answer) -> web.Response:
        """Answer word for word."""
        self._amend(visit, status=answer.status, code=answer.code)
        return reply.render_answer(answer, self._emulator.behaviour.error_shape, self._headers(visit))

    def forget(self, connection: RequestHandler) -> None:
        """Take note that a connection is closed."""
        self._forger.forget(connection)

    # ---- create

    async def _create(self, visit: Visit) -> web.StreamResponse:
        emulator, truth = self._emulator, self._truth
        scripted = emulator.next_for(Call.CREATE, visit.channel_sid)
        late_seconds = emulator.behaviour.late_seconds if scripted.late_seconds is None else scripted.late_seconds
        await self._take_time(visit, scripted, wakes_when_gone=late_seconds is not None)
        behaviour = emulator.behaviour  # it may have changed meanwhile
        if scripted.what is not None:
            self._note(visit, scripted)
            if scripted.when is When.BEFORE:
                if scripted.what is Fault.ALREADY_MEMBER and emulator.words.random() < _SOMEBODY_ELSE:
                    self._forger.let_join(visit, somebody_else=False)
                return await self._let_down(visit, scripted.what, self._due(visit, behaviour.created_status, {}))
        wanted = self._admit(visit)
        if isinstance(wanted, Refusal):
            return self.refuse(visit, wanted)
        sid = truth.new_sid("UT")
        make = partial(self._make, visit, wanted, sid)
        if visit.gone_at is not None and late_seconds is not None:
            self._make_late(visit, late_seconds - (emulator.clock() - visit.gone_at), make)
            return act.nobody()
        if scripted.what is None or scripted.when is When.AFTER:
            make()
        answer = self._body(visit, sid, wanted.type, wanted.routing_properties)
        due = self._due(visit, behaviour.created_status, answer)
        if scripted.what is None:
            due = self._forger.exchange(visit, due)
            if truth.remember:
                self._amend(visit, status=due.status)
            return self._succeed(visit, due)
        response = await self._let_down(visit, scripted.what, due)
        if scripted.when is When.LATE:
            self._make_late(visit, late_seconds or 0.0, make)
        return response

    def _admit(self, visit: Visit) -> Wanted | Refusal:
        """Read what a create wants; or why it cannot be."""
        behaviour, truth = self._emulator.behaviour, self._truth
        if refusal := self._refusal_by_channel(visit.channel_sid):
            return refusal
        if not visit.request.headers.get("Content-Type", "").startswith(_FORM):
            return _NO_FORM
        wanted = read_create(visit.body)
        if isinstance(wanted, Refusal) or not behaviour.refuse_members:
            return wanted
        return _MEMBER if truth.is_member(visit.channel_sid, wanted.media_properties) else wanted

    def _refusal_by_channel(self, channel_sid: str) -> Refusal | None:
        cap = self._emulator.behaviour.participants_per_channel
        if cap is not None and self._truth.size(channel_sid) >= cap:
            return _FULL
        match self._truth.condition(channel_sid):
            case Condition.OPEN:
                return None
            case Condition.MISSING:
                return NOT_FOUND
            case Condition.CLOSED:
                return _CLOSED
            case Condition.FULL:
                return _FULL
            case condition:
                assert_never(condition)

    def _make(self, visit: Visit, wanted: Wanted, sid: str) -> None:
        self._emulator.make(visit.interaction_sid, visit.channel_sid, wanted, sid=sid)
        if self._truth.remember:
            self._amend(visit, made=sid)

    def _make_late(self, visit: Visit, seconds: float, make: Callable[[], None]) -> None:
        if visit.hurried:
            make()
        else:
            self._emulator.make_late(max(seconds, 0.0), make)

    # ---- the other calls

    async def _do(self, visit: Visit, call: Call, work: Callable[[Visit], Result]) -> web.StreamResponse:
        if call is Call.LIST and (token := _endless_token(visit.request.query)) is not None:
            return reply.render(_OK, self._endless_page(visit, token), self._headers(visit))
        scripted = self._emulator.next_for(call, visit.channel_sid)
        await self._take_time(visit, scripted, wakes_when_gone=False)
        if scripted.what is not None:
            self._note(visit, scripted)
            if scripted.when is When.BEFORE:
                return await self._let_down(visit, scripted.what, self._due(visit, _OK, _NOTHING))
        missing = self._truth.condition(visit.channel_sid) is Condition.MISSING
        result = NOT_FOUND if missing else work(visit)
        if isinstance(result, Refusal):
            return self.refuse(visit, result)
        due = self._due(visit, _OK, result)
        return self._succeed(visit, due) if scripted.what is None else await self._let_down(visit, scripted.what, due)

    def _list(self, visit: Visit) -> Result:
        paging = _read_paging(visit.request.query)
        if isinstance(paging, Refusal):
            return paging
        size, page, start = paging
        skipped = 0 if start is not None else page * size
        entries: list[dict[str, Any]] = []
        next_token = None
        for place, participant in self._truth.listed(visit.channel_sid, start=start or 0):
            if participant.status == "closed" and not self._emulator.behaviour.lists_closed:
                continue
            if skipped:
                skipped -= 1
            elif len(entries) == size:
                next_token = f"PT{place:x}"
                break
            else:
                entries.append(self._body(visit, participant.sid, participant.type, participant.routing_properties))
        return reply.list_body(entries, url=_url(visit), page=page, page_size=size, next_token=next_token)

    def _endless_page(self, visit: Visit, number: int) -> dict[str, Any]:
        token = f"{ENDLESS_TOKEN}{number + 1}"
        return reply.list_body([], url=_url(visit), page=number + 1, page_size=_PAGE_SIZE, next_token=token)

    def _update(self, visit: Visit) -> Result:
        participant = self._truth.participants.get(visit.participant_sid)
        if participant is None or participant.channel_sid != visit.channel_sid:
            return NOT_FOUND
        status = read_update(visit.body)
        if isinstance(status, Refusal):
            return status
        code = self._emulator.behaviour.closed_again_code
        if code is not None and participant.status == "closed":
            return Refusal(code, _GONE)
        self._truth.update(participant.sid, status)
        body = self._body(visit, participant.sid, participant.type, participant.routing_properties)
        return {**body, "status": status}

    def _channel(self, visit: Visit) -> Result:
        url = f"{visit.origin}{reply.channel_path(visit.interaction_sid, visit.channel_sid)}"
        closed = self._truth.condition(visit.channel_sid) is Condition.CLOSED
        status = "closed" if closed else "active"
        return reply.channel_body(visit.interaction_sid, visit.channel_sid, url=url, status=status)

    # ---- how an answer comes about

    async def _take_time(self, visit: Visit, scripted: Scripted, *, wakes_when_gone: bool) -> None:
        seconds = self._emulator.latency()
        if seconds or scripted.gate:
            await visit.pause(seconds, gate=scripted.gate, wakes_when_gone=wakes_when_gone)

    async def _let_down(self, visit: Visit, what: Fault | Answer, due: act.Due) -> web.StreamResponse:
        if isinstance(what, Answer):
            return self.give(visit, what)
        forger = self._forger
        if what is Fault.STRANGER_JOINS:
            forger.let_join(visit, somebody_else=True)
        if is_forged(what) and (forged := await forger.forge(what, visit, due)) is not None:
            response: web.StreamResponse = reply.render(forged.status, forged.body, forged.headers)
        else:
            behaviour = self._emulator.behaviour
            shape, hang, words = behaviour.error_shape, behaviour.hang_seconds, self._emulator.words
            response = await act.let_down(what, visit, due, shape=shape, hang_seconds=hang, words=words)
        self._amend(visit, status=None if what in act.SILENT else response.status)
        return response

    def _succeed(self, visit: Visit, due: act.Due) -> web.Response:
        self._forger.remember(visit, due)
        return reply.render(due.status, due.body, due.headers)

    def _due(self, visit: Visit, status: int, body: dict[str, Any]) -> act.Due:
        return act.Due(status, body, self._headers(visit))

    def _body(self, visit: Visit, sid: str, kind: str, routing: dict[str, Any] | None) -> dict[str, Any]:
        echoed = reply.echoed(routing, self._emulator.behaviour.echo_routing)
        where = (visit.interaction_sid, visit.channel_sid)
        return reply.participant_body(visit.origin, where, sid, kind, echoed)

    def _note(self, visit: Visit, scripted: Scripted) -> None:
        if isinstance(scripted.what, Fault):
            self._forger.note(visit, scripted.what, scripted.when)

    def _amend(self, visit: Visit, **changes: Any) -> None:
        if visit.number is not None:
            self._truth.amend(visit.number, **changes)

    def _headers(self, visit: Visit) -> dict[str, str]:
        truth = self._truth
        return {
            **reply.CORS,
            "Twilio-Request-Id": truth.new_sid("RQ"),
            "Twilio-Concurrent-Requests": str(truth.flight.working),
            "Twilio-Request-Duration": f"{self._emulator.clock() - visit.arrived_at:.3f}",
        }


def _url(visit: Visit) -> str:
    return f"{visit.origin}{reply.channel_path(visit.interaction_sid, visit.channel_sid)}/Participants"


def _endless_token(query: Mapping[str, str]) -> int | None:
    found = _ENDLESS.fullmatch(query.get("PageToken", ""))
    return int(found[1]) if found else None


def _read_paging(query: Mapping[str, str]) -> tuple[int, int, int | None] | Refusal:
    """Return the page's size and number, and the place where it starts when a token tells it."""
    size, page, token = query.get("PageSize", str(_PAGE_SIZE)), query.get("Page", "0"), query.get("PageToken")
    if not (_NUMBER.fullmatch(size) and 1 <= int(size) <= _MAX_PAGE_SIZE):
        return Refusal(20001, f"PageSize must be between 1 and {_MAX_PAGE_SIZE}")
    if not _NUMBER.fullmatch(page):
        return Refusal(20001, "Page must be a number")
    if token is None:
        return int(size), int(page), None
    place = _TOKEN.fullmatch(token)
    return (int(size), int(page), int(place[1], 16)) if place else Refusal(20001, "PageToken is not one of ours")
