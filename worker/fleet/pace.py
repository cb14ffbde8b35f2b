"""One rate for all hosts: slots are reserved in batches in the ledger's database, by its clock.

A slot is a moment: the schedule in the database moves on by 1/rate for each, whoever asks, so all hosts together send
no faster. Since a request may leave a little after its slot, they aim below the ceiling (SHARE). A limit below that,
which one host has found, is told to the others with the next slots that they reserve, and so is how many requests each
one got through: only all of them together tell what the limit is.
"""

import math
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Protocol

import anyio

from worker.ledger.queue import Reserved, Told
from worker.limiter import Limiter

SHARE = 0.95
"""How much of the ceiling all hosts aim at, so that no second has more than the ceiling."""

BATCH_SECONDS = 0.2
"""How much of the schedule one host reserves at most: so long others wait behind it."""

LATE_SECONDS = 0.03
"""A slot that nobody could use for so long is not used any more: the next ones come soon enough."""

LATELY_SECONDS = 2.0
"""How far back it is counted what all hosts got through."""

Reserve = Callable[[str, float, int, Told], Awaitable[Reserved]]
"""Reserves so many slots of a lane at a rate, as `Pacer.slots` does."""


class Limits(Protocol):
    """The limits of a lane, for all hosts together: requests a second."""

    @property
    def rate(self) -> float:
        """As found, at most the ceiling."""
        ...

    @property
    def ceiling(self) -> float:
        """As configured."""
        ...

    def adopt(self, found: float) -> None:
        """Go on from what another host has found."""
        ...


class Slots:
    """The slots of one lane. reserve: as `Reserve`.

    paused_until: the time, of the clock, before which nobody is to send.
    """

    def __init__(
        self, lane: str, reserve: Reserve, limits: Limits, *, clock: Callable[[], float] = anyio.current_time
    ) -> None:
        self.lane = lane
        self._reserve = reserve
        self._limits = limits
        self._clock = clock
        self._news: float | None = None
        self._looks = True
        self._found_at = 0.0
        self._reserved_at = math.inf
        self._admitted = 0
        self._seen: deque[tuple[float, int]] = deque()  # when, and how many all hosts had got through by then
        self._line: deque[anyio.Event] = deque()
        self._given: deque[float] = deque()
        self._wanted = anyio.Event()
        self._arrived = anyio.Event()
        self.paused_until = -math.inf

    @property
    def unlimited(self) -> bool:
        """Whether there is nothing to share."""
        return math.isinf(self._rate)

    @property
    def waiting(self) -> int:
        """How many wait for a slot."""
        return len(self._line)

    @property
    def let_through(self) -> float | None:
        """How many a second all hosts got through lately; None before that is known."""
        if not self._seen or (span := self._seen[-1][0] - self._seen[0][0]) < LATELY_SECONDS / 2:
            return None
        return (self._seen[-1][1] - self._seen[0][1]) / span

    def count(self) -> None:
        """Take note of one that got through."""
        self._admitted += 1

    def learn(self, found: float) -> None:
        """Tell the others which limit was found here; infinite when it is gone."""
        self._news = found
        self._thin()
        self._wanted.set()

    def look(self) -> None:
        """Hear soon what the others have found, with or without a slot to reserve."""
        self._looks = True
        self._wanted.set()

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
                idle = self.unlimited or len(self._given) >= min(len(self._line), self._batch)
                if idle and self._news is None and not self._looks:
                    self._wanted = anyio.Event()
                    await self._wanted.wait()
                else:
                    await self._fetch()

    @property
    def _rate(self) -> float:
        return min(self._limits.rate, self._limits.ceiling * SHARE)

    @property
    def _batch(self) -> int:
        return max(1, int(self._rate * BATCH_SECONDS))

    async def _fetch(self) -> None:
        rate = self._rate
        slots = 0 if self.unlimited else max(0, min(len(self._line) - len(self._given), self._batch))
        told = Told(self._admitted, self._news)
        self._admitted, self._news, self._looks = 0, None, False
        self._reserved_at = rate
        reserved = await self._reserve(self.lane, rate, slots, told)
        self._hear(reserved, told.news)
        if not slots:
            return
        first = self._clock() + reserved.seconds  # later than it was meant by the way back, never earlier
        if first < self.paused_until:
            await anyio.sleep(self.paused_until - first)
            return
        self._given.extend(first + number / rate for number in range(slots))
        self._arrived.set()

    def _thin(self) -> None:
        """Give up as many of the slots that were reserved as make their rate the present one."""
        if self.unlimited:
            return
        keep = self._rate / self._reserved_at
        self._given = deque(at for place, at in enumerate(self._given) if int((place + 1) * keep) > int(place * keep))
        self._reserved_at = self._rate

    def _hear(self, reserved: Reserved, news: float | None) -> None:
        now = self._clock()
        self._seen.append((now, reserved.admitted))
        while self._seen[0][0] < now - LATELY_SECONDS:
            self._seen.popleft()
        if reserved.found_at > self._found_at:
            self._found_at = reserved.found_at
            if reserved.found != news and math.isfinite(reserved.found):
                self._limits.adopt(reserved.found)
                self._thin()

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
    """A `Pace` for `Traffic`: this host's own limiter, for its own pauses, then a slot that no other host has."""

    def __init__(self, own: Limiter, slots: Slots) -> None:
        self._own = own
        self._slots = slots

    @property
    def rate(self) -> float:
        """Requests a second of all hosts together."""
        return self._own.rate

    @rate.setter
    def rate(self, rate: float) -> None:
        self._own.rate = rate

    @property
    def waiting(self) -> int:
        """How many wait here, whatever for."""
        return self._own.waiting + self._slots.waiting

    @property
    def let_through(self) -> float | None:
        """How many a second all hosts got through lately."""
        return self._slots.let_through

    def count(self) -> None:
        """Take note of one that got through, to be told to the others."""
        self._slots.count()

    def learn(self, found: float) -> None:
        """Tell the others which limit was found here."""
        self._slots.learn(found)

    def pause(self, seconds: float) -> None:
        """Let nothing leave here for so long: a host that is refused again and again stands back."""
        self._own.pause(seconds)

    def pause_all(self, seconds: float) -> None:
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
