"""The shape of a run: a feeder, a bounded queue, N workers and a journal in one task group.

Nobody moves on before the record that must be durable is durable: a baseline before a channel's first intent, an intent
before a row's first byte leaves, an outcome before its channel is released.
"""

import sys
from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext
from functools import partial

import anyio

from worker.doubts import Doubts
from worker.errors import LedgerError, SourceError
from worker.journal import Records
from worker.ledger import BASELINE_FIRST, Asked, Baseline, Intent, Shelf, Why
from worker.ledger.survey import Surveyed
from worker.model import (
    Cause,
    Created,
    Existed,
    Exit,
    Failed,
    Halt,
    InDoubt,
    Outcome,
    Parked,
    Rejected,
    Reply,
    Row,
    Settlement,
    State,
    Tally,
)
from worker.reconcile import Reconciler
from worker.recorder import Observer, Recorder
from worker.rowqueue import RowQueue
from worker.stopping import FIRST_ANSWERS, NO_THRESHOLDS, NOT_THE_API, Stop, Thresholds
from worker.submit import Submitter
from worker.verdict import is_chat

EARLIER_ROWS = 256
"""How many rows of earlier runs are taken from the ledger at a time."""

FORBIDDEN_CHANNELS = 3
"""So many channels on end that answer 403, before anything was created, mean that this account may not do it."""

FORBIDDEN_LATER = 20
"""The same once something was created: rights may be taken away, but a few 403s are about their rows."""

WHOLE_INPUT = sys.maxsize
"""The last line of an input that was read to its end: what an earlier, longer version of it held is retired, too."""


def handed_on(reconciler: Reconciler) -> Collection[State]:
    """Return the states of rows that the run itself is at work on: only their turn shows what became of them."""
    return {State.STARTED, State.IN_DOUBT} if reconciler.resolves else {State.STARTED}


class Pipeline:
    """One run's moving parts.

    limit: rows to send at most, None for all. earlier: states of earlier runs' rows to be sent first, from their stored
    records; why: of those only the ones of this cluster; also: before them the rejected ones with these reasons.
    resend: whether a row in doubt that was not created is sent again, or only recorded as failed. attempts,
    max_in_doubt: as in `Doubts`. places: shared with other pipelines, for as many rows at once as there are
    connections, so that nobody waits for one of those.
    """

    def __init__(
        self,
        *,
        ledger: Shelf,
        journal: Records,
        queue: RowQueue,
        submitter: Submitter,
        reconciler: Reconciler,
        tally: Tally,
        stop: Stop,
        observer: Observer,
        limit: int | None = None,
        attempts: int = 6,
        max_in_doubt: int = 0,
        thresholds: Thresholds = NO_THRESHOLDS,
        earlier: Sequence[State] = (State.FAILED,),
        why: Why | None = None,
        also: Sequence[Why] = (),
        resend: bool = True,
        places: AbstractAsyncContextManager[object] | None = None,
    ) -> None:
        self._ledger = ledger
        self._journal = journal
        self._queue = queue
        self._submitter = submitter
        self._reconciler = reconciler
        self._recorder = Recorder(journal, tally, observer)
        self._tally = tally
        self._stop = stop
        self._observer = observer
        self._limit = limit
        self._thresholds = thresholds
        self._places = places or nullcontext()
        self._doubts = Doubts(
            ledger=ledger,
            journal=journal,
            queue=queue,
            reconciler=reconciler,
            recorder=self._recorder,
            tally=tally,
            stop=stop,
            observer=observer,
            attempts=attempts,
            most=max_in_doubt,
        )
        self._doubts.send = self._send if resend else None
        self._earlier_states = earlier
        self._why = why
        self._also = also
        self._reading = anyio.CancelScope()
        self._sent = 0
        self._unqueued = 0
        self._earlier = 0
        self._strangers: int | None = 0
        self._forbidden: set[str] = set()
        self._may_create = False
        self._parked: dict[str, Rejected] = {}

    async def run(self, batches: AsyncGenerator[Surveyed[Row], None], concurrency: int) -> None:
        """Send what is to be sent; returns when every row read has its place in the tally.

        Rows that earlier runs left in doubt or failed come first. Raises LedgerError when the ledger can no longer be
        written; what had left by then is in doubt.
        """
        try:
            async with anyio.create_task_group() as tasks:
                self._doubts.tasks = tasks
                tasks.start_soon(self._withdraw)
                tasks.start_soon(self._end_reading)
                async with anyio.create_task_group() as work:
                    work.start_soon(self._feed, batches)
                    for _ in range(concurrency):
                        work.start_soon(self._work)
                tasks.cancel_scope.cancel()
        finally:
            inside = self._queue.qsize() - self._earlier - self._doubts.left_over()
            self._tally.not_sent += inside + self._unqueued

    def _drain(self, cause: Cause) -> None:
        if cause not in self._stop.causes:
            self._observer.run_stopping(cause)
        self._stop.drain(cause)

    async def _withdraw(self) -> None:
        await self._stop.draining.wait()
        self._submitter.withdraw()

    # ---- feeding ----------------------------------------------------------------------------------------------------

    async def _feed(self, batches: AsyncGenerator[Surveyed[Row], None]) -> None:
        through: dict[int, int] = {}
        try:
            async with aclosing(batches):
                await self._feed_earlier()
                while (batch := await self._next(batches)) is not None:
                    self._count(batch)
                    if batch.source not in through:
                        through = dict.fromkeys(through, WHOLE_INPUT)  # those before it were read to their end
                    through[batch.source] = batch.last_line
                    await self._journal.note([*batch.findings, *batch.repairs])
                    await self._enqueue(batch.send)
                if not self._stop.ending.is_set():
                    through = dict.fromkeys(through, WHOLE_INPUT)
        except SourceError as exc:
            self._drain(Cause(Exit.HALTED, str(exc)))
        finally:
            self._queue.close()
        for source, line in through.items():
            await self._journal.call(partial(self._ledger.supersede, source, line))

    async def _next(self, batches: AsyncGenerator[Surveyed[Row], None]) -> Surveyed[Row] | None:
        """Read on, but not beyond the end of the run: a pipe may stay open for ever without a word."""
        with anyio.CancelScope() as self._reading:
            if not self._stop.ending.is_set():
                return await anext(batches, None)
        return None

    async def _end_reading(self) -> None:
        await self._stop.ending.wait()
        self._reading.cancel()

    async def _feed_earlier(self) -> None:
        opened = anyio.current_time()
        if self._reconciler.resolves:
            async for row in self._stored(State.IN_DOUBT):
                self._doubts.expect(row, opened)
                await self._put_earlier(row)
        else:
            self._doubts.held = await self._journal.call(self._ledger.channels_in_doubt)
            self._tally.remain_in_doubt(sum(map(len, self._doubts.held.values())))
        sent_first = [(State.REJECTED, why) for why in self._also]
        for state, why in [*sent_first, *((state, self._why) for state in self._earlier_states)]:
            async for row in self._stored(state, why):
                await self._put_earlier(row)

    async def _stored(self, state: State, why: Why | None = None) -> AsyncGenerator[Row, None]:
        after = 0
        while rows := await self._journal.call(partial(self._ledger.stored, (state,), after, EARLIER_ROWS, why)):
            for row in rows:
                if self._stop.ending.is_set():
                    return
                yield row
            after = rows[-1].number

    async def _put_earlier(self, row: Row) -> None:
        await self._queue.put(row)
        self._earlier += 1

    def _count(self, batch: Surveyed[Row]) -> None:
        self._tally.read += batch.read
        for name, count in batch.counts.items():
            self._tally.add(name, count)
        for state, count in batch.again.items():
            self._tally.meet(state, count)

    async def _enqueue(self, rows: list[Row]) -> None:
        self._unqueued = len(rows)
        for row in rows:
            if self._stop.ending.is_set():
                return
            await self._queue.put(row)
            self._unqueued -= 1

    # ---- sending ----------------------------------------------------------------------------------------------------

    async def _work(self) -> None:
        while (row := await self._queue.take()) is not None:
            self._earlier -= row.number > 0
            aside = False
            try:
                async with self._places:
                    aside = await self._handle(row)
            finally:
                self._earlier += aside and row.number > 0
                if not aside:
                    self._queue.release(row.channel)

    async def _handle(self, row: Row) -> bool:
        """Bring a row as far as it goes now; True when it was set aside, and its channel with it."""
        if (doubt := self._doubts.taken(row)) is not None:
            return await self._doubts.look(row, doubt)
        await self._submitter.until_open()
        if not self._may_begin(row):
            return False
        closed = self._parked.get(row.channel)
        if closed is not None and closed.closes_to_non_chat and is_chat(row):
            closed = None
        number = await self._begin(row, parked=closed is not None)
        if number is None:
            return False
        if closed is not None:
            await self._recorder.settle(row, Settlement(row.key, Parked(closed.code, closed.reason)), number)
            self._heed_thresholds()
            return False
        return await self._send(row, number, 0)

    def _may_begin(self, row: Row) -> bool:
        if self._sent == self._limit and not self._stop.ending.is_set():
            self._stop.end(Cause(Exit.STOPPED, f"stopped after {self._limit:,} rows, as --limit says"))
        in_doubt = self._doubts.held.get(row.channel)
        if not self._stop.ending.is_set() and in_doubt is None:
            return True
        if not row.number:
            self._tally.add("in_doubt" if in_doubt and row.key in in_doubt else "not_sent")
        return False

    async def _begin(self, row: Row, *, parked: bool) -> int | None:
        """Record a row's intent, after its channel's baseline; None when it is not to be sent after all."""
        self._sent += not parked
        answer = await self._recorder.intend(row, self._intent(row, parked=parked))
        if answer is BASELINE_FIRST:
            of_input = int(not row.number)
            self._tally.add("not_sent", of_input)  # which is true until its intent is on record
            sids = await self._reconciler.baseline(row)
            if self._stop.draining.is_set():
                return None
            self._tally.add("not_sent", -of_input)
            answer = await self._recorder.intend(row, Intent(row), Baseline(row, sids))
        if isinstance(answer, Asked):
            raise LedgerError(f"row {row.key}: the ledger asked for a baseline twice")
        self._sent -= answer is None and not parked
        return answer

    def _intent(self, row: Row, *, parked: bool) -> Intent:
        wants = self._reconciler.wants_baselines and not parked
        return Intent(row, wants, self._reconciler.baseline_seconds)

    async def _send(self, row: Row, number: int, rounds: int) -> bool:
        """Send a row whose intent is on record; True when it was set aside as in doubt."""
        submission = self._submitter.begin(row)
        reconciled = False
        try:
            verdict = await self._submitter.submit(submission)
            if isinstance(verdict, Halt) and verdict.misconfigured:
                self._drain(Cause(Exit.USAGE, verdict.reason))
            elif isinstance(verdict, Halt):
                self._drain(Cause(Exit.HALTED, f"halted: {verdict.reason} ({verdict.code})"))
            elif isinstance(verdict, Existed) and rounds:  # an earlier attempt made it after all
                if sid := await self._doubts.find(row, number):
                    submission.outcome = Created(sid)
                    reconciled = True
                else:
                    self._doubts.close_channel(row)  # a later doubt would take that participant for its own
        finally:
            outcome = await self._recorder.settle(row, submission.settlement(reconciled=reconciled), number)
        if isinstance(outcome, Existed):  # its participant, unknown to us, must not be taken for a later row's
            await self._recorder.note(Baseline(row, None))
        self._heed(row, outcome, answered=isinstance(submission.answer, Reply))
        return isinstance(outcome, InDoubt) and self._doubts.enter(row, number, rounds)

    def _heed(self, row: Row, outcome: Outcome, *, answered: bool) -> None:
        """Draw the consequences of one row's outcome for its channel and for the run. answered: by whomever."""
        stranger = False
        match outcome:
            case Created():
                self._forbidden.clear()
                self._may_create = True
            case Rejected(closes_channel=True) | Rejected(closes_to_non_chat=True):
                self._parked[row.channel] = outcome
            case Failed(forbidden=True):
                self._heed_forbidden(row, outcome)
            case Failed(stranger=stranger) | InDoubt(stranger=stranger):
                pass
        self._heed_thresholds()
        if answered and not stranger:
            self._strangers = None
        elif stranger and self._strangers is not None:
            self._strangers += 1
            if self._strangers == FIRST_ANSWERS:
                self._drain(Cause(Exit.HALTED, NOT_THE_API))

    def _heed_forbidden(self, row: Row, outcome: Failed) -> None:
        """Halt when several channels on end are forbidden. A row that failed in an earlier run is sent first in each
        later one, so it is no evidence.
        """  # noqa: D205 - one thought
        if row.number:
            return
        self._forbidden.add(row.channel)
        if len(self._forbidden) >= (FORBIDDEN_LATER if self._may_create else FORBIDDEN_CHANNELS):
            where = f"in {len(self._forbidden)} channels"
            self._drain(Cause(Exit.HALTED, f"halted: {outcome.reason} ({outcome.code}) {where}"))

    def _heed_thresholds(self) -> None:
        if not self._stop.draining.is_set() and (cause := self._thresholds.exceeded(self._tally)) is not None:
            self._drain(cause)
