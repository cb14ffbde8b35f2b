"""The service: the participants of the channel, the requests that it still processes, and the answers it may give."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, combinations
from typing import NamedTuple

from tests.explore.assumption import Assumption
from tests.explore.ledger_state import LedgerState
from tests.explore.runner import SETTLE
from tests.samples_of import sid
from worker.model import Answer, Listed, Listing, Lost, NotSent, Reply, Row, Unlisted

OTHER_TYPE = "agent"
UNLISTED = Unlisted("no such channel", missing=True)


class Person(NamedTuple):
    """A participant. row: the key of the row with the same person. ours: whether a request of ours made it.

    age: seconds since it was added, or since the attempt that made it. shown: whether a list has shown it. open: not
    closed by undo. task: the sid of its task, if it has one.
    """

    name: str
    row: str = ""
    ours: bool = False
    type: str = "customer"
    age: float = SETTLE
    shown: bool = False
    open: bool = True
    task: str = ""

    @property
    def sid(self) -> str:
        """Its sid."""
        return sid("UT", self.name)


@dataclass(frozen=True)
class Routing(Mapping[str, str]):
    """The routing of a participant, hashable."""

    task_sid: str

    def __getitem__(self, name: str) -> str:
        return {"task_sid": self.task_sid}[name]

    def __iter__(self) -> Iterator[str]:
        return iter(("task_sid",))

    def __len__(self) -> int:
        return 1


class Budget(NamedTuple):
    """How often an event may still happen in a story. unlisted: lists that fail."""

    starts: int = 2
    joins: int = 1
    unlisted: int = 1
    undos: int = 0


class World(NamedTuple):
    """The state of the service. pending: key and age in seconds of each request that will make a participant later."""

    people: tuple[Person, ...]
    pending: tuple[tuple[str, float], ...] = ()
    left: Budget = Budget()

    def of_row(self, key: str) -> list[Person]:
        """Return the participants that are the person of a row, by whichever program."""
        return [one for one in self.people if one.row == key and one.open]

    def ours(self, key: str) -> list[Person]:
        """Return the open participants that our requests made for a row."""
        return [one for one in self.people if one.row == key and one.ours and one.open]

    def made(self, key: str, age: float, name: str, task: str) -> "World":
        """Return the world with one more participant of a row. name: of the row in stories."""
        nth = sum(one.ours and one.row == key for one in self.people) + 1
        whose = f"{name}'s participant" + (f" no. {nth}" if nth > 1 else "")
        return self.joined(Person(whose, key, ours=True, age=age, task=task))

    def joined(self, person: Person) -> "World":
        """Return the world with one more participant."""
        return self._replace(people=tuple(sorted((*self.people, person))))

    def later(self, seconds: float) -> "World":
        """Return the world after some time."""
        people = tuple(one._replace(age=min(SETTLE, one.age + seconds)) for one in self.people)
        pending = tuple(sorted((key, min(SETTLE, age + seconds)) for key, age in self.pending))
        return self._replace(people=people, pending=pending)

    def seen(self, names: frozenset[str]) -> "World":
        """Return the world after a list has shown these people."""
        people = tuple(one._replace(shown=one.shown or one.name in names) for one in self.people)
        return self._replace(people=people)


# ---- answers --------------------------------------------------------------------------------------------------------


class Response(NamedTuple):
    """A response to a create. effect: when a participant is made: now, late or never."""

    effect: str
    words: str
    answer: Answer


LOST = Lost("the connection broke")
FAILED = Reply(500, b'{"status": 500, "code": 20500, "message": "no"}')
NO_SID = Reply(201, b'{"sid": null}')
MEMBER = Reply(409, b'{"status": 409, "code": 50433, "message": "no"}')
NO_CONNECTION = NotSent("refused")
THROTTLED = Reply(429, b'{"status": 429, "code": 20429, "message": "no"}')
REJECTED = Reply(400, b'{"status": 400, "code": 20001, "message": "no"}')


def created(row: Row, name: str, *, channel_sid: str | None = None) -> Reply:
    """Return a success that names this participant. channel_sid: of another one."""
    body = '{"sid": "%s", "channel_sid": "%s", "type": "customer"}'
    return Reply(201, (body % (sid("UT", name), channel_sid or row.channel_sid)).encode())


def known(sid_of_it: str) -> Reply:
    """Return a success with this sid that says nothing more, as a cache may."""
    return Reply(201, b'{"sid": "%s"}' % sid_of_it.encode())


def answers(world: World, held: LedgerState, row: Row, name: str, assumed: frozenset[Assumption]) -> Iterator[Response]:
    """Yield every possible response to the create of a row. name: of the participant that it would make."""
    yield Response("now", "it is made, and the answer says so", created(row, name))
    for effect, fate in (("now", "it is made"), ("late", "it is made later"), ("never", "it is not made")):
        yield Response(effect, f"{fate}, and the answer is lost", LOST)
        yield Response(effect, f"{fate}, and the answer is a 500", FAILED)
        if effect == "late":
            continue
        other = created(row, "of another channel", channel_sid=sid("UO", "another"))
        yield Response(effect, f"{fate}, and the answer is that of another channel's request", other)
        for one in sorted(held.sids):
            yield Response(effect, f"{fate}, and the answer names a participant that is known", known(one))
        if effect == "never" or Assumption.REFUSED not in assumed:
            yield Response(effect, f"{fate}, and the answer is a 429", THROTTLED)
            yield Response(effect, f"{fate}, and the answer is a 400", REJECTED)
        if Assumption.OWN_ANSWER not in assumed:
            strange = "a participant of another channel, and no channel"
            yield Response(effect, f"{fate}, and the answer names {strange}", known(sid("UT", "of another channel")))
    yield Response("now", "it is made, and the answer has no sid", NO_SID)
    yield Response("never", "no connection is made", NO_CONNECTION)
    if world.of_row(row.key) or Assumption.MEMBER not in assumed:
        yield Response("never", "the answer says that it is a member already", MEMBER)


# ---- lists ----------------------------------------------------------------------------------------------------------


def lists(world: World, assumed: frozenset[Assumption]) -> Iterator[tuple[frozenset[str], Listing, str]]:
    """Yield every list that the channel may give: names, the list itself, and words for it."""
    here = [one for one in world.people if one.open]
    free = [one for one in here if not _is_certain(one, assumed)]
    subsets = chain.from_iterable(combinations(free, size) for size in range(len(free), -1, -1))
    for subset in subsets:
        shown = [one for one in here if one in subset or one not in free]
        names = frozenset(one.name for one in shown)
        missing = [one.name for one in here if one.name not in names]
        words = ", ".join(one.name for one in shown) or "nobody"
        words += f" (and not {', '.join(missing)})" if missing else ""
        yield names, _listing(shown), words
        if any(one.task for one in shown):
            yield names, _listing(shown, routing=False), f"{words}, without routing"
        if Assumption.TYPED not in assumed and shown:
            yield names, _listing(shown, types=False), f"{words}, without types"


def _listing(shown: Sequence[Person], *, types: bool = True, routing: bool = True) -> Listing:
    tasks = (Routing(task_sid=one.task) if one.task and routing else None for one in shown)
    listed = (Listed(one.sid, one.type if types else None, task) for one, task in zip(shown, tasks, strict=True))
    return Listing(tuple(listed))


def _is_certain(one: Person, assumed: frozenset[Assumption]) -> bool:
    """Tell whether every list shows this participant."""
    return one.age >= SETTLE and (Assumption.STAYS_LISTED if one.shown else Assumption.LISTED) in assumed
