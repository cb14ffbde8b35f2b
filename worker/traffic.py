"""What may leave, and when.

Requests of each kind have a lane with a rate of its own; all lanes of a run share the slots (requests at once), the
breaker, and whatever holds the whole run.

A request passes, in this order, what holds the run (closed hours, a pause), the breaker, its slot, and the grant, which
is last, so that nothing bunches after it.
"""

import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

import anyio

from worker.adaptive import RateFinder, SlotFinder
from worker.breaker import Breaker, RetryQuota
from worker.config import Limits
from worker.config import Retry as RetrySettings
from worker.limiter import Limiter
from worker.model import Change

CONCURRENCY_CODE = "20429"
"""Too many requests at once [docs]; every other 429 is taken for one about the rate."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A 429. after_seconds: what Retry-After asks for. concurrent: the account's requests at once, if it was told."""

    code: str
    after_seconds: float | None = None
    concurrent: int | None = None


class WithdrawnError(Exception):
    """The run drained while a request waited for its permit: it never left."""


class Permit:
    """One request's place in the traffic, from its slot until it is over. probe: whether it tries a service that is
    down; left_at: seconds of the traffic's clock; in_flight: requests at once when it left, itself included.
    """  # noqa: D205 - one sentence

    __slots__ = ("in_flight", "left_at", "probe", "slot")

    def __init__(self, *, probe: bool) -> None:
        self.left_at = -math.inf
        self.in_flight = 0
        self.probe = probe
        self.slot = False

    @property
    def has_left(self) -> bool:
        """Whether the request left."""
        return self.left_at > -math.inf


class Traffic:
    """The lanes of a run. clock: the event loop's seconds; wall: seconds since 1970.

    on_change: is told what was decided about the limits, and why. on_outage: is told when the service has been down for
    too long.
    """

    def __init__(
        self,
        limits: Limits,
        retry: RetrySettings,
        draining: anyio.Event,
        *,
        outage_seconds: float = 0,
        on_change: Callable[[Change], None] = lambda _: None,
        on_outage: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = anyio.current_time,
        wall: Callable[[], float] = time.time,
        jitter: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self.retry = retry
        self.clock = clock
        self.jitter = jitter
        self.tell = on_change
        self.adaptive = limits.adaptive
        self.breaker = Breaker(outage_seconds)
        self.quota = RetryQuota()
        self.slots = anyio.CapacityLimiter(limits.concurrency)
        self.slot_finder = SlotFinder(limits.concurrency)
        self.draining = draining
        self.waiting: set[anyio.CancelScope] = set()
        self.in_flight = 0
        self.wanting_slot = 0
        self.creates = Lane(self, "rate", limits.rate_per_second, limits.min_rate_per_second, feeds_breaker=True)
        self.lists = Lane(self, "list rate", limits.list_rate_per_second, limits.min_rate_per_second)
        self._on_outage = on_outage
        self._wall = wall
        self._closes_at = math.inf
        self._holds: set[str] = set()
        self._changed = anyio.Event()

    # ---- what holds the whole run -----------------------------------------------------------------------------------

    @property
    def is_held(self) -> bool:
        """Whether nothing may leave now, whatever the limits."""
        return bool(self._holds) or self._wall() >= self._closes_at

    @property
    def held_by(self) -> str:
        """What keeps requests from leaving, in words; nothing if nothing does."""
        if self._holds:
            return ", ".join(sorted(self._holds))
        return f"the service is down: {self.breaker.reason}" if self.breaker.is_open else ""

    def hold(self, reason: str) -> None:
        """Let nothing leave until this reason is gone."""
        self._holds.add(reason)

    def unhold(self, reason: str) -> None:
        """Take a reason back; what waited goes on, at its rate."""
        self._holds.discard(reason)
        self.wake()

    def close_at(self, wall_seconds: float) -> None:
        """Let nothing leave from this moment on (seconds since 1970), however late the timers are."""
        self._closes_at = wall_seconds
        self.wake()

    def cap(self, rate: float) -> None:
        """Exceed this rate on no lane; what was configured stays the ceiling all the same."""
        for lane in (self.creates, self.lists):
            lane.cap(rate)

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
            elif not self.breaker.is_open or not (minds_breaker or self.breaker.unreachable):
                return False
            elif self.breaker.try_probe(self.clock()):
                return True
            else:
                await self._wait(self.breaker.next_probe)

    async def _wait(self, until: float) -> None:
        """Wait for a change, or until a moment; an outage that lasted too long is found out here."""
        deadline = min(until, self.breaker.gives_up_at)
        with anyio.move_on_after(deadline - self.clock()):
            await self._changed.wait()
        now = self.clock()
        if now >= self.breaker.gives_up_at:
            self._on_outage(self.breaker.reason)
            if until <= now:
                await anyio.sleep_forever()  # the run is stopping: whoever waits is called back

    # ---- outages ----------------------------------------------------------------------------------------------------

    def active(self) -> float:
        """Return the clock without the time in which the service was down: budgets are no matter of outages."""
        now = self.clock()
        return now - self.breaker.open_seconds(now)

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
        was_open = self.breaker.open_seconds(self.clock())
        if self.breaker.succeed(self.clock()):
            self.tell(Change("outage.ended", "the service is back", {"down_seconds": round(was_open, 1)}))
            self.wake()

    def follow_slots(self, before: int, why: str) -> None:
        """Make the slots what was found."""
        limit = self.slot_finder.limit
        if limit == before:
            return
        self.slots.total_tokens = limit
        if why or limit == self.slot_finder.ceiling:
            self.tell_limit("concurrency", before, limit, why)

    def tell_limit(self, what: str, before: float, now: float, why: str) -> None:
        """Say what a limit was found to be. why: what cut it; nothing when it is what was configured again."""
        how = f"down from {before:.3g} after {why}" if why else "its configured limit again"
        self.tell(
            Change(
                "limit.adapted", f"{what} {now:.3g}, {how}", {"limit": what, "before": before, "now": now, "why": why}
            )
        )


class Lane:
    """Requests of one kind. rate: a second, at most; infinite is allowed. feeds_breaker: whether their server errors
    mean that the service is down, and they wait until it is back.
    """  # noqa: D205 - one sentence

    def __init__(self, traffic: Traffic, name: str, rate: float, floor: float, *, feeds_breaker: bool = False) -> None:
        self._traffic = traffic
        self._name = name
        self._configured = rate
        self._feeds_breaker = feeds_breaker
        self._finder = RateFinder(rate, floor)
        self._limiter = Limiter(rate, clock=traffic.clock)
        self._refused_at = -math.inf
        self._streak = 0

    @property
    def rate(self) -> float:
        """Requests a second, now."""
        return self._limiter.rate

    @property
    def ceiling(self) -> float:
        """Requests a second that are never exceeded: the least of what was configured, steered and set by the hours."""
        return self._finder.ceiling

    def cap(self, rate: float) -> None:
        """Exceed this rate no more."""
        self._finder.ceiling = min(self._configured, rate)
        self._follow()

    def pause(self, seconds: float) -> None:
        """Let nothing leave for so long."""
        self._limiter.pause(seconds)

    async def acquire(self) -> Permit:
        """Return when one request may leave. Raises WithdrawnError when the run drains before that."""
        traffic = self._traffic
        with anyio.CancelScope() as scope:
            traffic.waiting.add(scope)
            try:
                while not traffic.draining.is_set():
                    permit = Permit(probe=await traffic.enter(minds_breaker=self._feeds_breaker))
                    try:
                        await self._take_slot(permit)
                        await self._limiter.acquire()
                    except BaseException:
                        self.give_back(permit)
                        raise
                    if not traffic.is_held and not traffic.draining.is_set():
                        return permit
                    self.give_back(permit)
            finally:
                traffic.waiting.discard(scope)
        raise WithdrawnError

    async def _take_slot(self, permit: Permit) -> None:
        slots = self._traffic.slots
        try:
            slots.acquire_on_behalf_of_nowait(permit)
        except anyio.WouldBlock:
            self._traffic.wanting_slot += 1
            try:
                await slots.acquire_on_behalf_of(permit)
            finally:
                self._traffic.wanting_slot -= 1
        permit.slot = True

    def depart(self, permit: Permit) -> None:
        """Take note that a request leaves."""
        permit.left_at = self._traffic.clock()
        self._traffic.in_flight += 1
        permit.in_flight = self._traffic.in_flight

    def give_back(self, permit: Permit) -> None:
        """Take note that a request is over, or will not leave; what it found out is said afterwards."""
        traffic = self._traffic
        if permit.slot:
            permit.slot = False
            traffic.slots.release_on_behalf_of(permit)
        traffic.in_flight -= permit.has_left
        if permit.probe and not permit.has_left:
            traffic.breaker.withdraw_probe()
            traffic.wake()

    # ---- what came back ---------------------------------------------------------------------------------------------

    def admit(self, concurrent: int | None = None) -> None:
        """Take note of an answer that was no 429. concurrent: the account's requests at once, if it was told."""
        self._streak = 0
        traffic = self._traffic
        if self._feeds_breaker or traffic.breaker.unreachable:
            traffic.succeeded()
        if not self._traffic.adaptive:
            return
        now = traffic.clock()
        before = self._finder.found
        self._finder.admit(now, pressed=self._limiter.waiting > 0)
        self._follow()
        if before is not None and self._finder.found is None:
            traffic.tell_limit(self._name, before, self.rate, "")
        slots = traffic.slot_finder.limit
        pressed = traffic.wanting_slot > 0 and not self._limiter.waiting
        in_flight = traffic.in_flight + 1
        traffic.slot_finder.admit(now, pressed=pressed, in_flight=in_flight, concurrent=concurrent)
        traffic.follow_slots(slots, "")

    def refuse(self, permit: Permit, refusal: Refusal) -> None:
        """Take note of a 429: everybody slows down at once."""
        now = self._traffic.clock()
        again = permit.left_at > self._refused_at
        if again:
            self._refused_at = now
            self._streak += 1
        if self._feeds_breaker:
            self._traffic.succeeded()
        if self._traffic.adaptive:
            self._adapt(now, permit, refusal)
        self._hold_everybody(refusal, again=again)

    def fail(self, reason: str, *, unreachable: bool) -> None:
        """Take note of a server error, or of a connection that could not be made or that broke."""
        if self._feeds_breaker or unreachable:
            self._traffic.failed(reason, unreachable=unreachable)

    def _adapt(self, now: float, permit: Permit, refusal: Refusal) -> None:
        traffic = self._traffic
        why = f"429 ({refusal.code})"
        slots = traffic.slot_finder.limit
        if refusal.code == CONCURRENCY_CODE and slots > 1:
            traffic.slot_finder.refuse(now, permit.left_at, in_flight=permit.in_flight, concurrent=refusal.concurrent)
            traffic.follow_slots(slots, why)
            return
        before = self.rate
        if self._finder.refuse(now, permit.left_at):
            self._follow()
            traffic.tell_limit(self._name, before, self.rate, why)

    def _hold_everybody(self, refusal: Refusal, *, again: bool) -> None:
        """Pause: as long as the service asks for, otherwise with full jitter, longer with each refusal on end.

        Who adapts need not pause for a single refusal: the rate is right again at once.
        """
        traffic, retry = self._traffic, self._traffic.retry
        if refusal.after_seconds is not None:
            seconds = min(refusal.after_seconds, retry.max_retry_after_seconds)
            if seconds < refusal.after_seconds:
                asked = f"the service asked to wait {refusal.after_seconds:,.0f} s; waiting {seconds:g} s"
                traffic.tell(Change("wait.capped", asked, {"asked_seconds": refusal.after_seconds, "seconds": seconds}))
            for lane in (traffic.creates, traffic.lists):
                lane.pause(seconds)
            return
        rounds = self._streak - 1 - traffic.adaptive
        if again and rounds >= 0:
            longest = min(retry.initial_seconds * 2.0 ** min(rounds, 30), retry.max_seconds)
            self.pause(traffic.jitter(0, longest))

    def _follow(self) -> None:
        if self._finder.rate != self._limiter.rate:
            self._limiter.rate = self._finder.rate
