"""How a call other than a create leaves, and how long one goes on trying."""

import anyio

from worker.breaker import Breaker
from worker.traffic.lane import Lane, Permit, Traffic


class LaneDeparture:
    """One call on its way through a lane; of a list page by page."""

    def __init__(self, traffic: Traffic, lane: Lane) -> None:
        self._traffic = traffic
        self._lane = lane
        self._permit: Permit | None = None
        self._tries: Breaker | None = None

    async def enter(self) -> None:
        """Wait until the call may begin: before a connection is asked for, since that may be what fails."""
        self._tries = await self._lane.approach()

    def end(self) -> None:
        """Let somebody else try a service that is down, if this call was to and found nothing out."""
        if self._tries is not None:
            self._traffic.withdraw_probe(self._tries)
            self._tries = None

    async def ready(self) -> None:
        """Wait until a page may be asked for; the one before it was answered. Raises WithdrawnError."""
        if (before := self.home()) is not None and before.has_left:
            self._lane.admit()
        self._permit = await self._lane.acquire(tries=self._tries)
        self._tries = self._permit.tries

    def left(self) -> None:
        """Take note that the page is asked for."""
        if self._permit is not None:
            self._lane.depart(self._permit)

    def home(self) -> Permit | None:
        """Take note that the page is over; returns its permit."""
        permit, self._permit = self._permit, None
        if permit is not None:
            self._lane.give_back(permit)
        return permit


class Patience:
    """How often a call that may be repeated is: as `retry` says, for one channel or participant."""

    def __init__(self, traffic: Traffic) -> None:
        self._traffic = traffic
        self._settings = traffic.retry
        self._deadline = traffic.patience() + traffic.retry.budget_seconds
        self._waits = 0
        self._failures = 0

    async def wait(self, *, throttled: bool, after_seconds: float | None = None) -> bool:
        """Wait before the next attempt, or until the run drains; False at once when there is to be none.

        after_seconds: what the service asks for. Being throttled uses up no attempt, nor does a failure that belongs
        to an outage, whose end is watched: they say nothing about what was asked. It is to be called right after the
        traffic was told what came back.
        """
        traffic, settings = self._traffic, self._settings
        seconds = after_seconds
        if seconds is None:
            longest = settings.initial_seconds * 2.0 ** min(self._waits, 30)
            seconds = traffic.jitter(0, min(longest, settings.max_seconds))
        self._waits += 1
        self._failures += not throttled and not traffic.awaits_service
        seconds = min(seconds, settings.max_retry_after_seconds)
        if self._failures >= settings.attempts or traffic.patience() + seconds > self._deadline:
            return False
        traffic.patient += 1
        try:
            with anyio.move_on_after(seconds):
                await traffic.draining.wait()
        finally:
            traffic.patient -= 1
        return True
