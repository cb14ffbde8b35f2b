"""One worker among several: it takes chunks, says that it is alive, and looks after those who are not any more."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeVar

import anyio
from anyio.abc import TaskGroup

from worker.errors import LedgerError
from worker.fleet.chunk import Chunk, Parts
from worker.fleet.pace import Slots
from worker.lease import Lease
from worker.ledger.queue import Desk, Pacer, Reserved, Taken, Told
from worker.model import Cause, Exit
from worker.stopping import Stop

T = TypeVar("T")

BEAT_SECONDS = 1.0
SILENT_SECONDS = 10.0
"""How long after it was last heard of its chunks are given to others."""

IDLE_SECONDS = 0.5
"""How often a worker with nothing to do looks for chunks."""


class Crew:
    """A worker's part in it. sample: what others may know of it. wake: called when the lease holds again.

    exit_when_empty: whether it ends once no chunk waits and nobody holds one, instead of waiting for `enqueue`.
    broke: whether the database could not be used.
    """

    def __init__(
        self,
        desk: Desk,
        pacer: Pacer,
        lease: Lease,
        stop: Stop,
        *,
        slots: list[Slots],
        sample: Callable[[], Mapping[str, int | str]],
        wake: Callable[[], None],
        on_relieved: Callable[[int], None],
        clock: Callable[[], float],
        exit_when_empty: bool,
    ) -> None:
        self._desk = desk
        self._pacer = pacer
        self._lease = lease
        self._stop = stop
        self._slots = slots
        self._sample = sample
        self._wake = wake
        self._on_relieved = on_relieved
        self._clock = clock
        self._exit_when_empty = exit_when_empty
        self._thread = anyio.CapacityLimiter(1)
        self._pacing = anyio.CapacityLimiter(1)
        self.broke = False

    async def ask(self, function: Callable[[], T]) -> T:
        """Ask the desk, in a thread. Raises LedgerError."""
        return await anyio.to_thread.run_sync(function, limiter=self._thread)

    async def reserve(self, lane: str, rate: float, slots: int, told: Told) -> Reserved:
        """Reserve slots; see `pace.Reserve`."""
        return await self._pace(partial(self._pacer.slots, lane, rate, slots, told))

    async def _pace(self, function: Callable[[], T]) -> T:
        return await anyio.to_thread.run_sync(function, limiter=self._pacing)

    async def work(self, parts: Parts, at_once: int) -> None:
        """Take chunks, so many at once, until the stop drains. What ends it is in the stop's causes."""
        async with anyio.create_task_group() as beside:
            beside.start_soon(self._heed, self._beat)
            for one in self._slots:
                beside.start_soon(self._heed, one.keep)
            async with anyio.create_task_group() as chunks:
                await self._heed(partial(self._take_chunks, parts, at_once, chunks))
            beside.cancel_scope.cancel()

    async def _heed(self, work: Callable[[], object]) -> None:
        """Let the worker drain when its database cannot be used: nothing of what it does can be recorded."""
        try:
            await work()  # type: ignore[misc]  # a coroutine function of whatever kind
        except LedgerError as exc:
            self.broke = True
            self._stop.drain(Cause(Exit.HALTED, f"halted: {exc}"))

    async def _take_chunks(self, parts: Parts, at_once: int, chunks: TaskGroup) -> None:
        places = anyio.Semaphore(at_once)
        while not self._stop.draining.is_set():
            await places.acquire()
            # who may not send leaves chunks to others
            may_send = self._lease()
            taken = await self.ask(self._desk.take) if may_send else None
            if taken is not None:
                chunks.start_soon(self._heed, partial(self._send, Chunk(parts, taken), taken, places))
                continue
            places.release()
            if self._exit_when_empty and may_send and await self.ask(self._desk.is_empty):
                return
            with anyio.move_on_after(IDLE_SECONDS):
                await self._stop.draining.wait()

    async def _send(self, chunk: Chunk, taken: Taken, places: anyio.Semaphore) -> None:
        try:
            recorded = await chunk.send()
            over = recorded and not self._stop.ending.is_set()
            await self.ask(partial(self._desk.finish if over else self._desk.give_back, taken))
            if not recorded:
                await anyio.sleep(BEAT_SECONDS)
        finally:
            places.release()

    async def _relieve(self) -> None:
        if freed := await self.ask(partial(self._desk.relieve, SILENT_SECONDS)):
            self._on_relieved(freed)

    async def _beat(self) -> None:
        began = self._clock()
        while True:
            at = self._lease.clock()
            for one in self._slots:
                one.look()
                if (seconds := one.paused_until - self._clock()) > 0:
                    await self._pace(partial(self._pacer.hold, one.lane, seconds))
            if not await self.ask(partial(self._desk.beat, self._sample())):
                raise LedgerError("this worker was not heard of for too long: others have its chunks")
            held = self._lease()
            self._lease.renew(at)
            if not held:
                self._wake()
            # who comes back with the database gives the others as long to be heard of
            if self._clock() - began > SILENT_SECONDS:
                await self._relieve()
            await anyio.sleep(BEAT_SECONDS)
