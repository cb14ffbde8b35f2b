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
from worker.model import Answer, Cause, Exit, Halt, Reply, Retry
from worker.stopping import Stop
from worker.traffic import LaneDeparture, Patience, Permit, Refusal, Traffic, WithdrawnError
from worker.verdict import Closed, Refused, judge_closing

_SERVER_ERROR = 500

FIRST_FORBIDDEN = 5
"""If closing is forbidden so often before any was allowed, it is not allowed at all [docs: it may not be]."""


class Reversal(NamedTuple):
    """A created row whose participant is to be closed. number: the row's in the ledger."""

    number: int
    key: str
    sid: str
    interaction_sid: str
    channel_sid: str


class Closer(Protocol):
    """What undoing needs of the API."""

    def close(self, interaction_sid: str, channel_sid: str, sid: str, departure: LaneDeparture) -> Awaitable[Answer]:
        """Close one participant."""
        ...


@dataclass(slots=True)
class Undone:
    """What became of what was to be closed, in rows. errors: code and reason → rows, and the first one's key."""

    closed: int = 0
    errored: int = 0
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
    """Closes participants until there are none left or the run ends. on_error: is told which row could not be."""

    def __init__(
        self,
        api: Closer,
        traffic: Traffic,
        journal: Journal,
        undone: Undone,
        stop: Stop,
        *,
        on_error: Callable[[Reversal, str, str], None],
    ) -> None:
        self._api = api
        self._traffic = traffic
        self._journal = journal
        self._undone = undone
        self._stop = stop
        self._on_error = on_error
        self._forbidden: int | None = 0

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
        patience = Patience(self._traffic)
        while not self._stop.draining.is_set():
            try:
                verdict = judge_closing(await self._ask(one))
            except WithdrawnError:
                return
            match verdict:
                case Closed():
                    self._forbidden = None
                    await self._journal.note([Close(one.number, one.key)])
                    self._undone.closed += 1
                    return
                case Refused(code, reason, forbidden):
                    self._fail(one, code, reason)
                    self._heed_forbidden(reason, forbidden=forbidden)
                    return
                case Halt(code, reason):
                    self._stop.drain(Cause(Exit.HALTED, f"halted: {reason} ({code})"))
                    return
                case Retry(code, reason, after_seconds, throttled):
                    if not await patience.wait(throttled=throttled, after_seconds=after_seconds):
                        self._fail(one, code, reason)
                        return
                    self._undone.retries += 1

    def _fail(self, one: Reversal, code: str, reason: str) -> None:
        self._undone.fail(one.key, code, reason)
        self._on_error(one, code, reason)

    def _heed_forbidden(self, reason: str, *, forbidden: bool) -> None:
        if forbidden and self._forbidden is not None:
            self._forbidden += 1
            if self._forbidden == FIRST_FORBIDDEN:
                self._stop.drain(Cause(Exit.HALTED, f"halted: this account may not close participants ({reason})"))

    async def _ask(self, one: Reversal) -> Answer:
        """Ask once, and tell the traffic what came back."""
        lane = self._traffic.creates
        departure = _Departure(self._traffic, self._undone)
        try:
            await departure.enter()
            try:
                answer = await self._api.close(one.interaction_sid, one.channel_sid, one.sid, departure)
            finally:
                permit = departure.home()
            if not isinstance(answer, Reply):
                lane.fail(answer.reason, unreachable=not departure.was_away)
            elif answer.status >= _SERVER_ERROR:
                lane.fail(f"status {answer.status}", unreachable=False)
            elif isinstance(verdict := judge_closing(answer), Retry) and verdict.throttled:
                self._undone.throttled += 1
                if permit is not None:
                    lane.refuse(permit, Refusal(verdict.code, verdict.after_seconds, answer.concurrent))
            else:
                lane.admit(answer.concurrent)
        finally:
            departure.end()
        return answer


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
