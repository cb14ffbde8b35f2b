"""The hours of a run, and what people tell it: held, capped or drained, from a Monday evening on in virtual time."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from math import inf

import anyio
import pytest

from tests.fakes import free_traffic
from tests.virtual_clock import settle, virtual_time
from worker.cli.parameter import Window
from worker.cli.windowing import hours_of
from worker.config import Limits
from worker.errors import ClosedError, ConfigError, LedgerError
from worker.ledger.steering import Order
from worker.model import Cause, Change, Exit
from worker.schedule import Hours, Schedule
from worker.stopping import Stop
from worker.timetable import Timetable
from worker.traffic import Traffic

MONDAY = datetime(2026, 3, 2, 21, 0, tzinfo=UTC)
EVENINGS = ("21:20-21:10 0", "21:10-21:20 6")


class Evening:
    """A run's hours, from Monday 21:00 UTC on. ahead: how far the wall clock was set ahead meanwhile."""

    def __init__(
        self, *entries: str, until: datetime | None = None, seconds: float | None = None, wait: bool = False
    ) -> None:
        self.stop = Stop()
        self.traffic: Traffic = free_traffic(self.stop.draining, rate=15)
        self.traffic._wall = self.wall
        self.orders: list[Order] = []
        self.changes: list[Change] = []
        self.told: list[Cause] = []
        self.ahead = timedelta()
        self.schedule = Schedule(
            Hours(Timetable(entries, "UTC"), until, seconds, wait),
            self.traffic,
            self.stop,
            self.take_orders,
            tell=self.changes.append,
            on_stop=self.told.append,
            wall=self.wall,
        )

    def wall(self) -> float:
        """Return seconds since 1970."""
        return (MONDAY + self.ahead).timestamp() + anyio.current_time()

    def take_orders(self) -> list[Order]:
        """Return the orders that are new."""
        taken, self.orders = self.orders, []
        return taken

    @asynccontextmanager
    async def kept(self) -> AsyncIterator["Evening"]:
        """Keep the hours while the block lasts."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.schedule.keep)
            await settle()
            yield self
            tasks.cancel_scope.cancel()

    async def leave(self) -> datetime:
        """Send one request; return when it could leave."""
        self.traffic.creates.give_back(await self.traffic.creates.acquire())
        return datetime.fromtimestamp(self.wall(), UTC)

    @property
    def reasons(self) -> list[str]:
        """Why it is to end."""
        return [cause.reason for cause in self.stop.causes if cause.exit is Exit.STOPPED]


def at(text: str) -> datetime:
    """Return a time of that week in UTC: `Tue 06:00`."""
    day, clock = text.split()
    hour, minute = map(int, clock.split(":"))
    days = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun").index(day)
    return MONDAY.replace(hour=hour, minute=minute) + timedelta(days=days)


@virtual_time
async def test_a_run_that_waits_sleeps_through_closed_hours_and_keeps_their_rate() -> None:
    """Nothing before ten past nine; six a second for ten minutes; nothing more until the next evening."""
    evening = Evening(*EVENINGS, wait=True)
    async with evening.kept():
        assert evening.traffic.held_by == "closed hours until Mon 21:10"
        assert await evening.leave() >= at("Mon 21:10")
        assert evening.wall() < at("Mon 21:10").timestamp() + 2
        assert evening.traffic.creates.rate == 6
        assert evening.schedule.ends_at == at("Mon 21:20")
        await anyio.sleep(602)
        assert evening.traffic.held_by == "closed hours until Tue 21:10"
    assert [change.event for change in evening.changes] == ["hours.closed", "hours.opened", "hours.closed"]
    assert evening.reasons == []


@virtual_time
async def test_a_run_that_does_not_wait_drains_when_the_hours_close() -> None:
    """To the second, and no request leaves after it."""
    evening = Evening("21:05-06:00 0")
    async with evening.kept():
        await evening.stop.draining.wait()
        assert at("Mon 21:05").timestamp() <= evening.wall() < at("Mon 21:05").timestamp() + 0.1
    assert evening.reasons == ["stopped at 21:05, as the timetable says"]
    assert evening.told == evening.stop.causes


@virtual_time
async def test_no_request_leaves_between_the_closing_and_its_being_noticed() -> None:
    """The schedule looks every second; the traffic looks at the wall clock for each request."""
    evening = Evening("22:00-22:05 0", wait=True)
    async with evening.kept():
        evening.ahead = timedelta(minutes=59, seconds=59.9)
        await anyio.sleep(0.2)
        assert evening.traffic.is_held
        assert await evening.leave() >= at("Mon 22:05")


@virtual_time
async def test_a_clock_that_is_set_back_opens_nothing_twice() -> None:
    """Hours are the wall clock's: set back, they are closed again."""
    evening = Evening(*EVENINGS, wait=True)
    async with evening.kept():
        await evening.leave()
        evening.ahead = timedelta(hours=-2)
        await anyio.sleep(2)
        assert evening.traffic.held_by == "closed hours until Mon 21:10"


@virtual_time
async def test_the_end_that_was_set_drains() -> None:
    """--until at its time, --max-duration after its time."""
    evening = Evening(until=at("Mon 21:30"))
    async with evening.kept():
        await evening.stop.draining.wait()
        assert evening.wall() == pytest.approx(at("Mon 21:30").timestamp(), abs=0.1)
    assert evening.reasons == ["stopped at 21:30, as --until says"]
    evening = Evening(seconds=720)
    begin = anyio.current_time()
    async with evening.kept():
        await evening.stop.draining.wait()
        assert anyio.current_time() - begin == pytest.approx(720, abs=0.1)
    assert evening.reasons == ["stopped after as long as --max-duration says"]


@virtual_time
async def test_the_earlier_end_is_the_one_that_is_shown() -> None:
    """Of the closing hour and the end that was set."""
    async with Evening("Tue 05:00-06:00 0", until=at("Tue 04:00"), wait=True).kept() as evening:
        assert evening.schedule.ends_at == at("Tue 04:00")
    async with Evening("Tue 05:00-06:00 0", until=at("Tue 07:00"), wait=True).kept() as evening:
        assert evening.schedule.ends_at == at("Tue 05:00")
    async with Evening().kept() as evening:
        assert evening.schedule.ends_at is None


@virtual_time
async def test_orders_hold_cap_and_drain() -> None:
    """Within a second; each is told with who gave it."""
    evening = Evening()
    async with evening.kept():
        evening.orders = [Order(1, "rate", 5.0, "ann@host"), Order(2, "pause", None, "ann@host")]
        await anyio.sleep(1.1)
        assert (evening.traffic.creates.rate, evening.traffic.held_by) == (5, "paused")
        evening.orders = [Order(3, "resume", None, "bob@host")]
        await anyio.sleep(1.1)
        assert (evening.traffic.creates.rate, evening.traffic.held_by) == (5, "")
        evening.orders = [Order(4, "rate", inf, "bob@host"), Order(5, "drain", None, "bob@host")]
        await evening.stop.draining.wait()
        assert evening.traffic.creates.rate == 15
    assert evening.reasons == ["drained, as bob@host says"]
    said = [change.sentence for change in evening.changes]
    assert said[:3] == ["5/s at most, as ann@host says", "pause, as ann@host says", "resume, as bob@host says"]


@virtual_time
async def test_the_least_of_the_limits_holds() -> None:
    """Configured 15, ordered 10, the timetable 6 later on: each holds while it is the least."""
    evening = Evening("21:05-06:00 6")
    async with evening.kept():
        evening.orders = [Order(1, "rate", 10.0, "ann@host")]
        await anyio.sleep(2)
        assert evening.traffic.creates.rate == 10
        await anyio.sleep(300)
        assert evening.traffic.creates.rate == 6
        evening.orders = [Order(2, "rate", 3.0, "ann@host")]
        await anyio.sleep(2)
        assert evening.traffic.creates.rate == 3


@virtual_time
async def test_orders_that_cannot_be_read_stop_nobody() -> None:
    """Who writes to the ledger finds out what is wrong with it."""
    evening = Evening()

    def broken() -> list[Order]:
        raise LedgerError("the disk is gone")

    evening.schedule._orders = broken
    async with evening.kept():
        await anyio.sleep(5)
    assert evening.stop.causes == []


# ---- from the options -----------------------------------------------------------------------------------------------

DAYS = Limits(timetable=("Mon-Fri 06:00-22:00 0",), timezone="Europe/London")


def test_closed_hours_are_refused_at_once() -> None:
    """With when they open, and what to do; unless one waits, or does not mind."""
    with pytest.raises(ClosedError, match=r"closed hours until Mon 22:00 \(Europe/London\).*") as refused:
        hours_of(DAYS, Window(), MONDAY)
    assert "--wait" in str(refused.value)
    assert "--ignore-timetable" in str(refused.value)
    assert hours_of(DAYS, Window(wait=True), MONDAY).wait
    assert hours_of(DAYS, Window(ignore_timetable=True), MONDAY).closes(MONDAY) is None


def test_who_waits_for_hours_that_never_open_is_refused() -> None:
    """Nothing waits for ever."""
    with pytest.raises(ClosedError, match="closed hours"):
        hours_of(Limits(timetable=("00:00-24:00 0",)), Window(wait=True), MONDAY)


@pytest.mark.parametrize(
    ("begin", "ends"),
    [(MONDAY, at("Tue 06:00")), (at("Tue 05:59"), at("Tue 06:00")), (at("Mon 18:00"), at("Tue 06:00"))],
)
def test_until_is_the_next_such_time(begin: datetime, ends: datetime) -> None:
    """Within twelve hours."""
    assert hours_of(Limits(), Window(until="06:00"), begin).until == ends


def test_until_a_time_that_has_passed_is_over_at_once() -> None:
    """A supervisor that restarts at 06:01 must not have it run until tomorrow."""
    with pytest.raises(ClosedError, match="06:00 has passed and the next one is 24 h away: the window is over") as over:
        hours_of(Limits(), Window(until="06:00"), at("Tue 06:01"))
    assert "--until 2026-03-04T06:00" in str(over.value)
    assert hours_of(Limits(), Window(until="2026-03-04T06:00"), at("Tue 06:01")).until == at("Wed 06:00")


@pytest.mark.parametrize(
    ("window", "said"),
    [
        (Window(until="noon"), '--until: "noon" is no time'),
        (Window(until="2020-01-01T00:00"), "--until: .* is in the past"),
        (Window(max_duration="ever"), "--max-duration: "),
    ],
)
def test_what_cannot_be_understood_names_its_option(window: Window, said: str) -> None:
    """Before anything is sent."""
    with pytest.raises(ConfigError, match=said):
        hours_of(Limits(), window, MONDAY)


def test_a_duration_is_seconds() -> None:
    """As people write it."""
    assert hours_of(Limits(), Window(max_duration="1h30m"), MONDAY).seconds == 5400
