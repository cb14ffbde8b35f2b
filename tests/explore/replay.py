"""Replays stories with complete runs: a ledger on disk, the journal, the queue and `Pipeline.run`.

The explorer drives the pipeline row by row, which is fast but could be wrong. A replay takes only the answers of the
service, the time and the point of a crash from the story. After each run the ledger must have the content that the
explorer predicts.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, TypeVar, cast
from unittest import mock

import anyio

from tests.explore.event import Event, Model, State, Transition
from tests.explore.ledger_state import LedgerState, PureLedger, clock_at, read_state
from tests.explore.runner import MAX_AGE, Engine
from tests.virtual_clock import VirtualLoop
from worker.config import Doubt as DoubtSettings
from worker.errors import LedgerError
from worker.journal import Journal
from worker.ledger import Asked, Entry, Known, Shelf, SourceFile
from worker.ledger.opening import create_ledger, open_ledger, open_readonly
from worker.ledger.survey import Surveyed
from worker.ledger.tables import Tables
from worker.model import Answer, Listing, Row, Unlisted
from worker.submit import Submission
from worker.traffic import LaneDeparture

T = TypeVar("T")

SOURCE = SourceFile("input.csv", "csv", "utf-8", ",", "a")
_BEGINNING = 1_000_000.0


@dataclass
class Segment:
    """A segment of a story: one run, or one event between two runs.

    after: the predicted content of the ledger. run: the command, empty for none. answers: to the calls of the run.
    late: by how many seconds it oversleeps each wait. records: after how many records it dies, None when it does not.
    entries: what a person's command writes. seconds: how much time passes.
    """

    after: LedgerState
    run: str = ""
    answers: list[Any] = field(default_factory=list)
    late: list[float] = field(default_factory=list)
    records: int | None = None
    entries: tuple[Entry, ...] = ()
    seconds: float = 0.0


def segments(story: Sequence[Transition]) -> Iterator[Segment]:
    """Yield the segments of a story."""
    segment: Segment | None = None
    dated = False  # whether the latest event of the run was that time passed
    count = 0
    for event, state in story:
        if event.kind in {"run", "reconcile"}:
            segment, count, dated = Segment(state.held, run=event.kind), 0, False
        elif segment is None:
            yield Segment(state.held, entries=event.entries, seconds=event.seconds)
            continue
        elif event.kind == "time":
            segment.seconds += event.seconds
            if dated:
                segment.late[-1] += event.seconds
            else:
                segment.late.append(event.seconds - event.waits)
            dated = True
        elif event.kind in {"call", "crash"}:
            dated = False
            count += event.records
            segment.answers += [event.answer] if event.answer else []
        segment.after = state.held
        if not state.workers:
            segment.records = count if event.dies else None
            yield segment
            segment = None
    if segment is not None:  # the story ends before the run: the replay ends it with a crash
        segment.records = count
        yield segment


class Replay:
    """The ledger on disk and the clock of one replay."""

    def __init__(self, path: Path, rows: Sequence[Row], settings: DoubtSettings) -> None:
        self._path, self._rows, self._settings = path, rows, settings
        self._past = _BEGINNING
        self._loop: VirtualLoop | None = None
        self._ledger = PureLedger(rows)
        create_ledger(path)

    def close(self) -> None:
        """Close what was opened."""
        self._ledger.close()

    def now(self) -> float:
        """Return the time in seconds."""
        return self._past + (self._loop.time() if self._loop else 0.0)

    def held(self) -> LedgerState:
        """Return the content of the ledger in the explorer's form."""
        with closing(open_readonly(self._path)) as connection:
            held = read_state(connection, self.now())
        if held.baseline and held.baseline.at is not None:
            age = max(-(MAX_AGE + 1), round(held.baseline.at))
            held = held._replace(baseline=held.baseline._replace(at=age))
        return held.renumbered()

    def play(self, segment: Segment) -> None:
        """Replay one segment."""
        with clock_at(self.now), mock.patch.object(anyio.to_thread, "run_sync", _run_here):
            if segment.entries:
                with closing(open_ledger(self._path)) as ledger:
                    ledger.start_run("resolve")
                    ledger.write(segment.entries)
            if segment.run:
                self._loop = VirtualLoop(late=_each(segment.late))
                with asyncio.Runner(loop_factory=lambda: cast("VirtualLoop", self._loop)) as runner:
                    runner.run(self._run(segment))
                self._loop = None
            self._past += segment.seconds

    async def _run(self, segment: Segment) -> None:
        with closing(open_ledger(self._path)) as ledger:
            ledger.start_run("run")
            ledger.register(SOURCE)
            cut = anyio.CancelScope()
            crashing = _CrashingLedger(ledger, segment.records, self.held, cut.cancel)
            sends = segment.run == "run"
            send = self._ledger.to_send(self.held()) if sends else []
            try:
                with cut:
                    async with Journal(cast("Tables", crashing)) as journal:
                        shelf, service = cast("Shelf", ledger), _Service(segment.answers, crashing)
                        engine = Engine(service, shelf, journal, self._settings, sends=sends)
                        await engine.pipeline.run(_batches(send), 2)
            except* LedgerError:
                assert crashing.dead, "the ledger refused a record of the only worker"
            assert crashing.dead == (segment.records is not None), "the run ended otherwise than it does in the story"


class _CrashingLedger:
    """A ledger whose process dies before the record after the last allowed one."""

    def __init__(
        self, ledger: Tables, records: int | None, held: Callable[[], LedgerState], die: Callable[[], None]
    ) -> None:
        self._ledger, self._left, self._held, self._die = ledger, records, held, die
        self.dead = False

    def write(self, group: Sequence[Entry]) -> list[int | Known | Asked | None]:
        """Record a group, or crash."""
        if self.dead or self._left == 0:
            self.die()
        before = self._held()
        answers = self._ledger.write(group)
        if self._left is not None:
            self._left -= self._held() != before
        return answers

    def die(self) -> None:
        """Crash: nothing is recorded from now on."""
        self.dead = True
        self._die()
        raise LedgerError("dead")


class _Service:
    """Answers from the story; a call without an answer there is where the process dies."""

    def __init__(self, script: Sequence[Any], crashing: _CrashingLedger) -> None:
        self._script, self._crashing = iter(script), crashing

    async def create(self, row: Row, departure: Submission) -> Answer:
        """Answer a create."""
        del row
        return cast("Answer", await self._answer(departure))

    async def list(self, interaction_sid: str, channel_sid: str, departure: LaneDeparture) -> Listing | Unlisted:
        """Answer a list."""
        del interaction_sid, channel_sid
        return cast("Listing | Unlisted", await self._answer(departure))

    async def _answer(self, departure: Submission | LaneDeparture) -> Any:
        await departure.ready()
        departure.left()
        answer = next(self._script, None)
        if answer is None:
            self._crashing.die()
        return answer


async def _batches(rows: list[Row]) -> AsyncGenerator[Surveyed[Row], None]:
    if rows:
        yield Surveyed(1, len(rows), rows[-1].line, rows)


async def _run_here(function: Callable[[], T], **_: Any) -> T:
    """Run a thread's function in place, so that a replay has one clock."""
    return function()


def _each(late: Sequence[float]) -> Callable[[], float]:
    """Return a function that returns these values in turn, then 0."""
    left = iter(late)
    return lambda: next(left, 0.0)


# ---- which stories --------------------------------------------------------------------------------------------------


def random_story(model: Model, dice: Random, events: int) -> list[Transition]:
    """Return a random story."""
    story: list[Transition] = []
    state = model.beginning
    while len(story) < events:
        kinds: dict[str, list[Transition]] = {}
        for event, after in model.successors(state):
            if is_playable(event, state, story):
                kinds.setdefault(event.kind + " and dies" * event.dies, []).append((event, after))
        if not kinds:
            break
        weights = [_WEIGHTS.get(kind, 1.0) for kind in kinds]
        event, state = dice.choice(kinds[dice.choices(list(kinds), weights)[0]])
        story.append((event, state))
    return story


_WEIGHTS = {"call": 8.0, "time": 6.0, "run": 6.0, "call and dies": 0.5, "crash and dies": 0.3, "ledger": 4.0}


def is_playable(event: Event, state: State, story: Sequence[Transition]) -> bool:
    """Tell whether a complete run can do that: it acts as soon as it can, but may oversleep a look."""
    if event.kind != "time" or not state.workers or event.waits:
        return True
    return bool(story) and story[-1][0].kind == "time"


def differences(path: Path, model: Model, story: Sequence[Transition]) -> list[str]:
    """Replay a story; return where the ledger on disk differs from the prediction."""
    with closing(Replay(path, model.rows, model.settings)) as played:
        for number, segment in enumerate(segments(story), 1):
            played.play(segment)
            wanted = segment.after.renumbered()
            if played.held() != wanted:
                return [f"segment {number}: the ledger holds {played.held()}, and not {wanted}"]
    return []
