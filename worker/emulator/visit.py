"""One request while it is being dealt with: what it asks, who waits for it, and whether anybody still does."""

import asyncio
from collections.abc import Callable

from aiohttp import web

from worker.emulator.fault import Call
from worker.emulator.limit import Flight


class Visit:
    """A request being dealt with. It counts in the flight until it ends or its client goes, whichever comes first."""

    __slots__ = (
        "_counted_in",
        "_flight",
        "_waker",
        "_wakes_when_gone",
        "arrived_at",
        "body",
        "call",
        "channel_sid",
        "gone_at",
        "hurried",
        "interaction_sid",
        "number",
        "participant_sid",
        "request",
    )

    def __init__(
        self,
        request: web.BaseRequest,
        call: Call | None,
        sids: tuple[str, str, str],
        *,
        flight: Flight,
        arrived_at: float,
    ) -> None:
        self.request = request
        self.call = call  # None: the API has no such call
        self.interaction_sid, self.channel_sid, self.participant_sid = sids
        self.arrived_at = arrived_at
        self.body = b""
        self.number: int | None = None  # of a create
        self.gone_at: float | None = None
        self.hurried = False
        self._flight = flight
        self._waker: asyncio.Future[None] | None = None
        self._wakes_when_gone = False
        self._counted_in = self.channel_sid if call is Call.CREATE else None
        flight.take_off(self._counted_in)

    @property
    def origin(self) -> str:
        """The scheme, host and port by which the client reached the emulator."""
        return f"http://{self.request.host}"

    def end(self) -> None:
        """Count it out: the service is done with it."""
        if self.gone_at is None:
            self._flight.land(self._counted_in)
        self._flight.finish()

    def lose_client(self, now: float) -> None:
        """Its client has gone; the work goes on."""
        self.gone_at = now
        self._flight.land(self._counted_in)
        if self._wakes_when_gone:
            self.wake()

    def hurry(self) -> None:
        """Wait no longer, now and later: the emulator closes."""
        self.hurried = True
        self.wake()

    async def pause(self, seconds: float, *, gate: asyncio.Event | None = None, wakes_when_gone: bool) -> None:
        """Wait so many seconds, or for the gate; shorter when hurried, or when the client goes if that wakes."""
        if self.hurried or (wakes_when_gone and self.gone_at is not None):
            return
        loop = asyncio.get_running_loop()
        self._waker = loop.create_future()
        self._wakes_when_gone = wakes_when_gone
        stop = _when_open(gate, self.wake) if gate else loop.call_later(seconds, self.wake).cancel
        try:
            await self._waker
        finally:
            self._waker = None
            self._wakes_when_gone = False
            stop()

    def wake(self) -> None:
        """End its pause, if it is in one."""
        if self._waker is not None and not self._waker.done():
            self._waker.set_result(None)


def _when_open(gate: asyncio.Event, wake: Callable[[], None]) -> Callable[[], object]:
    """Call back once the gate is open; returns what calls that off."""
    opening = asyncio.get_running_loop().create_task(gate.wait())
    opening.add_done_callback(lambda _: wake())
    return opening.cancel
