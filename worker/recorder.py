"""Recording what a run does with a row: durable in the ledger first, then in the tally, then told to who watches."""

from dataclasses import replace
from typing import Protocol

from worker.journal import Records
from worker.ledger import KNOWN_SID, Asked, Baseline, Entry, Intent, Known, Standing, standing_of
from worker.model import Cause, InDoubt, Outcome, Retry, Row, Settlement, State, Tally


class Observer(Protocol):
    """Is told what happens, for the log and the screen; must not fail and must not wait."""

    def retry_scheduled(self, row: Row, retry: Retry, *, attempt: int, seconds: float, request_id: str | None) -> None:
        """Take note that a row was certainly not processed and will be tried again after a wait."""
        ...

    def row_settled(self, row: Row, settlement: Settlement) -> None:
        """Take note that a row came to its outcome, and that this is durable."""
        ...

    def doubt_resolved(self, row: Row, how: str) -> None:
        """Take note that a list showed what became of a row in doubt."""
        ...

    def doubt_undecided(self, row: Row, reason: str) -> None:
        """Take note that only a person can say what became of a row in doubt."""
        ...

    def lists_refused(self, reason: str) -> None:
        """Take note that channels cannot be listed: for some minutes there are no baselines, and doubts wait."""
        ...

    def run_stopping(self, cause: Cause) -> None:
        """Take note that the run will end before its input does."""
        ...


class Recorder:
    """Records, whatever else happens, but not for ever: as the journal does, and counts what cannot be recorded.

    Every method raises LedgerError when the ledger does not take the record.
    """

    def __init__(self, journal: Records, tally: Tally, observer: Observer) -> None:
        self._journal = journal
        self._tally = tally
        self._observer = observer

    async def intend(self, row: Row, intent: Intent, baseline: Baseline | None = None) -> int | Asked | None:
        """Record an intent. Returns the row's number, what has to come first, or None: the ledger forbids it, and the
        row was counted where it stands.
        """  # noqa: D205 - the three answers are one sentence
        try:
            answer = await self._journal.intend(intent, baseline)
        except BaseException:
            self._tally.not_sent += not row.number
            raise
        if isinstance(answer, Known):
            self._count_refused(answer, row)
            return None
        return answer

    def _count_refused(self, known: Known, row: Row) -> None:
        if not row.number and known.of_this_run and known.state not in {State.STARTED, State.IN_DOUBT}:
            self._tally.meet(known.state)
        elif not row.number:
            standing = standing_of(known, row.fingerprint)
            self._tally.add(known.state.value if standing is Standing.SEND else standing.value)

    async def settle(self, row: Row, settlement: Settlement, number: int) -> Outcome:
        """Record an outcome and count it; returns it as it was recorded, which is in doubt for a sid known already."""
        try:
            is_new = await self._journal.settle(number, settlement)
        except BaseException:
            # what the ledger holds is `started` or `in_doubt`, and both read as in doubt
            if not settlement.ends_doubt:
                self._tally.settle(InDoubt("unrecorded", "the outcome was not recorded"), of_input=not row.number)
            raise
        if not is_new:
            settlement = replace(settlement, outcome=KNOWN_SID, reconciled=False)
            if settlement.ends_doubt:  # nothing was recorded: the row stays what it was counted as
                return KNOWN_SID
        self._tally.settle(settlement.outcome, of_input=not row.number)
        self._observer.row_settled(row, settlement)
        return settlement.outcome

    async def note(self, entry: Entry) -> None:
        """Record what asks for no answer."""
        await self._journal.note([entry])
