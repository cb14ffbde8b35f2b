"""One chunk: the pipeline of every run, over what the queue holds of it, with each record fenced."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial

from worker.errors import LedgerError
from worker.journal import FencedJournal, Journal
from worker.ledger import Surroundings, Why
from worker.ledger.fleet import FleetLedger
from worker.ledger.queue import Taken
from worker.ledger.survey import Surveyed
from worker.model import Row, State, Tally
from worker.pipeline import Pipeline
from worker.reconcile import Reconciler
from worker.recorder import Observer
from worker.rowqueue import RowQueue
from worker.stopping import Stop, Thresholds
from worker.submit import Submitter

BATCH_ROWS = 256


@dataclass(frozen=True, slots=True)
class Parts:
    """What all chunks of a worker share. concurrency: rows at once of one chunk; the rest as in `Pipeline`."""

    ledger: FleetLedger
    journal: Journal
    submitter: Submitter
    reconciler: Reconciler
    tally: Tally
    stop: Stop
    observer: Observer
    attempts: int
    max_in_doubt: int
    thresholds: Thresholds
    queue_rows: int
    concurrency: int
    places: AbstractAsyncContextManager[object]


class _Shelf:
    """What a pipeline asks its ledger, answered for one chunk."""

    def __init__(self, ledger: FleetLedger, chunk: int) -> None:
        self._ledger = ledger
        self._chunk = chunk

    def surroundings(self, number: int) -> Surroundings:
        """As of the whole ledger: a channel is in one partition."""
        return self._ledger.surroundings(number)

    def stored(self, states: Sequence[State], after: int, limit: int, why: Why | None = None) -> list[Row]:
        """Return the rows in doubt of the chunk's channels; what failed before is in the queue."""
        del why
        return self._ledger.doubts(self._chunk, after, limit) if State.IN_DOUBT in states else []

    def supersede(self, source: int, through_line: int) -> None:
        """Do nothing: whoever read the input has done it."""

    def channels_in_doubt(self) -> dict[str, set[str]]:
        """Return those of the chunk's channels."""
        return self._ledger.held(self._chunk)


class Chunk:
    """A chunk that this worker has."""

    def __init__(self, parts: Parts, taken: Taken) -> None:
        self._parts = parts
        self._taken = taken

    async def send(self) -> bool:
        """Bring its rows as far as they go; False when its records can no longer be written."""
        parts = self._parts
        pipeline = Pipeline(
            ledger=_Shelf(parts.ledger, self._taken.chunk),
            journal=FencedJournal(parts.journal, self._taken.fence),
            queue=RowQueue(parts.queue_rows),
            submitter=parts.submitter,
            reconciler=parts.reconciler,
            tally=parts.tally,
            stop=parts.stop,
            observer=parts.observer,
            attempts=parts.attempts,
            max_in_doubt=parts.max_in_doubt,
            thresholds=parts.thresholds,
            earlier=(),
            places=parts.places,
        )
        recorded = True
        try:
            await parts.journal.call(partial(parts.ledger.take_over, *self._taken))
            await pipeline.run(self._rows(), parts.concurrency)
        except* LedgerError:
            recorded = False
        return recorded

    async def _rows(self) -> AsyncGenerator[Surveyed[Row], None]:
        after = 0
        queued = partial(self._parts.ledger.queued, self._taken.chunk)
        while found := await self._parts.journal.call(partial(queued, after, BATCH_ROWS)):
            rows = [row for _, row in found]
            yield Surveyed(source=rows[0].source, read=len(rows), last_line=rows[-1].line, send=rows)
            after = found[-1].place
