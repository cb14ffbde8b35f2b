"""Closing what was created: the newest of a channel first, one at a time in a channel, as fast as the limits allow.

A closing may be repeated, so it needs no intent: what is not recorded as closed is closed once more.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream

from worker.journal import Journal
from worker.ledger import Close
from worker.model import Answer, Cause, Exit, Halt, Listing, Reply, Retry, Unlisted
from worker.stopping import FIRST_ANSWERS, NOT_THE_API, Stop
from worker.traffic import LaneDeparture, Patience, Permit, Refusal, Traffic, WithdrawnError
from worker.verdict import NOT_CLOSED, Closed, Refused, judge_closing

_SERVER_ERROR = 500

FIRST_FORBIDDEN = 5
"""If closing is forbidden so often before any was allowed, it is not allowed at all [docs: it may not be]."""

LIST_AGAIN_SECONDS = 1.0

CLOSABLE = "agent"
"""The only type that can be closed [docs]."""

FIRST_REFUSED = 5
"""If so many of other types are refused before any was closed, the documentation is right, and the rest is kept."""


class Reversal(NamedTuple):
    """A created row whose participant is to be closed. number: the row's in the ledger."""

    number: int
    key: str
    sid: str
    interaction_sid: str
    channel_sid: str
    type: str


class Closer(Protocol):
    """What undoing needs of the API."""

    def close(self, interaction_sid: str, channel_sid: str, sid: str, departure: LaneDeparture) -> Awaitable[Answer]:
        """Close one participant."""
        ...

    def list(self, interaction_sid: str, channel_sid: str, departure: LaneDeparture) -> Awaitable[Listing | Unlisted]:
        """List all participants of a channel."""
        ...


@dataclass(slots=True)
class Undone:
    """What became of what was to be closed, in rows. errors: code and reason → rows, and the first one's key.

    spared: not tried, as they are no agents and others like them were refused.
    """

    closed: int = 0
    errored: int = 0
    spared: int = 0
    requests: int = 0
    retries: int = 0
    throttled: int = 0
    in_flight: int = 0
    errors: dict[tuple[str, str], tuple[int, str]] = field(default_factory=dict)

    def fail(self, key: str, code: str, reason: str) -> None:
        """Count a row that could not be closed."""
        self.errored += 1
        rows, first = self.errors.get((code, reason), (0, key))
        self.errors[code, reason] = (rows + 1, first)


class Undoer:
    """Closes participants until there are none left or the run ends.

    settle_seconds: how long after its creation a participant may be missing from a list. on_error: is told which row
    could not be closed.
    """

    def __init__(
        self,
        api: Closer,
        traffic: Traffic,
        journal: Journal,
        undone: Undone,
        stop: Stop,
        *,
        settle_seconds: float,
        on_error: Callable[[Reversal, str, str], None],
    ) -> None:
        self._api = api
        self._traffic = traffic
        self._journal = journal
        self._undone = undone
        self._stop = stop
        self._on_error = on_error
        self._forbidden: int | None = 0
        self._refused_others: int | None = 0
        self._strangers: int | None = 0
        self._settled_at = traffic.clock() + settle_seconds  # all rows were created before this undo began

    async def run(self, channels: AsyncIterator[Sequence[Reversal]], concurrency: int) -> None:
        """Close the participants of each channel in their order, so many channels at once."""
        send, receive = anyio.create_memory_object_stream[Sequence[Reversal]](0)
        async with anyio.create_task_group() as tasks:
            for _ in range(concurrency):
                tasks.start_soon(self._work, receive.clone())
            receive.close()
            async with send:
                async for channel in channels:
                    if self._stop.ending.is_set():
                        break
                    await send.send(channel)

    async def _work(self, channels: MemoryObjectReceiveStream[Sequence[Reversal]]) -> None:
        async with channels:
            async for channel in channels:
                for one in channel:
                    if self._stop.ending.is_set():
                        break
                    await self._close(one)

    async def _close(self, one: Reversal) -> None:
        if one.type != CLOSABLE and self._refused_others is not None and self._refused_others >= FIRST_REFUSED:
            self._undone.spared += 1
            return
        patience = Patience(self._traffic)
        unanswered = False
        while not self._stop.draining.is_set():
            try:
                verdict = await self._ask(one)
                retry = await self._conclude(one, verdict, unanswered=unanswered)
            except WithdrawnError:
                return
            if retry is None:
                return
            unanswered |= not retry.throttled and retry.code not in {"no_connection", NOT_CLOSED}
            self._heed_stranger(stranger=retry.stranger)
            if not await patience.wait(throttled=retry.throttled, after_seconds=retry.after_seconds):
                self._fail(one, retry.code, retry.reason)
                return
            self._undone.retries += 1

    async def _conclude(
        self, one: Reversal, verdict: Closed | Refused | Retry | Halt, *, unanswered: bool
    ) -> Retry | None:
        """Draw the consequences of one answer; return what is to be tried again, or None.

        unanswered: an earlier request for this participant may have closed it. One that is said to be gone, and is not
        listed, is closed, too: an undo that was killed may have closed it without recording that.
        """
        match verdict:
            case Closed():
                await self._record_closed(one)
            case Refused(gone=True) if unanswered or await self._is_unlisted(one):
                await self._record_closed(one)
            case Refused(code, reason, forbidden, gone):
                self._fail(one, code, reason)
                if one.type == CLOSABLE:
                    self._heed_forbidden(reason, forbidden=forbidden)
                elif self._refused_others is not None:
                    self._refused_others += not gone
            case Halt(_, reason, misconfigured=True):
                self._stop.drain(Cause(Exit.USAGE, reason))
            case Halt(code, reason):
                self._stop.drain(Cause(Exit.HALTED, f"halted: {reason} ({code})"))
            case Retry(code, _, stranger=stranger):
                if code != NOT_CLOSED or stranger or not await self._is_unlisted(one):
                    return verdict
                await self._record_closed(one)
        return None

    async def _record_closed(self, one: Reversal) -> None:
        self._forbidden = self._strangers = None
        if one.type != CLOSABLE:
            self._refused_others = None
        await self._journal.note([Close(one.number, one.key)])
        self._undone.closed += 1

    async def _is_unlisted(self, one: Reversal) -> bool:
        """Tell whether two lists of the channel show that the participant has left.

        One may leave somebody out, and before the settle time is over it may lag.
        """
        if not await self._is_missing(one):
            return False
        with anyio.move_on_after(max(LIST_AGAIN_SECONDS, self._settled_at - self._traffic.clock())):
            await self._stop.draining.wait()
        return not self._stop.draining.is_set() and await self._is_missing(one)

    async def _is_missing(self, one: Reversal) -> bool:
        """Tell whether a list of the channel, asked for once, lacks the participant."""
        lane = self._traffic.lists
        departure = LaneDeparture(self._traffic, lane)
        try:
            await departure.enter()
            try:
                listing = await self._api.list(one.interaction_sid, one.channel_sid, departure)
            finally:
                departure.home()
        finally:
            departure.end()
        if not isinstance(listing, Listing):
            if listing.misconfigured:
                self._stop.drain(Cause(Exit.USAGE, listing.reason))
            return False
        lane.admit()
        sids = [found.sid for found in listing.participants]
        return None not in sids and one.sid.casefold() not in {sid.casefold() for sid in sids if sid}

    def _heed_stranger(self, *, stranger: bool) -> None:
        """Halt when all first answers are somebody else's: a captive portal's page says 200 to everything."""
        if stranger and self._strangers is not None:
            self._strangers += 1
            if self._strangers == FIRST_ANSWERS:
                self._stop.drain(Cause(Exit.HALTED, NOT_THE_API))

    def _fail(self, one: Reversal, code: str, reason: str) -> None:
        self._undone.fail(one.key, code, reason)
        self._on_error(one, code, reason)

    def _heed_forbidden(self, reason: str, *, forbidden: bool) -> None:
        if forbidden and self._forbidden is not None:
            self._forbidden += 1
            if self._forbidden == FIRST_FORBIDDEN:
                self._stop.drain(Cause(Exit.HALTED, f"halted: this account may not close participants ({reason})"))

    async def _ask(self, one: Reversal) -> Closed | Refused | Retry | Halt:
        """Ask once, tell the traffic what came back, and return what it means."""
        lane = self._traffic.creates
        departure = _Departure(self._traffic, self._undone)
        try:
            await departure.enter()
            try:
                answer = await self._api.close(one.interaction_sid, one.channel_sid, one.sid, departure)
            finally:
                permit = departure.home()
            verdict = judge_closing(answer, one.sid)
            if isinstance(verdict, Halt) and verdict.misconfigured:  # which says nothing about the service
                self._undone.requests -= departure.was_away
            elif not isinstance(answer, Reply):
                lane.fail(answer.reason, unreachable=not departure.was_away)
            elif answer.status >= _SERVER_ERROR:
                lane.fail(f"status {answer.status}", unreachable=False)
            elif isinstance(verdict, Retry) and verdict.throttled:
                self._undone.throttled += 1
                if permit is not None:
                    lane.refuse(permit, Refusal(verdict.code, verdict.after_seconds, answer.concurrent))
            else:
                lane.admit(answer.concurrent)
        finally:
            departure.end()
        return verdict


class _Departure(LaneDeparture):
    """A closing on its way, counted. was_away: whether it left."""

    def __init__(self, traffic: Traffic, undone: Undone) -> None:
        super().__init__(traffic, traffic.creates)
        self._undone = undone
        self._away = False
        self.was_away = False

    def left(self) -> None:
        super().left()
        self._undone.requests += 1
        self._undone.in_flight += 1
        self._away = self.was_away = True

    def home(self) -> Permit | None:
        self._undone.in_flight -= self._away
        self._away = False
        return super().home()
