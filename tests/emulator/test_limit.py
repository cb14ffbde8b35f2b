"""The limits: so many in the last second, so many at once, and what is counted."""

import asyncio

import pytest

from worker.emulator import Behaviour, Emulator, ordinary
from worker.emulator.limit import Flight, Window

from .client import OTHER, UO, Clock, serving


def test_a_window_holds_the_last_second_only() -> None:
    """An event counts until a second later, that moment excluded, and the busiest second is remembered."""
    window = Window()
    for now in (10.0, 10.4, 10.9):
        window.add(now)
    assert window.count(10.999) == 3
    assert window.count(11.0) == 2
    assert window.count(11.9) == 0
    assert window.busiest == 3


def test_a_flight_tells_the_client_from_the_service() -> None:
    """A client that has gone flies no more, while the service still works for it."""
    flight = Flight()
    flight.take_off("a")
    flight.take_off("a")
    flight.take_off(None)
    assert (flight.flying, flight.working, flight.in_channel("a")) == (3, 3, 2)
    flight.land("a")
    flight.land("a")
    flight.finish()
    assert (flight.flying, flight.working, flight.in_channel("a")) == (1, 2, 0)
    flight.take_off("a")
    assert (flight.most, flight.most_in_one_channel) == (3, 2)


@pytest.mark.parametrize(("seconds", "header"), [(None, None), (2.0, "2"), (0.2, "1"), (0.0, "0")])
async def test_creates_over_the_rate_are_throttled_and_make_nothing(seconds: float | None, header: str | None) -> None:
    """The third of two in a second gets 429, with Retry-After or without; a second later there is room again."""
    clock = Clock()
    emulator = Emulator(Behaviour(rate_per_second=2, retry_after_seconds=seconds), clock=clock)
    async with serving(emulator) as client:
        assert [(await client.create()).status for _ in range(2)] == [201, 201]
        throttled = await client.create()
        assert (throttled.status, throttled.code, throttled.headers.get("Retry-After")) == (429, 45780, header)
        assert len(emulator.participants) == 2
        clock.now += 0.999
        assert (await client.create()).status == 429
        clock.now += 0.001
        assert (await client.create()).status == 201
    stats = emulator.stats
    assert (stats.arrived, stats.accepted, stats.created, stats.throttled, stats.refused) == (5, 3, 3, 2, 0)
    assert (stats.busiest_second_arrived, stats.busiest_second_accepted) == (4, 2)
    assert [request.made is None for request in emulator.requests] == [False, False, True, True, False]


async def test_lists_have_a_rate_of_their_own() -> None:
    """The documented limit is per endpoint: creates and lists do not use up each other's."""
    emulator = Emulator(Behaviour(rate_per_second=1, list_rate_per_second=1), clock=Clock())
    async with serving(emulator) as client:
        assert [(await client.create()).status, (await client.page()).status] == [201, 200]
        assert [(await client.create()).status, (await client.page()).status] == [429, 429]
        assert (await client.call("GET", client.url().removesuffix("/Participants"))).status == 200


async def test_a_limit_can_be_changed_while_running() -> None:
    """The new rate holds from the next request."""
    emulator = Emulator(Behaviour(rate_per_second=1), clock=Clock())
    async with serving(emulator) as client:
        assert [(await client.create()).status for _ in range(2)] == [201, 429]
        emulator.change(rate_per_second=None)
        assert (await client.create()).status == 201


@pytest.mark.parametrize(("seconds", "header"), [(None, None), (3, "3")])
async def test_requests_over_the_concurrency_are_throttled(seconds: float | None, header: str | None) -> None:
    """While one is being worked on and one is the limit, the next call of any kind gets 429 with 20429."""
    gate = asyncio.Event()
    emulator = Emulator(Behaviour(concurrency=1, retry_after_seconds=seconds))
    emulator.script(UO, ordinary(gate=gate))
    async with serving(emulator) as client:
        first = await client.start(emulator)
        for reply in (await client.create(OTHER), await client.page()):
            assert (reply.status, reply.code, reply.headers.get("Retry-After")) == (429, 20429, header)
        gate.set()
        assert (await first).status == 201
        assert (await client.create(OTHER)).status == 201
    assert len(emulator.participants) == 2


async def test_a_service_stays_busy_with_a_client_that_has_gone() -> None:
    """A client that gives up does not free its place, though it keeps its own promise of one at once."""
    gate = asyncio.Event()
    emulator = Emulator(Behaviour(concurrency=1))
    emulator.script(UO, ordinary(gate=gate))
    async with serving(emulator) as client:
        await client.give_up(emulator, await client.start(emulator))
        assert (await client.create()).code == 20429
        gate.set()
        await emulator.settled()
        assert (await client.create()).status == 201
    assert (emulator.stats.max_in_flight, emulator.stats.max_in_flight_in_a_channel) == (1, 1)


async def test_the_most_in_flight_is_counted_overall_and_per_channel() -> None:
    """Two in one channel and one in another are three at once, two of them in one channel."""
    gate = asyncio.Event()
    emulator = Emulator()
    emulator.script_next(*[ordinary(gate=gate)] * 3)
    async with serving(emulator) as client:
        waiting = [await client.start(emulator, channel) for channel in (UO, UO, OTHER)]
        assert (emulator.stats.in_flight, emulator.in_flight(UO), emulator.in_flight(OTHER)) == (3, 2, 1)
        gate.set()
        await asyncio.gather(*waiting)
    stats = emulator.stats
    assert (stats.in_flight, stats.max_in_flight, stats.max_in_flight_in_a_channel) == (0, 3, 2)
