"""Lets requests in: which call it is, whose, and whether there is room for it."""

import math
import re
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from worker.emulator import act
from worker.emulator.clerk import NOT_FOUND, Clerk
from worker.emulator.emulator import Emulator
from worker.emulator.fault import Call
from worker.emulator.form import Refusal
from worker.emulator.visit import Visit

_ROUTE: Final = re.compile(r"/v1/Interactions/([^/?]*)/Channels/([^/?]*)(?:/(Participants)(?:/([^/?]*))?)?(?:\?.*)?")
_INTERACTION: Final = re.compile(r"KD[0-9a-fA-F]{32}")  # [card]
_CHANNEL: Final = re.compile(r"UO[0-9a-fA-F]{32}")  # [card]

# There is no DELETE, no GET of one participant and no bulk form [spec].
_CALLS: Final = {
    ("POST", True, False): Call.CREATE,
    ("GET", True, False): Call.LIST,
    ("POST", True, True): Call.UPDATE,
    ("GET", False, False): Call.CHANNEL,
}

_UNKNOWN_USER: Final = Refusal(20003, "Authenticate")
_NO_SUCH_CALL: Final = Refusal(20004, "Method not allowed")
_TOO_LARGE: Final = Refusal(20413, "Payload too large")
_TOO_MANY_A_SECOND: Final = Refusal(45780, "Too many requests per second")
_TOO_MANY_AT_ONCE: Final = Refusal(20429, "Too many concurrent requests")
_OUTAGES: Final = {
    429: _TOO_MANY_AT_ONCE,
    500: Refusal(20500, "Internal server error"),
    503: Refusal(20503, "Service unavailable"),
}


class Desk:
    """Takes the requests of one server for an emulator, and outlives every client that gives up."""

    def __init__(
        self, emulator: Emulator, *, aside: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
    ) -> None:
        self._emulator = emulator
        self._truth = emulator.truth
        self._clerk = Clerk(emulator)
        self._aside = aside
        self._visits: dict[RequestHandler, Visit] = {}
        self._closing = False

    def close(self) -> None:
        """Let nothing wait any longer: what is being dealt with is finished at once."""
        self._closing = True
        for visit in self._visits.values():
            visit.hurry()

    def lose_client(self, connection: RequestHandler) -> None:
        """Take note that the client of a connection has gone."""
        if visit := self._visits.get(connection):
            visit.lose_client(self._emulator.clock())
            self._emulator.happened()
        self._clerk.forget(connection)

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request; whatever is no call of the API goes aside."""
        route = _ROUTE.fullmatch(request.raw_path)
        if route is None:
            return await self._aside(request)
        interaction_sid, channel_sid, participants, participant_sid = route.groups("")
        call = _CALLS.get((request.method, bool(participants), bool(participant_sid)))
        emulator, truth, connection = self._emulator, self._truth, request.protocol
        now = emulator.clock()
        visit = Visit(
            request, call, (interaction_sid, channel_sid, participant_sid), flight=truth.flight, arrived_at=now
        )
        visit.hurried = self._closing
        self._visits[connection] = visit
        if call is Call.CREATE:
            visit.number = truth.arrive(now, interaction_sid, channel_sid)
        emulator.happened()
        try:
            return await self._let_in(visit)
        finally:
            del self._visits[connection]
            visit.end()
            if visit.gone_at is not None and visit.number is not None:
                truth.amend(visit.number, client_gone=True, status=None, code=None)
            emulator.happened()

    async def _let_in(self, visit: Visit) -> web.StreamResponse:
        """Check the credentials and the limits before anything is read, as a gateway does [infer]."""
        if not self._knows(visit.request.headers.get("Authorization", "")):
            self._truth.counts["unauthorized"] += 1
            return self._clerk.refuse(visit, _UNKNOWN_USER)
        call = visit.call
        if call is None:
            return self._clerk.refuse(visit, _NO_SUCH_CALL)
        if (status := self._emulator.outage(call)) is not None:
            return self._clerk.refuse(visit, _OUTAGES[status], self._retry_after())
        if refusal := self._refusal_by_limit(call):
            self._truth.counts["throttled"] += 1
            return self._clerk.refuse(visit, refusal, self._retry_after())
        if answer := self._emulator.behaviour.refusals.get(call):
            return self._clerk.give(visit, answer)
        return await self._read(visit, call)

    async def _read(self, visit: Visit, call: Call) -> web.StreamResponse:
        try:
            visit.body = await visit.request.read()
        except ConnectionError:  # the client went in the middle of its request: nothing was asked
            return act.nobody()
        except web.HTTPRequestEntityTooLarge:
            return self._clerk.refuse(visit, _TOO_LARGE)
        if not (_INTERACTION.fullmatch(visit.interaction_sid) and _CHANNEL.fullmatch(visit.channel_sid)):
            return self._clerk.refuse(visit, NOT_FOUND)
        return await self._clerk.serve(visit, call)

    def _knows(self, authorization: str) -> bool:
        known = self._emulator.authorizations
        return authorization.startswith("Basic ") if known is None else authorization in known

    def _refusal_by_limit(self, call: Call) -> Refusal | None:
        """Tell which limit a call goes over; otherwise count it. What is refused uses nothing up."""
        behaviour, truth = self._emulator.behaviour, self._truth
        window, rate = None, None
        if call is Call.CREATE:
            window, rate = truth.acceptances, behaviour.rate_per_second
        elif call is Call.LIST:
            truth.counts["listed"] += 1
            window, rate = truth.list_acceptances, behaviour.list_rate_per_second
        now = self._emulator.clock()
        if window is not None and rate is not None and window.count(now) >= rate:
            return _TOO_MANY_A_SECOND
        if behaviour.concurrency is not None and truth.flight.working > behaviour.concurrency:
            return _TOO_MANY_AT_ONCE
        if window is not None:
            window.add(now)
        if call is Call.CREATE:
            truth.accepted += 1
        return None

    def _retry_after(self) -> dict[str, str]:
        """Return the header in whole seconds, rounded up, which is all that HTTP knows."""
        seconds = self._emulator.behaviour.retry_after_seconds
        return {} if seconds is None else {"Retry-After": str(math.ceil(seconds))}
