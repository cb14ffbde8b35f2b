"""How a call other than a create leaves, and how long one goes on trying."""

import anyio

from worker.traffic.lane import Lane, Permit, Traffic


class LaneDeparture:
    """One call on its way through a lane; of a list page by page."""

    def __init__(self, traffic: Traffic, lane: Lane) -> None:
        self._traffic = traffic
        self._lane = lane
        self._permit: Permit | None = None
        self._probe = False

    async def enter(self) -> None:
        """Wait until the call may begin: before a connection is asked for, since that may be what fails."""
        self._probe = await self._lane.enter()

    def end(self) -> None:
        """Let somebody else try a service that is down, if this call was to and found nothing out."""
        if self._probe:
            self._probe = False
            self._traffic.withdraw_probe()

    async def ready(self) -> None:
        """Wait until a page may be asked for; the one before it was answered. Raises WithdrawnError."""
        if (before := self.home()) is not None and before.has_left:
            self._lane.admit()
        self._permit = await self._lane.acquire(probe=self._probe)
        self._probe = self._permit.probe

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
        self._deadline = traffic.active() + traffic.retry.budget_seconds
        self._waits = 0
        self._failures = 0

    async def wait(self, *, throttled: bool, after_seconds: float | None = None) -> bool:
        """Wait before the next attempt, or until the run drains; False at once when there is to be none.

        after_seconds: what the service asks for. Being throttled, or an outage, uses up no attempt: they say nothing
        about what was asked.
        """
        traffic, settings = self._traffic, self._settings
        seconds = after_seconds
        if seconds is None:
            longest = settings.initial_seconds * 2.0 ** min(self._waits, 30)
            seconds = traffic.jitter(0, min(longest, settings.max_seconds))
        self._waits += 1
        self._failures += not throttled and not traffic.breaker.is_open
        seconds = min(seconds, settings.max_retry_after_seconds)
        if self._failures >= settings.attempts or traffic.active() + seconds > self._deadline:
            return False
        with anyio.move_on_after(seconds):
            await traffic.draining.wait()
        return True
