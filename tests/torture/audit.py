"""Comparing the truth of the service with the ledger, row by row."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from tests.torture.world import Wanted, World
from worker.emulator import Condition, Echo, Emulator, Fault, Participant
from worker.emulator.form import member_of
from worker.ledger.opening import open_readonly

TAKEN = "the sid of a row that was not yet recorded was another row's answer"
_CREATED_AS = "created as "
_DIGITS = re.compile(r"\d+")
ROWS = """
SELECT key, state, sid, reconciled, code, channel_sid, rows.run_id, baselines.sids, looks.reason
FROM rows JOIN channels ON channels.id = rows.channel_id
LEFT JOIN baselines ON baselines.channel_id = rows.channel_id AND baselines.run_id = rows.run_id
LEFT JOIN looks ON looks.row_id = rows.id
"""


class Kept(NamedTuple):
    """What the ledger has of one row.

    baseline: of the run that sent it, as JSON, if there was one. look: why the last list did not decide a doubt.
    """

    key: str
    state: str
    sid: str | None
    reconciled: int
    code: str | None
    channel_sid: str
    run: int
    baseline: str | None
    look: str | None


def kept_in(ledger: Path) -> dict[str, Kept]:
    """Read a ledger as it lies there, without changing it."""
    with closing(open_readonly(ledger)) as connection:
        return {one[0]: Kept(*one) for one in connection.execute(ROWS)}


def count_states(ledger: Path) -> Counter[str]:
    """Return state → rows; nothing when the ledger was not made yet."""
    if not ledger.exists():
        return Counter()
    with closing(open_readonly(ledger)) as connection:
        return Counter(dict(connection.execute("SELECT state, count(*) FROM rows GROUP BY state")))


def count_cut(ledger: Path, run: int) -> int:
    """Return how many rows a run cut off."""
    with closing(open_readonly(ledger)) as connection:
        found: int = connection.execute(
            "SELECT count(*) FROM rows WHERE run_id = ? AND code = 'cut' AND state = 'in_doubt'", (run,)
        ).fetchone()[0]
        return found


@dataclass(slots=True)
class Audit:
    """What a comparison found: counts for the table, and a sentence for everything that must not be.

    held: rows that were not made because a row of their channel stays in doubt. refused: by the service, for good.
    unlisted: those in doubt whose channel has no list. closed: rows whose participant was closed by `undo`.
    undecidable: what is not as it should be, and no client could have known it: reason → rows. reasons: why rows stay
    in doubt → rows, the undecidable ones among them.
    """

    made: int = 0
    created: int = 0
    reconciled: int = 0
    in_doubt: int = 0
    unlisted: int = 0
    held: int = 0
    refused: int = 0
    closed: int = 0
    duplicates: int = 0
    wrong: int = 0
    lost: int = 0
    problems: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    undecidable: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)

    def blame(self, kind: str, sentence: str) -> None:
        """Count a problem under its kind, and say what it is."""
        setattr(self, kind, getattr(self, kind) + 1)
        self.problems.append(f"{kind}: {sentence}")

    def excuse(self, reason: str, kept: "Kept | None") -> None:
        """Count a row of which nobody could have known the truth."""
        self.undecidable[reason] += 1
        if kept is not None and kept.state == "in_doubt":
            self._note_doubt(kept, " (undecidable)")

    def doubt(self, wanted: Wanted, kept: "Kept", made: int) -> None:
        """Count a row that stays in doubt although it could be decided."""
        self.in_doubt += 1
        self.unlisted += not wanted.open
        self.doubts.append(f"{wanted.key}, made {made} times: {kept.code}: {kept.look}")
        self._note_doubt(kept, "")

    def _note_doubt(self, kept: "Kept", how: str) -> None:
        self.reasons[f"{_DIGITS.sub('n', kept.look or kept.code or '?')}{how}"] += 1


class Truth(Protocol):
    """What a ledger is compared with: the rows that were to be made, and the service that made them."""

    @property
    def wanted(self) -> Sequence[Wanted]:
        """The rows of the input."""

    @property
    def emulator(self) -> Emulator:
        """The service."""


def audit(world: Truth, kept: Mapping[str, Kept], undone: frozenset[int] = frozenset()) -> Audit:
    """Compare: one participant for each row that could be made, with the sid that the ledger has for this very row.

    kept: key → what the ledger has. undone: the runs whose participants were to be closed; nobody else's may be.
    """
    ours = [one for one in world.emulator.participants if not one.foreign]
    made: defaultdict[str, list[Participant]] = defaultdict(list)
    for one in ours:
        made[member_of(one.media_properties) or ""].append(one)
    found = Audit(made=len(ours))
    excuses = _excuses(world)
    taken = _taken(kept.values(), excuses)
    by_address = {one.sid: member_of(one.media_properties) for one in world.emulator.participants}
    doubtful = {one.channel_sid for one in kept.values() if one.state == "in_doubt"}
    for wanted in world.wanted:
        own, row = made.pop(wanted.address, []), kept.get(wanted.key)
        if not own and wanted.channel_sid in doubtful and _waits(row):
            found.held += 1
        elif (
            excuse := excuses.get(wanted.channel_sid, TAKEN if taken & {one.sid for one in own} else "")
        ) and not _is_right(row, own):
            found.excuse(excuse, row)
        else:
            _judge(found, wanted, row, own, by_address)
    for address in made:
        found.blame("wrong", f"{address} was made, but no row asked for it")
    _judge_doubts(found, world, kept)
    _judge_sids(found, kept.values())
    _judge_closed(found, world, kept.values(), undone)
    return found


def _waits(kept: Kept | None) -> bool:
    return kept is None or kept.state == "failed"


def _excuses(world: Truth) -> dict[str, str]:
    """Return the channels in which something happened that no client can know: channel → what it was."""
    emulator = world.emulator
    found: dict[str, str] = {}
    for one in emulator.participants:
        if one.sid in emulator.truth.hidden:
            found[one.channel_sid] = "a list left somebody out"
    for request in emulator.requests:
        if request.fault is Fault.ALREADY_MEMBER:
            found[request.channel_sid] = "said to be a member"
        elif request.fault is Fault.STRANGER_JOINS:
            found[request.channel_sid] = "a stranger joined as an answer was lost"
        elif request.fault is Fault.UNRECORDED_SID:
            found[request.channel_sid] = TAKEN
    return found


def _taken(kept: Iterable[Kept], excuses: Mapping[str, str]) -> set[str]:
    """Return the sids that a row of such a channel has, and another row should have."""
    return {one.sid for one in kept if one.sid and excuses.get(one.channel_sid) == TAKEN}


def _is_right(kept: Kept | None, made: Sequence[Participant]) -> bool:
    """Tell whether a row needs no excuse."""
    if kept is None or kept.state not in {"created", "closed"}:
        return kept is not None and kept.state in {"rejected", "parked"}
    return [one.sid for one in made] == [kept.sid]


def _judge(
    found: Audit,
    wanted: Wanted,
    kept: Kept | None,
    made: list[Participant],
    by_address: Mapping[str, str | None],
) -> None:
    state = kept.state if kept else "absent"
    if len(made) > 1:
        found.blame("duplicates", f"{wanted.key} ({state}) was made {len(made)} times: {[one.sid for one in made]}")
    if any((one.channel_sid, one.type) != (wanted.channel_sid, wanted.type) for one in made):
        found.blame("wrong", f"{wanted.key} was made in another channel or as another type")
    match state:
        case "created" | "closed":
            _judge_created(found, wanted, kept, made, by_address)
        case "in_doubt" if kept is not None:
            found.doubt(wanted, kept, len(made))
        case "rejected" | "parked" if not wanted.open:
            found.refused += 1
            if made:
                found.blame("wrong", f"{wanted.key} is {state}, but was made")
        case _:
            found.blame("lost", f"{wanted.key} is {state}{f' ({kept.code})' if kept else ''}, made {len(made)} times")


def _judge_created(
    found: Audit, wanted: Wanted, kept: Kept | None, made: list[Participant], by_address: Mapping[str, str | None]
) -> None:
    sid = kept.sid if kept else None
    found.created += 1
    found.closed += bool(kept and kept.state == "closed")
    found.reconciled += bool(kept and kept.reconciled)
    if not made:
        found.blame("lost", f"{wanted.key} is created as {sid}, but was never made")
    elif sid not in {one.sid for one in made}:
        whose = by_address.get(sid or "", "nobody") or "a stranger"
        found.blame("wrong", f"{wanted.key} has {sid}, which is {whose}'s; its own is {made[0].sid}")


def _judge_sids(found: Audit, kept: Iterable[Kept]) -> None:
    """No sid may be on two rows."""
    keys: defaultdict[str, list[str]] = defaultdict(list)
    for one in kept:
        if one.sid is not None:
            keys[one.sid.casefold()].append(one.key)
    for sid, several in keys.items():
        if len(several) > 1:
            found.blame("wrong", f"{sid} is on {len(several)} rows: {several}")


def _judge_closed(found: Audit, world: Truth, kept: Iterable[Kept], undone: frozenset[int]) -> None:
    """What is recorded as closed is closed, and nobody else is: no stranger, and no row of another run."""
    rows = {one.sid: one for one in kept if one.sid is not None}
    closed = {one.sid for one in world.emulator.participants if one.status != "active"}
    for one in world.emulator.participants:
        row = rows.get(one.sid)
        if row is not None and row.state == "closed" and one.sid not in closed:
            if one.sid in world.emulator.truth.hidden:
                found.undecidable["a list left somebody out"] += 1
            else:
                found.blame("wrong", f"{row.key} is closed, but {one.sid} is still active")
        if one.sid in closed and (row is None or (row.state != "closed" and row.run not in undone)):
            whose = "a stranger" if one.foreign else row.key if row else "a row that has another sid"
            found.blame("wrong", f"{one.sid} was closed, which is {whose}")


# ---- doubts that stay -----------------------------------------------------------------------------------------------


def _judge_doubts(found: Audit, world: Truth, kept: Mapping[str, Kept]) -> None:
    """A row may stay in doubt only where the list of its channel cannot tell."""
    wanted = {one.key: one for one in world.wanted}
    taken = _taken(kept.values(), _excuses(world))
    for one in kept.values():
        answer = _told_by_list(world.emulator, wanted[one.key], one, kept.values()) if one.state == "in_doubt" else ""
        if answer and answer.removeprefix(_CREATED_AS) not in taken:
            found.problems.append(f"in doubt: {one.key} ({one.code}) stays in doubt, but the list says: {answer}")


def _told_by_list(emulator: Emulator, wanted: Wanted, doubt: Kept, kept: Iterable[Kept]) -> str:
    """Return what a list without faults tells about a row, or nothing."""
    if emulator.truth.condition(doubt.channel_sid) is Condition.MISSING:  # its list is not to be had
        return ""
    here = [one for one in kept if one.channel_sid == doubt.channel_sid]
    if sum(one.state in {"started", "in_doubt"} for one in here) > 1:
        return ""
    known = {one.sid for one in here} | set(_sids(doubt.baseline))
    new = [one for _, one in emulator.truth.listed(doubt.channel_sid, start=0) if one.sid not in known]
    if not new:
        return "not created"
    if len(new) > 1 or new[0].type != wanted.type:
        return ""
    echoed = (new[0].routing_properties or {}) if emulator.behaviour.echo_routing is not Echo.NULL else {}
    matches = bool(wanted.routing) and wanted.routing == {name: echoed.get(name) for name in wanted.routing or {}}
    return f"{_CREATED_AS}{new[0].sid}" if doubt.baseline is not None or matches else ""


def _sids(baseline: str | None) -> list[str]:
    return baseline.strip("[]").replace('"', "").replace(" ", "").split(",") if baseline else []


# ---- faults and what became of them ---------------------------------------------------------------------------------

FATES = ("met", "made", "answered", "adopted", "in doubt", "not made")


def fates(world: World, ledger: Path) -> dict[str, Counter[str]]:
    """Return what a request met → how many did, were made, were known by their answer, by a list, or not at all."""
    kept = {one.sid: one for one in kept_in(ledger).values() if one.sid}
    table: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for request in world.emulator.requests:
        if request.fault is not None:
            name = f"{request.fault} {request.when}"
        elif request.client_gone:
            name = "client gone"
        else:
            name = "429" if request.status == 429 else "refused" if (request.status or 200) >= 300 else "no fault"
        row = table[name]
        row["met"] += 1
        if request.made is None:
            row["not made"] += 1
            continue
        row["made"] += 1
        known = kept.get(request.made)
        row["in doubt" if known is None else "adopted" if known.reconciled else "answered"] += 1
    return dict(sorted(table.items()))


def add_fates(one: dict[str, Counter[str]], other: dict[str, Any]) -> dict[str, Counter[str]]:
    """Return the sum of two such tables."""
    return {name: one.get(name, Counter()) + other.get(name, Counter()) for name in sorted({*one, *other})}
