"""What a list says about a row in doubt, and when it may be believed."""

import json
from functools import partial
from urllib.parse import urlencode

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes import FakeService, free_traffic
from tests.samples_of import row, sid
from tests.virtual_clock import virtual_time
from worker.config import Doubt as DoubtSettings
from worker.config import Retry as RetrySettings
from worker.ledger import Surroundings
from worker.model import Listed, Listing, Row, Unlisted
from worker.reconcile import (
    REFUSED_SECONDS,
    REFUSING_CHANNELS,
    Absent,
    Adopted,
    Doubt,
    Evidence,
    Later,
    NotCreated,
    Reconciler,
    Undecided,
    decide,
)

OURS, OTHER, THIRD = sid("UT", 1), sid("UT", 2), sid("UT", 3)
TASK = "WT" + "1" * 32


def wanted(**routing: str) -> Row:
    """Return a customer with this routing."""
    form = {"Type": "customer", "MediaProperties": "{}"} | (
        {"RoutingProperties": json.dumps(routing)} if routing else {}
    )
    return row(1)._replace(body=urlencode(form).encode())


def listed(name: str | None = OURS, kind: str | None = "customer", **routing: str) -> Listed:
    """Return a participant as the API lists it."""
    return Listed(name, kind, routing or None)


def around(*known: str, baseline: tuple[str, ...] | None = (), unresolved: int = 1) -> Surroundings:
    """Return what the ledger knows of the channel."""
    return Surroundings(frozenset(known), None if baseline is None else frozenset(baseline), unresolved)


@pytest.mark.parametrize(
    ("participants", "known", "conclusion"),
    [
        ([], around(), Absent(())),
        ([listed(OTHER)], around(OTHER), Absent((OTHER,))),
        ([listed(OTHER)], around(baseline=(OTHER,)), Absent((OTHER,))),
        ([listed(OTHER, "agent"), listed()], around(OTHER), Adopted(OURS)),
        ([listed(OTHER), listed()], around(baseline=(OTHER,)), Adopted(OURS)),
        ([listed(kind=None)], around(), Adopted(OURS)),
        ([], around(baseline=None), Absent(())),
        ([listed(OTHER)], around(OTHER, baseline=None), Absent((OTHER,))),
    ],
)
def test_the_difference_decides(participants: list[Listed], known: Surroundings, conclusion: Evidence) -> None:
    """What is listed, less what the ledger knows, less what was there before: nobody, or exactly ours."""
    assert decide(wanted(), participants, known) == conclusion


@pytest.mark.parametrize(
    ("participants", "known", "candidates"),
    [
        ([listed(), listed(OTHER)], around(), (OURS, OTHER)),
        ([listed(kind="agent")], around(), (OURS,)),
        ([listed()], around(baseline=None), (OURS,)),
        ([listed(None)], around(), ()),
        ([listed(), listed(None)], around(), (OURS,)),
        ([listed()], around(unresolved=2), (OURS,)),
        ([], around()._replace(seen=frozenset({OURS})), (OURS,)),
        ([listed(OTHER)], around()._replace(seen=frozenset({OURS})), (OTHER, OURS)),
        ([], around(unresolved=2), ()),
    ],
    ids=[
        "two",
        "other type",
        "no baseline",
        "no sid",
        "one without",
        "two doubts",
        "two doubts and nobody",
        "shown before",
        "another shown before",
    ],
)
def test_what_cannot_be_told_is_left_to_a_person(
    participants: list[Listed], known: Surroundings, candidates: tuple[str, ...]
) -> None:
    """A list that shows too many, too little, or less than an earlier one; all that may be ours is named."""
    conclusion = decide(wanted(), participants, known)
    assert isinstance(conclusion, Undecided)
    assert conclusion.candidates == candidates


def test_sids_are_compared_without_case() -> None:
    """In which letters a list writes them says nothing."""
    shouted = [listed(f"UT{sid_of[2:].upper()}") for sid_of in (OURS, OTHER)]
    known = Surroundings(frozenset({OURS}), frozenset({OTHER}), 1, seen=frozenset({OURS.casefold()}))
    assert isinstance(decide(wanted(), shouted, known), Absent)


@pytest.mark.parametrize(
    ("sent", "echoed", "baseline", "adopted"),
    [
        ({"task_sid": TASK}, {"task_sid": TASK, "more": "x"}, None, True),
        ({"task_sid": TASK}, {"task_sid": TASK}, (), True),
        ({"task_sid": TASK}, {"task_sid": "WT" + "2" * 32}, (), False),
        ({"task_sid": "WTAB"}, {"task_sid": "WTab"}, (), True),
        ({"task_sid": "WTAB"}, {"task_sid": "WTab"}, None, True),
        ({"task_sid": TASK}, {}, (), True),
        ({"task_sid": TASK}, {}, None, False),
        ({"task_sid": ""}, {"task_sid": ""}, None, False),
        ({"other": "x"}, {"other": "x"}, None, False),
        ({}, {"task_sid": TASK}, (), True),
    ],
)
def test_routing_can_support_a_match_and_contradict_it_and_its_absence_proves_nothing(
    sent: dict[str, str], echoed: dict[str, str], baseline: tuple[str, ...] | None, *, adopted: bool
) -> None:
    """An echo may be null or extended; an equal task, worker or reservation identifies, an unequal one excludes."""
    conclusion = decide(wanted(**sent), [listed(**echoed)], around(baseline=baseline))
    assert isinstance(conclusion, Adopted if adopted else Undecided)


def test_emptiness_is_judged_before_any_filter() -> None:
    """A new participant of another type does not make the row absent: it would be sent a second time."""
    assert not isinstance(decide(wanted(), [listed(kind="agent")], around()), Absent)


SIDS = st.sampled_from([OURS, OTHER, THIRD])


@given(
    st.lists(st.builds(Listed, SIDS, st.sampled_from(["customer", "agent"]), st.none()), unique_by=lambda one: one.sid),
    st.frozensets(SIDS),
    st.none() | st.frozensets(SIDS),
)
def test_nobody_is_adopted_who_was_known_or_there_before(
    participants: list[Listed], known: frozenset[str], baseline: frozenset[str] | None
) -> None:
    """Whatever is listed: an adopted sid is new, the only new one, and of the right type."""
    conclusion = decide(wanted(), participants, Surroundings(known, baseline, 1))
    new = {one.sid for one in participants} - known - (baseline or frozenset())
    if isinstance(conclusion, Adopted):
        assert new == {conclusion.sid}
        assert Listed(conclusion.sid, "customer", None) in participants
    assert isinstance(conclusion, Absent) == (not new)


# ---- looking --------------------------------------------------------------------------------------------------------


class Bench:
    """A reconciler in virtual time with a fake service."""

    def __init__(self, *, policy: str = "reconcile", baseline: bool = True, settle_seconds: float = 60) -> None:
        self.service = FakeService()
        self.refused: list[str] = []
        self.draining = anyio.Event()
        doubt = DoubtSettings.model_validate({"policy": policy, "baseline": baseline, "settle_seconds": settle_seconds})
        self.reconciler = Reconciler(
            self.service,
            free_traffic(self.draining, retry=RetrySettings(attempts=3)),
            doubt,
            self.draining,
            on_refused=self.refused.append,
        )

    async def conclude(self, doubt: Doubt, wanted: Row, known: Surroundings) -> tuple[object, list[float]]:
        """Look again and again until something is concluded; return that and when each look was."""
        times = []
        while True:
            times.append(anyio.current_time())
            found = await self.reconciler.look(wanted, doubt, known)
            if not isinstance(found, Later):
                return found, times
            await anyio.sleep_until(found.at)


@virtual_time
async def test_absence_is_believed_only_after_the_settle_time() -> None:
    """Looks at 0, 1, 5, 15 and 60 s; only the last one, begun after the settle time, proves that nothing was made."""
    bench = Bench()
    assert await bench.conclude(Doubt(1, 0.0), wanted(), around()) == (NotCreated(()), [0, 1, 5, 15, 60])


@virtual_time
async def test_a_participant_that_shows_late_is_found() -> None:
    """A service that finishes after the client has gone: the sid is adopted as soon as it is listed."""
    bench = Bench()
    bench.service.late[row(1).channel_sid] = [listed()]
    found, times = await bench.conclude(Doubt(1, 0.0), wanted(), around())
    assert (found, times) == (Adopted(OURS), [0, 1])


@virtual_time
async def test_a_doubt_of_an_earlier_run_counts_from_the_opening_of_the_ledger() -> None:
    """The clock that counts is this process's own."""
    bench = Bench(settle_seconds=10)
    await anyio.sleep(100)
    found, times = await bench.conclude(Doubt(1, 100.0), wanted(), around())
    assert (found, times) == (NotCreated(()), [100, 101, 105, 110])


@virtual_time
async def test_a_list_that_cannot_be_had_leaves_the_doubt() -> None:
    """It is tried again a few times, and again after the settle time; then a person decides."""
    bench = Bench()
    bench.service.list_answer = Unlisted("status 500")
    found, times = await bench.conclude(Doubt(1, 0.0), wanted(), around())
    assert found == Undecided("its channel cannot be listed: status 500")
    assert len(times) == 2
    assert bench.service.lists.total() == 4, "three tries, and later one: its list has used them up"
    assert bench.refused == []
    assert bench.reconciler.resolves


@virtual_time
async def test_a_channel_whose_list_fails_is_not_asked_again_and_again_for_every_row() -> None:
    """Once for each row, until it is answered; other channels have all their tries."""
    bench = Bench()
    bench.service.list_answer = Unlisted("status 500", failed=True)
    for _ in range(4):
        assert await bench.reconciler.baseline(row(1)) is None
    assert bench.service.lists.total() == 3 + 3
    bench.service.list_answer = None
    assert await bench.reconciler.baseline(row(1)) == ()
    bench.service.list_answer = Unlisted("status 500", failed=True)
    assert await bench.reconciler.baseline(row(1)) is None
    assert bench.service.lists.total() == 3 + 3 + 1 + 3


@pytest.mark.parametrize("answer", [Unlisted("status 403", refused=True)])
@virtual_time
async def test_refused_lists_are_said_once_and_not_asked_for_again(answer: Unlisted) -> None:
    """From then on there are no baselines, and doubts wait for a person."""
    bench = Bench()
    bench.service.list_answer = answer
    for number in range(8):
        assert await bench.reconciler.baseline(row(number)) is None
    assert bench.refused == ["status 403"]
    assert bench.service.lists.total() == REFUSING_CHANNELS
    assert not bench.reconciler.resolves
    assert not bench.reconciler.wants_baselines


@virtual_time
async def test_refused_lists_are_tried_again_and_may_come_back() -> None:
    """Rights are given, gateways are repaired: an import of hours is not left without lists for a minute's refusal."""
    bench, wants = Bench(), []
    for answer in (Unlisted("status 401", refused=True), Unlisted("status 401", refused=True), None):
        bench.service.list_answer = answer
        for number in range(8):
            await bench.reconciler.baseline(row(number))
        wants.append(bench.reconciler.wants_baselines)
        await anyio.sleep(REFUSED_SECONDS)
        assert bench.reconciler.resolves
    assert wants == [False, False, True]
    assert bench.service.lists.total() == REFUSING_CHANNELS + 1 + 8
    assert bench.refused == ["status 401"]


@virtual_time
async def test_single_channels_that_refuse_say_nothing_about_the_others() -> None:
    """One 401, one 403 of one channel, however often, and any number with a list between them."""
    bench = Bench()
    for number in range(20):
        bench.service.list_answer = Unlisted("status 403", refused=True)
        assert await bench.reconciler.baseline(row(1)) is None
        assert await bench.reconciler.baseline(row(2)) is None
        bench.service.list_answer = None
        assert await bench.reconciler.baseline(row(number + 3)) == ()
    assert bench.refused == []
    assert bench.reconciler.wants_baselines


@virtual_time
async def test_missing_channels_are_no_refusal() -> None:
    """Any number of wrong channels in a file does not switch the protection of the others off."""
    bench = Bench()
    bench.service.list_answer = Unlisted("status 404", missing=True)
    for number in range(9):
        await bench.reconciler.baseline(row(number))
    assert bench.reconciler.wants_baselines
    assert bench.refused == []


@virtual_time
async def test_a_throttled_list_waits_as_it_is_told() -> None:
    """Retry-After holds all lists, up to the cap."""
    bench = Bench()
    bench.service.list_answer = Unlisted("too many requests", throttled=True, retry_after_seconds=7)

    async def relent() -> None:
        await anyio.sleep(1)
        bench.service.list_answer = None

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(relent)
        assert await bench.reconciler.baseline(wanted()) == ()
    assert anyio.current_time() == pytest.approx(7)
    assert bench.service.lists.total() == 2


@virtual_time
async def test_a_drain_ends_the_waiting_for_a_list() -> None:
    """Nobody asks again when the run stops."""
    bench = Bench()
    bench.service.list_answer = Unlisted("status 500", retry_after_seconds=100)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(partial(bench.reconciler.baseline, wanted()))
        await anyio.sleep(3)
        bench.draining.set()
    assert anyio.current_time() == 3
    assert bench.service.lists.total() == 1


@virtual_time
async def test_a_baseline_with_an_entry_without_a_sid_is_none() -> None:
    """Who cannot be named before cannot be told from ours afterwards."""
    bench = Bench()
    bench.service.list_answer = Listing((listed(None), listed(OTHER)))
    assert await bench.reconciler.baseline(wanted()) is None


@pytest.mark.parametrize(
    ("policy", "baseline", "resolves", "wants"),
    [("reconcile", True, True, True), ("reconcile", False, True, False), ("hold", True, False, False)],
)
@virtual_time
async def test_the_settings_say_whether_to_list(policy: str, *, baseline: bool, resolves: bool, wants: bool) -> None:
    """doubt.policy and doubt.baseline."""
    reconciler = Bench(policy=policy, baseline=baseline).reconciler
    assert (reconciler.resolves, reconciler.wants_baselines) == (resolves, wants)


def test_a_participant_that_is_listed_twice_is_one() -> None:
    """A page that shifts while it is read shows its last entry again on the next one."""
    assert decide(wanted(), [listed(), listed()], around()) == Adopted(OURS)


@virtual_time
async def test_being_throttled_uses_up_no_attempt_of_a_list() -> None:
    """A busy account must not cost a channel its baseline: it is asked for until it comes, within the budget."""
    bench = Bench()
    bench.service.list_answer = Unlisted("too many requests", throttled=True, retry_after_seconds=1)

    async def relent() -> None:
        await anyio.sleep(9.5)
        bench.service.list_answer = None

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(relent)
        assert await bench.reconciler.baseline(wanted()) == ()
    assert bench.service.lists.total() == 11


@virtual_time
async def test_a_list_that_is_throttled_for_ever_is_given_up_with_the_budget() -> None:
    """Every wait has a bound."""
    bench = Bench()
    bench.service.list_answer = Unlisted("too many requests", throttled=True, retry_after_seconds=100)
    assert await bench.reconciler.baseline(wanted()) is None
    assert anyio.current_time() == pytest.approx(900)
