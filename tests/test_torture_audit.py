"""The audit of `make torture`: it finds what must not be, and excuses only what no client can know."""

import json

import pytest

from tests.samples_of import sid
from tests.torture.audit import Audit, Kept, audit
from tests.torture.world import Scale, Wanted, World, unkindness
from worker.emulator import FAULTS, UNDECIDABLE, Behaviour, Call, Fault, When
from worker.emulator.form import Wanted as Form

RUN = 1


class Bench:
    """A world in which each row was made, and a ledger that says so."""

    def __init__(self) -> None:
        self.world = World(Scale(rows=25, faults=0, list_faults=0, list_lag=0), 1)
        rows = sorted(self.world.wanted, key=lambda one: int(one.key.partition(":")[2]))
        self.before = [one.sid for one in self.world.emulator.participants]
        self.kept: dict[str, Kept] = {}
        for one in rows:
            if one.open:
                self.make(one)
                self.keep(one, sid=self.sid(one))
            else:
                self.keep(one, state="rejected")
        self.rows = [one for one in rows if one.open]
        """The open ones: the first is in another channel than the second, and in the third's."""

    def sid(self, wanted: Wanted, time: int = 0) -> str:
        """Return what a row's participant is called."""
        return sid("UT", f"{wanted.key}/{time}")

    def make(self, wanted: Wanted, time: int = 0, *, channel: str = "") -> None:
        """Let a row's participant exist."""
        form = Form(wanted.type, {"address": wanted.address}, wanted.routing)
        self.world.emulator.make("KD" + "0" * 32, channel or wanted.channel_sid, form, sid=self.sid(wanted, time))

    def keep(self, wanted: Wanted, *, state: str = "created", sid: str | None = None, look: str | None = None) -> None:
        """Record a row."""
        self.kept[wanted.key] = Kept(
            wanted.key, state, sid, 0, None, wanted.channel_sid, RUN, json.dumps(self.before), look
        )

    def unmake(self, wanted: Wanted) -> None:
        """Let a row's participant never have been made."""
        truth = self.world.emulator.truth
        del truth.participants[self.sid(wanted)]
        truth._channels[wanted.channel_sid].remove(self.sid(wanted))

    def meet(self, wanted: Wanted, fault: Fault) -> None:
        """Note that a create in a row's channel met a fault."""
        truth = self.world.emulator.truth
        number = truth.arrive(0.0, "KD" + "0" * 32, wanted.channel_sid)
        truth.amend(number, fault=fault, when=When.BEFORE)

    def audit(self, *undone: int) -> Audit:
        """Compare."""
        return audit(self.world, self.kept, frozenset(undone))


@pytest.fixture
def bench() -> Bench:
    """Return one in which all is well."""
    return Bench()


def test_all_is_well(bench: Bench) -> None:
    """Each open row is created, the others are refused."""
    found = bench.audit()
    assert found.problems == []
    assert (found.made, found.created, found.refused) == (10, 10, 15)


def test_a_row_made_twice_or_not_at_all_is_found(bench: Bench) -> None:
    """By its address, whatever the ledger says."""
    first, second = bench.rows[:2]
    bench.make(first, 1)
    bench.unmake(second)
    found = bench.audit()
    assert (found.duplicates, found.lost, found.wrong) == (1, 1, 0)


def test_the_sid_of_another_row_or_of_a_stranger_is_found(bench: Bench) -> None:
    """On its row, and again where a sid is on two rows, however it is written."""
    first, second, third = bench.rows[:3]
    bench.keep(first, sid=bench.sid(second).upper())
    bench.keep(third, sid=bench.world.emulator.add_foreign(third.channel_sid).sid)
    assert bench.audit().wrong == 3


def test_another_channel_is_found(bench: Bench) -> None:
    """A participant belongs into the channel that its row names."""
    [first] = bench.rows[:1]
    bench.unmake(first)
    bench.make(first, channel=bench.rows[1].channel_sid)
    assert bench.audit().wrong == 1


def test_what_is_closed_and_what_is_not(bench: Bench) -> None:
    """Closed in the ledger and open in the service, closed though of another run, and a closed stranger."""
    first, second, third = bench.rows[:3]
    truth = bench.world.emulator.truth
    bench.keep(first, state="closed", sid=bench.sid(first))
    assert bench.audit(RUN).wrong == 1
    truth.update(bench.sid(first), "closed")
    assert bench.audit(RUN).problems == []
    truth.update(bench.sid(second), "closed")
    assert (bench.audit().wrong, bench.audit(RUN).wrong) == (1, 0)
    truth.update(bench.world.emulator.add_foreign(third.channel_sid).sid, "closed")
    assert bench.audit(RUN).wrong == 1


@pytest.mark.parametrize("fault", [Fault.ALREADY_MEMBER, Fault.STRANGER_JOINS])
def test_a_channel_in_which_nobody_could_know_the_truth_is_counted_apart(bench: Bench, fault: Fault) -> None:
    """Only what is not as it should be, and only there."""
    first, second = bench.rows[:2]
    for one in (first, second):
        bench.keep(one, state="existed")
    assert bench.audit().lost == 2
    bench.meet(first, fault)
    found = bench.audit()
    assert (found.lost, found.undecidable.total()) == (1, 1)


def test_a_sid_that_was_given_to_another_row_before_its_own_was_recorded_is_counted_apart(bench: Bench) -> None:
    """Of both rows: the one that has it, and the one that it belongs to."""
    first, second = bench.rows[:2]
    bench.unmake(second)
    bench.keep(second, sid=bench.sid(first))
    bench.keep(first, state="in_doubt")
    assert bench.audit().problems
    bench.meet(second, Fault.UNRECORDED_SID)
    found = bench.audit()
    assert (found.problems, found.undecidable.total(), found.in_doubt) == ([], 2, 0)


def test_a_doubt_that_a_list_decides_is_a_problem_and_each_has_its_reason(bench: Bench) -> None:
    """Reasons are counted without their numbers."""
    first, second = bench.rows[:2]
    bench.keep(first, state="in_doubt", look="3 participants could be this row's")
    bench.world.emulator.add_foreign(second.channel_sid)
    bench.keep(second, state="in_doubt", look="4 participants could be this row's")
    found = bench.audit()
    assert found.reasons == {"n participants could be this row's": 2}
    assert (found.in_doubt, len(found.problems)) == (2, 1)


def test_each_fault_that_can_be_is_as_likely_and_those_that_nobody_sees_through_are_rare() -> None:
    """The shares add up, and spared faults do not happen."""
    settings = unkindness(0.2, 0.1, 0.3, frozenset({Fault.RESET}))
    behaviour = Behaviour(**settings)
    for odds, share, call in [
        (behaviour.create_odds, 0.2, Call.CREATE),
        (behaviour.list_odds, 0.1, Call.LIST),
        (behaviour.update_odds, 0.3, Call.UPDATE),
    ]:
        assert sum(odds.values()) == pytest.approx(share)
        assert {one.what for one in odds} == {*FAULTS[call]} - {Fault.RESET}
        likely = {value for one, value in odds.items() if one.what not in UNDECIDABLE}
        assert len(likely) == 1
        assert all(value < min(likely) for one, value in odds.items() if one.what in UNDECIDABLE)
