"""The limiter: who may send a request, and when. Pure arithmetic (`Gcra`), and the line of those who wait (`Limiter`).

The arithmetic is GCRA, a schedule of one grant each 1/rate seconds. A timer always fires late, never early, so that a
plain schedule would lose rate with each grant; this one lets a grant be up to TOLERANCE late before the schedule moves.
That is all it forgives, so grants in any window T never exceed rate·(T + TOLERANCE) + 1. Where the rate changes within
the window, rate·T is the sum over its parts, and the tolerance counts at the rate of the window's first grant.

Why it holds: give each grant a place on the integral of the rate. Each place is at least 1 after the one before, and
lies between the grant's own time less TOLERANCE and that time. Whatever else happens (idle time, a pause, another rate)
only ever moves the next place later.
"""

import math
import sys
from collections import deque
from collections.abc import Callable
from itertools import islice

import anyio

TOLERANCE = 0.010
"""How late, in seconds, a grant may be without the schedule losing rate by it."""


class Gcra:
    """The schedule of the grants. It reads no clock: times are arguments, in seconds, and never run backwards.

    rate: grants per second, above 0; `math.inf` is no limit.
    """

    __slots__ = ("_due", "_hold", "_last", "_rate", "_slot")

    def __init__(self, rate: float) -> None:
        self._rate = _checked(rate)
        self._due = -math.inf  # when the schedule has its next grant, pauses aside
        self._hold = -math.inf  # when the last pause ends
        self._last = -math.inf  # when the last grant was given
        self._slot = -math.inf  # what the schedule had for that: `_last`, less the lateness still to be made up for

    @property
    def rate(self) -> float:
        """Grants per second."""
        return self._rate

    @property
    def tat(self) -> float:
        """The time at which the next grant is due."""
        return max(self._due, self._hold)

    def arrive(self, now: float) -> None:
        """Somebody asks for a grant, and nobody is waiting: the time in which nobody asked earns nothing.

        What a late timer still owes is kept for whoever comes back within TOLERANCE; else a few quick askers, all
        granted by the same timer, would lose at each turn what that timer was late.
        """
        if self._due >= now:
            return
        idle = now - self._last
        self._due = self._due + idle if self._due < self._last and idle <= TOLERANCE else now

    def take(self, now: float) -> bool:
        """Give a grant if one is due, and tell whether it was."""
        tat = self.tat
        if now < tat:
            return False
        self._last = now
        self._slot = max(tat, now - TOLERANCE)
        self._due = self._slot + 1 / self._rate
        return True

    def ready(self, now: float) -> int:
        """Return how many grants are due at this moment."""
        late = now - self.tat
        if late < 0:
            return 0
        return sys.maxsize if math.isinf(self._rate) else int(min(late, TOLERANCE) * self._rate) + 1

    def pause(self, until: float) -> None:
        """Give no grant before that time; a longer pause already in force stays."""
        self._hold = max(self._hold, until)

    def replan(self, rate: float, now: float) -> None:
        """Go on at another rate.

        The next grant is due 1/rate after the last one, but what is left to wait at the old rate is never cut by more
        than the rates' ratio: ten seconds at 0.1/s and a moment at 10/s are no reason for a grant in that moment.
        """
        old, self._rate = self._rate, _checked(rate)
        if math.isinf(old):
            left = self._due  # never in the future: there is nothing to stretch
        elif math.isinf(rate):
            left = min(self._due, now)
        else:
            left = now + (self._due - now) * (old / rate)
        self._due = max(left, self._slot + 1 / rate)


class _Place:
    """A place in the line. call: set when there may be something to do for whoever stands there."""

    __slots__ = ("call",)

    def __init__(self) -> None:
        self.call = anyio.Event()


class Limiter:
    """A first come, first served line for grants, each of which allows one request.

    Only the head of the line has a timer. When it fires, the head takes its grant and calls everybody behind whose
    time has come, so that high rates need no more timers than the loop can serve. Nobody is given a grant: whoever is
    called takes it when its task runs, just before `acquire` returns. So the bound holds for the moments of sending,
    not of planning, and a cancelled waiter cannot take a grant with it: it never had one.

    rate: grants per second, above 0; `math.inf` is no limit. clock: seconds that pass as fast as the event loop's.
    """

    def __init__(self, rate: float, *, clock: Callable[[], float] = anyio.current_time) -> None:
        self._gcra = Gcra(rate)
        self._clock = clock
        self._line: deque[_Place] = deque()
        self._unlimited = math.isinf(rate)  # nobody waits, no rate, no pause: not even the clock is needed

    @property
    def rate(self) -> float:
        """Grants per second. Set, it holds at once, for those who wait too."""
        return self._gcra.rate

    @rate.setter
    def rate(self, rate: float) -> None:
        self._gcra.replan(rate, self._clock())
        self._unlimited = False  # the next to pass without waiting finds out
        if self._line:
            self._line[0].call.set()

    @property
    def waiting(self) -> int:
        """How many wait for their grant."""
        return len(self._line)

    def pause(self, seconds: float) -> None:
        """Give nobody a grant for so long from now; a pause that ends later stays as it is."""
        if not 0 <= seconds < math.inf:
            raise ValueError(f"a pause is a number of seconds, not {seconds}")
        self._unlimited = False
        # The head's timer may now fire too early. It looks again then, so there is no need to wake it.
        self._gcra.pause(self._clock() + seconds)

    def acquire_nowait(self) -> bool:
        """Tell whether one request may be sent at this moment; if so, that is its grant."""
        if self._unlimited:
            return True
        if self._line:
            return False
        now = self._clock()
        self._gcra.arrive(now)
        if not self._gcra.take(now):
            return False
        self._unlimited = math.isinf(self._gcra.rate)
        return True

    async def acquire(self) -> None:
        """Return when one request may be sent. Does not suspend when that is now."""
        if not self.acquire_nowait():
            await self._stand_in_line()

    async def _stand_in_line(self) -> None:
        place = _Place()
        self._line.append(place)
        try:
            while self._line[0] is not place:
                await place.call.wait()
                place.call = anyio.Event()
            while not self._gcra.take(now := self._clock()):
                with anyio.move_on_after(self._gcra.tat - now):
                    await place.call.wait()
                place.call = anyio.Event()
        finally:
            if self._line[0] is place:
                self._line.popleft()
                self._call_next()
            else:
                self._line.remove(place)

    def _call_next(self) -> None:
        """Call the new head, which needs its timer, and all behind it who need none."""
        if not self._line or self._line[0].call.is_set():
            return  # who was called is about to run, and calls the next in its turn
        for place in islice(self._line, max(1, self._gcra.ready(self._clock()))):
            place.call.set()


def _checked(rate: float) -> float:
    if not rate > 0:  # NaN is refused too
        raise ValueError(f"a rate is a number of grants per second above 0, not {rate}")
    return rate
