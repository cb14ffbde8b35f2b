"""Breadth-first search over the states of a channel: the first story that breaks a promise is a shortest one."""

from collections import deque
from dataclasses import dataclass, field
from time import monotonic

from tests.explore.assumption import ALL, Assumption
from tests.explore.event import Event, Model, Scope, State, Transition
from tests.explore.promise import broken_promise
from tests.explore.world import Budget


@dataclass
class Exploration:
    """What an exploration found.

    told: events. depth: every story with fewer events was explored. problem: the promise that is broken at the end of
    the story. ended: whether no story was left to explore.
    """

    states: int = 0
    told: int = 0
    depth: int = 0
    seconds: float = 0.0
    problem: str = ""
    story: list[Transition] = field(default_factory=list)
    ended: bool = False


def explore(
    scope: Scope,
    assumed: frozenset[Assumption] = ALL,
    *,
    events: int = 99,
    states: int = 10**9,
    seconds: float = 1e9,
) -> Exploration:
    """Explore all stories; stop at the first one that breaks a promise.

    events: of a story at most. states, seconds: after which to stop.
    """
    model, began, found = Model(scope, assumed), monotonic(), Exploration()
    came: list[tuple[int, Event | None, State]] = [(-1, None, model.beginning)]
    known = {model.beginning}
    waiting = deque([(0, 0)])
    try:
        while waiting and not found.problem:
            number, found.depth = waiting.popleft()
            if found.depth == events or len(known) >= states or monotonic() - began > seconds:
                break
            for event, after in model.successors(came[number][-1]):
                found.told += 1
                if after in known:
                    continue
                known.add(after)
                came.append((number, event, after))
                found.problem = broken_promise(after.world, after.held, model.rows, model.names)
                if found.problem:
                    found.story = _retold(came)
                    break
                waiting.append((len(came) - 1, found.depth + 1))
        else:
            found.ended = not found.problem
    finally:
        model.close()
    found.states, found.seconds = len(known), monotonic() - began
    return found


SCOPES = (
    Scope(2, Budget(starts=2, joins=1, unlisted=1)),
    Scope(1, Budget(starts=3, joins=1, unlisted=2, undos=1)),
    Scope(2, Budget(starts=3, joins=0, unlisted=1, undos=1)),
    Scope(3, Budget(starts=2, joins=1, unlisted=0)),
    Scope(2, Budget(starts=2, joins=1, unlisted=1), routed=True, baseline=False),
)
"""What is explored with all assumptions. Each scope allows other events, so that its stories can be longer."""

_SMALL_SCOPES = {
    Assumption.ONE_WORKER: Scope(1, Budget(starts=2, joins=0, unlisted=0)),
    Assumption.ONE_CREATE: Scope(2, Budget(starts=1, joins=0, unlisted=0)),
    Assumption.OWN_ROUTING: Scope(1, Budget(starts=1, joins=0, unlisted=1), routed=True),
}


def scope_without(assumption: Assumption) -> Scope:
    """Return the scope in which to explore without an assumption: just large enough for the shortest story."""
    return _SMALL_SCOPES.get(assumption, Scope(1, Budget(starts=1, joins=1, unlisted=0)))


def _retold(came: list[tuple[int, Event | None, State]]) -> list[Transition]:
    """Return the events that led to the last state, in their order."""
    story = []
    number, event, state = came[-1]
    while event is not None:
        story.append((event, state))
        number, event, state = came[number]
    return story[::-1]
