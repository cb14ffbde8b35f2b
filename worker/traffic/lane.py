"""The lanes of a run: requests of each kind have a rate of their own, and share the slots."""

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
from worker.latency import Latencies
from worker.model import Change
from worker.traffic.gate import Gate, WithdrawnError
from worker.traffic.pace import Alone, Pace

CONCURRENCY_CODE = "20429"
"""Too many requests at once [docs]; every other 429 is taken for one about the rate."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A 429. after_seconds: what Retry-After asks for. concurrent: the account's requests at once, if it was told."""

    code: str
    after_seconds: float | None = None
    concurrent: int | None = None


class Permit:
    """One request's place in the traffic, from its slot until it is over. tries: the breaker of what it tries, if that
    is down; left_at: seconds of the traffic's clock; in_flight: requests at once when it left, itself included.
    """  # noqa: D205 - one sentence

    __slots__ = ("in_flight", "left_at", "slot", "tries")

    def __init__(self, tries: Breaker | None = None) -> None:
        self.left_at = -math.inf
        self.in_flight = 0
        self.tries = tries
        self.slot = False

    @property
    def probe(self) -> bool:
        """Whether it tries something that is down."""
        return self.tries is not None

    @property
    def has_left(self) -> bool:
        """Whether the request left."""
        return self.left_at > -math.inf


class Traffic(Gate):
    """The traffic of a run. Its parameters are those of `Gate`; jitter(least, most) spreads the waits.

    share(name, limiter, lane) makes the pace of a lane of its limiter.
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
        share: "Callable[[str, Alone, Lane], Pace]" = lambda _name, limiter, _lane: limiter,
    ) -> None:
        super().__init__(
            draining,
            outage_seconds=outage_seconds,
            on_change=on_change,
            on_outage=on_outage,
            clock=clock,
            wall=wall,
        )
        self.retry = retry
        self.jitter = jitter
        self.share = share
        self.adaptive = limits.adaptive
        self.quota = RetryQuota()
        self.slots = anyio.CapacityLimiter(limits.concurrency)
        self.slot_finder = SlotFinder(limits.concurrency)
        self.latencies = Latencies()
        self.wanting_slot = 0
        self.creates = Lane(self, "rate", limits.rate_per_second, limits.min_rate_per_second)
        self.lists = Lane(self, "list rate", limits.list_rate_per_second, limits.min_rate_per_second, lists=True)

    def cap(self, rate: float) -> None:
        """Exceed this rate on no lane; what was configured stays the ceiling all the same."""
        for lane in (self.creates, self.lists):
            lane.cap(rate)

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
        way = "down" if now < before else "up"
        how = f"{way} from {before:.3g} after {why}" if why else "its configured limit again"
        self.tell(
            Change(
                "limit.adapted", f"{what} {now:.3g}, {how}", {"limit": what, "before": before, "now": now, "why": why}
            )
        )


class Lane:
    """Requests of one kind. rate: a second, at most; infinite is allowed.

    lists: whether their server errors mean only that lists are down, not the service; and lists wait until they are
    back, or until the service can be reached again.
    """

    def __init__(self, traffic: Traffic, name: str, rate: float, floor: float, *, lists: bool = False) -> None:
        self._traffic = traffic
        self._name = name
        self._configured = rate
        self._is_lists = lists
        self._finder = RateFinder(rate, floor)
        self._limiter = traffic.share(name, Alone(rate, clock=traffic.clock), self)
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

    def pause_all(self, seconds: float) -> None:
        """Let nothing leave for so long, wherever else the same pace is kept."""
        self._limiter.pause_all(seconds)

    def adopt(self, found: float) -> None:
        """Go on from the limit that another worker has found."""
        if not self._traffic.adaptive:
            return
        before, now = self.rate, self._traffic.clock()
        self._refused_at = now  # what left by now met the same limit
        self._finder.adopt(found, now)
        self._follow()
        if self.rate != before:
            self._traffic.tell_limit(self._name, before, self.rate, "429 at another worker")

    def _barrier(self) -> Breaker | None:
        """Return the breaker that lets only one request of this kind at a time through, if one does."""
        service, lists = self._traffic.breaker, self._traffic.list_breaker
        if not self._is_lists:
            return service if service.is_open else None
        if lists.is_open:
            return lists
        return service if service.is_open and service.unreachable else None

    async def enter(self) -> bool:
        """Wait until an attempt may begin; tell whether it is the one that tries a service that is down.

        Raises WithdrawnError when the run drains before that.
        """
        return await self.approach() is not None

    async def approach(self) -> Breaker | None:
        """Do as `enter` does; return the breaker of what is tried."""
        traffic = self._traffic
        if not traffic.is_held and self._barrier() is None:
            return None
        with anyio.CancelScope() as scope:
            traffic.waiting.add(scope)
            try:
                if not traffic.draining.is_set():
                    return await traffic.enter(self._barrier)
            finally:
                traffic.waiting.discard(scope)
        raise WithdrawnError

    async def acquire(self, *, probe: bool = False, tries: Breaker | None = None) -> Permit:
        """Return when one request may leave. probe, tries: as `enter` or `approach` told.

        Raises WithdrawnError when the run drains.
        """
        traffic = self._traffic
        if probe:
            tries = tries or traffic.breaker
        if tries is None and (at_once := self._acquire_nowait()):
            return at_once
        with anyio.CancelScope() as scope:
            traffic.waiting.add(scope)
            try:
                while not traffic.draining.is_set():
                    permit = Permit(tries or await traffic.enter(self._barrier))
                    tries = None
                    try:
                        await self._take_slot(permit)
                        await self._limiter.acquire()
                    except BaseException:
                        self.give_back(permit)
                        raise
                    stays = permit.probe or self._barrier() is None
                    if stays and not traffic.is_held and not traffic.draining.is_set():
                        return permit
                    self.give_back(permit)
            finally:
                traffic.waiting.discard(scope)
        raise WithdrawnError

    def _acquire_nowait(self) -> Permit | None:
        """Return a permit if nothing has to be waited for: most have not, and a scope costs more than all of it."""
        traffic = self._traffic
        if traffic.is_held or traffic.breaker.is_open or traffic.list_breaker.is_open or traffic.draining.is_set():
            return None
        permit = Permit()
        try:
            traffic.slots.acquire_on_behalf_of_nowait(permit)
        except anyio.WouldBlock:
            return None
        permit.slot = True
        if self._limiter.acquire_nowait():
            return permit
        self.give_back(permit)
        return None

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
        if permit.tries is not None and not permit.has_left:
            traffic.withdraw_probe(permit.tries)

    # ---- what came back ---------------------------------------------------------------------------------------------

    def admit(self, concurrent: int | None = None) -> None:
        """Take note of an answer that was no 429. concurrent: the account's requests at once, if it was told."""
        self._streak = 0
        traffic = self._traffic
        self.answered()
        if not self._traffic.adaptive:
            return
        now = traffic.clock()
        before = self._finder.found
        self._limiter.count()
        self._finder.admit(now, pressed=self._limiter.waiting > 0)
        self._follow()
        if before is not None and self._finder.found is None:
            traffic.tell_limit(self._name, before, self.rate, "")
            self._limiter.learn(math.inf)
        slots = traffic.slot_finder.limit
        pressed = traffic.wanting_slot > 0 and not self._limiter.waiting
        in_flight = traffic.in_flight + 1
        traffic.slot_finder.admit(now, pressed=pressed, in_flight=in_flight, concurrent=concurrent)
        traffic.follow_slots(slots, "")

    def answered(self) -> None:
        """Take note of an answer of any kind but a 429: it says nothing about the limits."""
        if not self._is_lists:
            self._traffic.creates_answered()
            return
        self._traffic.lists_answered()
        if self._traffic.breaker.unreachable:
            self._traffic.succeeded()

    def refuse(self, permit: Permit, refusal: Refusal) -> None:
        """Take note of a 429: everybody slows down at once."""
        now = self._traffic.clock()
        again = permit.left_at > self._refused_at
        if again:
            self._refused_at = now
            self._streak += 1
        if not self._is_lists:
            self._traffic.creates_refused(refusal.code)
        else:
            self._traffic.lists_refused(refusal.code)
            if self._traffic.breaker.unreachable:
                self._traffic.succeeded()
        if self._traffic.adaptive:
            self._adapt(now, permit, refusal)
        self._hold_everybody(refusal, again=again)

    def fail(self, reason: str, *, unreachable: bool, channel: str = "") -> None:
        """Take note of a server error, or of a connection that could not be made or that broke.

        channel: of a list, whose failures may be that channel's own.
        """
        service = self._traffic.breaker
        if not self._is_lists or unreachable or (service.is_open and service.unreachable):
            self._traffic.failed(reason, unreachable=unreachable)
        if self._is_lists:
            self._traffic.lists_failed(reason, unreachable=unreachable, channel=channel)

    def _adapt(self, now: float, permit: Permit, refusal: Refusal) -> None:
        traffic = self._traffic
        why = f"429 ({refusal.code})"
        slots = traffic.slot_finder.limit
        if refusal.code == CONCURRENCY_CODE and slots > 1:
            traffic.slot_finder.refuse(now, permit.left_at, in_flight=permit.in_flight, concurrent=refusal.concurrent)
            traffic.follow_slots(slots, why)
            return
        before = self.rate
        if self._finder.refuse(now, permit.left_at, let_through=self._limiter.let_through):
            self._follow()
            self._limiter.learn(self._finder.found or math.inf)
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
                lane.pause_all(seconds)
            return
        rounds = self._streak - 1 - traffic.adaptive
        if again and rounds >= 0:
            longest = min(retry.initial_seconds * 2.0 ** min(rounds, 30), retry.max_seconds)
            self._limiter.pause(traffic.jitter(0, longest))

    def _follow(self) -> None:
        if self._finder.rate != self._limiter.rate:
            self._limiter.rate = self._finder.rate
