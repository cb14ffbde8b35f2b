"""The events that are possible in each state of a channel."""

import json
from collections.abc import Iterator, Sequence
from typing import NamedTuple
from urllib.parse import urlencode

from tests.explore.assumption import Assumption
from tests.explore.ledger_state import LedgerState, RowRecord
from tests.explore.runner import MAX_AGE, SETTINGS, SETTLE, AnsweredCall, RunState, Step, StepRunner
from tests.explore.world import OTHER_TYPE, UNLISTED, Budget, Person, World, answers, lists
from tests.samples_of import row, sid
from worker.ledger import Close, Decision, Entry, Free, Settle
from worker.model import Answer, Created, Failed, Listing, Row, Settlement, Unlisted

RESIDENT = Person("the resident", shown=True)
"""Somebody of the rows' type who is in the channel when a story begins."""


class Event(NamedTuple):
    """One line of a story. kind: run, reconcile, call, wait, crash, time, world or ledger.

    answer: to the worker's call. records: how many ledger records the worker made. dies: whether it dies after them.
    seconds: how much time passes. waits: seconds until the worker's next look. entries: what a person's command writes.
    """

    words: str
    kind: str
    answer: Answer | Listing | Unlisted | None = None
    records: int = 0
    dies: bool = False
    seconds: float = 0.0
    waits: float = 0.0
    entries: tuple[Entry, ...] = ()


class WorkerState(NamedTuple):
    """A process with a run. base: the ledger when its step began, None between two steps. script: answers so far."""

    memory: RunState
    base: LedgerState | None = None
    script: tuple[AnsweredCall, ...] = ()


class State(NamedTuple):
    """The service, the ledger and the workers at one point of a story."""

    world: World
    held: LedgerState
    workers: tuple[WorkerState, ...] = ()


class Scope(NamedTuple):
    """What is explored. left: how often some events may happen; routed: rows have routing; baseline: as configured."""

    rows: int = 2
    left: Budget = Budget()
    routed: bool = False
    baseline: bool = True


Transition = tuple[Event, State]
"""An event and the state after it."""


class Model:
    """One channel with its rows. assumed: the assumptions that hold; without one, more events are possible."""

    def __init__(self, scope: Scope, assumed: frozenset[Assumption]) -> None:
        self.assumed = assumed
        self._tasks: dict[str, str] = {}
        rows = []
        for number in range(1, scope.rows + 1):
            one = row(number, 1)
            if scope.routed:
                task = sid("WT", number if Assumption.OWN_ROUTING in assumed else "everybody's")
                form = {"Type": one.type, "MediaProperties": "{}", "RoutingProperties": json.dumps({"task_sid": task})}
                one = one._replace(body=urlencode(form).encode())
                self._tasks[one.key] = task
            rows.append(one)
        self.rows: Sequence[Row] = tuple(rows)
        self.settings = SETTINGS.model_copy(update={"baseline": scope.baseline})
        self.names = {one.key: f"row {number}" for number, one in enumerate(self.rows, 1)}
        self.runner = StepRunner(tuple(self.rows), self.settings)
        resident = RESIDENT
        if Assumption.OWN_ROUTING not in assumed:
            resident = resident._replace(task=next(iter(self._tasks.values()), ""))
        self.beginning = State(World((resident,), left=scope.left), LedgerState())
        self._of_key = {one.key: one for one in self.rows}

    def close(self) -> None:
        """Close what was opened."""
        self.runner.close()

    # ---- what may happen next ---------------------------------------------------------------------------------------

    def successors(self, state: State) -> Iterator[Transition]:
        """Yield every event that is possible in a state, with the state after it."""
        for place in range(len(state.workers)):
            yield from self._work(state, place)
        for place in range(len(state.workers)):
            yield from self._crash(state, place)
        yield from self._start(state)
        yield from self._late(state)
        yield from self._time(state)
        yield from self._joins(state)
        if not state.workers:
            yield from self._person(state)
            yield from self._undo(state)

    def _work(self, state: State, place: int) -> Iterator[Transition]:
        worker = state.workers[place]
        if worker.base is None and worker.memory.wakes_in:
            return
        base = state.held if worker.base is None else worker.base
        step = self.runner.advance(base, worker.memory, worker.script)
        begun = 0
        if worker.base is None:
            begun = len(step.snapshots) - 1
            state = state._replace(held=step.snapshots[-1])
        if step.call is None:
            yield self._gone_on(state, place, base, step, begun)
        elif step.call.name == "list":
            yield from self._list(state, place, base, begun)
        else:
            yield from self._create(state, place, base, begun, self._of_key[step.call.key])
        if worker.base is None:
            if step.call is not None and not {Assumption.ONE_WORKER, Assumption.ONE_CREATE} <= self.assumed:
                asking = _put(state.workers, place, worker._replace(base=base))
                does = "list the channel, for" if step.call.name == "list" else "send"
                what = f"{self._name(state, place)} begins to {does} {self.names[worker.memory.queue[0].key]}"
                yield Event(what, "wait"), state._replace(workers=asking)
            for number, before in enumerate(step.snapshots[1:], 1):
                what = f"{self._name(state, place)} records what it is about to do, and dies"
                yield Event(what, "crash", records=number, dies=True), _without(state, place, before)

    def _gone_on(self, state: State, place: int, base: LedgerState, step: Step, begun: int) -> Transition:
        """Take a step that calls nothing: another worker has dealt with the row."""
        worker = state.workers[place]
        going = self._going(step, worker.memory, base, worker.script)
        event = Event(f"{self._name(state, place)} goes on to its next row", "wait", records=begun)
        return event, state._replace(workers=_put(state.workers, place, going))

    def _list(self, state: State, place: int, base: LedgerState, begun: int) -> Iterator[Transition]:
        about = self.names[state.workers[place].memory.queue[0].key]
        told = f"{self._name(state, place)} lists the channel, for {about}:"
        for names, listing, words in lists(state.world, self.assumed):
            event = Event(f"{told} {words}", "call", listing, begun)
            yield from self._answered(state, place, base, event, state.world.seen(names))
        left = state.world.left
        if left.unlisted:
            world = state.world._replace(left=left._replace(unlisted=left.unlisted - 1))
            event = Event(f"{told} it cannot be listed", "call", UNLISTED, begun)
            yield from self._answered(state, place, base, event, world)

    def _create(self, state: State, place: int, base: LedgerState, begun: int, wanted: Row) -> Iterator[Transition]:
        world = state.world
        made = self._made(world, wanted.key, 0.0)
        late = world._replace(pending=tuple(sorted((*world.pending, (wanted.key, 0.0)))))
        mine = next(one for one in made.people if one not in world.people)
        worlds = {"now": made, "late": late, "never": world}
        for effect, words, answer in answers(world, state.held, wanted, mine.name, self.assumed):
            told = f"{self._name(state, place)} sends {self.names[wanted.key]}: {words}"
            yield from self._answered(state, place, base, Event(told, "call", answer, begun), worlds[effect])

    def _answered(
        self, state: State, place: int, base: LedgerState, event: Event, world: World
    ) -> Iterator[Transition]:
        """Continue after an answer: to the next call, to the end of the step, or to a crash in between."""
        worker = state.workers[place]
        assert event.answer is not None
        script = (*worker.script, (event.answer, state.held))
        step = self.runner.advance(base, worker.memory, script)
        after = state._replace(world=world, held=step.snapshots[-1])
        going = self._going(step, worker.memory, base, script)
        recorded = event._replace(records=event.records + len(step.snapshots) - 1)
        yield recorded, after._replace(workers=_put(state.workers, place, going))
        for number, before in enumerate(step.snapshots[:-1]):
            words = f"{event.words}; the worker dies" + (f" after {number} of its records" if number else "")
            dead = event._replace(words=words, records=event.records + number, dies=True)
            yield dead, _without(after, place, before)
        if Assumption.DURABLE not in self.assumed:
            earlier = (base, *self.runner.advance(base, worker.memory, worker.script).snapshots[:-1])
            for before in dict.fromkeys(earlier):
                words = f"{event.words}; the worker dies, and what it recorded last is gone"
                yield event._replace(words=words, dies=True), _without(after, place, before)

    def _going(
        self, step: Step, memory: RunState, base: LedgerState, script: tuple[AnsweredCall, ...]
    ) -> WorkerState | None:
        if step.call is not None:
            return WorkerState(memory, base, script)
        return None if step.memory is None else self._at_work(step.snapshots[-1], step.memory)

    def _at_work(self, held: LedgerState, memory: RunState) -> WorkerState | None:
        """Return a worker at its next row that needs a call; None when its run is over."""
        while memory.queue and not memory.wakes_in:
            step = self.runner.advance(held, memory)
            if step.call is not None or step.memory is None or step.snapshots[-1] != held:
                break
            memory = step.memory
        return WorkerState(memory) if memory.queue else None

    def _crash(self, state: State, place: int) -> Iterator[Transition]:
        event = Event(f"{self._name(state, place)} dies", "crash", dies=True)
        yield event, _without(state, place, state.held)

    def _start(self, state: State) -> Iterator[Transition]:
        left = state.world.left
        if state.workers and Assumption.ONE_CREATE not in self.assumed:
            yield from self._split(state)
        if not left.starts or (state.workers and (Assumption.ONE_WORKER in self.assumed or len(state.workers) > 1)):
            return
        held = self.runner.ledger.open(state.held)
        runs = [worker.memory.run for worker in state.workers]
        held = held if runs else held.renumbered()
        number = max(held.next_run, *(run + 1 for run in runs), 1)
        world = state.world._replace(left=left._replace(starts=left.starts - 1))
        kinds = {"run": "A second run starts on the same ledger" if runs else "A run starts"}
        if held.unresolved and not runs:
            kinds["reconcile"] = "A reconcile starts"
        for kind, words in kinds.items():
            memory = self.runner.start(held, number, sends=kind == "run")
            if (worker := self._at_work(held, memory)) is not None:
                yield Event(words, kind), State(world, held, (*state.workers, worker))

    def _split(self, state: State) -> Iterator[Transition]:
        """Begin the second row of the queue while the first one is in progress."""
        worker = state.workers[0]
        first, rest = worker.memory.queue[:1], worker.memory.queue[1:]
        if not rest or len(state.workers) > 1 or worker.memory.held or worker.script:
            return
        alone = worker._replace(memory=worker.memory._replace(queue=first))
        other = self._at_work(state.held, worker.memory._replace(queue=rest))
        if other is not None:
            yield Event("The run begins its next row", "wait"), state._replace(workers=(alone, other))

    def _late(self, state: State) -> Iterator[Transition]:
        for key, age in sorted(set(state.world.pending)):
            pending = list(state.world.pending)
            pending.remove((key, age))
            world = self._made(state.world._replace(pending=tuple(pending)), key, age)
            event = Event(f"The service makes {self.names[key]}'s participant, late", "world")
            yield event, state._replace(world=world)

    def _time(self, state: State) -> Iterator[Transition]:
        if any(worker.base is not None and not self._is_frozen(worker) for worker in state.workers):
            return
        world, held = state.world, state.held
        wakes = [worker.memory.wakes_in for worker in state.workers if worker.base is None]
        waits = set(wakes)
        if world.pending or any(one.age < SETTLE for one in world.people) or any(waits):
            waits.add(SETTLE)
        if state.workers and held.baseline and held.baseline.at is not None and held.baseline.at >= -MAX_AGE:
            waits.add(MAX_AGE + 1)
        for seconds in sorted(waits - {0.0}):
            if Assumption.SETTLES in self.assumed and any(age + seconds >= SETTLE for _, age in world.pending):
                continue
            workers = tuple(
                worker._replace(memory=worker.memory.later(seconds)) if worker.base is None else worker
                for worker in state.workers
            )
            after = State(world.later(seconds), held.later(seconds, MAX_AGE + 1), workers)
            yield Event(f"{seconds:g} seconds pass", "time", seconds=seconds, waits=max(wakes, default=0.0)), after

    def _is_frozen(self, worker: WorkerState) -> bool:
        """Tell whether a worker is one of two whose create has not reached the service: time may pass for the other."""
        if worker.base is None or Assumption.ONE_WORKER in self.assumed:
            return False
        call = self.runner.advance(worker.base, worker.memory, worker.script).call
        return call is not None and call.name == "create"

    def _joins(self, state: State) -> Iterator[Transition]:
        left = state.world.left
        if not left.joins:
            return
        world = state.world._replace(left=left._replace(joins=left.joins - 1))
        agent = Person("an agent", type=OTHER_TYPE, age=0.0)
        yield Event("Another program adds an agent", "world"), state._replace(world=world.joined(agent))
        in_use = _in_use(state)
        if in_use and Assumption.ALONE in self.assumed:
            return
        earlier = Assumption.EARLIER in self.assumed and not in_use
        age, when = (SETTLE, ", and a minute passes for it") if earlier else (0.0, "")
        task = "" if Assumption.OWN_ROUTING in self.assumed else next(iter(self._tasks.values()), "")
        stranger = Person("the stranger", age=age, task=task)
        yield Event(f"Another program adds a stranger{when}", "world"), state._replace(world=world.joined(stranger))
        for key, name in self.names.items():
            if not world.of_row(key):
                twin = Person(f"the other program's participant for {name}", key, age=age, task=task)
                event = Event(f"Another program adds the person of {name}{when}", "world")
                yield event, state._replace(world=world.joined(twin))

    def _person(self, state: State) -> Iterator[Transition]:
        """Decide about a row in doubt, as `resolve` records it."""
        held, world = self.runner.ledger.open(state.held).renumbered(), state.world
        for kept in held.rows:
            if kept.state != "in_doubt":
                continue
            name, ours = self.names[kept.key], world.ours(kept.key)
            pending = any(key == kept.key and age < SETTLE for key, age in world.pending)
            if ours:
                yield self._decided(state, held, kept, ours[0].sid, f"A person sees that {name} is there")
            elif not pending or Assumption.PATIENT not in self.assumed:
                yield self._decided(state, held, kept, None, f"A person sees that {name} is not there")
            if ours and Assumption.RIGHT not in self.assumed:
                yield self._decided(state, held, kept, None, f"A person says that {name} is not there")

    def _decided(self, state: State, held: LedgerState, kept: RowRecord, sid: str | None, words: str) -> Transition:
        outcome = Created(sid) if sid else Failed("not_created", "a person decided that it was not created")
        decision = Decision(kept.number, "ann", "created" if sid else "not_created", sid)
        settle = Settle(kept.number, Settlement(kept.key, outcome, ends_doubt=True))
        return self._written(state, held, words, (decision, settle))

    def _undo(self, state: State) -> Iterator[Transition]:
        """Close the participant of a created row and let the row be sent again, as `undo` and `retry` record it."""
        left = state.world.left
        for kept in state.held.rows:
            if kept.state != "created" or not left.undos:
                continue
            people = tuple(one._replace(open=one.open and one.sid != kept.sid) for one in state.world.people)
            world = state.world._replace(people=people, left=left._replace(undos=left.undos - 1))
            held = self.runner.ledger.open(state.held).renumbered()
            words = f"A person undoes {self.names[kept.key]}, to send it again"
            entries = (Close(kept.number, kept.key), Free())
            yield self._written(state._replace(world=world), held, words, entries)

    def _written(self, state: State, held: LedgerState, words: str, entries: tuple[Entry, ...]) -> Transition:
        after, _ = self.runner.ledger.write(held, held.next_run, entries)
        return Event(words, "ledger", entries=entries), state._replace(held=after.renumbered())

    def _made(self, world: World, key: str, age: float) -> World:
        return world.made(key, age, self.names[key], self._tasks.get(key, ""))

    def _name(self, state: State, place: int) -> str:
        """Return how a story calls a worker; two that send rows of one run at the same time are one."""
        run = state.workers[place].memory.run
        return "The worker" if Assumption.ONE_WORKER in self.assumed else f"The worker of run {run}"


def _without(state: State, place: int, held: LedgerState) -> State:
    return state._replace(held=held, workers=_put(state.workers, place, None))


def _put(workers: tuple[WorkerState, ...], place: int, worker: WorkerState | None) -> tuple[WorkerState, ...]:
    return (*workers[:place], *((worker,) if worker else ()), *workers[place + 1 :])


def _in_use(state: State) -> bool:
    """Tell whether a participant that joins now could be taken for a row's."""
    baseline = state.held.baseline
    fresh = baseline is not None and baseline.at is not None and baseline.at >= -MAX_AGE
    runs = {worker.memory.run for worker in state.workers}
    asked = any(worker.script for worker in state.workers)
    return state.held.unresolved or asked or (fresh and baseline is not None and baseline.run in runs)
