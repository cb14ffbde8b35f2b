"""The hours of a run, and what people tell it: looked at every second, and obeyed to the second.

Closed hours, an end that was set, and orders all come down to three things: a run is held, capped, or it drains.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import assert_never

import anyio

from worker.errors import LedgerError
from worker.ledger.steering import Order
from worker.model import Cause, Change, Exit
from worker.stopping import Stop
from worker.timetable import Timetable
from worker.traffic import Traffic

LOOK_SECONDS = 1.0
"""How often orders and the wall clock are looked at: the clock may be set while a run goes on."""

PAUSED = "paused"

_HORIZON = timedelta(days=8)


@dataclass(frozen=True, slots=True)
class Hours:
    """When a run may send. until: an instant; seconds: how long it may take; wait: sleep through closed hours."""

    timetable: Timetable
    until: datetime | None = None
    seconds: float | None = None
    wait: bool = False

    def closed(self, now: datetime) -> str:
        """Return how long the hours are closed, in words; nothing when they are open."""
        if self.timetable.rate(now) > 0:
            return ""
        opens = self.timetable.reopens(now)
        return f"closed hours until {opens:%a %H:%M}" if opens else "closed hours"

    def closes(self, now: datetime) -> datetime | None:
        """Return when the hours close next, or the run's end if that is earlier; None: never."""
        at: datetime | None = now
        while at is not None and self.timetable.rate(at) > 0:
            at = self.timetable.next_change(at)
            if at is not None and at >= now + _HORIZON:
                at = None
        ends = [one for one in (at, self.until) if one is not None]
        return min(ends, key=datetime.timestamp, default=None)


class Schedule:
    """Keeps one run to its hours and its orders. orders: returns those that are new.

    wall: seconds since 1970; clock: the event loop's, or any other that does not jump.
    """

    def __init__(
        self,
        hours: Hours,
        traffic: Traffic,
        stop: Stop,
        orders: Callable[[], list[Order]],
        *,
        tell: Callable[[Change], None],
        on_stop: Callable[[Cause], None],
        wall: Callable[[], float],
    ) -> None:
        self._hours = hours
        self._traffic = traffic
        self._stop = stop
        self._orders = orders
        self._tell = tell
        self._on_stop = on_stop
        self._wall = wall
        self._ordered = math.inf
        self._closed = ""
        self.ends_at: datetime | None = None

    async def keep(self) -> None:
        """Look again and again, until cancelled or until the run has to drain."""
        deadline = math.inf if self._hours.seconds is None else anyio.current_time() + self._hours.seconds
        while not self._stop.draining.is_set():
            now = self._now()
            if anyio.current_time() >= deadline:
                self._drain("stopped after as long as --max-duration says")
            elif self._hours.until is not None and now >= self._hours.until:
                self._drain(f"stopped at {self._hours.until:%H:%M}, as --until says")
            else:
                self._keep_hours(now)
                self._take_orders()
                await anyio.sleep(max(0.0, min(LOOK_SECONDS, deadline - anyio.current_time(), self._left(now))))

    def _left(self, now: datetime) -> float:
        return math.inf if self.ends_at is None else self.ends_at.timestamp() - now.timestamp()

    def _keep_hours(self, now: datetime) -> None:
        hours, traffic = self._hours, self._traffic
        closed = hours.closed(now)
        if closed and not hours.wait:
            self._drain(f"stopped at {now.astimezone(hours.timetable.zone):%H:%M}, as the timetable says")
            return
        if closed != self._closed:
            self._tell(Change("hours.closed" if closed else "hours.opened", closed or "open hours", {}))
            traffic.unhold(self._closed)
            if closed:
                traffic.hold(closed)
            self._closed = closed
        ends_at = None if closed else hours.closes(now)
        if closed or ends_at != self.ends_at:
            self.ends_at = ends_at
            traffic.close_at(math.inf if ends_at is None else ends_at.timestamp())
        rate = hours.timetable.rate(now)
        traffic.cap(min(rate or math.inf, self._ordered))

    def _take_orders(self) -> None:
        try:
            orders = self._orders()
        except LedgerError:
            return  # who writes to the ledger finds out what is wrong with it
        for order in orders:
            self._obey(order)

    def _obey(self, order: Order) -> None:
        facts: dict[str, float | int | str] = {"command": order.command, "by": order.by}
        sentence = f"{order.command}, as {order.by} says"
        match order.command:
            case "pause":
                self._traffic.hold(PAUSED)
            case "resume":
                self._traffic.unhold(PAUSED)
            case "drain":
                self._drain(f"drained, as {order.by} says")
            case "rate":
                self._ordered = math.inf if order.rate is None else order.rate
                self._traffic.cap(min(self._hours.timetable.rate(self._now()) or math.inf, self._ordered))
                facts["rate"] = self._ordered
                sentence = f"{self._ordered:g}/s at most, as {order.by} says"
            case _:
                assert_never(order.command)
        self._tell(Change("run.steered", sentence, facts))

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._wall(), UTC)

    def _drain(self, reason: str) -> None:
        cause = Cause(Exit.STOPPED, reason)
        self._on_stop(cause)
        self._stop.drain(cause)
