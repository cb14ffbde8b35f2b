"""Rows in doubt while a run goes on: set aside with their channel, looked for, adopted, sent again or left to a person.

A row that is set aside keeps its channel claimed, so nothing is sent to it, and no worker waits for it.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import assert_never

import anyio
from anyio.abc import TaskGroup

from worker.journal import Records
from worker.ledger import KNOWN_SID, Look, Reopen, Shelf
from worker.model import Cause, Created, Exit, Failed, InDoubt, Row, Settlement, Tally
from worker.reconcile import Adopted, Conclusion, Doubt, Later, NotCreated, Reconciler, Undecided
from worker.recorder import Observer, Recorder
from worker.rowqueue import RowQueue
from worker.stopping import Stop

Send = Callable[[Row, int, int], Awaitable[bool]]
"""Sends a row whose intent is on record: row, number, how often it was sent before; True when it was set aside."""


class Doubts:
    """All doubts of one run.

    attempts: how often a row is sent that turns out not to be created. most: rows of this run that may stay in doubt
    before it halts, 0 for any number. send: None when nothing is to be sent again, only found out.
    """

    def __init__(
        self,
        *,
        ledger: Shelf,
        journal: Records,
        queue: RowQueue,
        reconciler: Reconciler,
        recorder: Recorder,
        tally: Tally,
        stop: Stop,
        observer: Observer,
        attempts: int,
        most: int,
    ) -> None:
        self._ledger = ledger
        self._journal = journal
        self._queue = queue
        self._reconciler = reconciler
        self._recorder = recorder
        self._tally = tally
        self._stop = stop
        self._observer = observer
        self._attempts = attempts
        self._most = most
        self._open: dict[int, Doubt] = {}  # by the identity of the row, which lives in the queue meanwhile
        self._undecided = 0
        self.held: dict[str, set[str]] = {}
        self.send: Send | None = None
        self.tasks: TaskGroup | None = None

    # ---- for the pipeline -------------------------------------------------------------------------------------------

    def expect(self, row: Row, since: float) -> None:
        """Know a row of an earlier run as in doubt, before it goes into the queue."""
        self._open[id(row)] = Doubt(row.number, since, counted=False)

    def taken(self, row: Row) -> Doubt | None:
        """Return the doubt of a row that was taken from the queue, if it has one."""
        return self._open.pop(id(row), None)

    def left_over(self) -> int:
        """Return how many rows of the input are still in the queue as in doubt; those of earlier runs are counted."""
        self._tally.remain_in_doubt(sum(not doubt.counted for doubt in self._open.values()))
        return sum(doubt.counted and doubt.of_input for doubt in self._open.values())

    def enter(self, row: Row, number: int, rounds: int) -> bool:
        """Take a row whose answer was lost, and which is counted as in doubt; True when it was set aside."""
        doubt = Doubt(number, anyio.current_time(), rounds=rounds, of_input=not row.number)
        if not self._reconciler.resolves or self._stop.draining.is_set():
            self._hold(row, doubt)
            return False
        return self._set_aside(row, doubt, doubt.since)

    async def find(self, row: Row, number: int) -> str | None:
        """Return the sid of a row that an earlier attempt created after all, if it can be told."""
        around = await self._journal.call(partial(self._ledger.surroundings, number))
        found = await self._reconciler.look(row, Doubt(number, anyio.current_time()), around)
        return found.sid if isinstance(found, Adopted) else None

    async def look(self, row: Row, doubt: Doubt) -> bool:
        """Look for a row in doubt; True when it was set aside again."""
        conclusion: Conclusion | None = None
        if not self._stop.draining.is_set() and self._reconciler.resolves:
            try:
                around = await self._journal.call(partial(self._ledger.surroundings, doubt.number))
                conclusion = await self._reconciler.look(row, doubt, around)
            finally:
                if conclusion is None:  # cut
                    self._hold(row, doubt)
        elif not self._reconciler.resolves:
            conclusion = Undecided("channels cannot be listed")
        match conclusion:
            case None:
                self._hold(row, doubt)
            case Later(at):
                return self._set_aside(row, doubt, at)
            case Adopted(sid):
                await self._resolve(row, doubt, Created(sid), reconciled=True)
            case NotCreated(sids):
                return await self._not_created(row, doubt, sids)
            case Undecided():
                await self._leave(row, doubt, conclusion)
            case _:
                assert_never(conclusion)
        return False

    def close_channel(self, row: Row) -> None:
        """Send nothing more to a channel in this run: it has a participant of ours whose sid nobody knows."""
        self.held.setdefault(row.channel, set())

    # ---- inside -----------------------------------------------------------------------------------------------------

    def _set_aside(self, row: Row, doubt: Doubt, at: float) -> bool:
        self._open[id(row)] = doubt
        self._queue.set_aside(row)
        if self.tasks is not None:
            self.tasks.start_soon(self._resume, row, at)
        return True

    async def _resume(self, row: Row, at: float) -> None:
        with anyio.move_on_after(at - anyio.current_time()):
            await self._stop.draining.wait()
        self._queue.resume(row)

    async def _not_created(self, row: Row, doubt: Doubt, sids: tuple[str, ...]) -> bool:
        if self.send is None or self._stop.ending.is_set() or doubt.rounds + 1 >= self._attempts:
            reason = "was not created, as the list of its channel shows"
            await self._resolve(row, doubt, Failed("not_created", reason))
            return False
        try:
            await self._recorder.note(Reopen(doubt.number, row, sids))
        except BaseException:
            self._hold(row, doubt)
            raise
        self._uncount(row, doubt)
        self._observer.doubt_resolved(row, "not created, sent again")
        return await self.send(row, doubt.number, doubt.rounds + 1)

    async def _resolve(self, row: Row, doubt: Doubt, outcome: Created | Failed, *, reconciled: bool = False) -> None:
        settlement = Settlement(row.key, outcome, ends_doubt=True, reconciled=reconciled)
        if await self._recorder.settle(row, settlement, doubt.number) is KNOWN_SID:
            await self._leave(row, doubt, Undecided(KNOWN_SID.reason))
            return
        self._uncount(row, doubt)
        self._observer.doubt_resolved(row, "created" if reconciled else "not created")

    async def _leave(self, row: Row, doubt: Doubt, undecided: Undecided) -> None:
        """Leave a row in doubt to a person."""
        self._hold(row, doubt)
        await self._recorder.note(Look(doubt.number, undecided.reason, undecided.candidates))
        self._observer.doubt_undecided(row, undecided.reason)

    def _uncount(self, row: Row, doubt: Doubt) -> None:
        if doubt.counted:
            self._tally.unsettle(InDoubt("", ""), of_input=not row.number)

    def _hold(self, row: Row, doubt: Doubt) -> None:
        """Leave a row in doubt, and send nothing more to its channel."""
        self.held.setdefault(row.channel, set()).add(row.key)
        if not doubt.counted:
            self._tally.remain_in_doubt(1)
            return
        self._undecided += not self._stop.draining.is_set()
        if self._undecided == self._most and not self._stop.draining.is_set():
            cause = Cause(Exit.HALTED, f"halted: {self._undecided} rows stay in doubt, see stop.max_in_doubt")
            self._observer.run_stopping(cause)
            self._stop.drain(cause)
