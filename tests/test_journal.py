import asyncio
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import cast

import anyio
import pytest

from tests.ledger_contract import OUTCOMES, Desk
from tests.samples_of import row, sid
from tests.test_ledger_sqlite import SqlitePlace
from worker.errors import LedgerError
from worker.journal import Journal
from worker.ledger import (
    BASELINE_FIRST,
    Baseline,
    Entry,
    Finding,
    Intent,
    Known,
    Ledger,
    Look,
    Reopen,
    Settle,
    Surroundings,
)
from worker.ledger.sqlite import SqliteLedger
from worker.model import Created, Settlement, State

FINDING = Finding("duplicate", 1, 9, "k", "duplicate", "the same as a.csv:2, which counts")
PATIENCE = 10.0


class GatedLedger:
    """A ledger whose commits begin and then wait at a gate; each one ends as told, in order: well, if nothing is."""

    def __init__(self, *ends: Exception | None, open_gates: int = 0) -> None:
        self.groups: list[list[Entry]] = []
        self.began = asyncio.Queue[int]()
        self._loop = asyncio.get_running_loop()
        self._gate = threading.Semaphore(open_gates)
        self._ends = list(ends)
        self._writing = threading.Lock()

    def let(self, commits: int = 1) -> None:
        """Open the gate for so many commits."""
        self._gate.release(commits)

    def write(self, group: Sequence[Entry]) -> list[int | Known | None]:
        """Wait at the gate; number the intents."""
        assert self._writing.acquire(blocking=False), "two commits at once"
        try:
            self.groups.append(list(group))
            self._loop.call_soon_threadsafe(self.began.put_nowait, len(self.groups))
            assert self._gate.acquire(timeout=PATIENCE), "the test never opened the gate"
            end = self._ends.pop(0) if self._ends else None
            if end:
                raise end
            return [entry.row.line if isinstance(entry, Intent) else None for entry in group]
        finally:
            self._writing.release()


def journal_of(ledger: object) -> Journal:
    """Return a journal of a made ledger."""
    return Journal(cast("Ledger", ledger))


async def ask(journal: Journal, number: int, answers: dict[int, object]) -> None:
    """Intend a row, and keep the answer or the error."""
    try:
        answers[number] = await journal.intend(Intent(row(number)))
    except Exception as exc:  # noqa: BLE001 - the error is what is looked at
        answers[number] = exc


async def test_writers_share_commits() -> None:
    """Who asks while a commit is under way shares the next one, however many they are; each gets its own answer."""
    ledger = GatedLedger()
    answers: dict[int, object] = {}
    async with journal_of(ledger) as journal, anyio.create_task_group() as tasks:
        tasks.start_soon(ask, journal, 0, answers)
        await ledger.began.get()
        for number in range(1, 101):
            tasks.start_soon(ask, journal, number, answers)
        await anyio.wait_all_tasks_blocked()
        ledger.let(2)
    assert [len(group) for group in ledger.groups] == [1, 100]
    assert journal.commits == 2
    assert answers == {number: number + 2 for number in range(101)}


async def test_a_write_returns_when_it_is_durable() -> None:
    """While the ledger's write has not returned, nobody who asked for it goes on."""
    ledger = GatedLedger()
    answers: dict[int, object] = {}
    async with journal_of(ledger) as journal, anyio.create_task_group() as tasks:
        tasks.start_soon(ask, journal, 1, answers)
        await ledger.began.get()
        tasks.start_soon(ask, journal, 2, answers)
        await anyio.wait_all_tasks_blocked()
        assert answers == {}
        ledger.let()
        await ledger.began.get()
        await anyio.wait_all_tasks_blocked()
        assert answers == {1: 3}
        ledger.let()
    assert answers == {1: 3, 2: 4}


async def test_an_error_reaches_everybody_in_its_group() -> None:
    """Each asker of a failed commit gets an error of its own with the ledger's reason; the next commit is taken."""
    reason = LedgerError("imports.db: the ledger cannot be written: database or disk is full")
    ledger = GatedLedger(None, reason)
    answers: dict[int, object] = {}
    async with journal_of(ledger) as journal, anyio.create_task_group() as tasks:
        tasks.start_soon(ask, journal, 0, answers)
        await ledger.began.get()
        for number in (1, 2, 3):
            tasks.start_soon(ask, journal, number, answers)
        await anyio.wait_all_tasks_blocked()
        ledger.let()
        await ledger.began.get()
        tasks.start_soon(ask, journal, 4, answers)
        await anyio.wait_all_tasks_blocked()
        ledger.let(2)
    errors = [answers[number] for number in (1, 2, 3)]
    assert (answers[0], answers[4]) == (2, 6)
    assert all(type(error) is LedgerError and str(error) == str(reason) for error in errors)
    assert all(isinstance(error, LedgerError) and error.__cause__ is reason for error in errors)
    assert len({id(error) for error in errors}) == 3


async def test_a_dead_ledger_fails_each_write_by_itself() -> None:
    """When commit after commit fails, every asker hears of it, and nobody hangs."""
    ledger = GatedLedger(*(LedgerError(f"dead {number}") for number in range(3)), open_gates=3)
    async with journal_of(ledger) as journal:
        for number in range(3):
            with pytest.raises(LedgerError, match=f"dead {number}"):
                await journal.settle(number, Settlement("k", OUTCOMES[0]))


async def test_a_bug_reaches_who_asked() -> None:
    """An error that is not the ledger's is not hidden as one."""
    ledger = GatedLedger(ValueError("a bug"), open_gates=2)
    async with journal_of(ledger) as journal:
        with pytest.raises(ValueError, match="a bug"):
            await journal.intend(Intent(row(1)))
        assert await journal.intend(Intent(row(2))) == 4


async def test_an_unanswered_intent_is_an_error() -> None:
    """A ledger that says nothing about an intent allows nothing."""

    class Silent:
        def write(self, group: Sequence[Entry]) -> list[None]:
            return [None for _ in group]

    async with journal_of(Silent()) as journal:
        with pytest.raises(LedgerError, match="was not answered"):
            await journal.intend(Intent(row(1)))


async def test_who_is_called_away_gets_an_answer_as_the_others_do() -> None:
    """What was asked for is recorded, so it is waited for; the call is heard at the next step."""
    ledger = GatedLedger()
    answers: dict[int, object] = {}
    scope = anyio.CancelScope()
    async with journal_of(ledger) as journal, anyio.create_task_group() as tasks:

        async def impatient() -> None:
            with scope:
                await ask(journal, 1, answers)
                await anyio.sleep_forever()

        tasks.start_soon(ask, journal, 0, answers)
        await ledger.began.get()
        tasks.start_soon(impatient)
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(ask, journal, 2, answers)
        await anyio.wait_all_tasks_blocked()
        scope.cancel()
        ledger.let(2)
    assert scope.cancelled_caught
    assert answers == {0: 2, 1: 3, 2: 4}
    assert ledger.groups[1] == [Intent(row(1)), Intent(row(2))]


async def test_a_note_is_one_commit() -> None:
    """The findings of a batch are durable together; nothing found is nothing written."""
    ledger = GatedLedger(open_gates=1)
    async with journal_of(ledger) as journal:
        await journal.note([])
        await journal.note([FINDING] * 5)
    assert ledger.groups == [[FINDING] * 5]
    assert journal.commits == 1


async def test_answers_stand_behind_entries_of_several() -> None:
    """An intent asked for after somebody's many findings gets its own answer."""
    ledger = GatedLedger()
    answers: dict[int, object] = {}
    async with journal_of(ledger) as journal, anyio.create_task_group() as tasks:
        tasks.start_soon(ask, journal, 0, answers)
        await ledger.began.get()
        tasks.start_soon(journal.note, [FINDING] * 3)
        tasks.start_soon(ask, journal, 7, answers)
        tasks.start_soon(journal.settle, 1, Settlement("k", OUTCOMES[0]))
        tasks.start_soon(ask, journal, 8, answers)
        await anyio.wait_all_tasks_blocked()
        ledger.let(2)
    assert answers == {0: 2, 7: 9, 8: 10}


async def test_a_baseline_goes_before_its_intent_in_one_commit() -> None:
    """Nobody's entry comes between the two, and the answer is the intent's."""
    ledger = GatedLedger()
    answers: dict[int, object] = {}

    async def ask_with_baseline(journal: Journal, number: int) -> None:
        answers[number] = await journal.intend(Intent(row(number)), Baseline(row(number), ("UT1",)))

    async with journal_of(ledger) as journal, anyio.create_task_group() as tasks:
        tasks.start_soon(ask, journal, 0, answers)
        await ledger.began.get()
        tasks.start_soon(ask_with_baseline, journal, 7)
        tasks.start_soon(ask_with_baseline, journal, 8)
        tasks.start_soon(ask, journal, 9, answers)
        await anyio.wait_all_tasks_blocked()
        ledger.let(2)
    assert ledger.groups[1] == [
        *(Baseline(row(7), ("UT1",)), Intent(row(7))),
        *(Baseline(row(8), ("UT1",)), Intent(row(8))),
        Intent(row(9)),
    ]
    assert answers == {0: 2, 7: 9, 8: 10, 9: 11}


async def test_other_work_on_the_ledger_comes_between_commits() -> None:
    """A call waits for the commit under way, never runs beside one, and returns what it found."""
    ledger = GatedLedger()
    calls: list[int] = []

    def look() -> str:
        assert ledger._writing.acquire(blocking=False), "a call beside a commit"
        ledger._writing.release()
        calls.append(len(ledger.groups))
        return "found"

    answers: dict[int, object] = {}
    async with journal_of(ledger) as journal, anyio.create_task_group() as tasks:
        tasks.start_soon(ask, journal, 0, answers)
        await ledger.began.get()
        tasks.start_soon(journal.call, look)
        await anyio.wait_all_tasks_blocked()
        assert calls == []
        ledger.let()
        assert await journal.call(look) == "found"
    assert calls == [1, 1]


# ---- the end --------------------------------------------------------------------------------------------------------


async def intend_shielded(journal: Journal, number: int, answers: dict[int, object]) -> None:
    """Ask as the pipeline does: whatever is cancelled around it."""
    with anyio.CancelScope(shield=True):
        await ask(journal, number, answers)


async def cancel(scope: anyio.CancelScope, _: "asyncio.Task[None]") -> None:
    """End the block as anyio does."""
    scope.cancel()


async def cancel_natively(_: anyio.CancelScope, task: "asyncio.Task[None]") -> None:
    """End the block as asyncio does, when a program is interrupted."""
    task.cancel()


@pytest.mark.parametrize("end", [cancel, cancel_natively])
async def test_what_was_asked_for_is_written_while_the_run_is_cancelled(
    end: Callable[[anyio.CancelScope, "asyncio.Task[None]"], object],
) -> None:
    """Askers that are shielded get their answers, also those that ask after the cancellation; then all is over."""
    ledger = GatedLedger()
    answers: dict[int, object] = {}
    scope = anyio.CancelScope()

    async def later(journal: Journal) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            await intend_shielded(journal, 9, answers)

    async def work() -> None:
        with scope:
            async with journal_of(ledger) as journal, anyio.create_task_group() as tasks:
                for number in (0, 1):
                    tasks.start_soon(intend_shielded, journal, number, answers)
                tasks.start_soon(later, journal)

    before = asyncio.all_tasks()
    task = asyncio.create_task(work())
    await ledger.began.get()
    await cast("asyncio.Future[None]", end(scope, task))
    await anyio.wait_all_tasks_blocked()
    assert answers == {}
    ledger.let(3)
    await asyncio.wait([task])
    assert answers == {0: 2, 1: 3, 9: 11}
    assert task.cancelled() is (end is cancel_natively)
    assert asyncio.all_tasks() == before


async def test_closing_writes_what_was_asked_for() -> None:
    """Leaving the block waits for the commits of all who asked before."""
    ledger = GatedLedger()
    answers: dict[int, object] = {}
    async with anyio.create_task_group() as tasks:
        async with journal_of(ledger) as journal:
            tasks.start_soon(ask, journal, 0, answers)
            await ledger.began.get()
            tasks.start_soon(ask, journal, 1, answers)
            await anyio.wait_all_tasks_blocked()
            ledger.let(2)
        assert len(ledger.groups) == 2
    assert answers == {0: 2, 1: 3}


async def test_a_closed_journal_refuses_at_once() -> None:
    """Nobody waits for a writer that is gone."""
    async with journal_of(GatedLedger()) as journal:
        pass
    with pytest.raises(LedgerError, match="the journal is closed"):
        await journal.intend(Intent(row(1)))


async def test_an_error_in_the_block_ends_the_journal() -> None:
    """What goes wrong beside the journal comes out, and no task is left."""
    before = asyncio.all_tasks()
    with pytest.raises(BaseExceptionGroup) as caught:
        async with journal_of(GatedLedger()):
            raise LedgerError("dead")
    assert caught.group_contains(LedgerError, match="dead")
    assert asyncio.all_tasks() == before


async def test_a_journal_that_never_began_has_nothing_to_end() -> None:
    """Ending without a beginning is harmless."""
    journal = journal_of(GatedLedger())
    assert await journal.__aexit__(None, None, None) is None


# ---- on a real ledger -----------------------------------------------------------------------------------------------


async def test_many_workers_on_a_real_ledger(tmp_path: Path) -> None:
    """Rows of many workers come to their outcomes in fewer commits than there are records, and all are on the disk."""
    place = SqlitePlace(tmp_path / "imports.db")
    ledger: SqliteLedger
    with closing(place.open()) as ledger:
        desk = Desk(ledger)

        async def work(journal: Journal, number: int) -> None:
            wanted = desk.row(number)
            answer = await journal.intend(Intent(wanted))
            assert isinstance(answer, int)
            assert isinstance(await journal.intend(Intent(wanted)), Known)
            await journal.settle(answer, Settlement(wanted.key, Created(sid("UT", number))))

        async with journal_of(ledger) as journal:
            async with anyio.create_task_group() as tasks:
                for number in range(200):
                    tasks.start_soon(work, journal, number)
            await journal.note([Finding("duplicate", desk.source, 9, "k", "duplicate", "again")])
            counts = await journal.call(ledger.settled_by_run)
            await journal.call(partial(ledger.supersede, desk.source, 9))
    assert counts == {State.CREATED: 200}
    assert journal.commits < 60
    assert len(place.rows()) == 200


async def test_a_doubt_from_its_beginning_to_its_end_on_a_real_ledger(tmp_path: Path) -> None:
    """What the ledger asks for first comes back as the answer, and each step of a doubt is on the disk in its order."""
    place = SqlitePlace(tmp_path / "imports.db")
    ledger: SqliteLedger
    with closing(place.open()) as ledger:
        desk = Desk(ledger)

        async def work(journal: Journal, number: int) -> None:
            wanted, sids = desk.row(number), (sid("UT", f"foreign {number}"),)
            assert await journal.intend(Intent(wanted, baseline_first=True)) is BASELINE_FIRST
            answer = await journal.intend(Intent(wanted, baseline_first=True), Baseline(wanted, sids))
            assert isinstance(answer, int)
            await journal.settle(answer, Settlement(wanted.key, OUTCOMES[5]))
            around = await journal.call(partial(ledger.surroundings, answer))
            assert around == Surroundings(frozenset(), frozenset(sids), 1)
            await journal.note([Look(answer, "too early", ()), Reopen(answer, wanted, sids)])
            await journal.settle(answer, Settlement(wanted.key, OUTCOMES[5]))
            found = Settlement(wanted.key, Created(sid("UT", number)), ends_doubt=True, reconciled=True)
            await journal.settle(answer, found)

        async with journal_of(ledger) as journal, anyio.create_task_group() as tasks:
            for number in range(50):
                tasks.start_soon(work, journal, number)
    assert {(found["state"], found["reconciled"]) for found in place.rows()} == {("created", 1)}
    assert place.looks() == {}
    assert journal.commits < 100


async def test_a_wrong_outcome_takes_only_its_group(tmp_path: Path) -> None:
    """Settling a row twice fails in its task; what was asked for before and after is written."""
    place = SqlitePlace(tmp_path / "imports.db")
    ledger: SqliteLedger
    with closing(place.open()) as ledger:
        desk = Desk(ledger)
        settle = Settle(1, Settlement(desk.row(1).key, OUTCOMES[0]))
        async with journal_of(ledger) as journal:
            assert await journal.intend(Intent(desk.row(1))) == settle.number
            await journal.settle(settle.number, settle.settlement)
            with pytest.raises(LedgerError, match="is no longer started"):
                await journal.settle(settle.number, settle.settlement)
            await journal.intend(Intent(desk.row(2)))
    assert [found["state"] for found in place.rows()] == ["created", "in_doubt"]


async def test_a_ledger_that_never_answers_is_dead_for_everybody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that neither takes a record nor refuses it: who asked is told, and whoever asks later at once."""
    monkeypatch.setattr("worker.journal.RECORD_SECONDS", 0.05)
    ledger = GatedLedger()
    async with Journal(cast("Ledger", ledger)) as journal:
        for _ in range(2):
            with pytest.raises(LedgerError, match=r"did not take a record within 0\.05 s"):
                await journal.note([FINDING])
        with pytest.raises(LedgerError, match="did not take a record"):
            await journal.call(lambda: None)
        assert len(ledger.groups) == 1
        ledger.let()


async def test_a_record_that_was_asked_for_is_answered_even_to_who_is_cancelled() -> None:
    """Otherwise an intent would be on record whose number nobody knows; the cancellation comes at the next step."""
    ledger = GatedLedger()
    async with Journal(cast("Ledger", ledger)) as journal:
        answers = []
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:

                async def ask() -> None:
                    answers.append(await journal.intend(Intent(row(1))))
                    await anyio.sleep_forever()

                tasks.start_soon(ask)
                await ledger.began.get()
                scope.cancel()
                ledger.let()
        assert len(answers) == 1
        assert scope.cancelled_caught
