"""The emulated service as its owner holds it: what it shall do, and what it did."""

import asyncio
import random
import time
from base64 import b64encode
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from worker.emulator.behaviour import Behaviour
from worker.emulator.fault import ORDINARY, Answer, Call, Fault, Scripted, When, forbid_for
from worker.emulator.form import Wanted
from worker.emulator.truth import Condition, Participant, Request, Stats, Truth

_SOME_INTERACTION: Final = "KD" + "0" * 32


class Emulator:
    """A Flex API of one's own: `serve` puts it on a port, this object steers it and knows the truth.

    `credentials` maps users to passwords; None accepts any user, but never a request without one. `seed` decides which
    requests meet faults (None: another run, other faults), `clock` is the monotonic clock in seconds of the limits, the
    list's lag and the truth. Without `remember` it keeps counters only, so that a million rows cost no memory: lists
    are then empty, and what needs the past (`refuse_members`, `participants_per_channel`) raises ValueError.

    It belongs to the event loop that serves it and is not safe to use from another thread.
    """

    def __init__(
        self,
        behaviour: Behaviour | None = None,
        *,
        credentials: Mapping[str, str] | None = None,
        remember: bool = True,
        seed: int | None = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.clock = clock
        self.truth = Truth(clock=clock, remember=remember)
        self.authorizations: frozenset[str] | None = (
            None if credentials is None else frozenset(_basic(*pair) for pair in credentials.items())
        )
        self._dice = random.Random(seed)  # noqa: S311 - chance, not secrets
        self._spread = random.Random(seed)  # noqa: S311 - of its own: latency must not change who meets a fault
        self.words = random.Random(seed)  # noqa: S311 - which of a fault's forms is met
        self._scripts: dict[tuple[Call, str | None], deque[Scripted]] = {}
        self._late: dict[object, tuple[asyncio.TimerHandle, Callable[[], None]]] = {}
        self._watchers: list[asyncio.Future[None]] = []
        self._odds: dict[Call, dict[Scripted, float]] = {}
        self._outage_began = 0.0
        self._behaviour = Behaviour()
        self.behaviour = behaviour or Behaviour()

    # ---- steering

    @property
    def behaviour(self) -> Behaviour:
        """How the service behaves now. Setting it takes effect with the next request."""
        return self._behaviour

    @behaviour.setter
    def behaviour(self, behaviour: Behaviour) -> None:
        if not self.truth.remember and (behaviour.refuse_members or behaviour.participants_per_channel is not None):
            raise ValueError("refuse_members and participants_per_channel need an emulator that remembers")
        if behaviour.outages != self._behaviour.outages:
            self._outage_began = self.clock()
        self._behaviour = behaviour
        self._odds = {
            Call.CREATE: behaviour.create_odds,
            Call.LIST: behaviour.list_odds,
            Call.UPDATE: behaviour.update_odds,
        }

    def change(self, **settings: Any) -> None:
        """Change some settings of the behaviour while it runs; TypeError for an unknown one."""
        self.behaviour = replace(self._behaviour, **settings)

    def script(self, channel_sid: str, *entries: Scripted | Answer, on: Call = Call.CREATE) -> None:
        """Let the next calls in this channel that pass credentials and limits meet these, one each, in order.

        A bare Answer is given with nothing made. Raises ValueError for `late` on anything but a create.
        """
        self._append(channel_sid, entries, on)

    def script_next(self, *entries: Scripted | Answer, on: Call = Call.CREATE) -> None:
        """Let the next calls meet these, whatever their channel; a channel's own script goes first."""
        self._append(None, entries, on)

    def declare(self, channel_sid: str, condition: Condition) -> None:
        """Declare a channel missing (20404), closed (45354), full (50417) or open again."""
        self.truth.declare(channel_sid, condition)

    def add_foreign(
        self,
        channel_sid: str,
        *,
        interaction_sid: str = _SOME_INTERACTION,
        type: str = "customer",  # noqa: A002 - the API's word
        media_properties: Any = None,
        routing_properties: dict[str, Any] | None = None,
        listed_after_seconds: float = 0.0,
    ) -> Participant:
        """Add a participant that is not the import's, as live traffic does; at any time."""
        self.truth.counts["foreign"] += 1
        return self._add(
            interaction_sid,
            channel_sid,
            Wanted(type, media_properties, routing_properties),
            sid=self.truth.new_sid("UT"),
            foreign=True,
            lag=listed_after_seconds,
        )

    # ---- looking

    @property
    def participants(self) -> list[Participant]:
        """Every participant that exists, in the order of making."""
        return list(self.truth.participants.values())

    @property
    def requests(self) -> list[Request]:
        """Every create that came, in the order of arrival."""
        return list(self.truth.requests)

    @property
    def stats(self) -> Stats:
        """The counters as they are now."""
        return self.truth.stats(late_pending=len(self._late))

    def in_flight(self, channel_sid: str) -> int:
        """How many creates are in flight in this channel now."""
        return self.truth.flight.in_channel(channel_sid)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition over this object holds; it is looked at whenever something happens here."""
        while not condition():
            watcher = asyncio.get_running_loop().create_future()
            self._watchers.append(watcher)
            await watcher

    async def settled(self) -> None:
        """Wait until no request is being worked on and nothing will be made late."""
        await self.until(lambda: not self.truth.flight.working and not self._late)

    # ---- for the server

    def happened(self) -> None:
        """Let those who wait look again."""
        if self._watchers:
            watchers, self._watchers = self._watchers, []
            for watcher in watchers:
                if not watcher.done():
                    watcher.set_result(None)

    def next_for(self, call: Call, channel_sid: str) -> Scripted:
        """Take what this call will meet: from its channel's script, the script for any, or by chance."""
        if self._scripts:
            for key in ((call, channel_sid), (call, None)):
                if entries := self._scripts.get(key):
                    return entries.popleft()
        odds = self._odds.get(call)
        if odds:
            left = self._dice.random()
            for scripted, probability in odds.items():
                left -= probability
                if left < 0:
                    return scripted
        return ORDINARY

    def outage(self, call: Call) -> int | None:
        """Return the status that all calls of this kind are answered with now, None when there is no outage."""
        behaviour = self._behaviour
        match call:
            case Call.CREATE:
                status = behaviour.create_outage
            case Call.LIST:
                status = behaviour.list_outage
            case _:
                status = behaviour.update_outage
        lasts = behaviour.outage_seconds
        if status is not None and lasts is not None and self.clock() - self._outage_began >= lasts:
            return None
        return status

    def latency(self) -> float:
        """How long this request takes, in seconds."""
        behaviour = self._behaviour
        jitter = behaviour.latency_jitter_seconds
        return behaviour.latency_seconds + (self._spread.uniform(0, jitter) if jitter else 0.0)

    def make(self, interaction_sid: str, channel_sid: str, wanted: Wanted, *, sid: str) -> None:
        """Make the participant that a create asked for."""
        self.truth.created += 1
        if self.truth.remember:
            lag = self._behaviour.list_lag_seconds
            self._add(interaction_sid, channel_sid, wanted, sid=sid, foreign=False, lag=lag)
        self.happened()

    def make_late(self, seconds: float, make: Callable[[], None]) -> None:
        """Make something in so many seconds, or at once when the emulator is hurried."""
        ticket = object()

        def due() -> None:
            self._late.pop(ticket)
            make()

        self._late[ticket] = (asyncio.get_running_loop().call_later(seconds, due), due)

    def hurry(self) -> None:
        """Make at once whatever was to be made late: a service that closes finishes what it has accepted."""
        for timer, due in list(self._late.values()):
            timer.cancel()
            due()

    def _add(
        self, interaction_sid: str, channel_sid: str, wanted: Wanted, *, sid: str, foreign: bool, lag: float
    ) -> Participant:
        now = self.clock()
        participant = Participant(
            sid=sid,
            type=wanted.type,
            interaction_sid=interaction_sid,
            channel_sid=channel_sid,
            media_properties=wanted.media_properties,
            routing_properties=wanted.routing_properties,
            foreign=foreign,
            made_at=now,
            listed_at=now + lag,
            status="active",
        )
        self.truth.add(participant)
        return participant

    def _append(self, channel_sid: str | None, entries: tuple[Scripted | Answer, ...], on: Call) -> None:
        scripted = [Scripted(what=entry) if isinstance(entry, Answer) else entry for entry in entries]
        if on is not Call.CREATE and any(entry.when is When.LATE for entry in scripted):
            raise ValueError(f"only a create can be done late, not a {on}")
        forbid_for(on, *(entry.what for entry in scripted if isinstance(entry.what, Fault)))
        self._scripts.setdefault((on, channel_sid), deque()).extend(scripted)


def _basic(user: str, password: str) -> str:
    return "Basic " + b64encode(f"{user}:{password}".encode()).decode()
