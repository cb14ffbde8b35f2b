"""The ways to be unkind: kill, freeze, ask to stop, undo, and an outage of everything.

Each ends with runs that are left alone, and an audit.
"""

import asyncio
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.commands import Ended
from tests.torture.audit import Audit, audit, count_cut, count_states, fates, kept_in
from tests.torture.victim import Victim, account_of, importing, running
from tests.torture.world import Scale, World
from worker.emulator import serve
from worker.model import Exit

RUNS = 12
"""How often an import is run again at the end, at most; it is over when it has nothing left, or gets no further."""

IDLE_RUNS = 10
"""So many runs that ended before a blow mean that there is nothing left to do."""

FEW = 1
"""So many rows may stay in doubt whatever the scale: an answer and every list of a channel may go wrong."""

DOUBTFUL = 0.002
"""The share of rows that may stay in doubt, apart from those that no client could decide."""

ENDS_AFTER = 5.0
"""So many seconds after `stop.outage_seconds` a run must be over."""

OUTAGES = ((503, 503), (503, 429), (500, 500), (429, 429), (429, 503))
"""What creates and closings, and lists, are answered with in an outage."""

LAG_SECONDS = 0.05
_SLOW = (2.0, 5.0)
_ORDERLY = {Exit.DONE, Exit.BAD_ROWS, Exit.HALTED, Exit.DOUBT}
_SPARE_SECONDS = 10.0


@dataclass(slots=True)
class Ordeal:
    """One phase while it lasts.

    blows: times that it was killed, frozen, stopped or left alone while it was really at work. idle: runs that ended
    before one. slowest_end: seconds from the beginning of an outage to the end of a run. undone: the runs whose
    participants were to be closed.
    """

    world: World
    folder: Path
    base_url: str
    blows: int = 0
    idle: int = 0
    most_added: int = 0
    runs: int = 0
    lag: float = 0.0
    slowest_end: float = 0.0
    undone: frozenset[int] = frozenset()
    problems: list[str] = field(default_factory=list)

    @property
    def ledger(self) -> Path:
        """The ledger's file."""
        return self.folder / "imports.db"

    @property
    def busy(self) -> int:
        """How often the service was asked for something so far."""
        stats = self.world.emulator.stats
        return stats.arrived + stats.listed + stats.updated

    def check_added(self, added: int, how: str) -> None:
        """A blow may add as many doubts as there are requests at once, and not one more."""
        self.most_added = max(self.most_added, added)
        if added > self.world.scale.concurrency:
            self.problems.append(f"blow {self.blows} ({how}) added {added} doubts")

    def check_account(self, ended: Ended) -> dict[str, Any]:
        """A run that ended by itself gives an account that adds up; return it."""
        self.runs += 1
        account = account_of(ended)
        if account is None:
            self.problems.append(f"exit {ended.code} without an account: {ended.err[-1000:]}")
            return {}
        if not account["identity_holds"]:
            self.problems.append(f"the identity of run {account['run']} does not hold: {account}")
        if account["exit_code"] != ended.code:
            self.problems.append(f"run {account['run']} says exit {account['exit_code']}, but it was {ended.code}")
        return account


@dataclass(slots=True)
class Passed:
    """A phase that is over."""

    name: str
    ordeal: Ordeal
    audit: Audit
    fates: dict[str, Counter[str]]
    seconds: float

    @property
    def problems(self) -> list[str]:
        """Everything that must not be."""
        return self.ordeal.problems + self.audit.problems


Torment = Callable[[Ordeal, int], Awaitable[None]]


async def undergo(name: str, torment: Torment, scale: Scale, blows: int, *, seed: int, folder: Path) -> Passed:
    """Go through one phase in a folder of its own."""
    began = time.monotonic()
    world = World(scale, seed)
    async with serve(world.emulator) as base_url:
        world.write(folder, base_url)
        ordeal = Ordeal(world, folder, base_url)
        async with _lag_measured(ordeal):
            await torment(ordeal, blows)
            await _run_to_the_end(ordeal)
        await world.emulator.settled()
        found = audit(world, kept_in(ordeal.ledger), ordeal.undone)
        if found.in_doubt - found.unlisted > max(FEW, scale.rows * DOUBTFUL):
            found.problems.append(f"{found.in_doubt} rows stay in doubt, which is more than {DOUBTFUL:.1%}")
        table = fates(world, ordeal.ledger)
    if ordeal.lag > scale.settle - scale.late - scale.list_lag:
        ordeal.problems.append(f"this machine is too busy: the service itself was {ordeal.lag:.1f} s late")
    return Passed(name, ordeal, found, table, time.monotonic() - began)


async def _run_to_the_end(ordeal: Ordeal) -> None:
    """Run it again until all is done, or until a run changes nothing."""
    ordeal.world.hasten()
    before: Counter[str] | None = None
    for _ in range(RUNS):
        async with importing(ordeal.folder, 4 * ordeal.world.scale.rate) as victim:
            ended = await victim.end()
        ordeal.check_account(ended)
        if ended.code not in _ORDERLY:
            ordeal.problems.append(f"exit {ended.code} of a run that was left alone: {ended.err[-1000:]}")
        after = count_states(ordeal.ledger)
        if ended.code in {Exit.DONE, Exit.BAD_ROWS} or after == before:
            return
        before = after
    ordeal.problems.append(f"not at its end after {RUNS} runs")


@asynccontextmanager
async def _lag_measured(ordeal: Ordeal) -> AsyncIterator[None]:
    """Measure how late the service's own event loop is: what is promised rests on a service that keeps its times."""

    async def measure() -> None:
        while True:
            asleep = time.monotonic()
            await asyncio.sleep(LAG_SECONDS)
            ordeal.lag = max(ordeal.lag, time.monotonic() - asleep - LAG_SECONDS)

    task = asyncio.create_task(measure())
    try:
        yield
    finally:
        task.cancel()


# ---- kill -----------------------------------------------------------------------------------------------------------


async def kill(ordeal: Ordeal, blows: int) -> None:
    """SIGKILL at random moments: most within two seconds, some when doubts are being sent again."""
    dice = ordeal.world.dice

    async def wait(victim: Victim) -> bool:
        slowly = dice.random() < 0.15
        return await victim.wait(dice.uniform(*_SLOW) if slowly else dice.uniform(0.2, 2.0))

    await _kill_after(ordeal, blows, wait)


async def kill_at_work(ordeal: Ordeal, blows: int) -> None:
    """SIGKILL at random moments after the first request, however long a process needs to begin."""
    dice = ordeal.world.dice

    async def wait(victim: Victim) -> bool:
        await _until_busy(ordeal, victim, ordeal.busy)
        return await victim.wait(dice.uniform(0, 0.5))

    await _kill_after(ordeal, blows, wait)


async def _kill_after(ordeal: Ordeal, blows: int, wait: Callable[[Victim], Awaitable[bool]]) -> None:
    while ordeal.blows < blows and not _hopeless(ordeal, blows):
        ordeal.world.shift()
        busy = ordeal.busy
        async with importing(ordeal.folder, ordeal.world.scale.rate) as victim:
            over = await wait(victim)
            victim.send(signal.SIGKILL)
            ended = await victim.end()
        if over:
            ordeal.idle += 1
            ordeal.check_account(ended)
        ordeal.blows += not over and ordeal.busy > busy
        ordeal.check_added(count_states(ordeal.ledger)["started"], "SIGKILL")


def _hopeless(ordeal: Ordeal, blows: int) -> bool:
    """Tell whether nothing is left to strike at; blows that come too early only take their time."""
    if ordeal.idle <= IDLE_RUNS:
        return False
    ordeal.problems.append(f"only {ordeal.blows} of {blows} blows struck a run at work")
    return True


# ---- freeze ---------------------------------------------------------------------------------------------------------


async def freeze(ordeal: Ordeal, blows: int) -> None:
    """SIGSTOP and SIGCONT after a random time, and other processes that want the same ledger at the same time."""
    dice = ordeal.world.dice
    while ordeal.blows < blows and not _hopeless(ordeal, blows):
        ordeal.world.shift()
        async with importing(ordeal.folder, ordeal.world.scale.rate) as victim:
            await _rival(ordeal, victim)
            while ordeal.blows < blows and not await victim.wait(dice.uniform(0.1, 0.6)):
                busy = ordeal.busy
                victim.send(signal.SIGSTOP)
                if dice.random() < 0.2:
                    await _rival(ordeal, victim)
                await asyncio.sleep(dice.choice((dice.uniform(0, 0.3), dice.uniform(0.3, 1.5), dice.uniform(1.5, 4))))
                victim.send(signal.SIGCONT)
                over = await victim.wait(0.2)
                ordeal.blows += ordeal.busy > busy
                if over:
                    break
            ended = await victim.end()
        ordeal.check_account(ended)
        if ended.code in {Exit.DONE, Exit.BAD_ROWS}:
            return


async def _rival(ordeal: Ordeal, victim: Victim) -> None:
    """Start a second process: it has to go at once, with exit 5, and must not disturb the first one."""
    while not ordeal.ledger.exists() and not victim.ended:
        await victim.wait(0.01)
    while not count_states(ordeal.ledger) and not victim.ended:
        await victim.wait(0.01)
    async with importing(ordeal.folder, ordeal.world.scale.rate) as rival:
        ended = await rival.end()
    if ended.code != Exit.HELD and not victim.ended:
        ordeal.problems.append(f"a second process ended with exit {ended.code}: {ended.err[-500:]}")


# ---- ask to stop ----------------------------------------------------------------------------------------------------


async def terminate(ordeal: Ordeal, blows: int) -> None:
    """SIGTERM once, or once more soon after, at random moments."""
    dice = ordeal.world.dice
    while ordeal.blows < blows and not _hopeless(ordeal, blows):
        ordeal.world.shift()
        busy = ordeal.busy
        async with importing(ordeal.folder, ordeal.world.scale.rate) as victim:
            over = await victim.wait(dice.uniform(0.4, 3.0))
            victim.send(signal.SIGTERM)
            twice = dice.random() < 0.5
            if twice and not await victim.wait(dice.uniform(0, 0.4)):
                victim.send(signal.SIGTERM)
            ended = await victim.end(2 * ordeal.world.scale.hang + _SPARE_SECONDS)
        if over:
            ordeal.idle += 1
            ordeal.check_account(ended)
        if over or ordeal.busy == busy:
            continue
        ordeal.blows += 1
        _check_stopped(ordeal, ended, twice=twice)


def _check_stopped(ordeal: Ordeal, ended: Ended, *, twice: bool) -> None:
    account = ordeal.check_account(ended)
    if ended.code not in {Exit.SIGTERM, Exit.HALTED}:
        ordeal.problems.append(f"SIGTERM ended a run with exit {ended.code}: {ended.err[-500:]}")
    if left := count_states(ordeal.ledger)["started"]:
        ordeal.problems.append(f"SIGTERM left {left} rows unrecorded")
    cut = count_cut(ordeal.ledger, account.get("run", 0))
    ordeal.check_added(cut, "SIGTERM")
    if cut and not twice:
        ordeal.problems.append(f"one SIGTERM cut {cut} rows off")


# ---- undo -----------------------------------------------------------------------------------------------------------


async def undo(ordeal: Ordeal, blows: int) -> None:
    """Import a part, close what that run created, and SIGKILL the closing again and again."""
    world, dice = ordeal.world, ordeal.world.dice
    some = str(max(1, world.scale.rows // 2))
    async with importing(ordeal.folder, 4 * world.scale.rate, "--limit", some) as victim:
        account = ordeal.check_account(await victim.end())
    ordeal.undone = frozenset({account.get("run", 0)})
    while ordeal.blows < blows:
        world.shift()
        busy = ordeal.busy
        async with _undoing(ordeal) as victim:
            await _until_busy(ordeal, victim, busy)
            over = await victim.wait(dice.uniform(0, 1.0))
            victim.send(signal.SIGKILL)
            await victim.end()
        if over:
            break
        ordeal.blows += 1
    await _undo_to_the_end(ordeal)


async def _undo_to_the_end(ordeal: Ordeal) -> None:
    """Undo again until nothing is left, or an undo gets no further."""
    before: Counter[str] | None = None
    for _ in range(RUNS):
        async with _undoing(ordeal) as victim:
            ended = await victim.end()
        account = account_of(ended)
        if account is None or ended.code not in _ORDERLY:
            ordeal.problems.append(f"exit {ended.code} of an undo: {ended.err[-1000:]}")
        elif account["created"] != account["closed"] + account["errored"] + account["left"]:
            ordeal.problems.append(f"undo {account['run']} does not add up: {account}")
        after = count_states(ordeal.ledger)
        if ended.code == Exit.DONE or after == before:
            return
        before = after
    ordeal.problems.append(f"the undo is not at its end after {RUNS} times")


def _undoing(ordeal: Ordeal) -> AbstractAsyncContextManager[Victim]:
    [run] = ordeal.undone
    return running(ordeal.folder, "undo", "--run", str(run), "--yes", "--json")


# ---- an outage of everything ----------------------------------------------------------------------------------------


async def outage(ordeal: Ordeal, blows: int) -> None:
    """Let everything fail for ever, from the first request or from some moment on: the run has to end by itself."""
    while ordeal.blows < blows and not _hopeless(ordeal, blows):
        ordeal.world.shift()
        creates, lists = OUTAGES[(ordeal.blows + ordeal.idle) % len(OUTAGES)]
        try:
            struck = await _strike(ordeal, creates, lists)
        finally:
            ordeal.world.emulator.change(create_outage=None, list_outage=None, update_outage=None)
        ordeal.blows += struck
        ordeal.idle += not struck


async def _strike(ordeal: Ordeal, creates: int, lists: int) -> bool:
    """Let a run meet an outage; False when it was over before."""
    emulator, dice, allowed = ordeal.world.emulator, ordeal.world.dice, ordeal.world.scale.outage
    busy, later = ordeal.busy, dice.choice((0.0, dice.uniform(0.2, 1.0)))
    limit = {"FLEX_IMPORT__STOP__OUTAGE_SECONDS": str(allowed)}
    async with importing(ordeal.folder, ordeal.world.scale.rate, env=limit) as victim:
        if later:
            await _until_busy(ordeal, victim, busy)
            await victim.wait(later)
        emulator.change(create_outage=creates, list_outage=lists, update_outage=creates)
        await _until_busy(ordeal, victim, busy)
        if victim.ended:
            ordeal.check_account(await victim.end())
            return False
        began = time.monotonic()
        over = await victim.wait(2 * (allowed + ENDS_AFTER))
        seconds = time.monotonic() - began
        ordeal.slowest_end = max(ordeal.slowest_end, seconds)
        what = f"an outage of everything (creates {creates}, lists {lists})"
        if not over:
            ordeal.problems.append(f"{what} has not ended the run after {seconds:.1f} s")
            return True
        ended = await victim.end()
    ordeal.check_account(ended)
    if ended.code != Exit.HALTED or seconds > allowed + ENDS_AFTER:
        ordeal.problems.append(f"{what} ended it with {ended.code} after {seconds:.1f} s: {ended.out[-500:]}")
    return True


async def _until_busy(ordeal: Ordeal, victim: Victim, busy: int) -> None:
    while ordeal.busy == busy and not victim.ended:
        await victim.wait(0.01)
