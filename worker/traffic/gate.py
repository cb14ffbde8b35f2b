"""What holds a whole run: closed hours, a pause, a service that is down. Whoever wants to send passes here first."""

import math
from collections.abc import Callable

import anyio

from worker.breaker import Breaker
from worker.model import Change


class WithdrawnError(Exception):
    """The run drained while a request waited for its permit: it never left."""


class Gate:
    """Open, or held for some reasons. clock: the event loop's seconds; wall: seconds since 1970.

    on_change: is told what was decided, and why. on_outage: is told when the service has been down for too long.
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

    async def enter(self, *, minds_breaker: bool) -> bool:
        """Wait until a request may ask for its slot; tell whether it is the one that tries if the service is there."""
        while True:
            if self.is_held:
                await self._wait(math.inf)
            elif not self.keeps_out(minds_breaker=minds_breaker):
                return False
            elif self.breaker.try_probe(self.clock()):
                return True
            else:
                await self._wait(self.breaker.next_probe)

    def keeps_out(self, *, minds_breaker: bool) -> bool:
        """Tell whether the breaker keeps requests of a kind from leaving."""
        return self.breaker.is_open and (minds_breaker or self.breaker.unreachable)

    def withdraw_probe(self) -> None:
        """Let somebody else try whether the service is there: who was to did not find out."""
        self.breaker.withdraw_probe()
        self.wake()

    async def _wait(self, until: float) -> None:
        """Wait for a change, or until a moment; an outage that lasted too long is found out here."""
        deadline = min(until, self.breaker.gives_up_at)
        with anyio.move_on_after(deadline - self.clock()):
            await self._changed.wait()
        now = self.clock()
        if now >= self.breaker.gives_up_at:
            self._on_outage(self.breaker.reason)
            await anyio.sleep_forever()  # the run drains: whoever waits is called back

    # ---- outages ----------------------------------------------------------------------------------------------------

    def active(self) -> float:
        """Return the clock without the time in which nothing could leave: that uses up no row's budget."""
        now = self.clock()
        held = self._held_seconds + (now - self._held_at if self._holds else 0.0)
        return now - held - self.breaker.open_seconds(now)

    def failed(self, reason: str, *, unreachable: bool) -> None:
        """Take note of a server error or a failed connection."""
        if self.breaker.fail(self.clock(), reason, unreachable=unreachable):
            self.tell(
                Change("outage.begun", f"the service is down ({reason}): waiting until it is back", {"reason": reason})
            )
        if self.breaker.is_open:
            self.wake()

    def succeeded(self) -> None:
        """Take note that the service is there."""
        now = self.clock()
        lasted = self.breaker.outage_seconds(now)
        if self.breaker.succeed(now):
            back = f"the service is back, after {lasted:,.0f} s"
            self.tell(Change("outage.ended", back, {"down_seconds": round(lasted, 1)}))
            self.wake()
