"""What may leave, and when: whole traffic in virtual time, against services with limits that nobody tells."""

import random
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import pairwise
from math import inf

import anyio
import pytest

from tests.virtual_clock import settle, virtual_time
from worker.config import Limits
from worker.config import Retry as RetrySettings
from worker.model import Change
from worker.stopping import Task
from worker.traffic import CONCURRENCY_CODE, Lane, LaneDeparture, Patience, Permit, Refusal, Traffic, WithdrawnError

RATE_CODE = "45780"


class Service:
    """Lets through so many in any second, and so many at once; refuses the others without a word about when."""

    def __init__(self, *, rate: float = inf, places: float = inf, seconds: float = 0.01) -> None:
        self.rate = rate
        self.places = places
        self.seconds = seconds
        self.answers: list[tuple[float, str]] = []
        self._window: deque[float] = deque()
        self._working = 0

    async def ask(self) -> tuple[str, int]:
        """Return a code, nothing when it was let through, and how many there were at once."""
        now = anyio.current_time()
        while self._window and self._window[0] <= now - 1:
            self._window.popleft()
        self._working += 1
        together, code = self._working, ""
        if len(self._window) >= self.rate:
            code = RATE_CODE
        elif together > self.places:
            code = CONCURRENCY_CODE
        else:
            self._window.append(now)
        await anyio.sleep(0.001 if code else self.seconds)
        self._working -= 1
        self.answers.append((anyio.current_time(), code))
        return code, together

    def share(self, begin: float, end: float, limit: float) -> tuple[float, float]:
        """Return goodput ÷ limit in a span of time, and the share of refusals among the answers."""
        codes = [code for at, code in self.answers if begin <= at < end]
        good = codes.count("")
        return good / (end - begin) / limit, 1 - good / max(1, len(codes))


def traffic_of(
    *,
    rate: float = inf,
    concurrency: int = 16,
    adaptive: bool = True,
    outage_seconds: float = 0,
    draining: anyio.Event | None = None,
    changes: list[Change] | None = None,
    on_outage: Callable[[str], None] = lambda _: None,
    wall: Callable[[], float] = lambda: 0.0,
) -> Traffic:
    """Return a run's traffic; jitter takes the longest wait."""
    return Traffic(
        Limits(rate_per_second=rate, list_rate_per_second=inf, concurrency=concurrency, adaptive=adaptive),
        RetrySettings(),
        draining or anyio.Event(),
        outage_seconds=outage_seconds,
        on_change=(changes if changes is not None else []).append,
        on_outage=on_outage,
        wall=wall,
        jitter=lambda _least, most: most,
    )


async def work(traffic: Traffic, service: Service, *, tells: bool = False) -> None:
    """Be one worker who always has something to send. tells: whether the service tells how many there are at once."""
    while True:
        permit = await traffic.creates.acquire()
        traffic.creates.depart(permit)
        code, together = await service.ask()
        traffic.creates.give_back(permit)
        concurrent = together if tells else None
        if code:
            traffic.creates.refuse(permit, Refusal(code, None, concurrent))
            await anyio.sleep(random.uniform(0, 0.5))  # noqa: S311 - keeps no secret
        else:
            traffic.creates.admit(concurrent)


async def press(
    traffic: Traffic,
    service: Service,
    seconds: float,
    *events: tuple[float, Callable[[], None]],
    workers: int = 16,
    tells: bool = False,
) -> Service:
    """Let workers press for so long; events: what happens to the service meanwhile, and when."""
    random.seed(7)

    async def worker() -> None:
        await work(traffic, service, tells=tells)

    async with anyio.create_task_group() as tasks:
        for _ in range(workers):
            tasks.start_soon(worker)
        for at, happen in events:
            await anyio.sleep_until(at)
            happen()
        await anyio.sleep_until(seconds)
        tasks.cancel_scope.cancel()
    return service


# ---- limits that nobody tells ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [20, 200])
@virtual_time
async def test_a_rate_limit_is_found_and_kept(limit: int) -> None:
    """Under a ceiling four times as high: nearly all of it, and hardly a refusal."""
    service = await press(traffic_of(rate=4 * limit), Service(rate=limit), 30)
    goodput, refused = service.share(10, 30, limit)
    assert goodput > 0.94
    assert refused < 0.01


@pytest.mark.parametrize("tells", [False, True], ids=["it is not told", "it is told"])
@virtual_time
async def test_a_limit_of_requests_at_once_is_found_and_kept(tells: bool) -> None:
    """Ten at once, of 64 that are allowed to us."""
    traffic = traffic_of(concurrency=64)
    service = await press(traffic, Service(places=10, seconds=0.15), 40, workers=64, tells=tells)
    goodput, refused = service.share(10, 40, 10 / 0.15)
    assert goodput > 0.95
    assert refused < 0.01


@virtual_time
async def test_a_limit_that_halves_is_found_again_and_so_is_its_return() -> None:
    """Back under it within 5 s, and 90 % of the old one within 20 s of its return."""
    service = Service(rate=100)

    def allow(rate: float) -> Callable[[], None]:
        return lambda: setattr(service, "rate", rate)

    await press(traffic_of(rate=400), service, 60, (20, allow(50)), (40, allow(100)))
    assert service.share(25, 40, 50)[0] > 0.9
    assert service.share(25, 40, 50)[1] < 0.02
    assert service.share(58, 60, 100)[0] > 0.9


@virtual_time
async def test_without_a_limit_nothing_is_lost_by_looking_for_one() -> None:
    """The configured rate from the first second to the last."""
    service = await press(traffic_of(rate=100), Service(), 20)
    assert service.share(0, 20, 100)[0] > 0.99


@virtual_time
async def test_what_adapts_is_told_with_its_reason() -> None:
    """What, from where, to where, and why; and when the configured limit is reached again."""
    changes: list[Change] = []
    service = Service(rate=50)
    await press(traffic_of(rate=100, changes=changes), service, 40, (5, lambda: setattr(service, "rate", inf)))
    assert changes[0].event == "limit.adapted"
    assert changes[0].facts["why"] == "429 (45780)"
    assert changes[0].facts["before"] == 100
    assert changes[0].sentence.startswith("rate ")
    assert "after 429 (45780)" in changes[0].sentence
    assert changes[-1].sentence == "rate 100, its configured limit again"


@virtual_time
async def test_requests_at_once_never_exceed_what_is_allowed_now() -> None:
    """Lists and creates share the slots, also when there are fewer of them than workers."""
    traffic = traffic_of(concurrency=4)
    most = 0

    async def one(number: int) -> None:
        nonlocal most
        lane = traffic.lists if number % 2 else traffic.creates
        permit = await lane.acquire()
        lane.depart(permit)
        most = max(most, traffic.in_flight)
        await anyio.sleep(1)
        lane.give_back(permit)

    async with anyio.create_task_group() as tasks:
        for number in range(20):
            tasks.start_soon(one, number)
    assert most == 4
    assert anyio.current_time() == 5.0


@virtual_time
async def test_a_cancelled_request_gives_its_slot_back() -> None:
    """Whether it waited for the slot or for the grant."""
    traffic = traffic_of(concurrency=1, rate=0.1)
    await traffic.creates.acquire()
    with anyio.move_on_after(1):
        await traffic.creates.acquire()
    assert traffic.slots.borrowed_tokens == 1
    assert traffic.slots.statistics().tasks_waiting == 0


# ---- one pause for all ----------------------------------------------------------------------------------------------


async def refused(traffic: Traffic, refusal: Refusal) -> None:
    """Send one request that is refused at once."""
    permit = await traffic.creates.acquire()
    traffic.creates.depart(permit)
    traffic.creates.give_back(permit)
    traffic.creates.refuse(permit, refusal)


@pytest.mark.parametrize(("asked", "waited"), [(7.0, 7.0), (0.0, 0.0), (1e9, 300.0)])
@virtual_time
async def test_retry_after_holds_every_sender(asked: float, waited: float) -> None:
    """Creates and lists alike; what is absurd is cut, and said."""
    changes: list[Change] = []
    traffic = traffic_of(changes=changes, adaptive=False)
    await refused(traffic, Refusal(RATE_CODE, asked))
    await traffic.lists.acquire()
    assert anyio.current_time() == pytest.approx(waited)
    await traffic.creates.acquire()
    assert anyio.current_time() == pytest.approx(waited)
    capped = [change.sentence for change in changes if change.event == "wait.capped"]
    assert capped == (["the service asked to wait 1,000,000,000 s; waiting 300 s"] if asked > 300 else [])


@virtual_time
async def test_without_retry_after_everybody_backs_off_longer_each_time() -> None:
    """With full jitter, whose longest waits are these; an answer ends the series."""
    traffic = traffic_of(adaptive=False)
    times = []
    for _ in range(4):
        await refused(traffic, Refusal(RATE_CODE))
        times.append(anyio.current_time())
    permit = await traffic.creates.acquire()
    traffic.creates.depart(permit)
    traffic.creates.give_back(permit)
    assert [round(later - earlier, 2) for earlier, later in pairwise(times)] == [0.5, 1, 2]
    traffic.creates.admit()
    begin = anyio.current_time()
    await refused(traffic, Refusal(RATE_CODE))
    await traffic.creates.acquire()
    assert anyio.current_time() - begin == pytest.approx(0.5)


@virtual_time
async def test_a_burst_of_refusals_is_one_reason_to_pause() -> None:
    """Sixteen were under way when the limit was reached: that is not the sixteenth refusal on end."""
    traffic = traffic_of(adaptive=False)
    permits: list[Permit] = []
    for _ in range(16):
        permit = await traffic.creates.acquire()
        traffic.creates.depart(permit)
        permits.append(permit)
    await anyio.sleep(1)
    for permit in permits:
        traffic.creates.give_back(permit)
        traffic.creates.refuse(permit, Refusal(RATE_CODE))
    await traffic.creates.acquire()
    assert anyio.current_time() == pytest.approx(1.5)


@virtual_time
async def test_what_another_worker_met_slows_this_one_down_and_is_said() -> None:
    """What had left by then, and is refused, is no refusal on end; who does not adapt goes on."""
    changes: list[Change] = []
    traffic = traffic_of(rate=100, changes=changes)
    permits = [await traffic.creates.acquire() for _ in range(5)]
    for permit in permits:
        traffic.creates.depart(permit)
    await anyio.sleep(1)
    traffic.creates.adopt(20.0)
    assert traffic.creates.rate == pytest.approx(19, rel=0.01)
    assert [change.sentence for change in changes] == ["rate 19, down from 100 after 429 at another worker"]
    before = anyio.current_time()
    for permit in permits:
        traffic.creates.give_back(permit)
        traffic.creates.refuse(permit, Refusal(RATE_CODE))
    await traffic.creates.acquire()
    assert anyio.current_time() - before < 0.1
    traffic.creates.adopt(40.0)
    assert changes[-1].sentence == "rate 38, up from 19 after 429 at another worker"
    for _ in range(2):
        traffic.creates.adopt(200.0)
    assert (changes[-1].sentence, len(changes)) == ("rate 100, up from 38 after 429 at another worker", 3)
    steady = traffic_of(rate=100, adaptive=False)
    steady.creates.adopt(20.0)
    assert steady.creates.rate == 100


# ---- what holds a run -----------------------------------------------------------------------------------------------


@virtual_time
async def test_nothing_leaves_while_the_run_is_held() -> None:
    """Two reasons, and both have to go; who held a grant at the time gives it back."""
    traffic = traffic_of(rate=1)
    await traffic.creates.acquire()
    left: list[float] = []

    async def leave() -> None:
        await traffic.creates.acquire()
        left.append(anyio.current_time())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(leave)
        await anyio.sleep(0.5)
        traffic.hold("paused")
        traffic.hold("closed hours")
        assert traffic.held_by == "closed hours, paused"
        await anyio.sleep(10)
        traffic.unhold("paused")
        await anyio.sleep(10)
        assert left == []
        traffic.unhold("closed hours")
    assert left == [pytest.approx(20.5)]


@virtual_time
async def test_the_time_in_which_a_run_is_held_uses_up_no_budget() -> None:
    """A row that waits for another attempt over a closed day is not given up in the evening."""
    traffic = traffic_of()
    await anyio.sleep(5)
    traffic.hold("closed hours")
    await anyio.sleep(20)
    assert traffic.active() == 5
    traffic.hold("paused")
    traffic.unhold("closed hours")
    await anyio.sleep(10)
    assert traffic.active() == 5
    traffic.unhold("paused")
    traffic.unhold("paused")
    await anyio.sleep(1)
    assert traffic.active() == 6


@virtual_time
async def test_nothing_leaves_after_the_hour_however_late_the_timers_are() -> None:
    """The wall clock is asked after the grant, too."""
    wall = [0.0]
    traffic = traffic_of(rate=1, wall=lambda: wall[0])
    traffic.close_at(100)
    await traffic.creates.acquire()
    left: list[float] = []

    async def leave() -> None:
        await traffic.creates.acquire()
        left.append(anyio.current_time())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(leave)
        await settle()
        wall[0] = 100.0
        await anyio.sleep(5)
        assert left == []
        traffic.close_at(inf)
    assert len(left) == 1


@virtual_time
async def test_a_cap_holds_for_every_lane_and_is_lifted_to_what_was_configured() -> None:
    """Never above it."""
    traffic = traffic_of(rate=15)
    traffic.cap(5)
    assert (traffic.creates.rate, traffic.lists.rate) == (5, 5)
    traffic.cap(100)
    assert (traffic.creates.rate, traffic.lists.rate) == (15, 100)
    traffic.cap(inf)
    assert (traffic.creates.ceiling, traffic.lists.ceiling) == (15, inf)


@pytest.mark.parametrize("where", ["hold", "slot", "grant", "outage"])
@virtual_time
async def test_a_drain_calls_everybody_back(where: str) -> None:
    """Wherever a request waits; and whoever comes later does not even begin."""
    draining = anyio.Event()
    traffic = traffic_of(rate=0.001, concurrency=2, draining=draining, outage_seconds=60)
    await traffic.creates.acquire()
    withdrawn = 0
    if where == "hold":
        traffic.hold("paused")
    if where == "slot":
        traffic.slots.total_tokens = 1
    if where == "outage":
        await break_down(traffic)

    async def wait() -> None:
        nonlocal withdrawn
        with pytest.raises(WithdrawnError):
            await traffic.creates.acquire()
        withdrawn += 1

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        tasks.start_soon(traffic.until_open)
        await settle()
        draining.set()
        traffic.withdraw()
    await wait()
    assert withdrawn == 2
    assert anyio.current_time() == 0


# ---- outages --------------------------------------------------------------------------------------------------------


async def break_down(traffic: Traffic, *, unreachable: bool = False) -> None:
    """Let nothing but failures come back."""
    for _ in range(5):
        traffic.creates.fail("status 503", unreachable=unreachable)


class Patient:
    """A service that is down until some moment, and what came to it."""

    def __init__(self, traffic: Traffic, back_at: float) -> None:
        self.traffic = traffic
        self.back_at = back_at
        self.tries: list[float] = []
        self.done = 0

    async def send(self) -> None:
        """Send one request until it is answered."""
        lane = self.traffic.creates
        while True:
            permit = await lane.acquire()
            lane.depart(permit)
            self.tries.append(anyio.current_time())
            await anyio.sleep(0.1)
            lane.give_back(permit)
            if anyio.current_time() < self.back_at:
                lane.fail("status 503", unreachable=False)
            else:
                lane.admit()
                self.done += 1
                return


@virtual_time
async def test_while_the_service_is_down_one_request_at_a_time_tries() -> None:
    """Ever more seldom; and when it is back, everybody goes on by himself."""
    changes: list[Change] = []
    traffic = traffic_of(outage_seconds=3600, changes=changes)
    service = Patient(traffic, back_at=100)
    async with anyio.create_task_group() as tasks:
        for _ in range(16):
            tasks.start_soon(service.send)
    assert service.done == 16
    probes = [at for at in service.tries if at > 0.5][:-15]
    assert [round(at) for at in probes] == [1, 3, 7, 15, 32, 64, 124]
    assert max(service.tries) - probes[-1] < 1
    assert [change.event for change in changes] == ["outage.begun", "outage.ended"]
    assert "status 503" in changes[0].sentence
    assert traffic.active() == pytest.approx(anyio.current_time() - 124, abs=2)


@virtual_time
async def test_an_outage_that_lasts_too_long_is_told() -> None:
    """Once it has; whoever waits is called back by the drain that follows."""
    draining, told, reasons = anyio.Event(), anyio.Event(), list[str]()

    def tell(reason: str) -> None:
        reasons.append(reason)
        told.set()

    traffic = traffic_of(outage_seconds=50, on_outage=tell, draining=draining)
    service = Patient(traffic, back_at=inf)

    async def send() -> None:
        with pytest.raises(WithdrawnError):
            await service.send()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(traffic.watch_outage)
        for _ in range(3):
            tasks.start_soon(send)
        await told.wait()
        assert 50 <= anyio.current_time() <= 52
        await anyio.sleep(10)
        assert reasons == ["status 503"]
        draining.set()
        traffic.withdraw()
        await settle()
        tasks.cancel_scope.cancel()


@virtual_time
async def test_lists_go_on_when_only_creates_fail() -> None:
    """They resolve the doubts that the failures left; but when nothing can be reached, they wait, and may try."""
    traffic = traffic_of(outage_seconds=3600)
    await break_down(traffic)
    await traffic.lists.acquire()
    assert anyio.current_time() == 0
    traffic = traffic_of(outage_seconds=3600)
    await break_down(traffic, unreachable=True)
    permit = await traffic.lists.acquire()
    assert permit.probe
    assert anyio.current_time() == 1
    traffic.lists.depart(permit)
    traffic.lists.give_back(permit)
    traffic.lists.admit()
    assert not traffic.breaker.is_open


@virtual_time
async def test_lists_that_work_do_not_mean_that_creates_do() -> None:
    """Creates that fail without end open the breaker whatever the lists say."""
    traffic = traffic_of(outage_seconds=3600)
    for _ in range(5):
        traffic.creates.fail("status 500", unreachable=False)
        traffic.lists.admit()
    assert traffic.breaker.is_open


@virtual_time
async def test_what_has_not_begun_waits_before_it_begins() -> None:
    """Until the service is to be tried again, or the run is no longer held."""
    traffic = traffic_of(outage_seconds=3600)
    await break_down(traffic)
    await traffic.until_open()
    assert anyio.current_time() == 1
    traffic.creates.admit()
    traffic.hold("paused")

    async def resume() -> None:
        await anyio.sleep(7)
        traffic.unhold("paused")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(resume)
        await traffic.until_open()
        assert anyio.current_time() == 8


# ---- outages that nobody would notice by waiting --------------------------------------------------------------------


async def ended(traffic: Traffic, draining: anyio.Event, told: list[str], *others: Task) -> float:
    """Watch while others do what they do; return when an outage was told."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(traffic.watch_outage)
        for one in others:
            tasks.start_soon(one)
        while not told:  # noqa: ASYNC110 - a plain function is told
            await anyio.sleep(0.1)
        at = anyio.current_time()
        draining.set()
        traffic.withdraw()
        await settle()
        tasks.cancel_scope.cancel()
    return at


async def ask(traffic: Traffic, lane: Lane, fail: Callable[[Permit], None], *, throttled: bool = False) -> None:
    """Ask until patience is over, always in vain."""
    patience = Patience(traffic)
    with suppress(WithdrawnError):
        while True:
            departure = LaneDeparture(traffic, lane)
            try:
                await departure.enter()
                await departure.ready()
                departure.left()
                await anyio.sleep(0.05)
                permit = departure.home()
                assert permit is not None
                fail(permit)
            finally:
                departure.end()
            if not await patience.wait(throttled=throttled):
                return


def fail_lists(traffic: Traffic, times: int = 5) -> None:
    """Let so many lists fail."""
    for _ in range(times):
        traffic.lists.fail("status 500", unreachable=False)


def lists_down(traffic: Traffic) -> bool:
    """Tell whether lists count as down."""
    return traffic.list_breaker.is_open


@virtual_time
async def test_an_outage_ends_a_run_whose_rows_all_sleep_before_their_next_attempt() -> None:
    """Nobody stands at the gate then; the watcher needs nobody."""
    draining, told = anyio.Event(), list[str]()
    traffic = traffic_of(outage_seconds=50, on_outage=told.append, draining=draining)
    await break_down(traffic)
    assert await ended(traffic, draining, told) == pytest.approx(50, abs=0.2)
    assert told == ["status 503"]


@virtual_time
async def test_a_run_without_outages_is_not_ended_nor_one_that_drains() -> None:
    """And an outage that nobody waits for ends nothing: there is nothing to send."""
    told: list[str] = []
    draining = anyio.Event()
    traffic = traffic_of(outage_seconds=3600, on_outage=told.append, draining=draining)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(traffic.watch_outage)
        await anyio.sleep(5000)
        await break_down(traffic)
        await anyio.sleep(3000)
        assert told == []
        await anyio.sleep(3000)
        assert told == []
        draining.set()
        await break_down(traffic)
        await anyio.sleep(5000)
        tasks.cancel_scope.cancel()
    assert told == []


@virtual_time
async def test_lists_that_only_fail_are_tried_one_at_a_time_until_one_is_answered() -> None:
    """Creates go on meanwhile."""
    changes: list[Change] = []
    traffic = traffic_of(outage_seconds=3600, changes=changes)
    fail_lists(traffic)
    assert lists_down(traffic)
    assert not traffic.breaker.is_open
    await traffic.creates.acquire()
    assert anyio.current_time() == 0
    permit = await traffic.lists.acquire()
    assert (permit.probe, anyio.current_time()) == (True, 1)
    with anyio.move_on_after(20) as second:
        await traffic.lists.acquire()
    assert second.cancelled_caught
    traffic.lists.depart(permit)
    traffic.lists.give_back(permit)
    traffic.lists.admit()
    assert not lists_down(traffic)
    assert not (await traffic.lists.acquire()).probe
    assert [change.sentence for change in changes] == [
        "lists are down (status 500): waiting until they are back",
        "lists are back, after 21 s",
    ]


@virtual_time
async def test_any_answer_to_a_list_is_an_answer() -> None:
    """A refusal as well, or a 429; and a create's says nothing about lists."""
    traffic = traffic_of(outage_seconds=3600)
    fail_lists(traffic)
    traffic.creates.admit()
    assert lists_down(traffic)
    traffic.lists.answered()
    assert not lists_down(traffic)
    fail_lists(traffic, 4)
    permit = await traffic.lists.acquire()
    traffic.lists.depart(permit)
    traffic.lists.give_back(permit)
    traffic.lists.refuse(permit, Refusal(RATE_CODE))
    fail_lists(traffic, 4)
    assert not lists_down(traffic)


@virtual_time
async def test_a_probe_of_lists_that_did_not_leave_lets_another_one_try() -> None:
    """It is the lists' probe that is given back, not the service's."""
    traffic = traffic_of(outage_seconds=3600)
    fail_lists(traffic)
    departure = LaneDeparture(traffic, traffic.lists)
    await departure.enter()
    departure.end()
    assert (await traffic.lists.acquire()).probe
    assert anyio.current_time() == 1


@virtual_time
async def test_when_nothing_can_be_reached_lists_wait_for_the_service() -> None:
    """That is one outage, said once; a list that meets a server's error shows that the service is reached again."""
    changes: list[Change] = []
    traffic = traffic_of(outage_seconds=3600, changes=changes)
    for _ in range(9):
        traffic.lists.fail("refused", unreachable=True)
    assert traffic.breaker.is_open
    assert not lists_down(traffic)
    assert len(changes) == 1
    traffic.lists.fail("status 500", unreachable=False)
    assert (await traffic.lists.acquire()).tries is not traffic.breaker
    assert traffic.breaker.is_open


@virtual_time
async def test_failing_lists_of_one_channel_are_no_outage_of_lists() -> None:
    """However many; those of a second one count, and a list that is answered makes them one channel's again."""
    traffic = traffic_of(outage_seconds=3600)

    def fail(*channels: str) -> bool:
        for channel in channels:
            traffic.lists.fail("status 500", unreachable=False, channel=channel)
        return lists_down(traffic)

    assert not fail(*["a"] * 50)
    traffic.lists.answered()
    assert not fail(*["b"] * 50)
    assert not fail("c", "b", "c", "b")
    assert fail("c")


@virtual_time
async def test_lists_that_are_answered_while_creates_fail_make_them_be_tried_more_often() -> None:
    """The service is there, so it may be the rows: the next ones are tried, and one that succeeds ends the outage."""
    traffic = traffic_of(outage_seconds=3600)
    await break_down(traffic)
    for _ in range(8):
        permit = await traffic.creates.acquire()
        traffic.creates.depart(permit)
        traffic.creates.give_back(permit)
        traffic.creates.fail("status 500", unreachable=False)
    assert traffic.breaker.next_probe - traffic.clock() > 30
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(traffic.creates.acquire)
        await anyio.sleep(1)
        traffic.lists.answered()
        began = traffic.clock()
    assert traffic.clock() - began == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("creates_down", [False, True])
@virtual_time
async def test_lists_at_500_for_ever_end_the_run(creates_down: bool) -> None:
    """Whether creates come back or not."""
    draining, told = anyio.Event(), list[str]()
    traffic = traffic_of(outage_seconds=50, on_outage=told.append, draining=draining)

    def fail(_: Permit) -> None:
        traffic.lists.fail("status 500", unreachable=False)

    async def look() -> None:
        await ask(traffic, traffic.lists, fail)

    async def create() -> None:
        await Patient(traffic, inf).send()

    others = [look, look, *([create] if creates_down else [])]

    async def one(do: Task) -> None:
        with suppress(WithdrawnError):
            await do()

    at = await ended(traffic, draining, told, *(partial(one, do) for do in others))
    assert 50 <= at <= 55
    assert told == ["lists: status 500"] or (creates_down and told == ["status 503"])


@pytest.mark.parametrize("kind", ["lists", "creates"])
@virtual_time
async def test_nothing_but_429s_for_ever_ends_the_run(kind: str) -> None:
    """Each request is bounded by its budget, and all of them by the outage; a pause does not count."""
    draining, told = anyio.Event(), list[str]()
    traffic = traffic_of(outage_seconds=2000, on_outage=told.append, draining=draining)
    lane = traffic.lists if kind == "lists" else traffic.creates
    gave_up: list[float] = []

    def fail(permit: Permit) -> None:
        lane.refuse(permit, Refusal(RATE_CODE))

    async def look() -> None:
        while not draining.is_set():
            await ask(traffic, lane, fail, throttled=True)
            gave_up.append(anyio.current_time())

    async def pause() -> None:
        await anyio.sleep(950)
        traffic.hold("paused")
        await anyio.sleep(300)
        traffic.unhold("paused")

    at = await ended(traffic, draining, told, look, pause)
    assert 800 <= gave_up[0] <= 900
    assert 2300 <= at <= 2305
    assert told == [f"{'lists: ' if kind == 'lists' else ''}nothing but 429 (45780)"]


@virtual_time
async def test_429s_with_an_answer_between_them_are_no_outage() -> None:
    """However rare it is; and refused lists say nothing about creates."""
    draining, told = anyio.Event(), list[str]()
    traffic = traffic_of(outage_seconds=100, on_outage=told.append, draining=draining)

    async def send() -> None:
        for number in range(60):
            permit = await traffic.creates.acquire()
            traffic.creates.give_back(permit)
            if number % 20:
                traffic.creates.refuse(permit, Refusal(RATE_CODE))
            else:
                traffic.creates.admit()
            await anyio.sleep(4)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(traffic.watch_outage)
        await send()
        tasks.cancel_scope.cancel()
    assert told == []


@virtual_time
async def test_a_list_that_fails_while_only_creates_are_down_has_a_bound_of_its_own() -> None:
    """Other lists are answered, so no outage of lists bounds it."""
    traffic = traffic_of(outage_seconds=3600)
    await break_down(traffic)

    def fail(_: Permit) -> None:
        traffic.lists.fail("status 500", unreachable=False)
        asked.append(anyio.current_time())

    async def others() -> None:
        while True:
            traffic.lists.admit()
            await anyio.sleep(0.02)

    asked: list[float] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(others)
        await ask(traffic, traffic.lists, fail)
        tasks.cancel_scope.cancel()
    assert len(asked) == 6
    assert traffic.breaker.is_open


@virtual_time
async def test_a_closing_that_fails_while_the_service_is_down_is_not_given_up() -> None:
    """Its failures belong to the outage."""
    draining, told, asked = anyio.Event(), list[str](), list[float]()
    traffic = traffic_of(outage_seconds=3000, on_outage=told.append, draining=draining)

    def fail(_: Permit) -> None:
        traffic.creates.fail("status 503", unreachable=False)
        asked.append(anyio.current_time())

    async def close() -> None:
        await ask(traffic, traffic.creates, fail)

    assert 3000 <= await ended(traffic, draining, told, close) <= 3010  # it opens at the fifth failure
    assert len(asked) > 30
