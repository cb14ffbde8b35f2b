"""What every ledger promises, as one suite: subclass `LedgerContract` and give it a place where the ledger is kept."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests.samples_of import row, sid
from worker.cluster import cluster_id
from worker.errors import LedgerError
from worker.ledger import (
    BASELINE_FIRST,
    KNOWN_SID,
    SID_KNOWN,
    Baseline,
    Close,
    Decision,
    Entry,
    Finding,
    Free,
    Intent,
    Known,
    Ledger,
    Look,
    Reopen,
    Settle,
    SourceFile,
    Standing,
    Surroundings,
    Thin,
    Unwaive,
    Verification,
    Verified,
    Waive,
    Why,
    pgledger,
    record_digest,
    standing_of,
    tables,
)
from worker.ledger.opening import open_readonly
from worker.ledger.transaction import milliseconds
from worker.ledger.verifying import CreatedRows, Scope
from worker.ledger.view import View
from worker.ledger.waiving import waived_groups
from worker.model import Created, Existed, Failed, InDoubt, Outcome, Parked, Rejected, Row, Sample, Settlement, State
from worker.place import Place as Location

SOURCE = SourceFile("/data/a.csv", "csv", "utf-8-sig", ",", "a,b\n")

OUTCOMES: tuple[Outcome, ...] = (
    Created(sid("UT", 1)),
    Existed("50433", "is a member already"),
    Rejected("20001", "Type is wrong"),
    Parked("45354", "the channel is closed"),
    Failed("503", "used up its attempts"),
    InDoubt("timeout", "no answer in time"),
)
OPEN_AGAIN = (State.REJECTED, State.PARKED, State.FAILED)
BARRIERS = (State.STARTED, State.CREATED, State.EXISTED, State.WAIVED, State.IN_DOUBT, State.CLOSED)


class Place(Protocol):
    """Where one ledger under test is kept, and what a test may see of it from outside."""

    opener: str
    """Python that opens the ledger as `ledger` in another process of this machine."""

    def open(self) -> Ledger:
        """Open the ledger for writing; the first time it is new."""
        ...

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows as they are exported, local rejections included."""
        ...

    def payloads(self) -> dict[str, tuple[str, bytes]]:
        """Return key → record and request, for the rows of which they are kept."""
        ...

    def findings(self) -> list[tuple[str, str, int, int | None]]:
        """Return kind, path, line and the run that retired it, for each finding, in order; None: it stands."""
        ...

    def looks(self) -> dict[str, tuple[str, tuple[str, ...]]]:
        """Return key → reason and candidates, for the rows that have a look that did not decide."""
        ...

    def decisions(self) -> list[tuple[str, int, str, str, str | None, str | None, int]]:
        """Return key, run, who, what, sid, reason, time in milliseconds since 1970, for each decision, in order."""
        ...

    def waivers(self) -> dict[bytes, tuple[int, str, str, int]]:
        """Return the digest of a record → run, who, reason and the time in milliseconds since 1970."""
        ...

    def verifications(self) -> dict[str, tuple[int, str, str | None]]:
        """Return key → run, result and detail of what was verified last."""
        ...

    def samples(self, run: int) -> list[Sample]:
        """Return the samples of a run in their order."""
        ...

    def decide(self, key: str, state: State) -> None:
        """Bring a row to a state that only people bring it to: waived or closed."""
        ...

    def forget(self, key: str) -> None:
        """Drop a row's record and request, as pruning does."""
        ...


def located(desk: "Desk") -> Location:
    """Return where the ledger of a desk is, for a look at it."""
    assert isinstance(desk.ledger, tables.Tables)
    return desk.ledger.path


class Desk:
    """An open ledger in a run, with an input registered."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.run = ledger.start_run("run")
        self.source = ledger.register(SOURCE)

    def begin_next_run(self) -> int:
        """End this run and begin the next one; returns its number."""
        self.ledger.end_run(0, "finished", "{}")
        self.run = self.ledger.start_run("run")
        return self.run

    def row(self, number: int, channel: int | None = None, *, key: str | None = None, content: str = "") -> Row:
        """Return a made row of the registered input."""
        return row(number, channel, key=key, content=content)._replace(source=self.source)

    def intend(self, wanted: Row) -> int:
        """Write the intent of a row that may be sent; returns its number."""
        [number] = self.ledger.write([Intent(wanted)])
        assert isinstance(number, int)
        return number

    def bring(self, wanted: Row, outcome: Outcome, *, attempts: int = 1) -> int:
        """Bring a row from nothing to an outcome. OUTCOMES[0]: with a participant of its own."""
        number = self.intend(wanted)
        if outcome is OUTCOMES[0]:
            outcome = Created(sid("UT", number))
        assert self.ledger.write([Settle(number, Settlement(wanted.key, outcome, 200, attempts, "RQ0"))]) == [None]
        return number

    def doubt(self, wanted: Row) -> int:
        """Bring a row into doubt; returns its number."""
        return self.bring(wanted, OUTCOMES[5])


@contextmanager
def at_work(place: Place) -> Iterator[Desk]:
    """Open a ledger, begin a run, and give the ledger back at the end."""
    ledger = place.open()
    try:
        yield Desk(ledger)
    finally:
        ledger.close()


def bring_to(desk: Desk, place: Place, wanted: Row, state: State) -> None:
    """Bring a row to any of the states."""
    by_answer = {
        State.CREATED: OUTCOMES[0],
        State.EXISTED: OUTCOMES[1],
        State.REJECTED: OUTCOMES[2],
        State.PARKED: OUTCOMES[3],
        State.FAILED: OUTCOMES[4],
        State.IN_DOUBT: OUTCOMES[5],
        State.WAIVED: OUTCOMES[2],
        State.CLOSED: OUTCOMES[0],
    }
    if state is State.STARTED:
        desk.intend(wanted)
        return
    desk.bring(wanted, by_answer[state])
    if state in {State.WAIVED, State.CLOSED}:
        place.decide(wanted.key, state)


CHILD = """
import os, signal, sys
from worker.ledger import Intent, Settle, SourceFile
from worker.model import Created, Settlement
from tests.samples_of import row, sid
{opener}
ledger.start_run("run")
source = ledger.register(SourceFile("/data/a.csv", "csv", "utf-8-sig", ",", "a,b\\n"))
{act}
"""


@contextmanager
def child(place: Place, act: str) -> Iterator["subprocess.Popen[str]"]:
    """Run Python on the ledger in another process, which is gone when the block ends."""
    root = str(Path(__file__).parent.parent)
    with subprocess.Popen(
        [sys.executable, "-c", CHILD.format(opener=place.opener, act=act)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": root},
    ) as process:
        try:
            yield process
        finally:
            process.kill()


class LedgerContract:
    """The tests. A subclass supplies the fixture `place`."""

    @pytest.fixture
    def place(self) -> Place:
        """Return a place with no ledger yet."""
        raise NotImplementedError

    @pytest.fixture
    def desk(self, place: Place) -> Iterator[Desk]:
        """Return a new ledger in its first run."""
        with at_work(place) as desk:
            yield desk

    # ---- intents ----------------------------------------------------------------------------------------------------

    def test_an_input_is_known_by_its_whole_header_however_wide(self, desk: Desk) -> None:
        """An index of a database takes less than an export of hundreds of columns has."""
        wide = SOURCE._replace(header=os.urandom(20_000).hex())
        number = desk.ledger.register(wide)
        assert desk.ledger.register(wide._replace(header=wide.header + "x")) != number
        assert desk.ledger.register(wide._replace(profile="other")) == number

    def test_a_new_row_is_started_with_all_that_it_takes_to_send_it_again(self, desk: Desk, place: Place) -> None:
        """An intent stores where the row came from and where it goes, its record and its request."""
        wanted = desk.row(1)
        desk.intend(wanted)
        [found] = place.rows()
        assert (found["key"], found["state"], found["run"]) == (wanted.key, "started", desk.run)
        assert (found["source"], found["line"], found["type"]) == (SOURCE.path, wanted.line, "customer")
        assert (found["interaction_sid"], found["channel_sid"]) == (wanted.interaction_sid, wanted.channel_sid)
        assert found["started_at"]
        for empty in ("sid", "code", "reason", "http_status", "request_id", "settled_at"):
            assert found[empty] is None
        assert place.payloads() == {wanted.key: (wanted.text, wanted.body)}

    def test_numbers_belong_to_rows(self, desk: Desk) -> None:
        """Rows of one group get numbers of their own, in the group's order, also when they share a channel."""
        numbers = desk.ledger.write([Intent(desk.row(n, n % 3)) for n in range(20)])
        assert len(set(numbers)) == 20

    @pytest.mark.parametrize("state", OPEN_AGAIN)
    def test_a_row_that_was_not_created_may_be_sent_again(self, desk: Desk, place: Place, state: State) -> None:
        """An intent of a later run starts a rejected, parked or failed row over, with what the input holds now."""
        bring_to(desk, place, desk.row(1, key="k"), state)
        desk.begin_next_run()
        again = desk.row(2, key="k", content="repaired")._replace(type="agent", line=77)
        desk.intend(again)
        [found] = place.rows()
        assert (found["state"], found["type"], found["line"]) == ("started", "agent", 77)
        assert found["run"] == desk.run
        assert (found["channel_sid"], found["interaction_sid"]) == (again.channel_sid, again.interaction_sid)
        for empty in ("sid", "code", "reason", "http_status", "request_id", "settled_at"):
            assert found[empty] is None
        assert place.payloads() == {"k": (again.text, again.body)}
        assert desk.ledger.write([Intent(again)]) == [
            Known("k", again.fingerprint, State.STARTED, again.source, again.line, of_this_run=True)
        ]

    @pytest.mark.parametrize("state", BARRIERS)
    def test_input_never_overwrites_what_exists_or_may_exist(self, desk: Desk, place: Place, state: State) -> None:
        """An intent for a row that was sent, or signed off, is answered with what is known, and changes nothing."""
        first = desk.row(1, key="k")
        bring_to(desk, place, first, state)
        before = place.rows(), place.payloads()
        answer = desk.ledger.write([Intent(desk.row(2, key="k", content="other"))])
        assert answer == [Known("k", first.fingerprint, state, desk.source, first.line, of_this_run=True)]
        assert (place.rows(), place.payloads()) == before

    def test_one_key_twice_in_a_group_is_started_once(self, desk: Desk) -> None:
        """The second intent of a key in one group meets the first one."""
        wanted = desk.row(1)
        number, known = desk.ledger.write([Intent(wanted), Intent(wanted)])
        assert isinstance(number, int)
        assert isinstance(known, Known)
        assert known.state is State.STARTED

    def test_every_state_is_either_a_barrier_or_open(self) -> None:
        """The two lists of this suite are all the states there are."""
        assert {*OPEN_AGAIN, *BARRIERS} == set(State)

    @pytest.mark.parametrize("state", State)
    def test_what_reading_sends_the_ledger_takes(self, desk: Desk, place: Place, state: State) -> None:
        """Whenever a standing says send, for the same content or other, an intent is not refused."""
        for number, content in enumerate(("", "other")):
            first = desk.row(number, key=f"k{number}")
            bring_to(desk, place, first, state)
            desk.begin_next_run()
            again = desk.row(number, key=first.key, content=content)
            known = Known(first.key, first.fingerprint, state, desk.source, first.line)
            if standing_of(known, again.fingerprint) is Standing.SEND:
                assert isinstance(desk.ledger.write([Intent(again)])[0], int)

    # ---- outcomes ---------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("outcome", OUTCOMES, ids=lambda outcome: type(outcome).__name__)
    def test_an_outcome_is_recorded_with_how_it_came_about(self, desk: Desk, place: Place, outcome: Outcome) -> None:
        """Settling keeps the sid or the reason, the status, the attempts and the request id."""
        wanted = desk.row(1)
        number = desk.intend(wanted)
        desk.ledger.write([Settle(number, Settlement(wanted.key, outcome, 418, 3, "RQ1"))])
        [found] = place.rows()
        assert found["state"] == {**dict(zip(map(type, OUTCOMES), STATES, strict=True))}[type(outcome)]
        assert found["sid"] == (outcome.sid if isinstance(outcome, Created) else None)
        said = (None, None) if isinstance(outcome, Created) else (outcome.code, outcome.reason)
        assert (found["code"], found["reason"]) == said
        assert (found["http_status"], found["attempts"], found["request_id"]) == (418, 3, "RQ1")
        assert found["settled_at"] >= found["started_at"]
        assert not found["reconciled"]

    @pytest.mark.parametrize("outcome", OUTCOMES, ids=lambda outcome: type(outcome).__name__)
    def test_record_and_request_are_kept_until_nobody_needs_them(
        self, desk: Desk, place: Place, outcome: Outcome
    ) -> None:
        """They go when the row is created or existed, and stay for all that may be sent or resolved later."""
        wanted = desk.row(1)
        desk.bring(wanted, outcome)
        kept = {} if isinstance(outcome, Created | Existed) else {wanted.key: (wanted.text, wanted.body)}
        assert place.payloads() == kept

    def test_attempts_add_up_over_runs(self, desk: Desk, place: Place) -> None:
        """A row that failed after two attempts and is created by a third took three."""
        wanted = desk.row(1)
        desk.bring(wanted, OUTCOMES[4], attempts=2)
        desk.begin_next_run()
        desk.bring(wanted, OUTCOMES[0])
        assert place.rows()[0]["attempts"] == 3

    @pytest.mark.parametrize("outcome", OUTCOMES, ids=lambda outcome: type(outcome).__name__)
    def test_only_a_started_row_can_be_settled(self, desk: Desk, place: Place, outcome: Outcome) -> None:
        """A second outcome for a row is an error that names its key, and takes its whole group with it."""
        first, other = desk.row(1), desk.row(2)
        number = desk.bring(first, outcome)
        before = place.rows(), place.payloads()
        group: list[Entry] = [Intent(other), Settle(number, Settlement(first.key, Created(sid("UT", 9))))]
        with pytest.raises(LedgerError, match=first.key):
            desk.ledger.write(group)
        assert (place.rows(), place.payloads()) == before

    def test_an_outcome_for_nothing_is_an_error(self, desk: Desk) -> None:
        """A number that the ledger never gave cannot be settled."""
        with pytest.raises(LedgerError, match="nobody"):
            desk.ledger.write([Settle(4711, Settlement("nobody", OUTCOMES[0]))])

    def test_an_outcome_is_recorded_for_its_own_row_only(self, desk: Desk, place: Place) -> None:
        """A sid never gets to another row: number and key must be of one row."""
        number = desk.intend(desk.row(1))
        with pytest.raises(LedgerError, match="no longer started"):
            desk.ledger.write([Settle(number, Settlement(desk.row(2).key, OUTCOMES[0]))])
        assert [found["state"] for found in place.rows()] == ["started"]

    def test_whatever_the_service_says_can_be_recorded(self, desk: Desk, place: Place) -> None:
        """A reason with quotes, a NUL, half of a surrogate pair or an emoji does not stop the run."""
        desk.bring(desk.row(1), Rejected("20001", 'it\'s "bad"; DROP TABLE rows --'))
        desk.bring(desk.row(2), Failed("x", "half \ud83d of a pair"))
        desk.bring(desk.row(3), InDoubt("y", "whole \U0001f600, 日本"))
        reasons = [found["reason"] for found in place.rows()]
        assert reasons == ['it\'s "bad"; DROP TABLE rows --', "half ? of a pair", "whole \U0001f600, 日本"]

    # ---- a group is all or nothing ----------------------------------------------------------------------------------

    def test_a_group_is_answered_in_its_order(self, desk: Desk) -> None:
        """Intents, outcomes and findings may be mixed; each answer stands where its question stood."""
        first = desk.row(1)
        number = desk.intend(first)
        answers = desk.ledger.write(
            [
                Finding("duplicate", desk.source, 9, "k", "duplicate", "the same as a.csv:2, which counts"),
                Intent(desk.row(2)),
                Settle(number, Settlement(first.key, OUTCOMES[0])),
                Intent(first),
            ]
        )
        assert answers[0] is None
        assert isinstance(answers[1], int)
        assert answers[2] is None
        assert answers[3] == Known(
            first.key, first.fingerprint, State.CREATED, desk.source, first.line, of_this_run=True
        )

    def test_an_empty_group_is_nothing(self, desk: Desk, place: Place) -> None:
        """Writing nothing is allowed and changes nothing."""
        assert desk.ledger.write([]) == []
        assert place.rows() == []

    def test_a_failed_group_leaves_nothing_behind(self, desk: Desk, place: Place) -> None:
        """Intents and findings before the one that fails are undone."""
        finding = Finding("rejected", desk.source, 3, None, "bad", "is bad", "record\n")
        with pytest.raises(LedgerError):
            desk.ledger.write([Intent(desk.row(1)), finding, Settle(99, Settlement("k", OUTCOMES[0]))])
        assert place.rows() == []
        assert place.payloads() == {}
        assert place.findings() == []

    def test_a_failed_group_does_not_mix_up_channels(self, desk: Desk, place: Place) -> None:
        """After a group was undone, each row still stands in its own channel."""
        rows = [desk.row(number) for number in range(3)]
        with pytest.raises(LedgerError):
            desk.ledger.write([Intent(rows[0]), Settle(99, Settlement("k", OUTCOMES[0]))])
        for wanted in (rows[1], rows[0], rows[2]):
            desk.intend(wanted)
        channels = {found["key"]: found["channel_sid"] for found in place.rows()}
        assert channels == {wanted.key: wanted.channel_sid for wanted in rows}

    def test_a_ledger_goes_on_after_a_failed_group(self, desk: Desk, place: Place) -> None:
        """The next group after one that failed is taken."""
        wanted = desk.row(1)
        with pytest.raises(LedgerError):
            desk.ledger.write([Intent(wanted), Settle(99, Settlement("k", OUTCOMES[0]))])
        desk.bring(wanted, OUTCOMES[0])
        assert [found["state"] for found in place.rows()] == ["created"]

    def test_nothing_is_written_before_a_run_begins(self, place: Place) -> None:
        """Without a run there is nobody to whom a row could belong."""
        ledger = place.open()
        try:
            source = ledger.register(SOURCE)
            with pytest.raises(LedgerError):
                ledger.write([Intent(row(1)._replace(source=source))])
        finally:
            ledger.close()

    def test_a_row_of_an_unknown_input_is_refused(self, desk: Desk) -> None:
        """A row must come from a registered input, or its record could not be written back."""
        with pytest.raises(LedgerError):
            desk.ledger.write([Intent(desk.row(1)._replace(source=99))])

    # ---- findings ---------------------------------------------------------------------------------------------------

    def test_findings_are_kept_in_order(self, desk: Desk, place: Place) -> None:
        """What reading found out stands in the ledger, with and without a key and a record."""
        desk.ledger.write(
            [
                Finding("rejected", desk.source, 3, None, "bad", "is bad", "record\n"),
                Finding("duplicate", desk.source, 4, "k", "duplicate", "the same as a.csv:2, which counts"),
                Finding("changed", desk.source, 5, "k", "changed", "other content"),
            ]
        )
        assert place.findings() == [
            ("rejected", SOURCE.path, 3, None),
            ("duplicate", SOURCE.path, 4, None),
            ("changed", SOURCE.path, 5, None),
        ]

    def test_an_unknown_kind_of_finding_is_refused(self, desk: Desk) -> None:
        """A finding that no account would count cannot be written."""
        with pytest.raises(LedgerError):
            desk.ledger.write([Finding("curious", desk.source, 3, None, "bad", "is bad")])

    def test_reading_again_retires_earlier_findings_up_to_its_line(self, place: Place) -> None:
        """Only findings of earlier runs go, only up to the line that was read again."""
        with at_work(place) as desk:
            desk.ledger.write([Finding("rejected", desk.source, line, None, "bad", "old") for line in (2, 5, 9)])
        with at_work(place) as desk:
            desk.ledger.write([Finding("rejected", desk.source, 5, None, "bad", "new")])
            desk.ledger.supersede(desk.source, 5)
        retired = [(line, by) for _, _, line, by in place.findings()]
        assert retired == [(2, desk.run), (5, desk.run), (9, None), (5, None)]

    def test_a_finding_is_retired_once(self, place: Place) -> None:
        """A later run does not touch what was retired, and retires what was left."""
        runs = []
        for through in (2, 9):
            with at_work(place) as desk:
                desk.ledger.write([Finding("rejected", desk.source, line, None, "bad", "x") for line in (2, 9)])
                desk.ledger.supersede(desk.source, through)
                runs.append(desk.run)
        with at_work(place) as desk:
            desk.ledger.supersede(desk.source, 2)
        assert [by for *_, by in place.findings()] == [runs[1], runs[1], desk.run, None]
        with at_work(place) as desk:
            desk.ledger.supersede(desk.source, 9)
        assert [by for *_, by in place.findings()] == [runs[1], runs[1], desk.run - 1, desk.run]

    def test_reading_again_retires_findings_of_the_same_file_with_another_header(self, place: Place) -> None:
        """A file that was repaired in its header, or read with another encoding, is the same file; others are not."""
        with at_work(place) as desk:
            other = desk.ledger.register(SOURCE._replace(path="/data/b.csv"))
            desk.ledger.write([Finding("rejected", source, 2, None, "bad", "x") for source in (desk.source, other)])
        with at_work(place) as desk:
            repaired = desk.ledger.register(SOURCE._replace(header="a;b\n", delimiter=";", encoding="cp1252"))
            desk.ledger.supersede(repaired, 10)
        retired = {path: by for _, path, _, by in place.findings()}
        assert retired == {"/data/a.csv": desk.run, "/data/b.csv": None}

    # ---- one intent for each row and run ----------------------------------------------------------------------------

    @pytest.mark.parametrize("state", OPEN_AGAIN)
    def test_a_row_is_begun_once_in_a_run(self, desk: Desk, place: Place, state: State) -> None:
        """What failed or was refused in this run stays so until the next one, whatever its content is now."""
        first = desk.row(1, key="k")
        bring_to(desk, place, first, state)
        before = place.rows(), place.payloads()
        for again in (first, desk.row(2, key="k", content="repaired")):
            known = Known("k", first.fingerprint, state, desk.source, first.line, of_this_run=True)
            assert desk.ledger.write([Intent(again)]) == [known]
        assert (place.rows(), place.payloads()) == before
        desk.begin_next_run()
        desk.intend(desk.row(2, key="k", content="repaired"))

    # ---- baselines --------------------------------------------------------------------------------------------------

    def test_a_baseline_comes_first_where_this_run_has_none(self, desk: Desk, place: Place) -> None:
        """The first intent of a channel that asks for it is not recorded; with the baseline all of the channel are."""
        first, second = desk.row(1, 7), desk.row(2, 7)
        for wanted in (first, second):
            assert desk.ledger.write([Intent(wanted, baseline_first=True)]) == [BASELINE_FIRST]
        assert (place.rows(), place.payloads(), place.findings()) == ([], {}, [])
        assert desk.ledger.channels_in_doubt() == {}
        assert desk.ledger.write([Baseline(first, ())]) == [None]
        for wanted in (first, second):
            assert isinstance(desk.ledger.write([Intent(wanted, baseline_first=True)])[0], int)

    def test_a_baseline_counts_for_its_own_channel_only(self, desk: Desk) -> None:
        """Another channel, or the same one under another interaction, is asked for its own."""
        wanted = desk.row(1, 7)
        desk.ledger.write([Baseline(wanted, ())])
        elsewhere = desk.row(2, 7)._replace(interaction_sid=sid("KD", "other"))
        for other in (desk.row(3, 8), elsewhere):
            assert desk.ledger.write([Intent(other, baseline_first=True)]) == [BASELINE_FIRST]

    def test_a_baseline_counts_for_its_own_run_only(self, desk: Desk) -> None:
        """What was there yesterday says nothing of what others added since."""
        desk.ledger.write([Baseline(desk.row(1, 7), ())])
        desk.begin_next_run()
        assert desk.ledger.write([Intent(desk.row(2, 7), baseline_first=True)]) == [BASELINE_FIRST]

    def test_nobody_asks_for_a_baseline_that_is_not_wanted(self, desk: Desk) -> None:
        """Where lists are refused, a row begins without."""
        assert isinstance(desk.ledger.write([Intent(desk.row(1))])[0], int)

    def test_a_baseline_and_its_intent_are_one_group(self, desk: Desk) -> None:
        """The baseline is in force for the intent that follows it, and is known to be the row's."""
        wanted = desk.row(1)
        sids = (sid("UT", 8), sid("UT", 9))
        nothing, number = desk.ledger.write([Baseline(wanted, sids), Intent(wanted, baseline_first=True)])
        assert nothing is None
        assert isinstance(number, int)
        assert desk.ledger.surroundings(number) == Surroundings(frozenset(), frozenset(sids), 1)

    def test_a_baseline_is_undone_with_its_group(self, desk: Desk) -> None:
        """When the group of a baseline fails, the channel has none, and the next one is taken."""
        wanted = desk.row(1)
        for _ in range(2):
            with pytest.raises(LedgerError):
                desk.ledger.write([Baseline(wanted, ()), Intent(wanted), Settle(99, Settlement("k", OUTCOMES[0]))])
            assert desk.ledger.write([Intent(wanted, baseline_first=True)]) == [BASELINE_FIRST]
        desk.ledger.write([Baseline(wanted, ()), Intent(wanted, baseline_first=True)])

    def test_the_channel_of_a_question_is_remembered_rightly(self, desk: Desk, place: Place) -> None:
        """Asking for a baseline in a group that fails does not mix up channels afterwards."""
        rows = [desk.row(number) for number in range(3)]
        with pytest.raises(LedgerError):
            desk.ledger.write([Intent(rows[0], baseline_first=True), Settle(99, Settlement("k", OUTCOMES[0]))])
        for wanted in (rows[1], rows[0], rows[2]):
            desk.ledger.write([Baseline(wanted, ()), Intent(wanted, baseline_first=True)])
        channels = {found["key"]: found["channel_sid"] for found in place.rows()}
        assert channels == {wanted.key: wanted.channel_sid for wanted in rows}

    def test_nothing_of_a_doubt_is_written_before_a_run_begins(self, place: Place) -> None:
        """Without a run there is nobody to whom a baseline, a second sending or a decision could belong."""
        with at_work(place) as desk:
            number = desk.doubt(desk.row(1))
            wanted = desk.row(1)
        ledger = place.open()
        try:
            for entry in (Baseline(wanted, ()), Reopen(number, wanted, ()), Decision(number, "me", "not_created")):
                with pytest.raises(LedgerError):
                    ledger.write([entry])
        finally:
            ledger.close()
        assert [found["state"] for found in place.rows()] == ["in_doubt"]

    # ---- surroundings -----------------------------------------------------------------------------------------------

    def test_the_sids_of_a_channel_are_known_however_it_is_reached(self, desk: Desk, place: Place) -> None:
        """All rows of the channel count, closed ones and those under another interaction; other channels do not."""
        number = desk.doubt(desk.row(1, 7))
        desk.bring(desk.row(2, 7), Created(sid("UT", 2)))
        desk.bring(desk.row(3, 7)._replace(interaction_sid=sid("KD", "other")), Created(sid("UT", 3)))
        bring_to(desk, place, desk.row(4, 7), State.CLOSED)
        desk.bring(desk.row(5, 8), Created(sid("UT", 5)))
        for state in (State.EXISTED, State.REJECTED, State.FAILED):
            bring_to(desk, place, desk.row(6, 7, key=state.value), state)
        closed = {found["sid"] for found in place.rows() if found["state"] == "closed"}
        known = frozenset({sid("UT", 2), sid("UT", 3), *closed})
        assert len(known) == 3
        assert desk.ledger.surroundings(number) == Surroundings(known, None, 1)

    def test_a_channel_is_one_however_its_sids_are_written(self, desk: Desk, place: Place) -> None:
        """It has one baseline, is held as one, and keeps the spelling that came first."""
        first, second = desk.row(1, 7), desk.row(2, 7)
        second = second._replace(
            channel_sid=second.channel_sid.upper(), interaction_sid=f"KD{second.interaction_sid[2:].upper()}"
        )
        other = desk.row(3, 7)._replace(channel_sid=second.channel_sid, interaction_sid=sid("KD", "other"))
        desk.ledger.write([Baseline(second, (sid("UT", 9),))])
        assert isinstance(desk.ledger.write([Intent(first, baseline_first=True)])[0], int)
        number = desk.doubt(second)
        desk.bring(other, Created(sid("UT", 3)))
        assert desk.ledger.surroundings(number) == Surroundings(frozenset({sid("UT", 3)}), frozenset({sid("UT", 9)}), 2)
        assert desk.ledger.channels_in_doubt() == {first.channel_sid: {first.key, second.key}}
        assert {found["channel_sid"] for found in place.rows()} == {second.channel_sid}

    def test_every_row_of_a_channel_that_may_exist_is_unresolved(self, desk: Desk, place: Place) -> None:
        """Started and in doubt count, the row itself and those under another interaction too; all else is resolved."""
        number = desk.doubt(desk.row(1, 7))
        assert desk.ledger.surroundings(number).unresolved == 1
        for place_of, state in enumerate(State):
            bring_to(desk, place, desk.row(10 + place_of, 7)._replace(interaction_sid=sid("KD", "other")), state)
            bring_to(desk, place, desk.row(30 + place_of, 8), state)
        assert desk.ledger.surroundings(number).unresolved == 3

    def test_a_row_knows_the_baseline_of_the_run_that_sent_it(self, place: Place) -> None:
        """It is still its own in a later run, and after a crash; empty is something else than none."""
        with at_work(place) as desk:
            answers = [
                *desk.ledger.write([Baseline(desk.row(1), (sid("UT", 9),)), Intent(desk.row(1))]),
                *desk.ledger.write([Baseline(desk.row(2), ()), Intent(desk.row(2))]),
                *desk.ledger.write([Intent(desk.row(3))]),
            ]
            numbers = [answer for answer in answers if isinstance(answer, int)]
            desk.ledger.write([Settle(numbers[0], Settlement(desk.row(1).key, OUTCOMES[5]))])
        with at_work(place) as desk:
            found = [desk.ledger.surroundings(number).baseline for number in numbers]
        assert found == [frozenset({sid("UT", 9)}), frozenset(), None]

    def test_a_baseline_of_another_run_is_not_a_rows_own(self, desk: Desk) -> None:
        """It was taken after the row may have been made, or before others came: neither proves anything."""
        first, later = desk.row(1, 7), desk.row(2, 7)
        number = desk.doubt(first)
        desk.begin_next_run()
        desk.ledger.write([Baseline(later, (sid("UT", 1),))])
        assert desk.ledger.surroundings(number).baseline is None
        later_number = desk.doubt(later)
        assert desk.ledger.surroundings(later_number).baseline == frozenset({sid("UT", 1)})

    def test_a_later_baseline_replaces_the_earlier_one(self, desk: Desk) -> None:
        """A channel has one baseline: that of the run which listed it last, with whom earlier lists have shown."""
        first, later = desk.row(1, 7), desk.row(2, 7)
        desk.ledger.write([Baseline(first, (sid("UT", 1),))])
        number = desk.doubt(first)
        assert desk.ledger.surroundings(number).baseline == frozenset({sid("UT", 1)})
        desk.begin_next_run()
        desk.ledger.write([Baseline(later, (sid("UT", 2),))])
        assert desk.ledger.surroundings(number).baseline is None
        assert desk.ledger.surroundings(desk.doubt(later)).baseline == frozenset({sid("UT", 1), sid("UT", 2)})

    def test_a_baseline_that_does_not_hold_any_more_is_asked_for_again(self, desk: Desk) -> None:
        """Somebody unknown has joined since: the next create waits for a list, and a doubt has no baseline."""
        first, later = desk.row(1, 7), desk.row(2, 7)
        desk.ledger.write([Baseline(first, (sid("UT", 1),))])
        number = desk.doubt(first)
        desk.ledger.write([Baseline(first, None)])
        assert desk.ledger.surroundings(number).baseline is None
        assert desk.ledger.write([Intent(later, baseline_first=True)]) == [BASELINE_FIRST]
        desk.ledger.write([Baseline(later, (sid("UT", 2),))])
        [again] = desk.ledger.write([Intent(later, baseline_first=True)])
        assert isinstance(again, int)
        assert desk.ledger.surroundings(again).baseline == frozenset({sid("UT", 1), sid("UT", 2)})

    def test_somebody_unknown_in_a_channel_is_so_under_every_interaction(self, desk: Desk) -> None:
        """The channel's list is one, whichever way a row names it."""
        first, later = desk.row(1, 7), desk.row(2, 7)
        elsewhere = later._replace(interaction_sid=sid("KD", "other"), channel_sid=f"UO{later.channel_sid[2:].upper()}")
        desk.ledger.write([Baseline(first, ()), Baseline(desk.row(3, 8), ())])
        number = desk.doubt(first)
        desk.ledger.write([Baseline(elsewhere, None)])
        assert desk.ledger.surroundings(number).baseline is None
        assert desk.ledger.write([Intent(later, baseline_first=True)]) == [BASELINE_FIRST]
        assert desk.ledger.surroundings(desk.doubt(desk.row(3, 8))).baseline == frozenset()

    def test_a_baseline_that_is_too_old_is_asked_for_again(self, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        """So that only those who join within that time can be taken for ours; a clock that went back makes it old."""
        now = milliseconds()
        desk.ledger.write([Baseline(desk.row(1, 7), ())])
        for later, is_asked in ((899_000, False), (902_000, True), (-5_000, True)):
            for module in (tables, pgledger):
                monkeypatch.setattr(module, "milliseconds", lambda later=later: now + later)
            [answer] = desk.ledger.write([Intent(desk.row(2 + later, 7), baseline_first=True, baseline_seconds=900)])
            assert (answer is BASELINE_FIRST) == is_asked

    def test_what_an_earlier_look_has_shown_is_known(self, desk: Desk) -> None:
        """A later list without it proves nothing."""
        number = desk.doubt(desk.row(1))
        desk.ledger.write([Look(number, "two are new", (sid("UT", 1), sid("UT", 2)))])
        assert desk.ledger.surroundings(number).seen == frozenset({sid("UT", 1), sid("UT", 2)})

    # ---- sending again ----------------------------------------------------------------------------------------------

    def test_a_row_in_doubt_is_sent_again_by_reopening_it(self, desk: Desk, place: Place) -> None:
        """It is started, in this run, with the list as its baseline; the look is dropped, what it took so far stays."""
        wanted = desk.row(1)
        desk.ledger.write([Baseline(wanted, (sid("UT", 8),))])
        number = desk.doubt(wanted)
        desk.begin_next_run()
        desk.ledger.write([Look(number, "two are new", (sid("UT", 1), sid("UT", 2)))])
        assert desk.ledger.write([Reopen(number, wanted, (sid("UT", 9),))]) == [None]
        [found] = place.rows()
        assert (found["state"], found["run"], found["attempts"]) == ("started", desk.run, 1)
        for empty in ("sid", "code", "reason", "settled_at"):
            assert found[empty] is None
        assert place.payloads() == {wanted.key: (wanted.text, wanted.body)}
        assert place.looks() == {}
        assert desk.ledger.surroundings(number) == Surroundings(frozenset(), frozenset({sid("UT", 8), sid("UT", 9)}), 1)
        assert desk.ledger.settled_by_run() == {}
        desk.ledger.write([Settle(number, Settlement(wanted.key, OUTCOMES[0], 201, 2))])
        [found] = place.rows()
        assert (found["state"], found["attempts"], found["reconciled"]) == ("created", 3, 0)
        assert desk.ledger.settled_by_run() == {State.CREATED: 1}

    def test_a_row_is_reopened_as_often_as_it_is_in_doubt(self, desk: Desk) -> None:
        """Reopening is the only way to send a row twice in one run: an intent is answered with what is known."""
        wanted = desk.row(1)
        number = desk.doubt(wanted)
        for _ in range(3):
            assert isinstance(desk.ledger.write([Intent(wanted)])[0], Known)
            desk.ledger.write([Reopen(number, wanted, ())])
            with pytest.raises(LedgerError, match="no longer in doubt"):
                desk.ledger.write([Reopen(number, wanted, ())])
            desk.ledger.write([Settle(number, Settlement(wanted.key, OUTCOMES[5]))])
        assert desk.ledger.channels_in_doubt() == {wanted.channel_sid: {wanted.key}}

    @pytest.mark.parametrize("state", [state for state in State if state is not State.IN_DOUBT])
    def test_only_a_row_in_doubt_is_reopened(self, desk: Desk, place: Place, state: State) -> None:
        """To reopen any other is an error that names its key, and takes its group with it."""
        wanted = desk.row(1)
        bring_to(desk, place, wanted, state)
        desk.begin_next_run()
        before = place.rows(), place.payloads()
        with pytest.raises(LedgerError, match=f"{wanted.key} is no longer in doubt"):
            desk.ledger.write([Intent(desk.row(2)), Reopen(1, wanted, (sid("UT", 9),))])
        assert (place.rows(), place.payloads()) == before
        assert desk.ledger.write([Intent(desk.row(3, 1), baseline_first=True)]) == [BASELINE_FIRST]

    def test_a_row_is_reopened_by_its_own_number(self, desk: Desk, place: Place) -> None:
        """Number and key must be of one row."""
        numbers = [desk.doubt(desk.row(1)), desk.doubt(desk.row(2))]
        for number in (numbers[1], 99):
            with pytest.raises(LedgerError, match="no longer in doubt"):
                desk.ledger.write([Reopen(number, desk.row(1), ())])
        assert {found["state"] for found in place.rows()} == {"in_doubt"}

    # ---- a sid is one row's -----------------------------------------------------------------------------------------

    @pytest.mark.parametrize("written", [str, str.lower, str.upper])
    def test_a_sid_that_another_row_has_is_the_answer_of_another_request(
        self, desk: Desk, place: Place, written: Callable[[str], str]
    ) -> None:
        """In whatever channel and case: the row is in doubt with its record, and nothing of the other one changes."""
        taken = sid("UT", "e")
        desk.bring(desk.row(1), Created(taken))
        wanted = desk.row(2)
        number = desk.intend(wanted)
        settle = Settle(number, Settlement(wanted.key, Created(f"UT{written(taken[2:])}"), 201, 1, "RQ0"))
        assert desk.ledger.write([settle, Intent(desk.row(3))]) == [SID_KNOWN, number + 1]
        first, second, _ = place.rows()
        assert (first["state"], first["sid"]) == ("created", taken)
        assert (second["state"], second["sid"], second["code"], second["reason"]) == (
            "in_doubt", None, KNOWN_SID.code, KNOWN_SID.reason,
        )  # fmt: skip
        assert (second["http_status"], second["request_id"]) == (201, "RQ0")
        assert wanted.key in place.payloads()
        assert desk.ledger.channels_in_doubt()[wanted.channel_sid] == {wanted.key}

    def test_of_two_rows_with_one_sid_in_a_group_the_second_is_in_doubt(self, desk: Desk, place: Place) -> None:
        """Outcomes that are recorded together are compared with each other, too."""
        rows = [desk.row(number) for number in range(4)]
        answers = desk.ledger.write([Intent(one) for one in rows])
        numbers = [answer for answer in answers if isinstance(answer, int)]
        sids = [sid("UT", 1), sid("UT", 2), sid("UT", 1).upper(), sid("UT", 3)]
        group = [
            Settle(number, Settlement(one.key, Created(name)))
            for number, one, name in zip(numbers, rows, sids, strict=True)
        ]
        assert desk.ledger.write(group) == [None, None, SID_KNOWN, None]
        assert [found["state"] for found in place.rows()] == ["created", "created", "in_doubt", "created"]

    def test_the_sid_of_a_closed_participant_is_not_new(self, desk: Desk, place: Place) -> None:
        """Closed and freed it is still known: an answer that names it is of another request."""
        for free in (False, True):
            wanted = desk.row(10 + free)
            closed = desk.bring(wanted, Created(sid("UT", f"closed {free}")))
            desk.ledger.write([Close(closed, wanted.key), *([Free()] if free else [])])
            other = desk.row(20 + free)
            number = desk.intend(other)
            outcome = Created(sid("UT", f"closed {free}"))
            assert desk.ledger.write([Settle(number, Settlement(other.key, outcome))]) == [SID_KNOWN]
        assert [found["state"] for found in place.rows()] == ["failed", "in_doubt", "failed", "in_doubt"]

    @pytest.mark.parametrize("written", [str, str.upper])
    def test_the_sid_of_a_participant_that_was_there_before_is_not_new(
        self, desk: Desk, place: Place, written: Callable[[str], str]
    ) -> None:
        """Whoever the channel's baseline lists is nobody whom this create made; another channel's does not matter."""
        there = sid("UT", "f")
        rows = [desk.row(1), desk.row(2)]
        desk.ledger.write([Baseline(rows[0], (sid("UT", 8), written(there), sid("UT", 9)))])
        numbers = [desk.intend(one) for one in rows]
        answers = [
            desk.ledger.write([Settle(number, Settlement(one.key, Created(there)))])
            for number, one in zip(numbers, rows, strict=True)
        ]
        assert answers == [[SID_KNOWN], [None]]
        assert [found["state"] for found in place.rows()] == ["in_doubt", "created"]

    def test_a_doubt_does_not_end_with_a_sid_that_is_known(self, desk: Desk, place: Place) -> None:
        """Found by listing: nothing is recorded. Said by a person: refused, with all else of its group."""
        taken = sid("UT", 1)
        desk.bring(desk.row(1), Created(taken))
        wanted = desk.row(2)
        number = desk.doubt(wanted)
        before = place.rows()
        found = Settlement(wanted.key, Created(taken), ends_doubt=True, reconciled=True)
        assert desk.ledger.write([Settle(number, found)]) == [SID_KNOWN]
        said = Settlement(wanted.key, Created(taken), ends_doubt=True)
        with pytest.raises(LedgerError, match=f"row {wanted.key}: {taken} is another row's participant"):
            desk.ledger.write([Decision(number, "ada", "created", taken), Settle(number, said)])
        assert (place.rows(), place.decisions()) == (before, [])

    def test_a_person_may_know_better_than_a_baseline(self, desk: Desk, place: Place) -> None:
        """Who looked at the channel saw more than a list that was taken once."""
        wanted = desk.row(1)
        desk.ledger.write([Baseline(wanted, (sid("UT", 1),))])
        number = desk.doubt(wanted)
        found = Settlement(wanted.key, Created(sid("UT", 1)), ends_doubt=True, reconciled=True)
        assert desk.ledger.write([Settle(number, found)]) == [SID_KNOWN]
        said = Settlement(wanted.key, Created(sid("UT", 1)), ends_doubt=True)
        assert desk.ledger.write([Settle(number, said)]) == [None]
        assert [found["state"] for found in place.rows()] == ["created"]

    # ---- the end of a doubt -----------------------------------------------------------------------------------------

    @pytest.mark.parametrize("reconciled", [True, False])
    def test_a_sid_found_by_listing_ends_a_doubt(self, desk: Desk, place: Place, reconciled: bool) -> None:
        """The row is created by this run, marked if it was reconciled; look, record and request are dropped."""
        wanted = desk.row(1)
        number = desk.doubt(wanted)
        desk.begin_next_run()
        desk.ledger.write([Look(number, "the service may still be at it", ())])
        settlement = Settlement(wanted.key, Created(sid("UT", 1)), ends_doubt=True, reconciled=reconciled)
        assert desk.ledger.write([Settle(number, settlement)]) == [None]
        [found] = place.rows()
        assert (found["state"], found["sid"], found["run"]) == ("created", sid("UT", 1), desk.run)
        assert (found["code"], found["reason"]) == (None, None)
        assert (found["http_status"], found["attempts"], found["request_id"]) == (200, 1, "RQ0")
        assert found["reconciled"] == int(reconciled)
        assert (place.looks(), place.payloads()) == ({}, {})
        assert desk.ledger.channels_in_doubt() == {}
        assert desk.ledger.settled_by_run() == {State.CREATED: 1}
        assert desk.ledger.write([Intent(wanted)]) == [
            Known(wanted.key, wanted.fingerprint, State.CREATED, desk.source, wanted.line, of_this_run=True)
        ]

    def test_a_row_that_was_not_created_waits_for_the_next_run(self, desk: Desk, place: Place) -> None:
        """Its doubt ends as failed: kept to be sent again, but not by this run."""
        wanted = desk.row(1)
        number = desk.doubt(wanted)
        desk.begin_next_run()
        desk.ledger.write([Look(number, "x", ())])
        settlement = Settlement(wanted.key, Failed("not_created", "the list shows it"), ends_doubt=True)
        desk.ledger.write([Settle(number, settlement)])
        [found] = place.rows()
        assert (found["state"], found["code"], found["run"]) == ("failed", "not_created", desk.run)
        assert place.payloads() == {wanted.key: (wanted.text, wanted.body)}
        assert place.looks() == {}
        assert desk.ledger.stored((State.FAILED,), 0, 9) == []
        assert isinstance(desk.ledger.write([Intent(wanted)])[0], Known)
        desk.begin_next_run()
        assert desk.ledger.stored((State.FAILED,), 0, 9) == [wanted._replace(number=number)]
        assert desk.intend(wanted) == number

    @pytest.mark.parametrize("state", [state for state in State if state is not State.IN_DOUBT])
    def test_only_a_doubt_can_be_ended(self, desk: Desk, place: Place, state: State) -> None:
        """A row that is not in doubt keeps its state, and the group is undone."""
        wanted = desk.row(1)
        bring_to(desk, place, wanted, state)
        before = place.rows(), place.payloads()
        settlement = Settlement(wanted.key, Created(sid("UT", 9)), ends_doubt=True)
        with pytest.raises(LedgerError, match=f"{wanted.key} is no longer in_doubt"):
            desk.ledger.write([Intent(desk.row(2)), Settle(1, settlement)])
        assert (place.rows(), place.payloads()) == before

    def test_a_doubt_ends_by_its_own_number(self, desk: Desk, place: Place) -> None:
        """A sid that was found never gets to another row."""
        numbers = [desk.doubt(desk.row(1)), desk.doubt(desk.row(2))]
        settlement = Settlement(desk.row(1).key, OUTCOMES[0], ends_doubt=True)
        with pytest.raises(LedgerError, match="no longer in_doubt"):
            desk.ledger.write([Settle(numbers[1], settlement)])
        assert {found["sid"] for found in place.rows()} == {None}

    def test_an_answer_does_not_end_a_doubt_by_accident(self, desk: Desk, place: Place) -> None:
        """An outcome that is not said to end a doubt is for a row under way only."""
        number = desk.doubt(desk.row(1))
        with pytest.raises(LedgerError, match="no longer started"):
            desk.ledger.write([Settle(number, Settlement(desk.row(1).key, OUTCOMES[0]))])
        assert [found["state"] for found in place.rows()] == ["in_doubt"]

    # ---- looks and decisions ----------------------------------------------------------------------------------------

    def test_the_last_look_is_kept(self, desk: Desk, place: Place) -> None:
        """Each look replaces the row's one before, and changes nothing else."""
        rows = [desk.row(1), desk.row(2)]
        numbers = [desk.doubt(wanted) for wanted in rows]
        before = place.rows()
        looks = [
            Look(numbers[0], "2 participants could be this row's", (sid("UT", 2), sid("UT", 1))),
            Look(numbers[1], "its channel cannot be listed", ()),
            Look(numbers[0], "3 participants could be this row's", (sid("UT", 3), sid("UT", 1), sid("UT", 2))),
        ]
        assert desk.ledger.write(looks) == [None] * 3
        assert place.looks() == {
            rows[0].key: ("3 participants could be this row's", (sid("UT", 3), sid("UT", 1), sid("UT", 2))),
            rows[1].key: ("its channel cannot be listed", ()),
        }
        assert place.rows() == before

    def test_a_decision_is_kept_with_who_and_when(self, desk: Desk, place: Place) -> None:
        """What people decided stays readable after the row has gone on, each decision by itself."""
        wanted = desk.row(1)
        number = desk.doubt(wanted)
        ended = Settlement(wanted.key, Failed("not_created", "as decided"), ends_doubt=True)
        desk.ledger.write([Decision(number, "ada@host", "not_created"), Settle(number, ended)])
        first_run = desk.run
        desk.begin_next_run()
        desk.doubt(wanted)
        ended = Settlement(wanted.key, Created(sid("UT", 1)), ends_doubt=True)
        desk.ledger.write([Decision(number, "bob@host", "created", sid("UT", 1)), Settle(number, ended)])
        (*first, first_time), (*second, second_time) = place.decisions()
        assert first == [wanted.key, first_run, "ada@host", "not_created", None, None]
        assert second == [wanted.key, desk.run, "bob@host", "created", sid("UT", 1), None]
        year_2020 = 1_577_836_800_000
        assert year_2020 < first_time <= second_time

    def test_looks_and_decisions_are_about_rows(self, desk: Desk) -> None:
        """A number that the ledger never gave has neither."""
        for entry in (Look(99, "x", ()), Decision(99, "me", "not_created")):
            with pytest.raises(LedgerError):
                desk.ledger.write([entry])

    @pytest.mark.parametrize(
        ("decision", "found"), [("maybe", None), ("", None), ("created", None), ("not_created", sid("UT", 1))]
    )
    def test_a_decision_is_one_or_the_other(self, desk: Desk, decision: str, found: str | None) -> None:
        """Created has a sid, not created has none, and there is no third."""
        number = desk.doubt(desk.row(1))
        with pytest.raises(LedgerError):
            desk.ledger.write([Decision(number, "me", decision, found)])

    def test_whatever_people_and_services_say_of_a_doubt_can_be_recorded(self, desk: Desk, place: Place) -> None:
        """A name or a reason with bytes that are no text does not stop the run, nor those who share its commit."""
        wanted = desk.row(1)
        number = desk.doubt(wanted)
        odd = "UT\ud83d'\"\0"
        entries: list[Entry] = [
            Look(number, "half \ud83d of a pair", (odd,)),
            Decision(number, "ad\udcffa", "not_created"),
            Reopen(number, wanted, (odd,)),
            Settle(number, Settlement(wanted.key, OUTCOMES[5])),
            Look(number, "half \ud83d of a pair", (odd,)),
        ]
        assert desk.ledger.write(entries) == [None] * len(entries)
        assert place.looks() == {wanted.key: ("half ? of a pair", (odd,))}
        assert place.decisions()[0][2] == "ad?a"
        assert desk.ledger.surroundings(number).baseline == frozenset({odd})

    # ---- undone -----------------------------------------------------------------------------------------------------

    def test_a_row_whose_participant_was_closed_is_not_sent_until_it_is_freed(self, desk: Desk, place: Place) -> None:
        """Its sid stays; read again it is not sent, freed it is, and then it gets a sid of its own."""
        wanted = desk.row(1)
        number = desk.bring(wanted, OUTCOMES[0])
        desk.begin_next_run()
        assert desk.ledger.write([Close(number, wanted.key)]) == [None]
        [closed] = place.rows()
        assert (closed["state"], closed["sid"], closed["run"]) == ("closed", sid("UT", 1), desk.run)
        assert desk.ledger.settled_by_run() == {State.CLOSED: 1}
        [known] = desk.ledger.write([Intent(wanted)])
        assert isinstance(known, Known)
        assert standing_of(known, wanted.fingerprint) is Standing.CLOSED
        desk.begin_next_run()
        assert desk.ledger.write([Free()]) == [1]
        [freed] = place.rows()
        assert (freed["state"], freed["sid"], freed["code"], freed["run"]) == ("failed", None, "undone", desk.run)
        desk.begin_next_run()
        assert desk.ledger.stored((State.FAILED,), 0, 9) == [], "its record went when it was created"
        desk.bring(wanted, Created(sid("UT", 2)))
        assert [found["sid"] for found in place.rows()] == [sid("UT", 2)]

    def test_a_participant_that_was_closed_stays_ours(self, desk: Desk) -> None:
        """A list may still show it: it is nobody's who is in doubt later."""
        wanted = desk.row(1)
        number = desk.bring(wanted, OUTCOMES[0])
        desk.ledger.write([Close(number, wanted.key), Free()])
        desk.begin_next_run()
        desk.doubt(wanted)
        other = desk.doubt(desk.row(2, 1))
        for doubted in (number, other):
            assert desk.ledger.surroundings(doubted).known == {sid("UT", 1)}

    def test_only_a_created_row_can_be_closed(self, desk: Desk, place: Place) -> None:
        """What else is said to be closed is something else's mistake, and stays as it is."""
        for place_in_table, outcome in enumerate(OUTCOMES[1:]):
            wanted = desk.row(place_in_table)
            number = desk.bring(wanted, outcome)
            with pytest.raises(LedgerError, match="no longer created"):
                desk.ledger.write([Close(number, wanted.key)])
        assert {found["state"] for found in place.rows()} == set(STATES[1:])
        assert desk.ledger.write([Free()]) == [0]

    # ---- samples ----------------------------------------------------------------------------------------------------

    def test_samples_are_kept_in_their_order_and_thinned(self, desk: Desk, place: Place) -> None:
        """Each with the counters of its moment; thinned, every second one is left, the first among them."""
        taken = [Sample(n, n, n, 0, 0, 1, None if n == 4 else 6.0, 16, 1.0, 2.0, 3.0 * n) for n in range(5)]
        for sample in taken:
            before = place.samples(desk.run)
            while len(place.samples(desk.run)) == len(before):  # one a millisecond is kept
                desk.ledger.write([sample])
        assert place.samples(desk.run)[-1] == taken[-1]
        whole = place.samples(desk.run)
        desk.ledger.write([Thin()])
        assert place.samples(desk.run) == whole[::2]
        assert place.samples(desk.run + 1) == []

    # ---- waivers ----------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("state", OPEN_AGAIN)
    def test_a_cluster_is_signed_off_with_who_when_and_why(self, desk: Desk, place: Place, state: State) -> None:
        """Each of its rows is waived by this run and keeps why it was refused; others are left as they are."""
        outcome = OUTCOMES[list(STATES).index(state.value)]
        assert isinstance(outcome, Rejected | Parked | Failed)
        cluster = [desk.row(1), desk.row(2)]
        numbers = [desk.bring(wanted, outcome) for wanted in cluster]
        others = [desk.row(number) for number in range(3, 3 + len(OUTCOMES))]
        for wanted, other in zip(others, OUTCOMES, strict=True):
            desk.bring(wanted, replace(other, reason="another") if isinstance(other, type(outcome)) else other)
        left = [found for found in place.rows() if found["key"] not in {wanted.key for wanted in cluster}]
        desk.begin_next_run()
        waive = Waive(state, Why(outcome.code, outcome.reason), "ada@host", "test accounts")
        assert desk.ledger.write([waive]) == [2]
        waived = [found for found in place.rows() if found["state"] == "waived"]
        assert [found["key"] for found in waived] == [wanted.key for wanted in cluster]
        for found in waived:
            assert (found["code"], found["reason"], found["run"]) == (outcome.code, outcome.reason, desk.run)
            assert (found["attempts"], found["settled_at"] >= found["started_at"]) == (1, True)
        assert [found for found in place.rows() if found["state"] != "waived"] == left
        assert desk.ledger.settled_by_run() == {State.WAIVED: 2}
        decisions = place.decisions()
        said = (desk.run, "ada@host", "waived", None, "test accounts")
        assert [found[:-1] for found in decisions] == [(wanted.key, *said) for wanted in cluster]
        assert decisions[0][-1] > 1_577_836_800_000
        assert {wanted.key for wanted in cluster} <= place.payloads().keys()
        assert place.waivers() == {}
        desk.begin_next_run()
        assert desk.ledger.stored((state,), 0, 9, waive.why) == []
        assert isinstance(desk.ledger.write([Intent(cluster[0])])[0], Known)
        assert numbers

    @pytest.mark.parametrize("state", [state for state in State if state not in OPEN_AGAIN])
    def test_what_exists_or_may_exist_cannot_be_signed_off(self, desk: Desk, place: Place, state: State) -> None:
        """Whatever is asked, a row that is not rejected, parked or failed stays as it is."""
        bring_to(desk, place, desk.row(1), state)
        before = place.rows()
        for asked in (state, State.REJECTED, State.FAILED):
            why = Why(before[0]["code"] or "", before[0]["reason"] or "")
            assert desk.ledger.write([Waive(asked, why, "ada", "x")]) == [0]
        assert (place.rows(), place.decisions()) == (before, [])

    def test_a_record_that_was_never_a_row_is_signed_off_by_its_digest(self, desk: Desk, place: Place) -> None:
        """The findings of the cluster are retired, their records remembered once each; no other kind, none retired."""
        other = desk.ledger.register(SOURCE._replace(path="/data/b.csv"))
        records = [(desk.source, 2, "a,b\n"), (desk.source, 3, "a,b\n"), (other, 2, "é,\0b")]
        desk.ledger.write([Finding("rejected", n, line, None, "bad", "is bad", text) for n, line, text in records])
        desk.ledger.write(
            [
                Finding("rejected", desk.source, 4, None, "bad", "is worse", "c\n"),
                Finding("duplicate", desk.source, 5, "k", "bad", "is bad", "d\n"),
            ]
        )
        desk.begin_next_run()
        desk.ledger.supersede(desk.source, 2)
        retired = desk.run
        desk.begin_next_run()
        assert desk.ledger.write([Waive(State.REJECTED, Why("bad", "is bad"), "ada", "spam")]) == [2]
        by = [run for *_, run in place.findings()]
        assert by == [retired, desk.run, desk.run, None, None]
        waivers = place.waivers()
        assert {digest: found[:-1] for digest, found in waivers.items()} == {
            record_digest(record): (desk.run, "ada", "spam") for record in ("a,b", "é,\0b")
        }
        first_run = desk.run
        desk.begin_next_run()
        desk.ledger.write([Finding("rejected", other, 9, None, "bad", "is bad", "a,b\r\n")])
        assert desk.ledger.write([Waive(State.REJECTED, Why("bad", "is bad"), "bob", "again")]) == [1]
        assert {found[0] for found in place.waivers().values()} == {first_run}, "who said it first"

    def test_whatever_people_say_of_a_waiver_can_be_recorded(self, desk: Desk, place: Place) -> None:
        """A name or a reason with bytes that are no text stops nobody, in a decision, a waiver or the run's end."""
        desk.bring(desk.row(1), Rejected("bad", "is bad"))
        desk.ledger.write([Finding("rejected", desk.source, 2, None, "bad", "is bad", "x")])
        waive = Waive(State.REJECTED, Why("bad", "is bad"), "ad\udcffa", "half \ud83d of a pair")
        assert desk.ledger.write([waive]) == [2]
        assert place.decisions()[0][2:6] == ("ad?a", "waived", None, "half ? of a pair")
        assert [found[1:3] for found in place.waivers().values()] == [("ad?a", "half ? of a pair")]
        desk.ledger.end_run(0, "half \ud83d of a pair", "{}")

    def test_a_waiver_is_undone_with_its_group(self, desk: Desk, place: Place) -> None:
        """All of several clusters or none."""
        desk.bring(desk.row(1), Rejected("bad", "is bad"))
        desk.ledger.write([Finding("rejected", desk.source, 2, None, "bad", "is bad", "x")])
        before = place.rows(), place.findings()
        with pytest.raises(LedgerError):
            desk.ledger.write(
                [
                    Waive(State.REJECTED, Why("bad", "is bad"), "ada", "x"),
                    Settle(99, Settlement("k", OUTCOMES[0])),
                ]
            )
        assert (place.rows(), place.findings(), place.decisions(), place.waivers()) == (*before, [], {})

    @pytest.mark.parametrize("state", OPEN_AGAIN)
    def test_a_waiver_is_taken_back(self, desk: Desk, place: Place, state: State) -> None:
        """The rows are what they were, with their code, reason and record; who and when is recorded; twice, too."""
        outcome = OUTCOMES[list(STATES).index(state.value)]
        assert isinstance(outcome, Rejected | Parked | Failed)
        desk.bring(desk.row(1), outcome)
        desk.bring(desk.row(2), replace(outcome, reason="another"))
        before = place.rows(), place.payloads()
        why = Why(outcome.code, outcome.reason)
        expected: list[tuple[str, str | None]] = []
        for _ in range(2):
            desk.ledger.start_run("waive")
            assert desk.ledger.write([Waive(state, why, "ada", "x")]) == [1]
            desk.ledger.write([Waive(state, Why(outcome.code, "another"), "ada", "y")])
            run = desk.ledger.start_run("unwaive")
            assert desk.ledger.write([Unwaive(state, why, "bo\udcffb")]) == [1]
            assert desk.ledger.write([Unwaive(state, why, "bob")]) == [0]
            first = place.rows()[0]
            assert first["run"] == run
            was = before[0][0]
            assert first | {"run": was["run"], "settled_at": was["settled_at"]} == was
            expected += [("waived", "x"), *([] if expected else [("waived", "y")]), ("unwaived", None)]
        assert [(found[3], found[5]) for found in place.decisions()] == expected
        assert place.decisions()[-1][2] == "bo?b"
        assert [found["state"] for found in place.rows()] == [state, "waived"]
        assert place.payloads() == before[1]

    def test_only_the_group_that_was_waived_is_taken_back(self, desk: Desk, place: Place) -> None:
        """Rows of another state with the same reason were another group."""
        why = Why("45354", "the channel is closed")
        desk.bring(desk.row(1), Rejected(*why))
        desk.bring(desk.row(2), Parked(*why))
        desk.ledger.start_run("waive")
        desk.ledger.write([Waive(State.REJECTED, why, "ada", "x"), Waive(State.PARKED, why, "ada", "x")])
        assert desk.ledger.write([Unwaive(State.FAILED, why, "bob")]) == [0]
        assert desk.ledger.write([Unwaive(State.PARKED, why, "bob")]) == [1]
        assert [found["state"] for found in place.rows()] == ["waived", "parked"]

    def test_records_that_were_waived_are_read_anew(self, desk: Desk, place: Place) -> None:
        """Their findings stand again and their digests are forgotten, even after pruning; others are as they were."""
        records = [(2, "a,b\n", "is bad"), (3, "c\n", "is worse")]
        for line, text, reason in records:
            desk.ledger.write([Finding("rejected", desk.source, line, None, "bad", reason, text)])
        desk.ledger.start_run("waive")
        desk.ledger.write([Waive(State.REJECTED, Why("bad", reason), "ada", "x") for *_, reason in records])
        desk.ledger.start_run("unwaive")
        assert desk.ledger.write([Unwaive(State.REJECTED, Why("bad", "is bad"), "bob")]) == [1]
        assert [run for *_, run in place.findings()] == [None, 2]
        assert place.waivers().keys() == {record_digest("c")}
        with View(located(desk)) as view:
            assert [one[1:] for one in view.decisions(9)[1]] == [
                ("bob", "1 record: is bad", "unwaived", ""),
                ("ada", "1 record: is worse", "waived", "x"),
                ("ada", "1 record: is bad", "waived", "x"),
            ]

    def test_what_is_waived_can_be_found(self, desk: Desk) -> None:
        """Each group with its id, rows, who, when and why, the newest waiver first."""
        for number in (1, 2):
            desk.bring(desk.row(number), Parked("45354", "closed"))
        desk.ledger.write([Finding("rejected", desk.source, 7, None, "bad", "is bad", "r\n")])
        with closing(open_readonly(located(desk))) as connection:
            assert waived_groups(connection) == []
        for state, why, by in (
            (State.PARKED, Why("45354", "closed"), "ada"),
            (State.REJECTED, Why("bad", "is bad"), "bob"),
        ):
            desk.ledger.start_run("waive")
            desk.ledger.write([Waive(state, why, by, "x")])
        with closing(open_readonly(located(desk))) as connection:
            found = waived_groups(connection)
        assert [(one.state, one.code, one.reason, one.rows, one.by, one.words, one.run) for one in found] == [
            ("rejected", "bad", "is bad", 1, "bob", "x", 3),
            ("parked", "45354", "closed", 2, "ada", "x", 2),
        ]
        assert [one.id for one in found] == [
            cluster_id("rejected", "bad", "is bad"),
            cluster_id("parked", "45354", "closed"),
        ]
        assert [one.example for one in found] == ["/data/a.csv:7", "/data/a.csv:3"]
        assert found[0].at > 1_577_836_800_000
        with View(located(desk)) as view:
            total, decided = view.decisions(1)
            assert (total, decided[0].key) == (2, "1 record: is bad")
            assert view.decisions(9)[1][1].key.endswith(" and 1 more")

    # ---- verifying --------------------------------------------------------------------------------------------------

    def test_what_was_verified_last_is_kept(self, desk: Desk, place: Place) -> None:
        """One result a row, with the run; a detail may be anything that a service says."""
        numbers = [desk.bring(desk.row(number), Created(sid("UT", number))) for number in range(2)]
        desk.ledger.write([Verification(number, Verified.ABSENT) for number in numbers])
        run = desk.begin_next_run()
        desk.ledger.write([Verification(numbers[1], Verified.NOT_LISTABLE, "half \ud83d of\0it")])
        found = place.verifications()
        assert found[desk.row(0).key] == (1, "absent", None)
        assert found[desk.row(1).key] == (run, "not_listable", "half ? of\ufffdit")

    def test_created_rows_are_read_by_channel(self, desk: Desk) -> None:
        """Each channel once, whatever the number of its rows; what is closed or was found is left out."""
        numbers = [desk.bring(desk.row(number, number % 70), Created(sid("UT", number))) for number in range(140)]
        desk.ledger.write([Close(numbers[0], desk.row(0).key)])
        run = desk.ledger.start_run("verify")
        with closing(CreatedRows(located(desk), Scope(run))) as rows:
            assert rows.extent() == (139, 70, 0, 0)
            found = list(rows.left())
            assert [len(one) for one in found] == [1, *[2] * 69]
            desk.ledger.write([Verification(one.number, Verified.CONFIRMED) for one in found[5]])
            desk.ledger.write([Verification(one.number, Verified.DEPARTED) for one in found[6]])
            desk.ledger.write([Verification(one.number, Verified.ABSENT) for one in found[7]])
            assert list(rows.absent()) == [found[7]]
            assert list(rows.left()) == [*found[:5], *found[7:]]
            assert rows.extent() == (139, 70, 2, 2)
        with closing(CreatedRows(located(desk), Scope(run, sample=3))) as rows:
            assert rows.extent()[1] == len(list(rows.left())) == 3
        with closing(CreatedRows(located(desk), Scope(run, run=run))) as rows:
            assert list(rows.left()) == []

    # ---- rows from their stored records -----------------------------------------------------------------------------

    def test_a_row_comes_back_whole(self, desk: Desk) -> None:
        """What is taken from the ledger is what was read, with the number that it has there."""
        plain = desk.row(1)._replace(
            line=4711, type="supervisor", text='a;"b\n日本\0"\r\n', body=b"\x00\xff&Type=agent"
        )
        number = desk.bring(plain, OUTCOMES[4])
        other = desk.ledger.register(SOURCE._replace(path="/data/b.csv"))
        second = desk.row(2, 1)._replace(source=other, interaction_sid=sid("KD", "other"))
        desk.bring(second, OUTCOMES[4])
        desk.begin_next_run()
        assert desk.ledger.stored((State.FAILED,), 0, 9) == [
            plain._replace(number=number),
            second._replace(number=number + 1),
        ]

    def test_stored_rows_are_paged_by_their_numbers(self, desk: Desk) -> None:
        """From the one after, so many at most, also when earlier ones have gone on meanwhile."""
        rows = [desk.row(number, number % 2) for number in range(7)]
        for wanted in rows:
            desk.bring(wanted, OUTCOMES[4])
        desk.begin_next_run()
        pages, after = [], 0
        while page := desk.ledger.stored((State.FAILED,), after, 3):
            pages.append([found.key for found in page])
            after = page[-1].number
            for found in page:
                desk.bring(found, OUTCOMES[4])
        assert pages == [[wanted.key for wanted in rows[start : start + 3]] for start in (0, 3, 6)]
        assert desk.ledger.stored((State.FAILED,), 0, 9) == []

    @pytest.mark.parametrize(
        "states", [(State.FAILED,), (State.IN_DOUBT,), (State.REJECTED, State.PARKED), (State.CREATED,), tuple(State)]
    )
    def test_only_rows_in_these_states_are_taken(self, desk: Desk, place: Place, states: tuple[State, ...]) -> None:
        """Of those asked for, the ones whose record is kept: created and existed rows need nothing more."""
        for number, state in enumerate(State):
            bring_to(desk, place, desk.row(number, key=state.value), state)
        desk.begin_next_run()
        gone = {State.CREATED, State.EXISTED, State.CLOSED}
        kept = [state.value for state in State if state in states and state not in gone]
        assert [found.key for found in desk.ledger.stored(states, 0, 99)] == kept

    def test_only_rows_of_one_cluster_are_taken(self, desk: Desk) -> None:
        """Those in the states asked for that have this code and this reason, page by page."""
        said = [("1", "x"), ("1", "y"), ("2", "x"), ("1", "x"), ("1", "x")]
        rows = [desk.row(number) for number in range(len(said))]
        for wanted, (code, reason) in zip(rows, said, strict=True):
            desk.bring(wanted, Failed(code, reason))
        desk.bring(desk.row(9), Rejected("1", "x"))
        desk.begin_next_run()
        first = desk.ledger.stored((State.FAILED,), 0, 2, Why("1", "x"))
        assert [found.key for found in first] == [rows[0].key, rows[3].key]
        rest = desk.ledger.stored((State.FAILED,), first[-1].number, 2, Why("1", "x"))
        assert [found.key for found in rest] == [rows[4].key]
        assert len(desk.ledger.stored((State.FAILED, State.REJECTED), 0, 9, Why("1", "x"))) == 4
        assert desk.ledger.stored((State.FAILED,), 0, 9, Why("1", "")) == []

    def test_rows_of_this_run_are_not_taken(self, desk: Desk) -> None:
        """What this run settled, reopened or began is not handed out to it again, and is to the next one."""
        numbers = [desk.doubt(desk.row(number)) for number in range(4)]
        assert desk.ledger.stored((State.IN_DOUBT,), 0, 9) == []
        desk.begin_next_run()
        desk.ledger.write([Reopen(numbers[1], desk.row(1), ())])
        desk.ledger.write([Settle(numbers[1], Settlement(desk.row(1).key, OUTCOMES[5]))])
        desk.ledger.write([Look(numbers[2], "x", ())])
        desk.doubt(desk.row(9))
        assert [found.number for found in desk.ledger.stored((State.IN_DOUBT,), 0, 9)] == [
            *(numbers[0], numbers[2], numbers[3]),
        ]
        desk.begin_next_run()
        assert len(desk.ledger.stored((State.IN_DOUBT,), 0, 9)) == 5

    def test_rows_whose_record_is_gone_are_left_out(self, desk: Desk, place: Place) -> None:
        """What was pruned cannot be sent again; pages go on behind it."""
        for number in range(4):
            desk.bring(desk.row(number), OUTCOMES[4])
        desk.begin_next_run()
        for number in (0, 2):
            place.forget(desk.row(number).key)
        first = desk.ledger.stored((State.FAILED,), 0, 1)
        assert [found.key for found in first] == [desk.row(1).key]
        assert [found.key for found in desk.ledger.stored((State.FAILED,), first[0].number, 1)] == [desk.row(3).key]

    # ---- runs, inputs and channels ----------------------------------------------------------------------------------

    def test_runs_are_numbered_upwards(self, place: Place) -> None:
        """Every run has a number of its own, larger than those before."""
        numbers = []
        for _ in range(3):
            with at_work(place) as desk:
                numbers.append(desk.run)
                desk.ledger.end_run(0, "finished", "{}")
        assert numbers == sorted(set(numbers))

    def test_an_input_keeps_its_number(self, place: Place) -> None:
        """The same input as before, in this run or a later one, has the same number; any difference makes another."""
        with at_work(place) as desk:
            assert desk.ledger.register(SOURCE) == desk.source
            differences = ("path", "format", "encoding", "delimiter", "header")
            others = [desk.ledger.register(SOURCE._replace(**{name: "x"})) for name in differences]
            assert len({desk.source, *others}) == 6
            first = desk.source
        with at_work(place) as desk:
            assert desk.source == first

    def test_a_run_counts_what_it_settled_itself(self, place: Place) -> None:
        """The count holds this run's outcomes only: not earlier ones, not rows still open."""
        with at_work(place) as desk:
            desk.bring(desk.row(1), OUTCOMES[0])
            desk.bring(desk.row(2), OUTCOMES[4])
            desk.bring(desk.row(3), OUTCOMES[4])
            assert desk.ledger.settled_by_run() == {State.CREATED: 1, State.FAILED: 2}
        with at_work(place) as desk:
            assert desk.ledger.settled_by_run() == {}
            desk.bring(desk.row(2), OUTCOMES[0])
            desk.intend(desk.row(3))
            desk.ledger.write([Intent(desk.row(1))])
            assert desk.ledger.settled_by_run() == {State.CREATED: 1}

    def test_a_channel_with_a_row_in_doubt_is_known(self, desk: Desk) -> None:
        """A row that may exist holds its channel; rows that came to an end do not."""
        for number, outcome in enumerate(OUTCOMES):
            desk.bring(desk.row(number), outcome)
        desk.bring(desk.row(20, 100), OUTCOMES[0])
        desk.bring(desk.row(21, 100), OUTCOMES[5])
        desk.intend(desk.row(22, 200))
        desk.bring(desk.row(23, 200), OUTCOMES[5])
        assert desk.ledger.channels_in_doubt() == {
            sid("UO", len(OUTCOMES) - 1): {desk.row(len(OUTCOMES) - 1).key},
            sid("UO", 100): {desk.row(21).key},
            sid("UO", 200): {desk.row(22).key, desk.row(23).key},
        }

    # ---- crashes ----------------------------------------------------------------------------------------------------

    def test_what_a_crash_left_started_is_in_doubt(self, place: Place) -> None:
        """After a crash a row that was under way may exist: in doubt, with its record, and its channel is held."""
        with at_work(place) as desk:
            under_way, done = desk.row(1), desk.row(2)
            desk.intend(under_way)
            desk.bring(done, OUTCOMES[0])
        with at_work(place) as desk:
            assert desk.ledger.channels_in_doubt() == {under_way.channel_sid: {under_way.key}}
            [answer] = desk.ledger.write([Intent(under_way)])
            assert isinstance(answer, Known)
            assert answer.state is State.IN_DOUBT
            assert desk.ledger.settled_by_run() == {}
        found = {each["key"]: each for each in place.rows()}
        assert (found[under_way.key]["state"], found[under_way.key]["code"]) == ("in_doubt", "crash")
        assert found[under_way.key]["settled_at"]
        assert found[done.key]["state"] == "created"
        assert place.payloads() == {under_way.key: (under_way.text, under_way.body)}

    @pytest.mark.parametrize("listed", [(), (sid("UT", 9),)])
    def test_a_crash_after_reopening_leaves_a_doubt_that_can_be_resolved(
        self, place: Place, listed: tuple[str, ...]
    ) -> None:
        """The row is in doubt again, as of the run that reopened it, with the list of then as its baseline."""
        with at_work(place) as desk:
            wanted = desk.row(1)
            desk.ledger.write([Baseline(wanted, (sid("UT", 8),))])
            number = desk.doubt(wanted)
        with at_work(place) as desk:
            desk.ledger.write([Reopen(number, wanted, listed)])
            reopened = desk.run
        with at_work(place) as desk:
            [found] = place.rows()
            assert (found["state"], found["code"], found["run"]) == ("in_doubt", "crash", reopened)
            assert desk.ledger.channels_in_doubt() == {wanted.channel_sid: {wanted.key}}
            assert desk.ledger.stored((State.IN_DOUBT,), 0, 9) == [wanted._replace(number=number)]
            assert desk.ledger.surroundings(number) == Surroundings(frozenset(), frozenset({*listed, sid("UT", 8)}), 1)
            assert desk.ledger.settled_by_run() == {}
            desk.ledger.write([Reopen(number, wanted, ())])
        assert place.payloads() == {wanted.key: (wanted.text, wanted.body)}

    def test_a_kill_after_reopening_loses_nothing(self, place: Place) -> None:
        """A process that dies right after the answer has left the baseline with the row that it reopened."""
        with at_work(place) as desk:
            wanted = desk.row(1)
            number = desk.doubt(wanted)
        act = f"""
from worker.ledger import Reopen
ledger.write([Reopen({number}, row(1)._replace(source=source), (sid("UT", 9),))])
os.kill(os.getpid(), signal.SIGKILL)
"""
        with child(place, act) as process:
            process.communicate()
        with at_work(place) as desk:
            assert [found["code"] for found in place.rows()] == ["crash"]
            assert desk.ledger.surroundings(number) == Surroundings(frozenset(), frozenset({sid("UT", 9)}), 1)

    @pytest.mark.parametrize("end", ["os._exit(0)", "os.kill(os.getpid(), signal.SIGKILL)"])
    def test_what_was_answered_outlives_its_process(self, place: Place, end: str) -> None:
        """A process that dies right after a write returned has left everything of it behind."""
        act = f"""
answers = ledger.write([Intent(row(n)._replace(source=source)) for n in range(3)])
ledger.write([Settle(answers[0], Settlement(row(0).key, Created(sid("UT", 1))))])
{end}
"""
        with child(place, act) as process:
            process.communicate()
        with at_work(place):
            states = {found["key"]: found["state"] for found in place.rows()}
        assert states == {row(0).key: "created", row(1).key: "in_doubt", row(2).key: "in_doubt"}
        assert place.payloads() == {row(n).key: (row(n).text, row(n).body) for n in (1, 2)}

    @pytest.mark.parametrize("confirmed", [1, 7, 40])
    def test_a_kill_at_any_moment_leaves_no_half_of_a_group(self, place: Place, confirmed: int) -> None:
        """All groups that were answered are there; the one under way is there whole, or not at all."""
        act = """
for n in range(0, 1_000_000, 3):
    ledger.write([Intent(row(n + place)._replace(source=source)) for place in range(3)])
    print(n, flush=True)
"""
        with child(place, act) as process:
            assert process.stdout is not None
            last = [int(process.stdout.readline()) for _ in range(confirmed)][-1]
            process.send_signal(signal.SIGKILL)
            told = process.stdout.read().split("\n")
            last = max([last, *(int(number) for number in told[:-1])])
        with at_work(place):
            keys = {found["key"] for found in place.rows()}
        whole = {row(number).key for number in range(last + 3)}
        assert whole <= keys
        assert keys - whole in (set(), {row(last + 3 + number).key for number in range(3)})
        assert place.payloads().keys() == keys


STATES: Sequence[str] = ("created", "existed", "rejected", "parked", "failed", "in_doubt")
