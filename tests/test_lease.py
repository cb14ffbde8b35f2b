"""The right to send: it ends by itself, and nothing leaves without it."""

from math import inf

import anyio

from worker.config import Limits, Retry
from worker.lease import LEASE_SECONDS, Lease, boot_clock
from worker.traffic import Traffic


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        """Return what it was set to."""
        return self.now


def test_a_lease_ends_by_itself_and_counts_from_the_question() -> None:
    """Not from the answer, which may have been on its way for long; and an older answer shortens nothing."""
    clock = Clock()
    lease = Lease(clock)
    clock.now += LEASE_SECONDS - 0.1
    assert lease()
    asked_at = clock.now
    clock.now += 3
    assert not lease()
    lease.renew(asked_at)
    assert lease()
    lease.renew(asked_at - 2)
    clock.now = asked_at + LEASE_SECONDS - 0.1
    assert lease()
    clock.now = asked_at + LEASE_SECONDS
    assert not lease()


def test_its_clock_goes_on() -> None:
    """It is no clock of a process, nor of an event loop."""
    clock = boot_clock()
    before = clock()
    assert clock() >= before > 0


async def test_nothing_leaves_without_it() -> None:
    """Neither what asks now nor what waited for its turn; once it holds again both go on."""
    clock = Clock()
    lease = Lease(clock)
    limits = Limits(rate_per_second=inf, list_rate_per_second=inf, concurrency=1)
    traffic = Traffic(limits, Retry(), anyio.Event())
    traffic.lease = lease
    first = await traffic.creates.acquire()
    left: list[str] = []

    async def leave(name: str) -> None:
        permit = await traffic.creates.acquire()
        left.append(name)
        traffic.creates.give_back(permit)

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(leave, "waits for a slot")
            await anyio.wait_all_tasks_blocked()
            clock.now += LEASE_SECONDS
            traffic.creates.give_back(first)
            tasks.start_soon(leave, "asks now")
            await anyio.wait_all_tasks_blocked()
            assert left == []
            assert traffic.held_by == "no contact with the ledger's database"
            lease.renew(clock.now)
            traffic.wake()
    assert sorted(left) == ["asks now", "waits for a slot"]
