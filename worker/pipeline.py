"""The shape of a run: a feeder, a bounded queue, N workers and a journal in one task group.

Nobody moves on before the record that must be durable is durable: an intent before a row's first byte leaves, an
outcome before its channel is released.
"""

import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from functools import partial
from typing import Protocol

import anyio

from worker.errors import LedgerError, SourceError
from worker.journal import Journal
from worker.ledger import Known, Ledger, Standing, standing_of
from worker.ledger.survey import Surveyed
from worker.model import Cause, Exit, Failed, Halt, InDoubt, Outcome, Parked, Rejected, Retry, Row, Settlement, Tally
from worker.rowqueue import RowQueue
from worker.stopping import Stop
from worker.submit import Submission, Submitter

RECORD_SECONDS = 30.0
"""How long a record may take to become durable before the ledger counts as dead."""

FIRST_ANSWERS = 5
"""If so many first answers are all somebody else's (redirects, a proxy's pages), the base URL is wrong."""


WHOLE_INPUT = sys.maxsize
"""The last line of an input that was read to its end: what an earlier, longer version of it held is retired, too."""

_NOT_THE_API = (
    f"halted: the first {FIRST_ANSWERS} answers were not the API's (redirects, or no JSON of Twilio's); "
    "is the base URL right, is a proxy in the way?"
)


class Observer(Protocol):
    """Is told what happens, for the log and the screen; must not fail and must not wait."""

    def retry_scheduled(self, row: Row, retry: Retry, *, attempt: int, seconds: float) -> None:
        """Take note that a row was certainly not processed and will be tried again after a wait."""
        ...

    def row_settled(self, row: Row, settlement: Settlement) -> None:
        """Take note that a row came to its outcome, and that this is durable."""
        ...

    def run_stopping(self, cause: Cause) -> None:
        """Take note that the run will end before its input does."""
        ...


class Pipeline:
    """One run's moving parts. limit: rows to send at most, None for all."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        journal: Journal,
        queue: RowQueue,
        submitter: Submitter,
        tally: Tally,
        stop: Stop,
        observer: Observer,
        limit: int | None = None,
    ) -> None:
        self._ledger = ledger
        self._journal = journal
        self._queue = queue
        self._submitter = submitter
        self._tally = tally
        self._stop = stop
        self._observer = observer
        self._limit = limit
        self._sent = 0
        self._unqueued = 0
        self._strangers: int | None = 0
        self._forbidden: set[str] = set()
        self._parked: dict[str, Rejected] = {}
        self._held = ledger.channels_in_doubt()

    async def run(self, batches: AsyncGenerator[Surveyed, None], concurrency: int) -> None:
        """Send what is to be sent; returns when every row read has its place in the tally.

        Raises LedgerError when the ledger can no longer be written; what had left by then is in doubt.
        """
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._withdraw)
                async with anyio.create_task_group() as work:
                    work.start_soon(self._feed, batches)
                    for _ in range(concurrency):
                        work.start_soon(self._work)
                tasks.cancel_scope.cancel()
        finally:
            self._tally.not_sent += self._queue.qsize() + self._unqueued

    def _drain(self, cause: Cause) -> None:
        if cause not in self._stop.causes:
            self._observer.run_stopping(cause)
        self._stop.drain(cause)

    async def _withdraw(self) -> None:
        await self._stop.draining.wait()
        self._submitter.withdraw()

    # ---- feeding ----------------------------------------------------------------------------------------------------

    async def _feed(self, batches: AsyncGenerator[Surveyed, None]) -> None:
        through: dict[int, int] = {}
        try:
            async with aclosing(batches):
                async for batch in batches:
                    self._count(batch)
                    if batch.source not in through:
                        through = dict.fromkeys(through, WHOLE_INPUT)  # those before it were read to their end
                    through[batch.source] = batch.last_line
                    await self._journal.note(batch.findings)
                    await self._enqueue(batch.send)
                    if self._stop.ending.is_set():
                        break
                else:
                    through = dict.fromkeys(through, WHOLE_INPUT)
        except SourceError as exc:
            self._drain(Cause(Exit.HALTED, str(exc)))
        finally:
            self._queue.close()
        for source, line in through.items():
            await self._journal.call(partial(self._ledger.supersede, source, line))

    def _count(self, batch: Surveyed) -> None:
        self._tally.read += batch.read
        for name, count in batch.counts.items():
            setattr(self._tally, name, getattr(self._tally, name) + count)

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
            try:
                await self._handle(row)
            finally:
                self._queue.release(row.channel_sid)

    async def _handle(self, row: Row) -> None:
        if self._sent == self._limit and not self._stop.ending.is_set():
            self._stop.end(Cause(Exit.STOPPED, f"stopped after {self._limit:,} rows, as --limit says"))
        if self._stop.ending.is_set() or row.channel_sid in self._held:
            self._tally.not_sent += 1
            return
        closed = self._parked.get(row.channel_sid)
        if closed is None:
            self._sent += 1
        number = await self._intend(row)
        if number is None:
            return
        submission = self._submitter.begin(row)
        try:
            if closed is not None:
                submission.outcome = Parked(closed.code, closed.reason)
            else:
                verdict = await self._submitter.submit(submission)
                if isinstance(verdict, Halt):
                    self._drain(Cause(Exit.HALTED, f"halted: {verdict.reason} ({verdict.code})"))
        finally:
            await self._settle(number, submission)
        self._heed(row, submission.outcome)

    async def _intend(self, row: Row) -> int | None:
        # a cancellation here would leave an intent that nobody settles: a doubt about a row that never left
        try:
            with _recording():
                answer = await self._journal.intend(row)
        except BaseException:
            self._tally.not_sent += 1
            raise
        if isinstance(answer, Known):
            self._tally_refused(answer, row)
            return None
        return answer

    def _tally_refused(self, known: Known, row: Row) -> None:
        match standing_of(known, row.fingerprint):
            case Standing.SEND:
                raise LedgerError(f"row {row.key}: the ledger refused an intent that it should have taken")
            case standing:
                setattr(self._tally, standing.value, getattr(self._tally, standing.value) + 1)

    async def _settle(self, number: int, submission: Submission) -> None:
        settlement = submission.settlement()
        try:
            with _recording():
                await self._journal.settle(number, settlement)
        except BaseException:
            # what the ledger holds is `started`, which reads as in doubt
            self._tally.settle(InDoubt("unrecorded", "the outcome could not be recorded"))
            raise
        self._tally.settle(settlement.outcome)
        self._observer.row_settled(submission.row, settlement)

    def _heed(self, row: Row, outcome: Outcome) -> None:
        """Draw the consequences of one row's outcome for its channel and for the run."""
        stranger = False
        match outcome:
            case InDoubt(stranger=stranger):
                self._held.add(row.channel_sid)
            case Rejected(closes_channel=True):
                self._parked[row.channel_sid] = outcome
            case Failed(forbidden=True):
                self._forbidden.add(row.channel_sid)
                if len(self._forbidden) > 1:
                    self._drain(Cause(Exit.HALTED, f"halted: {outcome.reason} ({outcome.code}) in two channels"))
            case Failed(stranger=stranger):
                pass
        if not stranger:
            self._strangers = None
        elif self._strangers is not None:
            self._strangers += 1
            if self._strangers == FIRST_ANSWERS:
                self._drain(Cause(Exit.HALTED, _NOT_THE_API))


@contextmanager
def _recording() -> Iterator[None]:
    """Let a record become durable whatever else happens, but not for ever."""
    with anyio.CancelScope(shield=True, deadline=anyio.current_time() + RECORD_SECONDS) as scope:
        yield
    if scope.cancelled_caught:
        raise LedgerError(f"the ledger did not take a record within {RECORD_SECONDS:g} s")
