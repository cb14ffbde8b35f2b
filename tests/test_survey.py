import sqlite3
import threading
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ledger_contract import SOURCE, Desk, bring_to
from tests.samples_of import draft_of, row
from tests.test_ledger_sqlite import SqlitePlace
from worker.errors import LedgerError, LedgerRefusedError
from worker.ledger import Finding, Waive, Why
from worker.ledger.sqlite import SqliteLedger
from worker.ledger.survey import Survey, Surveyed
from worker.model import Draft, Misfit, Problem, State

NAMES = {1: "a.csv", 2: "b.csv"}


@pytest.fixture
def survey() -> Iterator[Survey]:
    """Return a survey with nothing to compare with but the input itself."""
    with Survey(None, NAMES) as survey:
        yield survey


def item(key: str, line: int, *, content: str = "", source: int = 1) -> Draft:
    """Return a draft with this key."""
    return draft_of(row(0, key=key, content=content, line=line))._replace(source=source)


def places(findings: list[Finding]) -> list[tuple[str, int, str | None]]:
    """Return kind, line and detail of findings."""
    return [(finding.kind, finding.line, finding.detail) for finding in findings]


# ---- the input alone ------------------------------------------------------------------------------------------------


def test_new_rows_are_sent_in_their_order(survey: Survey) -> None:
    """Rows that nobody knows go through as they came, and the batch says how far it was read."""
    batch = [item(key, line) for line, key in enumerate("cab", 2)]
    surveyed = survey.sort(batch)
    assert surveyed.send == batch
    assert (surveyed.read, surveyed.source, surveyed.last_line) == (3, 1, 4)
    assert surveyed.counts == {}
    assert surveyed.findings == []


def test_an_empty_batch_is_nothing(survey: Survey) -> None:
    """A batch without rows counts nothing."""
    surveyed = survey.sort([])
    assert (surveyed.read, surveyed.send, surveyed.findings, surveyed.counts) == (0, [], [], {})


@pytest.mark.parametrize("apart", [False, True], ids=["in one batch", "in two batches"])
def test_the_same_row_twice_counts_once(survey: Survey, *, apart: bool) -> None:
    """The first one counts, each later one is a duplicate that names the first one's place; no record is kept."""
    first, second, third = (item("k", line) for line in (2, 7, 9))
    batches = [[first], [second], [third]] if apart else [[first, second, third]]
    results = [survey.sort(batch) for batch in batches]
    assert [sent for result in results for sent in result.send] == [first]
    findings = [finding for result in results for finding in result.findings]
    said = ("duplicate", "the same record again", None, "the first one is a.csv:2")
    assert findings == [Finding("duplicate", 1, line, "k", *said) for line in (7, 9)]
    assert sum(result.counts.get("duplicate", 0) for result in results) == 2


def test_the_same_row_in_two_files_counts_where_it_came_first(survey: Survey) -> None:
    """The order of the inputs decides; the message names the other file."""
    survey.sort([item("k", 99)])
    surveyed = survey.sort([item("k", 2, source=2)])
    assert surveyed.send == []
    assert surveyed.source == 2
    assert places(surveyed.findings) == [("duplicate", 2, "the first one is a.csv:99")]


@pytest.mark.parametrize("apart", [False, True], ids=["in one batch", "in two batches"])
def test_one_key_with_two_contents_is_a_conflict(survey: Survey, *, apart: bool) -> None:
    """The second content is rejected with its record, and names the first place, whatever stands between."""
    first, other, same = item("k", 2), item("k", 5, content="x"), item("k", 8)
    where = "the first one is a.csv:2"
    results = [survey.sort([each]) for each in (first, other, same)] if apart else [survey.sort([first, other, same])]
    assert [sent for result in results for sent in result.send] == [first]
    assert [finding for result in results for finding in result.findings] == [
        Finding("rejected", 1, 5, "k", "key_conflict", "another row of the input has this key", other.text, where),
        Finding("duplicate", 1, 8, "k", "duplicate", "the same record again", None, where),
    ]


def test_an_input_without_a_name_is_still_placed(survey: Survey) -> None:
    """A place in an input that nobody named is told by its line."""
    survey.sort([item("k", 3, source=9)])
    assert places(survey.sort([item("k", 4, source=9)]).findings) == [("duplicate", 4, "the first one is input:3")]


def test_misfits_are_rejected_here(survey: Survey) -> None:
    """A record that cannot become a row is rejected with its reason and its record, and is no first of its key."""
    misfit = Misfit("k", 1, 2, Problem("bad_field", "type: is missing"), "record\n")
    nameless = Misfit(None, 1, 3, Problem("bad_record", "has 3 columns"), "x\n")
    surveyed = survey.sort([misfit, nameless, item("k", 4)])
    assert surveyed.findings == [
        Finding("rejected", 1, 2, "k", "bad_field", "type: is missing", "record\n"),
        Finding("rejected", 1, 3, None, "bad_record", "has 3 columns", "x\n"),
    ]
    assert surveyed.counts == {"rejected": 2}
    assert [sent.line for sent in surveyed.send] == [4]
    assert survey.sort([misfit._replace(line=9)]).last_line == 9


# ---- beside a ledger ------------------------------------------------------------------------------------------------

COUNTED = {
    State.STARTED: "in_doubt",
    State.CREATED: "already_done",
    State.EXISTED: "already_done",
    State.REJECTED: "rejected",
    State.PARKED: "parked",
    State.WAIVED: "waived",
    State.FAILED: None,
    State.IN_DOUBT: "in_doubt",
    State.CLOSED: "closed",
}


@pytest.fixture
def place(tmp_path: Path) -> SqlitePlace:
    """Return a folder with no ledger yet."""
    return SqlitePlace(tmp_path / "imports.db")


@pytest.fixture
def desk(place: SqlitePlace) -> Iterator[Desk]:
    """Return a new ledger in its first run; it stays open for writing while the input is surveyed."""
    ledger: SqliteLedger
    with closing(place.open()) as ledger:
        yield Desk(ledger)


@pytest.mark.parametrize("state", State)
def test_the_ledger_decides_about_rows_that_it_knows(place: SqlitePlace, desk: Desk, state: State) -> None:
    """What is done, refused, signed off or in doubt is counted and not sent; what failed is sent again."""
    known = desk.row(1)
    bring_to(desk, place, known, state)
    with Survey(place.path, NAMES) as survey:
        surveyed = survey.sort([draft_of(known)])
        again = survey.sort([draft_of(known)._replace(line=99)])
    bucket = COUNTED[state]
    assert surveyed.counts == ({bucket: 1} if bucket else {})
    assert surveyed.send == ([] if bucket else [draft_of(known)])
    assert surveyed.findings == []
    assert again.counts == {"duplicate": 1}


@pytest.mark.parametrize("state", State)
def test_other_content_than_the_ledgers_is_reported(place: SqlitePlace, desk: Desk, state: State) -> None:
    """A repaired row is sent when its refusal ends; where the ledger stays as it is, the change is reported."""
    known = desk.row(1, key="k")
    bring_to(desk, place, known, state)
    repaired = draft_of(desk.row(1, key="k", content="new"))
    with Survey(place.path, {desk.source: "a.csv"}) as survey:
        surveyed = survey.sort([repaired])
    if state in {State.REJECTED, State.PARKED, State.FAILED}:
        assert (surveyed.send, surveyed.counts, surveyed.findings) == ([repaired], {}, [])
        return
    bucket = COUNTED[state]
    assert bucket is not None
    assert surveyed.send == []
    assert surveyed.counts == {bucket: 1, "changed": 1}
    [finding] = surveyed.findings
    assert (finding.kind, finding.code, finding.line, finding.record) == ("changed", "changed", 3, None)
    assert finding.reason == f"other content than the row with this key that is {state.value} already; not sent"
    assert finding.detail == "it was a.csv:3"


def sign_off(desk: Desk, finding: Finding) -> None:
    """Have a person sign off what a finding is about."""
    desk.ledger.write([replace(finding, source=desk.source)])
    desk.begin_next_run()
    desk.ledger.write([Waive(State.REJECTED, Why(finding.code, finding.reason), "ada", "spam")])


def test_a_record_that_was_signed_off_is_waived(place: SqlitePlace, desk: Desk) -> None:
    """In any input, on any line, for any reason, with any line end; the smallest change makes it another one."""
    sign_off(desk, Finding("rejected", 1, 3, None, "malformed", "has 1 field", 'x;"y\n"\r\n'))
    misfits = [
        Misfit(None, source, line, Problem("malformed", reason), text)
        for line, (source, reason, text) in enumerate(
            [
                (1, "has 1 field", 'x;"y\n"\r\n'),
                (2, "has 2 fields", 'x;"y\n"'),
                (2, "has 1 field", 'x;"y\n"\n'),
                (1, "has 1 field", 'x;"y\n" \n'),
                (1, "has 1 field", 'X;"y\n"\n'),
            ]
        )
    ]
    with Survey(place.path, NAMES) as survey:
        surveyed = survey.sort(misfits)
    assert surveyed.counts == {"waived": 3, "rejected": 2}
    assert [finding.line for finding in surveyed.findings] == [3, 4]


def test_a_conflict_that_was_signed_off_is_waived(place: SqlitePlace, desk: Desk) -> None:
    """The second row of a key stays out without a word; a third one with other content is rejected."""
    first, second, third = (item("k", 2 + n, content=f"{n}") for n in range(3))
    with Survey(place.path, NAMES) as survey:
        [finding] = survey.sort([first, second]).findings
    sign_off(desk, finding)
    with Survey(place.path, NAMES) as survey:
        surveyed = survey.sort([first, second, third])
    assert (surveyed.send, surveyed.counts) == ([first], {"waived": 1, "rejected": 1})
    assert [finding.line for finding in surveyed.findings] == [4]


def test_a_record_that_was_signed_off_and_is_a_row_now_is_sent(place: SqlitePlace, desk: Desk) -> None:
    """What was signed off is that it cannot be sent; a mapping that was repaired makes it a row like any other."""
    known = desk.row(1)
    sign_off(desk, Finding("rejected", 1, 3, None, "invalid", "type: is missing", known.text))
    draft = draft_of(known)
    with Survey(place.path, NAMES) as survey:
        assert survey.sort([draft]).send == [draft]


@pytest.mark.parametrize("content", ["", "new"])
@pytest.mark.parametrize("state", State)
def test_rows_that_the_run_is_at_work_on_are_handed_on(
    place: SqlitePlace, desk: Desk, state: State, content: str
) -> None:
    """By their turn they may stand elsewhere, so nothing is counted yet; all others are placed as ever."""
    rows = [desk.row(number, key=f"k{number}") for number in range(3)]
    bring_to(desk, place, rows[1], state)
    rows[1] = desk.row(1, key="k1", content=content)
    handed_on = {State.STARTED, State.IN_DOUBT}
    with Survey(place.path, NAMES, hand_on=handed_on) as survey, Survey(place.path, NAMES) as other:
        drafts = [draft_of(one) for one in rows]
        surveyed, ordinary = survey.sort(drafts), other.sort(drafts)
    if state not in handed_on:
        assert surveyed == ordinary
        return
    assert surveyed.send == drafts
    assert surveyed.findings == ordinary.findings
    assert surveyed.counts == ({"changed": 1} if content else {})


def test_a_row_that_is_handed_on_is_the_first_of_its_key(place: SqlitePlace, desk: Desk) -> None:
    """Its repetitions are duplicates, or in conflict with it, as with any other row."""
    bring_to(desk, place, desk.row(1, key="k"), State.IN_DOUBT)
    known, other = draft_of(desk.row(1, key="k")), draft_of(desk.row(1, key="k", content="new"))
    with Survey(place.path, NAMES, hand_on=[State.IN_DOUBT]) as survey:
        surveyed = survey.sort([known, known._replace(line=7), other._replace(line=9)])
    assert surveyed.send == [known]
    assert surveyed.counts == {"duplicate": 1, "rejected": 1}


def test_a_survey_is_not_closed_under_a_thread_that_sorts(place: SqlitePlace, desk: Desk) -> None:
    """Closing waits for the batch under way, which ends as if nothing had happened."""
    entered, leave = threading.Event(), threading.Event()
    results: list[Surveyed[Draft]] = []

    class Held(list[Draft | Misfit]):
        def __iter__(self) -> Iterator[Draft | Misfit]:
            entered.set()
            assert leave.wait(10)
            return super().__iter__()

    class Told:
        """A lock that tells when somebody waits for it."""

        def __init__(self) -> None:
            self.lock = threading.Lock()
            self.waited = threading.Event()

        def __enter__(self) -> None:
            if not self.lock.acquire(blocking=False):
                self.waited.set()
                assert self.lock.acquire(timeout=10)

        def __exit__(self, *_: object) -> None:
            self.lock.release()

    survey, told = Survey(place.path, NAMES), Told()
    survey._working = told  # type: ignore[assignment]  # it locks as well
    sorting = threading.Thread(target=lambda: results.append(survey.sort(Held([draft_of(desk.row(1))]))))
    sorting.start()
    assert entered.wait(10)
    closing_thread = threading.Thread(target=survey.close)
    closing_thread.start()
    assert told.waited.wait(10)
    leave.set()
    sorting.join(10)
    closing_thread.join(10)
    assert [result.send for result in results] == [[draft_of(desk.row(1))]]


def test_a_change_against_an_earlier_input_says_so(place: SqlitePlace, desk: Desk) -> None:
    """When the first place was in a file of another run, its name is not known here."""
    bring_to(desk, place, desk.row(1, key="k"), State.CREATED)
    with Survey(place.path, {}) as survey:
        [finding] = survey.sort([draft_of(desk.row(1, key="k", content="new"))]).findings
    assert finding.detail == "it was an earlier input:3"


def test_a_survey_sees_what_is_written_meanwhile(place: SqlitePlace, desk: Desk) -> None:
    """Each batch is compared with the ledger as it is then, and never keeps the writer waiting."""
    with Survey(place.path, NAMES) as survey:
        assert survey.sort([item("other", 2)]).counts == {}
        known = desk.row(1)
        bring_to(desk, place, known, State.CREATED)
        assert survey.sort([draft_of(known)]).counts == {"already_done": 1}


def test_a_survey_needs_a_ledger_that_is_one(place: SqlitePlace) -> None:
    """A ledger that is not there is refused before anything is read."""
    with pytest.raises(LedgerRefusedError):
        Survey(place.path, NAMES)


def test_a_ledger_that_breaks_on_the_way_is_an_error(place: SqlitePlace, desk: Desk) -> None:
    """When keys can no longer be compared, reading stops: nothing may be sent on a guess."""
    assert desk.run
    with Survey(place.path, NAMES) as survey:
        with closing(sqlite3.connect(place.path)) as vandal, vandal:
            vandal.execute("ALTER TABLE rows RENAME TO gone")
        with pytest.raises(LedgerError, match=r"the input's keys could not be compared.*no such table: rows"):
            survey.sort([item("k", 2)])


# ---- size -----------------------------------------------------------------------------------------------------------


def test_keys_are_not_held_in_memory(survey: Survey) -> None:
    """100,000 keys and 10,000 repetitions are told apart, in the memory of a few batches and a bounded cache."""
    digests = [blake2b(str(number).encode(), digest_size=16) for number in range(100_000)]
    made = draft_of(row(0))
    counts: Counter[str] = Counter()
    sent = 0
    assert survey._census._connection.execute("PRAGMA cache_size").fetchone()[0] == -8000
    survey._census._connection.execute(
        "PRAGMA cache_size = -800"
    )  # so that 100,000 keys, some 3 MB, do not fit into it
    tracemalloc.start()
    try:
        for line, start in enumerate([*range(0, 100_000, 500), *range(0, 100_000, 5_000)]):
            batch = [
                made._replace(key=digest.hexdigest(), fingerprint=digest.digest(), line=line)
                for digest in digests[start : start + 500]
            ]
            surveyed = survey.sort(batch)
            counts.update(surveyed.counts)
            sent += len(surveyed.send)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (sent, counts) == (100_000, {"duplicate": 10_000})
    assert peak < 3_000_000  # a set of these keys alone takes 12 MB
    assert any("etilqs" in str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink())


# ---- any input ------------------------------------------------------------------------------------------------------

RECORDS = st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from("xyz"), st.booleans()), max_size=60)


@settings(max_examples=150, deadline=None)
@given(records=RECORDS, size=st.integers(1, 10), held=st.dictionaries(st.sampled_from("abcd"), st.sampled_from(State)))
def test_every_row_is_counted_once(
    tmp_path_factory: pytest.TempPathFactory,
    records: list[tuple[str, str, bool]],
    size: int,
    held: dict[str, State],
) -> None:
    """Whatever is read, in whatever batches, beside whatever ledger: sent and counted add up to read."""
    place = SqlitePlace(tmp_path_factory.mktemp("any") / "imports.db")
    ledger: SqliteLedger
    with closing(place.open()) as ledger:
        ledger._connection.execute("PRAGMA synchronous = OFF")
        desk = Desk(ledger)
        for key, state in held.items():
            bring_to(desk, place, row(0, key=key, content="x", line=1)._replace(source=desk.source), state)
        batch: list[Draft | Misfit] = [
            item(key, line, content=content) if fits else Misfit(key, 1, line, Problem("bad", "is bad"), "x\n")
            for line, (key, content, fits) in enumerate(records, 2)
        ]
        with Survey(place.path, NAMES) as survey:
            results = [survey.sort(batch[start : start + size]) for start in range(0, len(batch), size)]
    counts: Counter[str] = Counter()
    for result in results:
        counts.update(result.counts)
        counts["sent"] += len(result.send)
    assert +counts == model(records, held)
    changed = counts.pop("changed", 0)
    assert sum(counts.values()) == sum(result.read for result in results) == len(records)
    kinds = Counter(finding.kind for result in results for finding in result.findings)
    assert (kinds["changed"], kinds["duplicate"]) == (changed, counts["duplicate"])


def model(records: list[tuple[str, str, bool]], held: dict[str, State]) -> Counter[str]:
    """Count with a dictionary of all keys, as the survey must without one. held: key → state, with content x."""
    seen: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for key, content, fits in records:
        if not fits:
            counts["rejected"] += 1
        elif key in seen:
            counts["duplicate" if seen[key] == content else "rejected"] += 1
        else:
            seen[key] = content
            bucket = COUNTED[held[key]] if key in held else None
            other = content != "x"
            if bucket is None or (other and held[key] in {State.REJECTED, State.PARKED}):
                counts["sent"] += 1
            else:
                counts[bucket] += 1
                counts["changed"] += other
    return +counts


def test_inputs_have_their_numbers_from_the_ledger(desk: Desk) -> None:
    """Two files of one run are told apart by the numbers that the ledger gave."""
    assert desk.ledger.register(SOURCE._replace(path="/data/b.csv")) != desk.source
