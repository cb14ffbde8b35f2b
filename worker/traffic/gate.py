"""What holds a whole run: closed hours, a pause, a service that is down. Whoever wants to send passes here first."""

import math
from collections.abc import Callable
from typing import NamedTuple

import anyio

from worker.breaker import LONGEST_PROBE_SECONDS, Breaker
from worker.model import Change

LOOK_SECONDS = 1.0
"""How often an outage that is due to end the run is looked at."""

IDLE_SECONDS = 360.0
"""When nobody has tried for so long although it was time to, nobody has anything to send: no retry waits longer."""

_REFUSALS_APART = IDLE_SECONDS + LONGEST_PROBE_SECONDS
"""Two refusals that are further apart have nothing to do with each other."""

_CREATES, _LISTS = "", "lists: "
"""What an outage is of, in words."""


class _Refusals(NamedTuple):
    """429s with no other answer between them. since: active clock of the first; last: clock of the last."""

    since: float
    last: float
    code: str


class WithdrawnError(Exception):
    """The run drained while a request waited for its permit: it never left."""


class Gate:
    """Open, or held for some reasons. clock: the event loop's seconds; wall: seconds since 1970.

    on_change: is told what was decided, and why. on_outage: is told once by `watch_outage` that the service, or its
    lists, have been down for too long. patient: how many wait before they ask again.
    """

    def __init__(
        self,
        draining: anyio.Event,
        *,
        outage_seconds: float,
        on_change: Callable[[Change], None],
        on_outage: Callable[[str], None],
        clock: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        self.clock = clock
        self.tell = on_change
        self.breaker = Breaker(outage_seconds)
        self.list_breaker = Breaker(outage_seconds)
        self.patient = 0
        self.in_flight = 0
        self._outage_seconds = outage_seconds
        self._failing: Breaker | None = None
        self._failing_channels: set[str] = set()  # the first two whose lists failed since a list was answered
        self._refusals: dict[str, _Refusals] = {}  # by what gets nothing but 429
        self.draining = draining
        self.waiting: set[anyio.CancelScope] = set()
        self._on_outage = on_outage
        self._wall = wall
        self._closes_at = math.inf
        self._holds: set[str] = set()
        self._held_at = 0.0
        self._held_seconds = 0.0
        self._changed = anyio.Event()
        self.lease: Callable[[], bool] = lambda: True
        """Whether this process may still send at all: another one may take its place when it is not heard of."""

    @property
    def is_held(self) -> bool:
        """Whether nothing may leave now, whatever the limits."""
        return bool(self._holds) or self._wall() >= self._closes_at or not self.lease()

    @property
    def held_by(self) -> str:
        """What keeps requests from leaving, in words; nothing if nothing does."""
        if self._holds:
            return ", ".join(sorted(self._holds))
        if not self.lease():
            return "no contact with the ledger's database"
        return f"the service is down: {self.breaker.reason}" if self.breaker.is_open else ""

    def hold(self, reason: str) -> None:
        """Let nothing leave until this reason is gone."""
        if not self._holds:
            self._held_at = self.clock()
        self._holds.add(reason)

    def unhold(self, reason: str) -> None:
        """Take a reason back; what waited goes on, at its rate."""
        if reason not in self._holds:
            return
        self._holds.discard(reason)
        if not self._holds:
            self._held_seconds += self.clock() - self._held_at
            self.wake()

    def close_at(self, wall_seconds: float) -> None:
        """Let nothing leave from this moment on (seconds since 1970), however late the timers are."""
        self._closes_at = wall_seconds
        self.wake()

    def withdraw(self) -> None:
        """Call everybody back who waits for a permit: the run drains."""
        for scope in tuple(self.waiting):
            scope.cancel()

    def wake(self) -> None:
        """Let everybody who waits look again."""
        self._changed.set()
        self._changed = anyio.Event()

    async def until_open(self) -> None:
        """Wait until something may leave, or the run drains: what has not begun need not begin before."""
        if not self.is_held and not self.breaker.is_open:
            return
        with anyio.CancelScope() as scope:
            self.waiting.add(scope)
            try:
                while (self.is_held or self._must_wait_for_service()) and not self.draining.is_set():
                    await self._wait(math.inf if self.is_held else self.breaker.next_probe)
            finally:
                self.waiting.discard(scope)

    def _must_wait_for_service(self) -> bool:
        return self.breaker.is_open and self.breaker.next_probe > self.clock()

    async def enter(self, barrier: Callable[[], Breaker | None]) -> Breaker | None:
        """Wait until a request may ask for its slot; return what it tries, if it is the one that does.

        barrier: returns the breaker that keeps requests of its kind from leaving, if one does now.
        """
        while True:
            if self.is_held:
                await self._wait(math.inf)
            elif (breaker := barrier()) is None:
                return None
            elif breaker.try_probe(self.clock()):
                return breaker
            else:
                await self._wait(breaker.next_probe)

    def withdraw_probe(self, breaker: Breaker | None = None) -> None:
        """Let somebody else try whether the service, or what that breaker is of, is there: who was to did not find
        out.
        """  # noqa: D205 - one sentence
        (breaker or self.breaker).withdraw_probe()
        self.wake()

    async def _wait(self, until: float) -> None:
        """Wait for a change, or until a moment."""
        with anyio.move_on_after(until - self.clock()):
            await self._changed.wait()

    # ---- outages ----------------------------------------------------------------------------------------------------

    async def watch_outage(self) -> None:
        """Tell once that an outage has lasted too long; then, or when the run drains, wait until cancelled.

        Nobody else decides that, so it does not matter who waits for what.
        """
        while not self.draining.is_set():
            if reason := self._lasted_too_long():
                self._on_outage(reason)
                break
            left = min(self.breaker.gives_up_at, self.list_breaker.gives_up_at) - self.clock()
            if self._refusals and self._outage_seconds:
                since = min(refusals.since for refusals in self._refusals.values())
                left = min(left, self._outage_seconds - self.active() + since)
            with anyio.move_on_after(max(left, 0.01) if left > 0 else LOOK_SECONDS):
                await self._changed.wait()
        await anyio.sleep_forever()

    def _lasted_too_long(self) -> str:
        """Return which outage has to end the run, in words; nothing if none has.

        One that nobody waits for, because there is nothing to send, need not end a run that waits for its input.
        """
        now, busy = self.clock(), bool(self.waiting or self.patient or self.in_flight)
        for name, breaker in ((_CREATES, self.breaker), (_LISTS, self.list_breaker)):
            if now >= breaker.gives_up_at and (busy or now - breaker.next_probe <= IDLE_SECONDS):
                return f"{name}{breaker.reason}"
        if not self._outage_seconds or not busy:
            return ""
        for name, (since, last, code) in self._refusals.items():
            if self.active() - since >= self._outage_seconds and now - last <= _REFUSALS_APART:
                return f"{name}nothing but 429 ({code})"
        return ""

    @property
    def awaits_service(self) -> bool:
        """Whether the latest failure belongs to an outage that is known: it is watched, and ends, one way or other."""
        return self._failing is not None and self._failing.is_open

    def active(self) -> float:
        """Return the clock without the time in which nothing could leave: that uses up no row's budget."""
        now = self.clock()
        held = self._held_seconds + (now - self._held_at if self._holds else 0.0)
        return now - held - self.breaker.open_seconds(now)

    def patience(self) -> float:
        """Return `active` without the time in which lists were down, either: who asks for one waits for it."""
        return self.active() - self.list_breaker.open_seconds(self.clock())

    def failed(self, reason: str, *, unreachable: bool) -> None:
        """Take note of a server error or a failed connection."""
        self._fail(self.breaker, "the service is down", "it is back", reason, unreachable=unreachable)

    def succeeded(self) -> None:
        """Take note that the service is there."""
        self._failing = None
        self._succeed(self.breaker, "the service is back")

    def creates_answered(self) -> None:
        """Take note that creates are answered, and with no 429."""
        self._refusals.pop(_CREATES, None)
        self.succeeded()

    def creates_refused(self, code: str) -> None:
        """Take note that a create was answered with a 429: the service is there, but nothing comes of it for ever."""
        self._refuse(_CREATES, code)
        self.succeeded()

    def lists_failed(self, reason: str, *, unreachable: bool, channel: str = "") -> None:
        """Take note that a list failed, of one channel or of none in particular.

        When nothing can be reached, that is the service's outage, not theirs. One channel says nothing about others.
        """
        service = self.breaker
        if channel and len(self._failing_channels) < 2:  # noqa: PLR2004 - two are several
            self._failing_channels.add(channel)
        if len(self._failing_channels) == 1 and not unreachable and not self.list_breaker.is_open:
            self._failing = None
            return
        if self.list_breaker.is_open or not (service.is_open and service.unreachable):
            self._fail(self.list_breaker, "lists are down", "they are back", reason, unreachable=unreachable)

    def lists_answered(self) -> None:
        """Take note that lists are answered, and with no 429: whatever else is down, not the whole service is."""
        self._refusals.pop(_LISTS, None)
        self._failing = None
        self._failing_channels.clear()
        if self.breaker.is_open:
            self.breaker.hasten(self.clock())
            self.wake()
        self._succeed(self.list_breaker, "lists are back")

    def lists_refused(self, code: str) -> None:
        """Take note that a list was answered with a 429: they are there, but nothing comes of it for ever."""
        self._refuse(_LISTS, code)
        self._failing = None
        self._succeed(self.list_breaker, "lists are back")

    def _refuse(self, what: str, code: str) -> None:
        now, known = self.clock(), self._refusals.get(what)
        if known is None or now - known.last > _REFUSALS_APART:
            self._refusals[what] = _Refusals(self.active(), now, code)
            self.wake()
        else:
            self._refusals[what] = known._replace(last=now, code=code)

    def _fail(self, breaker: Breaker, what: str, end: str, reason: str, *, unreachable: bool) -> None:
        self._failing = breaker
        if breaker.fail(self.clock(), reason, unreachable=unreachable):
            self.tell(Change("outage.begun", f"{what} ({reason}): waiting until {end}", {"reason": reason}))
        if breaker.is_open:
            self.wake()

    def _succeed(self, breaker: Breaker, what: str) -> None:
        now = self.clock()
        lasted = breaker.outage_seconds(now)
        if breaker.succeed(now):
            self.tell(Change("outage.ended", f"{what}, after {lasted:,.0f} s", {"down_seconds": round(lasted, 1)}))
            self.wake()
