"""Promises that only a deliberate bug showed to be unproven; `tests.mutants.catalogue` says which."""

import asyncio
import signal
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import anyio
import pytest

from tests.commands import HOLDING, finish, start
from tests.fakes import LOST_BEFORE, FakeService, always_created, free_traffic
from tests.ledger_contract import SOURCE
from tests.mutants.__main__ import misplaced
from tests.mutants.catalogue import MUTANTS, Mutant
from tests.samples_of import row, sid
from tests.test_pipeline import Bench
from tests.virtual_clock import virtual_time
from worker.config import Doubt as DoubtSettings
from worker.emulator import Emulator, serve
from worker.ledger import Asked, Entry, Intent, Known, Settle, Surroundings
from worker.ledger.opening import create_ledger, open_ledger
from worker.ledger.sqlite import SqliteLedger
from worker.model import Answer, InDoubt, Listing, Row, Settlement, State, Unlisted
from worker.reconcile import Doubt, Later, NotCreated, Reconciler
from worker.traffic import LaneDeparture

SETTLE_SECONDS = 0.3


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A bench that reconciles, with a settle time that can be measured."""
    return Bench(tmp_path / "imports.db", doubt=DoubtSettings(settle_seconds=SETTLE_SECONDS))


class _Slow(SqliteLedger):
    """A ledger whose disk takes outcomes only when it is let."""

    begun: threading.Event
    let: threading.Event

    @classmethod
    def wrap(cls, begun: threading.Event, let: threading.Event, ledger: SqliteLedger) -> SqliteLedger:
        """Make an open ledger slow."""
        ledger.__class__ = cls
        ledger.begun, ledger.let = begun, let  # type: ignore[attr-defined]  # it is one of these now
        return ledger

    def write(self, group: Sequence[Entry]) -> list[int | Known | Asked | None]:
        """Write, after a wait when there is an outcome."""
        if any(isinstance(entry, Settle) for entry in group):
            self.begun.set()
            self.let.wait(20)
        return super().write(group)


async def test_an_outcome_that_is_being_recorded_when_the_run_is_cut_is_counted(bench: Bench) -> None:
    """The answer came, the disk is slow, the second signal cuts: the account has what the ledger will have."""
    begun, let = threading.Event(), threading.Event()
    bench.wrap = partial(_Slow.wrap, begun, let)
    cut = anyio.CancelScope()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(partial(bench.run, [row(1)], cut=cut))
        await anyio.to_thread.run_sync(begun.wait)
        cut.cancel()
        for _ in range(20):
            await anyio.lowlevel.checkpoint()
        let.set()
    assert bench.states() == {row(1).key: "created"}
    assert bench.tally.created == 1
    assert bench.adds_up()


async def test_a_channel_waits_until_the_outcome_before_is_on_the_disk(bench: Bench) -> None:
    """Nobody moves on before the record that must be durable is durable."""
    begun, let = threading.Event(), threading.Event()
    bench.wrap = partial(_Slow.wrap, begun, let)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bench.run, [row(1), row(2, 1)])
        await anyio.to_thread.run_sync(begun.wait)
        for _ in range(20):
            await anyio.lowlevel.checkpoint()
        asked, settled = dict(bench.service.attempts), list(bench.watcher.settled)
        let.set()
    assert (asked, settled) == ({row(1).key: 1}, [])
    assert bench.tally.created == 2


def test_the_ledger_itself_refuses_an_intent_for_a_row_in_doubt(tmp_path: Path) -> None:
    """In a later run, too, whatever the reading thought of it."""
    path = tmp_path / "imports.db"
    create_ledger(path)
    ledger = open_ledger(path)
    try:
        ledger.start_run("run")
        wanted = row(1)._replace(source=ledger.register(SOURCE))
        [number] = ledger.write([Intent(wanted)])
        assert isinstance(number, int)
        ledger.write([Settle(number, Settlement(wanted.key, InDoubt("lost", "no answer")))])
        ledger.start_run("run")
        [answer] = ledger.write([Intent(wanted)])
    finally:
        ledger.close()
    assert isinstance(answer, Known)
    assert answer.state is State.IN_DOUBT


class _Unhurried(FakeService):
    """A service whose lists take their time."""

    async def list(self, interaction_sid: str, channel_sid: str, departure: LaneDeparture) -> Listing | Unlisted:
        """List what is there, and take 30 seconds for the answer."""
        listing = await super().list(interaction_sid, channel_sid, departure)
        await anyio.sleep(30)
        return listing


def reconciler(service: FakeService) -> Reconciler:
    """Return a reconciler with a settle time of a minute."""
    return Reconciler(
        service,
        free_traffic(),
        DoubtSettings(settle_seconds=60),
        anyio.Event(),
        on_refused=lambda _: None,
    )


NOBODY = Surroundings(frozenset(), frozenset(), 1)


@virtual_time
async def test_one_empty_list_is_not_enough_however_late_it_is() -> None:
    """Not created takes two lists without the row."""
    looking, doubt = reconciler(FakeService()), Doubt(1, -1000.0)
    assert isinstance(await looking.look(row(1), doubt, NOBODY), Later)
    assert await looking.look(row(1), doubt, NOBODY) == NotCreated(())


@virtual_time
async def test_a_list_that_was_asked_for_before_the_settle_time_proves_nothing() -> None:
    """It may have been put together long before its answer came."""
    looking, doubt = reconciler(_Unhurried()), Doubt(1, 0.0, looks=3)
    await anyio.sleep(45)
    found = await looking.look(row(1), doubt, NOBODY)
    assert anyio.current_time() == 75
    assert isinstance(found, Later)


def never_made_at_first(wanted: Row, attempt: int) -> Answer:
    """Lose the first attempt, which makes nothing."""
    return LOST_BEFORE if attempt == 1 else always_created(wanted, attempt)


async def test_a_lost_row_is_not_sent_again_before_the_settle_time_since_its_attempt_ended(bench: Bench) -> None:
    """Counted from the end: a service may finish what a client has given up only then."""
    bench.service.respond = never_made_at_first
    bench.service.seconds = SETTLE_SECONDS
    await bench.run([row(1)])
    first, second = bench.service.left_at
    assert second - first >= 2 * SETTLE_SECONDS


async def test_a_row_of_a_crash_is_not_sent_again_before_the_settle_time_since_the_opening(bench: Bench) -> None:
    """What the dead process had sent may still be read by the service."""
    bench.service.hold = anyio.Event()
    bench.service.respond = never_made_at_first
    cut = anyio.CancelScope()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(partial(bench.run, [row(1)], cut=cut))
        await bench.service.arrived.wait()
        cut.cancel()
    assert bench.states() == {row(1).key: "in_doubt"}
    await anyio.sleep(2 * SETTLE_SECONDS)  # time that passed before the opening counts for nothing
    bench.service.hold = None
    opened = anyio.current_time()
    await bench.run([row(1)])
    assert bench.service.left_at[1] - opened >= SETTLE_SECONDS
    assert bench.service.made == {row(1).key: 1}


async def test_a_signal_calls_back_who_waits_for_the_limiter(tmp_path: Path) -> None:
    """At one row an hour a drain takes a moment, not the grace and not an hour; who had not left is not in doubt."""
    (tmp_path / "a.csv").write_text(
        "interaction_sid,channel_sid,type,media_properties.address\n"
        + "".join(f"{sid('KD', n)},{sid('UO', n)},customer,p{n}@example.com\n" for n in range(50))
    )
    emulator = Emulator()
    async with serve(emulator) as base_url:
        words = ("run", "a.csv", "--base-url", base_url, "--rate", "1/h")
        process = await start(*words, cwd=tmp_path, env={**HOLDING, "FLEX_IMPORT__STOP__GRACE_SECONDS": "600"})
        await emulator.until(lambda: emulator.stats.created == 1)
        process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(15):
                ended = await finish(process)
        finally:
            if process.returncode is None:
                process.kill()
    assert ended.code == 143
    assert ended.out.splitlines()[-1].startswith("run 1 stopped, exit 143: 50 rows = 1 created + ")
    assert "in doubt" not in ended.out.splitlines()[-1]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda one: one.name)
def test_each_deliberate_bug_still_has_its_place(mutant: Mutant) -> None:
    """Where the code moves on, the catalogue has to follow: a bug that cannot be made proves nothing."""
    assert not misplaced(mutant)
