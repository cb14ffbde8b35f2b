"""One rate for all hosts: slots are reserved in batches in the ledger's database, by its clock.

A slot is a moment: the schedule in the database moves on by 1/rate for each, whoever asks, so all hosts together send
no faster. Since a request may leave a little after its slot, they aim below the ceiling (SHARE). What a host found out
about a limit below that is its own affair, as of any two runs that share an account: its `Limiter` comes first.
"""

import math
from collections import deque
from collections.abc import Awaitable, Callable

import anyio

from worker.limiter import Limiter

SHARE = 0.95
"""How much of the ceiling all hosts aim at, so that no second has more than the ceiling."""

BATCH_SECONDS = 0.2
"""How much of the schedule one host reserves at most: so long others wait behind it."""

LATE_SECONDS = 0.03
"""A slot that nobody could use for so long is not used any more: the next ones come soon enough."""

Reserve = Callable[[str, float, int], Awaitable[float]]
"""Reserves so many slots of a lane at a rate; returns the seconds until the first."""


class Slots:
    """The slots of one lane. reserve: as `Reserve`; ceiling: requests a second of all hosts together.

    paused_until: the time, of the clock, before which nobody is to send.
    """

    def __init__(
        self,
        lane: str,
        reserve: Reserve,
        ceiling: Callable[[], float],
        *,
        clock: Callable[[], float] = anyio.current_time,
    ) -> None:
        self.lane = lane
        self._reserve = reserve
        self._ceiling = ceiling
        self._clock = clock
        self._line: deque[anyio.Event] = deque()
        self._given: deque[float] = deque()
        self._wanted = anyio.Event()
        self._arrived = anyio.Event()
        self.paused_until = -math.inf

    @property
    def unlimited(self) -> bool:
        """Whether there is nothing to share."""
        return math.isinf(self._ceiling())

    def pause(self, seconds: float) -> None:
        """Use nothing that was reserved, and remember to tell the others."""
        self.paused_until = max(self.paused_until, self._clock() + seconds)
        self._given.clear()
        self._wanted.set()

    async def acquire(self) -> None:
        """Return at a slot, first come, first served."""
        place = anyio.Event()
        self._line.append(place)
        self._wanted.set()
        try:
            await place.wait()
        finally:
            if not place.is_set():
                self._line.remove(place)

    async def keep(self) -> None:
        """Hand out slots until cancelled. Raises what `reserve` raises."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._hand_out)
            while True:
                if self.unlimited or len(self._given) >= min(len(self._line), self._batch):
                    self._wanted = anyio.Event()
                    await self._wanted.wait()
                else:
                    await self._fetch()

    @property
    def _batch(self) -> int:
        return max(1, int(self._ceiling() * SHARE * BATCH_SECONDS))

    async def _fetch(self) -> None:
        rate = self._ceiling() * SHARE
        slots = min(len(self._line) - len(self._given), self._batch)
        seconds = await self._reserve(self.lane, rate, slots)
        first = self._clock() + seconds  # later than it was meant by the way back, never earlier
        if first < self.paused_until:
            await anyio.sleep(self.paused_until - first)
            return
        self._given.extend(first + number / rate for number in range(slots))
        self._arrived.set()

    async def _hand_out(self) -> None:
        while True:
            if not self._given:
                self._arrived = anyio.Event()
                await self._arrived.wait()
                continue
            at = self._given[0]
            if (wait := at - self._clock()) > 0:
                await anyio.sleep(wait)
                continue  # meanwhile a pause may have taken it back
            self._given.popleft()
            if self._line and wait >= -LATE_SECONDS:
                self._line.popleft().set()
            self._wanted.set()


class SharedPace:
    """A `Pace` for `Traffic`: this host's own limiter, then a slot that no other host has."""

    def __init__(self, own: Limiter, slots: Slots) -> None:
        self._own = own
        self._slots = slots

    @property
    def rate(self) -> float:
        """Requests a second that this host would send if it were alone."""
        return self._own.rate

    @rate.setter
    def rate(self, rate: float) -> None:
        self._own.rate = rate

    @property
    def waiting(self) -> int:
        """How many wait for this host's own limit: only that may grow."""
        return self._own.waiting

    def pause(self, seconds: float) -> None:
        """Let nothing leave for so long, here at once and elsewhere soon."""
        self._own.pause(seconds)
        self._slots.pause(seconds)

    def acquire_nowait(self) -> bool:
        """Tell whether one request may be sent now; a slot has to be waited for."""
        return self._slots.unlimited and self._own.acquire_nowait()

    async def acquire(self) -> None:
        """Return when one request may be sent."""
        await self._own.acquire()
        if not self._slots.unlimited:
            await self._slots.acquire()
