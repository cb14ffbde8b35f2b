import asyncio
import math
from collections.abc import Callable
from itertools import cycle
from typing import cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.virtual_clock import VirtualLoop, settle, virtual_time
from worker.limiter import TOLERANCE, Gcra, Limiter

RATES = st.sampled_from([0.1, 0.5, 1.0, 7.0, 15.0, 100.0, 1000.0, 5000.0])
GAPS = st.one_of(st.floats(0, 0.02), st.floats(0, 30))
LATE = st.floats(0, 0.05)  # a busy loop fires timers even later than the tolerance
STEPS = st.tuples(st.sampled_from("aaaaxcp"), GAPS, RATES, st.integers(0, 20))
CHANGES = [(10, 2, 5.5), (2, 10, 5.14), (2, 2, 5.5), (math.inf, 2, 5.5), (2, math.inf, 5.05)]


def check_bound(rate: float, events: list[tuple[float, float | None]]) -> None:
    """Count the grants of every window against the integral of the rate; an event is a grant or a new rate."""
    area, before, grants = 0.0, 0.0, list[tuple[float, float]]()
    for time, new_rate in events:
        area += rate * (time - before)
        before = time
        if new_rate is None:
            grants.append((area, rate * TOLERANCE))
        rate = new_rate or rate
    for i, (begin, tolerance) in enumerate(grants):
        for count, (end, _) in enumerate(grants[i:], 1):
            assert count <= end - begin + tolerance + 1 + 1e-6


def granted(gcra: Gcra, now: float) -> Gcra:
    """Let somebody arrive who gets a grant."""
    gcra.arrive(now)
    assert gcra.take(now)
    return gcra


@given(rate=RATES, steps=st.lists(st.tuples(st.sampled_from("aqcp"), GAPS, LATE, RATES), max_size=60))
@example(rate=0.1, steps=[("a", 0, 0, 1), ("c", 9, 0, 10), ("q", 0, 0, 1)])
def test_no_window_has_more_grants_than_allowed(rate: float, steps: list[tuple[str, float, float, float]]) -> None:
    """Whatever comes (late timers, idle time, queues, pauses, other rates), each window keeps the bound."""
    gcra, now, events = Gcra(rate), 0.0, list[tuple[float, float | None]]()
    for step, gap, late, new_rate in steps:
        if step == "p":
            gcra.pause(now + gap)
        elif step == "c":
            now += gap
            gcra.replan(new_rate, now)
            events.append((now, new_rate))
        else:
            if step == "a" or not events:  # nobody was waiting; else the next in the line takes over at once
                now += gap
                gcra.arrive(now)
            now = max(now, gcra.tat) + late
            assert gcra.ready(now) >= 1
            assert gcra.take(now)
            events.append((now, None))
    check_bound(rate, events)


@given(rate=RATES, idle=st.floats(TOLERANCE * 2, 1e6), late=st.floats(0, TOLERANCE))
def test_idle_time_earns_nothing(rate: float, idle: float, late: float) -> None:
    """At the start and after a quiet time there is one grant, and the next is due a full interval later."""
    gcra = granted(Gcra(rate), 0)
    assert gcra.take(gcra.tat + late)
    quiet = gcra.tat + idle
    assert granted(gcra, quiet).tat == quiet + 1 / rate
    assert not gcra.take(quiet)


def test_whoever_comes_right_back_finds_what_a_late_timer_owes() -> None:
    """When a timer fired 2.5 ms late, one asker at a time can make up for it, except for the time between askers."""
    gcra = granted(Gcra(1000), 0)
    assert gcra.take(0.0035)
    assert gcra.tat == pytest.approx(0.002)
    gcra.arrive(0.0036)
    assert gcra.tat == pytest.approx(0.0021)


@pytest.mark.parametrize(("old", "new", "due"), CHANGES)
def test_another_rate_moves_the_next_grant(old: float, new: float, due: float) -> None:
    """A slower rate counts from the last grant, at 5.0; a faster one, 50 ms later, shortens what is left to wait."""
    gcra = granted(Gcra(old), 5)
    gcra.replan(new, 5.05)
    assert gcra.tat == pytest.approx(due)


def test_a_pause_outlasts_every_rate() -> None:
    """No other rate brings a grant before the end of the pause, nor does a second, shorter pause."""
    gcra = granted(Gcra(10), 0)
    gcra.pause(30)
    gcra.pause(20)
    for rate in (1000, math.inf, 0.5):
        gcra.replan(rate, 1)
        assert gcra.tat == 30


@pytest.mark.parametrize("rate", [0, -1, math.nan])
def test_a_rate_is_above_zero(rate: float) -> None:
    """A rate at which one would wait for ever is refused when it is set."""
    with pytest.raises(ValueError, match="above 0"):
        Gcra(1).replan(rate, 0)


class Crowd:
    """Numbered askers, a limiter for them, when they got their grants, and what each does then."""

    def __init__(self, rate: float) -> None:
        self.limiter = Limiter(rate)
        self.tasks: list[asyncio.Task[None]] = []
        self.got: list[int] = []
        self.events: list[tuple[float, float | None]] = []
        self.then: Callable[[int], object] = int
        self.loop = cast("VirtualLoop", asyncio.get_running_loop())

    async def _ask(self, number: int) -> None:
        await self.limiter.acquire()
        self.got.append(number)
        self.events.append((self.loop.time(), None))
        self.then(number)

    async def come(self, count: int) -> None:
        """Let so many more ask, until they wait or have what they want."""
        self.tasks += [asyncio.create_task(self._ask(len(self.tasks) + n)) for n in range(count)]
        await settle()

    async def times(self) -> list[float]:
        """Return when each got their grant, in the order of asking, which is that of getting."""
        await asyncio.wait(self.tasks)
        assert self.got == [n for n, task in enumerate(self.tasks) if not task.cancelled()]
        assert self.limiter.waiting == 0
        return [round(time, 6) for time, rate in self.events if rate is None]


@settings(deadline=None)
@given(rate=RATES, steps=st.lists(STEPS, max_size=30), lates=st.lists(LATE, min_size=1), work=st.floats(0, 0.003))
@virtual_time
async def test_the_line_keeps_order_and_bound_and_loses_nobody(
    rate: float, steps: list[tuple[str, float, float, int]], lates: list[float], work: float
) -> None:
    """Askers come, give up, and meet pauses, other rates, late timers and busy tasks: all others get their grant."""
    crowd = Crowd(rate)
    crowd.loop.late = cycle(lates).__next__
    crowd.then = lambda _: crowd.loop.jump(work)  # what a worker computes before it next waits
    await crowd.come(1)
    for step, gap, new_rate, which in steps:
        if step == "a":
            await crowd.come(which % 4 + 1)
        elif step == "x":
            crowd.tasks[-1 - which % len(crowd.tasks)].cancel()
        elif step == "c":
            crowd.limiter.rate = new_rate
            crowd.events.append((crowd.loop.time(), new_rate))
        else:
            crowd.limiter.pause(gap)
        await asyncio.sleep(gap if which % 2 else 0)
    await crowd.times()
    check_bound(rate, crowd.events)


@settings(deadline=None, max_examples=50)
@given(rate=RATES, lates=st.lists(st.floats(0, TOLERANCE - 1e-6), min_size=1))
@virtual_time
async def test_a_steady_load_gets_its_whole_rate(rate: float, lates: list[float]) -> None:
    """Where timers fire up to 10 ms late, from 0.1/s to 5,000/s, no grant is later than its own timer was."""
    crowd = Crowd(rate)
    crowd.loop.late = cycle(lates).__next__
    await crowd.come(150)
    for number, time in enumerate(await crowd.times()):
        assert number / rate - 1e-6 <= time <= number / rate + TOLERANCE


@virtual_time
async def test_grants_start_and_go_on_without_a_burst() -> None:
    """The first comes at once, the others one by one, and so it is again after a quiet time; only one has a timer."""
    crowd = Crowd(10)
    await crowd.come(3)
    assert (crowd.limiter.waiting, len([t for t in vars(crowd.loop)["_scheduled"] if not t.cancelled()])) == (2, 1)
    await asyncio.sleep(10)
    await crowd.come(3)
    assert await crowd.times() == [0, 0.1, 0.2, 10, 10.1, 10.2]


@virtual_time
async def test_a_pause_holds_everybody() -> None:
    """Those who wait and those who come during a pause go on after it at the same rate; a negative one is refused."""
    crowd = Crowd(10)
    await crowd.come(2)
    crowd.limiter.pause(30)
    await crowd.come(2)
    assert await crowd.times() == [0, 30, 30.1, 30.2]
    with pytest.raises(ValueError, match="seconds"):
        crowd.limiter.pause(-1)


@virtual_time
async def test_no_limit_means_no_waiting_but_for_a_pause() -> None:
    """Without a limit a grant does not even suspend the task; but for a pause, which ends for all, or a new limit."""
    crowd = Crowd(math.inf)
    for _ in range(3):
        with pytest.raises(StopIteration):
            crowd.limiter.acquire().send(None)
    crowd.limiter.pause(5)
    await crowd.come(100)
    assert await crowd.times() == [5] * 100
    await crowd.limiter.acquire()
    crowd.limiter.rate = 1
    await crowd.come(2)
    await asyncio.sleep(0.5)
    crowd.limiter.rate = math.inf
    assert (await crowd.times())[100:] == [5.5, 5.5]


@virtual_time
async def test_another_rate_reaches_those_who_sleep() -> None:
    """With one a second, half a second before the next: at 10/s it is due 50 ms later; back at 0.1/s, ten seconds."""
    crowd = Crowd(1)
    await crowd.come(4)
    await asyncio.sleep(0.5)
    crowd.limiter.rate = 10
    await asyncio.sleep(0.1)
    crowd.limiter.rate /= 100
    assert await crowd.times() == [0, 0.55, 10.55, 20.55]


@pytest.mark.parametrize("who", [(1,), (2,), (3,), (1, 2), (1, 3), (3, 2, 1)])
@pytest.mark.parametrize("when", [0.05, 0.1], ids=["asleep", "in the instant of the grant"])
@virtual_time
async def test_who_gives_up_takes_no_grant_along(who: tuple[int, ...], when: float) -> None:
    """Whoever gives up, at the head of the line or behind, the next has the grant that would have been theirs."""
    crowd = Crowd(10)
    await crowd.come(5)
    crowd.loop.call_at(when, lambda: [crowd.tasks[number].cancel() for number in who])
    assert await crowd.times() == [0, 0.1, 0.2, 0.3, 0.4][: 5 - len(who)]


@virtual_time
async def test_who_is_called_and_gives_up_before_running_takes_no_grant_along() -> None:
    """A busy loop is late, the first calls the four whose time has come, and cancels them: the others go instead."""
    crowd = Crowd(1000)
    line = crowd.limiter._line
    crowd.then = lambda number: number == 1 and [crowd.tasks[2 + i].cancel() for i in range(6) if line[i].call.is_set()]
    await crowd.come(8)
    crowd.loop.jump(0.005)
    assert await crowd.times() == [0, 0.005, 0.005, 0.005]
