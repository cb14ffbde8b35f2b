"""One rate for all hosts: slots of one schedule, used on time or not at all."""

from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from math import inf

import anyio

from tests.virtual_clock import virtual_time
from worker.fleet import SharedPace, Slots
from worker.fleet.pace import BATCH_SECONDS, LATE_SECONDS, SHARE
from worker.limiter import Limiter

RATE = 50.0


class Schedule:
    """The schedule of a database that answers after a while."""

    def __init__(self, delay: float = 0.01) -> None:
        self.due = 0.0
        self.delay = delay
        self.asked: list[int] = []
        self.stalls: deque[float] = deque()

    async def reserve(self, lane: str, rate: float, slots: int) -> float:
        """Reserve, as `pace.Reserve`; the answer is on its way for `delay`."""
        assert (lane, rate) == ("rate", RATE * SHARE)
        self.asked.append(slots)
        now = anyio.current_time()
        first = max(self.due, now)
        self.due = first + slots / rate
        await anyio.sleep(self.delay + (self.stalls.popleft() if self.stalls else 0))
        return first - now


@asynccontextmanager
async def hosts(
    schedule: Schedule, count: int, ceiling: Callable[[], float] = lambda: RATE
) -> AsyncIterator[list[Slots]]:
    """Run the slots of so many hosts."""
    found = [Slots("rate", schedule.reserve, ceiling) for _ in range(count)]
    async with anyio.create_task_group() as tasks:
        for one in found:
            tasks.start_soon(one.keep)
        yield found
        tasks.cancel_scope.cancel()


async def send(slots: Slots, times: list[float], requests: int) -> None:
    """Send so many requests, each at a slot of its own."""

    async def one() -> None:
        await slots.acquire()
        times.append(anyio.current_time())

    async with anyio.create_task_group() as tasks:
        for _ in range(requests):
            tasks.start_soon(one)


def most_in_a_second(times: list[float]) -> int:
    """Return the requests in the worst second."""
    times = sorted(times)
    return max(sum(start <= at < start + 1 for at in times) for start in times)


@virtual_time
async def test_all_hosts_together_keep_one_rate_and_use_it() -> None:
    """No second has more than the ceiling, and next to nothing of the share is lost."""
    schedule, times = Schedule(), list[float]()
    async with hosts(schedule, 3) as found, anyio.create_task_group() as tasks:
        for one in found:
            tasks.start_soon(send, one, times, 200)
    assert most_in_a_second(times) <= 1.05 * RATE
    assert 600 / (max(times) - min(times)) >= 0.98 * SHARE * RATE
    assert max(schedule.asked) <= BATCH_SECONDS * RATE


@virtual_time
async def test_a_slot_that_comes_too_late_is_not_made_up_for() -> None:
    """After a stall of the database nothing bunches."""
    schedule, times = Schedule(), list[float]()
    schedule.stalls.extend([0, 0, 0.5, 0, 0.5])
    async with hosts(schedule, 1) as [slots]:
        await send(slots, times, 100)
    gaps = [later - before for before, later in pairwise(times)]
    assert min(gaps) >= 1 / RATE - LATE_SECONDS
    assert most_in_a_second(times) <= 1.05 * RATE


@virtual_time
async def test_a_pause_takes_back_what_was_reserved() -> None:
    """Nothing leaves before it is over."""
    schedule, times = Schedule(), list[float]()
    async with hosts(schedule, 1) as [slots], anyio.create_task_group() as tasks:
        tasks.start_soon(send, slots, times, 60)
        await anyio.sleep(0.5)
        slots.pause(5.0)
        assert slots.paused_until == anyio.current_time() + 5.0
    late = [at for at in times if at > 0.5]
    assert len(times) == 60
    assert min(late) >= 5.5


@virtual_time
async def test_who_gives_up_leaves_the_line() -> None:
    """Its slot goes to the next one."""
    schedule, times = Schedule(), list[float]()
    async with hosts(schedule, 1) as [slots]:
        with anyio.move_on_after(0.005):
            await slots.acquire()
        await send(slots, times, 5)
    assert len(times) == 5


@virtual_time
async def test_this_hosts_own_limit_comes_first_and_no_limit_is_none() -> None:
    """A pace without a ceiling asks nobody; one with a ceiling never lets through at once."""
    schedule = Schedule()
    async with hosts(schedule, 1, lambda: inf) as [slots]:
        pace = SharedPace(Limiter(inf), slots)
        assert pace.acquire_nowait()
        await pace.acquire()
    assert schedule.asked == []
    async with hosts(schedule, 1) as [slots]:
        pace = SharedPace(Limiter(10.0), slots)
        assert not pace.acquire_nowait()
        began = anyio.current_time()
        for _ in range(21):
            await pace.acquire()
        assert anyio.current_time() - began >= 2.0
        pace.rate = RATE
        assert (pace.rate, pace.waiting) == (RATE, 0)
        pace.pause(3.0)
        began = anyio.current_time()
        await pace.acquire()
        assert anyio.current_time() - began >= 3.0
