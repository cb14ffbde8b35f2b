"""One rate for all hosts: slots of one schedule, used on time or not at all."""

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from math import inf

import anyio
import pytest

from tests.virtual_clock import virtual_time
from worker.fleet import SharedPace, Slots
from worker.fleet.pace import BATCH_SECONDS, LATE_SECONDS, LATELY_SECONDS, SHARE
from worker.ledger.queue import Reserved, Told
from worker.traffic import Alone

RATE = 50.0


class Limited:
    """The limits of a host's lane."""

    def __init__(self, rate: float = RATE) -> None:
        self.ceiling = self.rate = rate
        self.adopted: list[float] = []

    def adopt(self, found: float) -> None:
        """Go on from what another host has found."""
        self.adopted.append(found)
        self.rate = found


class Schedule:
    """The schedule of a database that answers after a while."""

    def __init__(self, delay: float = 0.01) -> None:
        self.due = 0.0
        self.delay = delay
        self.asked: list[int] = []
        self.stalls: deque[float] = deque()
        self.admitted = 0
        self.found = inf
        self.found_at = 0.0

    async def reserve(self, lane: str, rate: float, slots: int, told: Told) -> Reserved:
        """Reserve, as `pace.Reserve`; the answer is on its way for `delay`."""
        assert lane == "rate"
        self.asked.append(slots)
        now = anyio.current_time()
        first = max(self.due, now)
        self.due = first + slots / rate
        self.admitted += told.admitted
        if told.news is not None:
            self.found, self.found_at = told.news, now
        answer = Reserved(first - now, self.admitted, self.found, self.found_at)
        await anyio.sleep(self.delay + (self.stalls.popleft() if self.stalls else 0))
        return answer


@asynccontextmanager
async def hosts(schedule: Schedule, *limits: Limited) -> AsyncIterator[list[Slots]]:
    """Run the slots of hosts with these limits."""
    found = [Slots("rate", schedule.reserve, one) for one in limits]
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
    async with hosts(schedule, Limited(), Limited(), Limited()) as found, anyio.create_task_group() as tasks:
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
    async with hosts(schedule, Limited()) as [slots]:
        await send(slots, times, 100)
    gaps = [later - before for before, later in pairwise(times)]
    assert min(gaps) >= 1 / RATE - LATE_SECONDS
    assert most_in_a_second(times) <= 1.05 * RATE


@virtual_time
async def test_a_pause_takes_back_what_was_reserved() -> None:
    """Nothing leaves before it is over."""
    schedule, times = Schedule(), list[float]()
    async with hosts(schedule, Limited()) as [slots], anyio.create_task_group() as tasks:
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
    async with hosts(schedule, Limited()) as [slots]:
        with anyio.move_on_after(0.005):
            await slots.acquire()
        await send(slots, times, 5)
    assert len(times) == 5


@virtual_time
async def test_this_hosts_own_limit_comes_first_and_no_limit_is_none() -> None:
    """A pace without a ceiling asks nobody; one with a ceiling never lets through at once."""
    schedule = Schedule()
    async with hosts(schedule, Limited(inf)) as [slots]:
        pace = SharedPace(Alone(inf), slots)
        assert pace.acquire_nowait()
        await pace.acquire()
    assert schedule.asked == [0]
    async with hosts(schedule, Limited()) as [slots]:
        pace = SharedPace(Alone(10.0), slots)
        assert not pace.acquire_nowait()
        began = anyio.current_time()
        for _ in range(21):
            await pace.acquire()
        assert anyio.current_time() - began >= 2.0
        pace.rate = RATE
        assert (pace.rate, pace.waiting) == (RATE, 0)
        pace.pause_all(3.0)
        began = anyio.current_time()
        await pace.acquire()
        assert anyio.current_time() - began >= 3.0


@virtual_time
async def test_what_one_host_finds_the_others_hear_with_their_next_slots() -> None:
    """Whoever found it has it already; who comes later hears of it before its first request."""
    schedule, one, other, late = Schedule(), Limited(), Limited(), Limited()
    times: list[float] = []
    async with hosts(schedule, one, other) as found, anyio.create_task_group() as tasks:
        for slots in found:
            tasks.start_soon(send, slots, times, 100)
        await anyio.sleep(1.0)
        one.rate = 10.0
        found[0].learn(10.0)
        await anyio.sleep(1.0)
        assert (one.adopted, other.adopted) == ([], [10.0])
        slowed = anyio.current_time()
        async with hosts(schedule, late) as [joined]:
            await send(joined, times, 2)
        assert late.adopted == [10.0]
        await anyio.sleep(5.0)
        later = [at for at in times if at > slowed]
        assert most_in_a_second(later) <= 11
        assert len(later) >= 45
        tasks.cancel_scope.cancel()


@virtual_time
async def test_a_host_without_a_request_hears_when_it_looks_and_a_limit_that_is_gone_is_none() -> None:
    """Nothing is adopted twice."""
    schedule, one, other = Schedule(), Limited(), Limited(inf)
    async with hosts(schedule, one, other) as [slots, idle]:
        await anyio.sleep(0.5)
        slots.learn(20.0)
        await anyio.sleep(0.5)
        for _ in range(2):
            idle.look()
            await anyio.sleep(0.5)
        assert (one.adopted, other.adopted, other.rate) == ([], [20.0], 20.0)
        slots.learn(inf)
        idle.look()
        await anyio.sleep(0.5)
        assert (other.adopted, idle.unlimited) == ([20.0], False)
    assert sum(schedule.asked) == 0


@virtual_time
async def test_what_was_reserved_at_a_higher_rate_is_thinned() -> None:
    """Not a fifth of a second at the old rate after a refusal."""
    schedule, limits, times = Schedule(), Limited(), list[float]()
    async with hosts(schedule, limits) as [slots], anyio.create_task_group() as tasks:
        tasks.start_soon(send, slots, times, 100)
        await anyio.sleep(1.0)
        cut = anyio.current_time()
        limits.rate = RATE / 5
        slots.learn(limits.rate)
        await anyio.sleep(BATCH_SECONDS)
        assert 1 <= sum(at > cut for at in times) <= 3
        tasks.cancel_scope.cancel()


@virtual_time
async def test_a_host_knows_what_all_get_through() -> None:
    """What it got through itself says little about the limit of all."""
    schedule, times = Schedule(), list[float]()
    async with hosts(schedule, Limited(), Limited()) as [one, other], anyio.create_task_group() as tasks:

        async def get_through(slots: Slots, requests: int) -> None:
            pace = SharedPace(Alone(inf), slots)
            for _ in range(requests):
                await pace.acquire()
                times.append(anyio.current_time())
                pace.count()

        assert SharedPace(Alone(inf), one).let_through is None
        for slots, askers in ((one, 2), (other, 6)):
            for _ in range(askers):
                tasks.start_soon(get_through, slots, 1000)
        await anyio.sleep(LATELY_SECONDS / 3)
        assert one.let_through is None
        await anyio.sleep(3 * LATELY_SECONDS)
        assert one.let_through == pytest.approx(RATE * SHARE, rel=0.1)
        assert other.let_through == pytest.approx(RATE * SHARE, rel=0.1)
        tasks.cancel_scope.cancel()


@virtual_time
async def test_who_stands_back_holds_nobody_else() -> None:
    """Only what the service asks for is for all."""
    schedule, times = Schedule(), list[float]()
    async with hosts(schedule, Limited()) as [slots]:
        pace = SharedPace(Alone(RATE), slots)
        pace.pause(5.0)
        assert slots.paused_until == -inf
        pace.learn(20.0)
        await send(slots, times, 1)
        assert (times[0] < 1.0, schedule.found) == (True, 20.0)
        pace.pause_all(5.0)
        assert slots.paused_until > 5.0
