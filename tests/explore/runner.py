"""The real worker, step by step: `Pipeline`, `Doubts`, `Reconciler` and `Submitter` handle one row of one channel.

A step runs until it calls the service; with the answer it is run once more from its beginning, to its next call or its
end. What it makes of a ledger, a memory and answers is always the same, so each step is run once, and remembered.
"""

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from math import inf
from typing import Any, NamedTuple, Protocol, TypeVar, cast

from anyio.abc import TaskGroup

from tests.explore.ledger_state import NOW, LedgerState, PureLedger
from tests.fakes import Watcher
from tests.virtual_clock import VirtualLoop
from worker.config import Doubt as DoubtSettings
from worker.config import Limits as RateLimits
from worker.config import Retry as RetrySettings
from worker.errors import LedgerError
from worker.journal import Records
from worker.ledger import Asked, Entry, Known, Shelf, Surroundings, Why
from worker.model import Answer, Listing, Row, Tally, Unlisted
from worker.model import State as RowState
from worker.pipeline import Pipeline
from worker.reconcile import Doubt, Reconciler
from worker.rowqueue import RowQueue
from worker.stopping import Stop
from worker.submit import Submission, Submitter
from worker.traffic import LaneDeparture, Traffic

T = TypeVar("T")

SETTINGS = DoubtSettings()
SETTLE = SETTINGS.settle_seconds
MAX_AGE = SETTINGS.baseline_max_age_seconds
ATTEMPTS = 2
"""How often a run sends a row, after refusals and after it was not created."""

_LIMITS = RateLimits(rate_per_second=inf, list_rate_per_second=inf, concurrency=100, adaptive=False)
_RETRY = RetrySettings(attempts=ATTEMPTS, initial_seconds=0.001, max_seconds=0.001)
_MOST_LOOKS = 5


class OpenDoubt(NamedTuple):
    """A row in doubt. since, at: of the end of its attempt and of the next look, in seconds from now."""

    since: float
    at: float
    rounds: int = 0
    looks: int = 0
    counted: bool = True


class QueuedRow(NamedTuple):
    """A row in the queue. number: in the ledger; 0 for a row of the input."""

    key: str
    number: int = 0
    doubt: tuple[int, OpenDoubt] | None = None


class RunState(NamedTuple):
    """The state of a run in memory. queue: the next row first. held: whether the channel gets no more rows.

    sends: whether the command is `run`; `reconcile` only looks.
    """

    run: int
    queue: tuple[QueuedRow, ...]
    held: bool = False
    sends: bool = True

    @property
    def wakes_in(self) -> float:
        """Seconds until the next row may be handled."""
        doubt = self.queue[0].doubt
        return max(0.0, doubt[1].at) if doubt else 0.0

    def later(self, seconds: float) -> "RunState":
        """Return the same after some time."""
        queue = tuple(one._replace(doubt=one.doubt and _later(*one.doubt, seconds)) for one in self.queue)
        return self._replace(queue=queue)


def _later(number: int, wait: OpenDoubt, seconds: float) -> tuple[int, OpenDoubt]:
    return number, wait._replace(since=max(-SETTLE, wait.since - seconds), at=max(0.0, wait.at - seconds))


class Call(NamedTuple):
    """A call that waits for its answer. name: list or create. key: of the row to create."""

    name: str
    key: str


class Step(NamedTuple):
    """How far a step came. call: what it waits for, None at its end.

    snapshots: the ledger after the previous answer and after each change since. memory: the run's state after the step,
    None when a ledger error ended the run.
    """

    call: Call | None
    snapshots: tuple[LedgerState, ...]
    memory: RunState | None = None


AnsweredCall = tuple[Answer | Listing | Unlisted, LedgerState]
"""The answer to a call, and the ledger when the answer arrives."""


class _PauseError(BaseException):
    """Ends a step at a call whose answer is not known yet; the code under test must not take it for a failure."""


class _StepContext:
    """The surroundings of one step: a service that answers from a script, and the reads of the ledger."""

    def __init__(
        self,
        ledger: PureLedger,
        held: LedgerState,
        run: int,
        script: tuple[AnsweredCall, ...],
        now: Callable[[], float],
    ) -> None:
        self.ledger, self.run, self.now = ledger, run, now
        self.snapshots = [held]
        self.script = iter(script)
        self.paused: Call | None = None

    # ---- the service ------------------------------------------------------------------------------------------------

    def answer(self, call: Call) -> Any:
        """Return the next answer of the script, or end the step."""
        found = next(self.script, None)
        if found is None:
            self.paused = call
            raise _PauseError
        answer, held = found
        self.snapshots = [held]
        return answer

    async def create(self, row: Row, departure: Submission) -> Answer:
        """Let the row leave, and answer."""
        await departure.ready()
        departure.left()
        return cast("Answer", self.answer(Call("create", row.key)))

    async def list(self, interaction_sid: str, channel_sid: str, departure: LaneDeparture) -> Listing | Unlisted:
        """Answer a list."""
        del interaction_sid
        await departure.ready()
        departure.left()
        return cast("Listing | Unlisted", self.answer(Call("list", channel_sid)))

    # ---- the shelf --------------------------------------------------------------------------------------------------

    def surroundings(self, number: int) -> Surroundings:
        """Ask the ledger."""
        return self.ledger.surroundings(self.snapshots[-1], number)

    def stored(self, states: tuple[RowState, ...], after: int, limit: int, why: Why | None = None) -> Sequence[Row]:
        """Ask the ledger."""
        del limit, why
        return self.ledger.stored(self.snapshots[-1], self.run, states, after)


class _Records(Records):
    """The journal of a scene: each write is durable at once, and none after the step is over."""

    def __init__(self, scene: _StepContext) -> None:
        self._scene = scene

    async def call(self, function: Callable[[], T]) -> T:
        return function()

    async def write(self, *entries: Entry) -> int | Known | Asked | None:
        scene = self._scene
        if scene.paused:  # the step is over, and what is recorded because of that belongs to no story
            raise _PauseError
        held, answers = scene.ledger.write(scene.snapshots[-1], scene.run, entries, scene.now())
        if held != scene.snapshots[-1]:
            scene.snapshots.append(held)
        return answers[-1]


class Service(Protocol):
    """What a run calls."""

    def create(self, row: Row, departure: Submission) -> Awaitable[Answer]:
        """Create a participant."""
        ...

    def list(self, interaction_sid: str, channel_sid: str, departure: LaneDeparture) -> Awaitable[Listing | Unlisted]:
        """List a channel."""
        ...


class Engine:
    """The moving segments of one run, as the commands put them together.

    sends: whether it is a `run`, not a `reconcile`.
    """

    def __init__(
        self,
        service: Service,
        shelf: Shelf,
        records: Records,
        settings: DoubtSettings,
        *,
        sends: bool,
    ) -> None:
        self.stop, self.queue = Stop(), RowQueue(0)
        tally, watcher = Tally(), Watcher()
        traffic = Traffic(_LIMITS, _RETRY, self.stop.draining, jitter=lambda _least, _most: 0.0)
        submitter = Submitter(service, traffic, tally, self.stop.draining, on_retry=watcher.retry_scheduled)
        reconciler = Reconciler(service, traffic, settings, self.stop.draining, on_refused=watcher.lists_refused)
        self.pipeline = Pipeline(
            ledger=shelf,
            journal=records,
            queue=self.queue,
            submitter=submitter,
            reconciler=reconciler,
            tally=tally,
            stop=self.stop,
            observer=watcher,
            attempts=ATTEMPTS,
            earlier=(RowState.FAILED,) if sends else (),
            resend=sends,
        )
        self.doubts = self.pipeline._doubts


class _ResumeTimer:
    """Takes the moment of the next look instead of waiting for it."""

    def __init__(self) -> None:
        self.at = 0.0

    def start_soon(self, _resume: object, _row: Row, at: float) -> None:
        """Take it."""
        self.at = at


class _StepEngine:
    """An engine that one step is run with."""

    def __init__(self, scene: _StepContext, settings: DoubtSettings, *, sends: bool) -> None:
        records, shelf = _Records(scene), cast("Shelf", scene)
        engine = Engine(scene, shelf, records, settings, sends=sends)
        self.tasks = _ResumeTimer()
        self.pipeline, self.doubts, self.queue = engine.pipeline, engine.doubts, engine.queue
        self.doubts.tasks = cast("TaskGroup", self.tasks)

    def wait_of(self, row: Row) -> tuple[int, OpenDoubt] | None:
        """Return the doubt of a row in the queue, if it has one."""
        doubt = self.doubts._open.get(id(row))
        if doubt is None:
            return None
        since, at = max(-SETTLE, round(doubt.since - NOW, 3)), max(0.0, round(self.tasks.at - NOW, 3))
        return doubt.number, OpenDoubt(since, at, doubt.rounds, min(doubt.looks, _MOST_LOOKS), doubt.counted)


class StepRunner:
    """Where workers run. rows: of the input, in its order, all of one channel; settings: of doubts."""

    def __init__(self, rows: tuple[Row, ...], settings: DoubtSettings = SETTINGS) -> None:
        self.ledger = PureLedger(rows)
        self._settings = settings
        self._rows = {row.key: row for row in rows}
        self._channel = rows[0].channel_sid
        self._loop = VirtualLoop()
        self._steps: dict[tuple[LedgerState, RunState, tuple[AnsweredCall, ...]], Step] = {}
        self._starts: dict[tuple[LedgerState, int, bool], RunState] = {}
        self.ran = 0

    def close(self) -> None:
        """Close what was opened."""
        self._loop.close()
        self.ledger.close()

    def start(self, held: LedgerState, run: int, *, sends: bool) -> RunState:
        """Return what a run remembers that has just begun on a ledger, opened by it, and read its whole input."""
        key = held, run, sends
        if key not in self._starts:
            self._starts[key] = self._drive(partial(self._start, held, run, sends=sends))
        return self._starts[key]

    def advance(self, held: LedgerState, memory: RunState, script: tuple[AnsweredCall, ...] = ()) -> Step:
        """Handle the first row of the queue, with these answers to its calls."""
        key = held, memory, script
        if key not in self._steps:
            self.ran += 1
            self._steps[key] = self._drive(partial(self._advance, held, memory, script))
        return self._steps[key]

    # ---- inside -----------------------------------------------------------------------------------------------------

    def _drive(self, function: Callable[[], Coroutine[Any, Any, T]]) -> T:
        self._loop._now = NOW
        return self._loop.run_until_complete(function())

    async def _start(self, held: LedgerState, run: int, *, sends: bool) -> RunState:
        engine = _StepEngine(_StepContext(self.ledger, held, run, (), self._loop.time), self._settings, sends=sends)
        await engine.pipeline._feed_earlier()
        for row in self.ledger.to_send(held) if sends else ():
            engine.queue.put_nowait(row)
        queue = []
        for _ in range(engine.queue.qsize()):
            taken = await engine.queue.take()
            assert taken is not None
            queue.append(QueuedRow(taken.key, taken.number, engine.wait_of(taken)))
            engine.queue.release(taken.channel_sid)
        return RunState(run, tuple(queue), sends=sends)

    async def _advance(self, held: LedgerState, memory: RunState, script: tuple[AnsweredCall, ...]) -> Step:
        scene = _StepContext(self.ledger, held, memory.run, script, self._loop.time)
        engine, first = _StepEngine(scene, self._settings, sends=memory.sends), memory.queue[0]
        if memory.held:
            engine.doubts.held = {self._channel: set()}
        row = self._rows[first.key]._replace(number=first.number)
        if first.doubt is not None:
            number, wait = first.doubt
            doubt = Doubt(number, NOW + wait.since, wait.counted, not first.number, wait.rounds, wait.looks)
            engine.doubts._open[id(row)] = doubt
        engine.queue.put_nowait(row)
        taken = await engine.queue.take()
        assert taken is row
        try:
            aside = await engine.pipeline._handle(row)
        except _PauseError:
            return Step(scene.paused, tuple(scene.snapshots))
        except LedgerError:
            return Step(None, tuple(scene.snapshots))
        rest = memory.queue[1:]
        if aside:
            rest = (QueuedRow(first.key, first.number, engine.wait_of(row)), *rest)
        after = memory._replace(queue=rest, held=memory.held or bool(engine.doubts.held))
        return Step(None, tuple(scene.snapshots), after)
