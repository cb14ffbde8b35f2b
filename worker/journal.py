"""Durability: a write returns once it is on the disk, or raises in the task that asked for it.

Entries that come while a commit is under way share the next one (group commit). The writer outlives cancellation:
whoever recorded an intent can record its outcome too, and closing is the message that nothing more will come. A write
that was asked for is waited for, even by a task that is being cancelled: otherwise an intent would be on record that
nobody settles.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from types import TracebackType
from typing import Self, TypeVar

import anyio
from anyio.abc import TaskGroup

from worker.errors import LedgerError
from worker.ledger import FENCED, SID_KNOWN, Asked, Baseline, Entry, Fence, Fenced, Intent, Known, Ledger, Settle
from worker.model import Settlement

T = TypeVar("T")

RECORD_SECONDS = 30.0
"""How long a commit may take before the ledger counts as dead: nothing is sent without a record."""


class _Group:
    """Entries that are made durable together. answers: in their order, once it is done without an error."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.entries: list[Entry] = []
        self._askers: list[asyncio.Future[None]] | None = []
        self._loop = loop
        self.answers: Sequence[int | Known | Asked | None] = ()
        self.error: Exception | None = None

    async def done(self) -> None:
        """Wait until it is. An event would ask for its loop each time, which costs a system call."""
        if self._askers is not None:
            asker = self._loop.create_future()
            self._askers.append(asker)
            await asker

    def end(self) -> None:
        """Call everybody who waits."""
        askers, self._askers = self._askers or [], None
        for asker in askers:
            if not asker.done():
                asker.set_result(None)


class Records(ABC):
    """What records are asked for by."""

    async def intend(self, intent: Intent, baseline: Baseline | None = None) -> int | Known | Asked:
        """Record that a row is about to be sent, after its channel's baseline if there is one to record.

        Returns its number, what the ledger holds that forbids it, or what has to come first.
        """
        answer = await self.write(*([baseline] if baseline else []), intent)
        if answer is None:
            raise LedgerError("an intent was not answered")
        return answer

    async def settle(self, number: int, settlement: Settlement) -> bool:
        """Record what became of a row. number: as `intend` returned it. False: its sid was known, see `Settle`."""
        return await self.write(Settle(number, settlement)) is not SID_KNOWN

    async def note(self, entries: Sequence[Entry]) -> None:
        """Record what asks for no answer, all of it in one commit."""
        if entries:
            await self.write(*entries)

    @abstractmethod
    async def call(self, function: Callable[[], T]) -> T:
        """Run a method of the ledger between two commits, in the writer's thread. Raises LedgerError if that hangs."""

    @abstractmethod
    async def write(self, *entries: Entry) -> int | Known | Asked | None:
        """Return the answer to the last entry once all of them are on the disk."""


class Journal(Records):
    """The only writer of a ledger while a run goes on. Use it as an async context manager."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._loop = asyncio.get_running_loop()
        self._group = _Group(self._loop)
        self._wanted = anyio.Event()
        self._closed = False
        self._ended = False
        self._thread = anyio.CapacityLimiter(1)
        self._tasks: TaskGroup | None = None
        self._dead = ""
        self.commits = 0

    async def __aenter__(self) -> Self:
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        self._tasks.start_soon(self._work)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        self._closed = True
        self._wanted.set()
        if self._tasks is None:
            return None
        return await self._tasks.__aexit__(kind, error, trace)

    async def call(self, function: Callable[[], T]) -> T:
        if self._dead:
            raise LedgerError(self._dead)
        return await anyio.to_thread.run_sync(function, limiter=self._thread)

    async def write(self, *entries: Entry) -> int | Known | Asked | None:
        if self._ended:
            raise LedgerError("the journal is closed: nothing more can be recorded")
        group = self._group
        group.entries += entries
        place = len(group.entries) - 1
        self._wanted.set()
        try:
            await group.done()
        except asyncio.CancelledError:
            # what is being recorded has to be known to whoever asked, who is called back at the next step
            with anyio.CancelScope(shield=True):
                await group.done()
        if isinstance(group.error, LedgerError):
            raise LedgerError(str(group.error)) from group.error  # each asker gets an error of its own
        if group.error is not None:
            raise group.error
        return group.answers[place]

    async def _work(self) -> None:
        # what was asked for is written even while the run is being cancelled; each commit is bounded in time
        with anyio.CancelScope(shield=True):
            while True:
                await self._wanted.wait()
                group, self._group, self._wanted = self._group, _Group(self._loop), anyio.Event()
                if self._closed:
                    self._wanted.set()
                    if not group.entries:
                        self._ended = True
                        return
                await self._commit(group)

    async def _commit(self, group: _Group) -> None:
        try:
            if self._dead:
                raise LedgerError(self._dead)  # noqa: TRY301 - as if the ledger had said it
            write = partial(self._ledger.write, group.entries)
            # a thread that is left behind still has the ledger's connection: nobody may use it from then on
            with anyio.fail_after(RECORD_SECONDS):
                group.answers = await anyio.to_thread.run_sync(write, limiter=self._thread, abandon_on_cancel=True)
        except TimeoutError:
            self._dead = f"the ledger did not take a record within {RECORD_SECONDS:g} s"
            group.error = LedgerError(self._dead)
        except Exception as exc:  # noqa: BLE001 - whatever it is, it is raised where the record was asked for
            group.error = exc
        self.commits += 1
        group.end()


class FencedJournal(Records):
    """Records for one chunk in a journal of several: each has its fence. Raises LedgerError once that is gone."""

    def __init__(self, journal: Journal, fence: Fence) -> None:
        self._journal = journal
        self._fence = fence

    async def call(self, function: Callable[[], T]) -> T:
        return await self._journal.call(function)

    async def write(self, *entries: Entry) -> int | Known | Asked | None:
        answer = await self._journal.write(*(Fenced(entry, self._fence) for entry in entries))
        if answer is FENCED:
            raise LedgerError("another worker has taken this chunk over: nothing more of it is recorded here")
        return answer
