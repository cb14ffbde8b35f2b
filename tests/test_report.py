import json
import re
from collections.abc import Sequence
from typing import Any

import pytest

from worker.cluster import Cluster
from worker.model import (
    BUCKETS,
    Cause,
    Created,
    Existed,
    Exit,
    Failed,
    InDoubt,
    Outcome,
    Parked,
    Rejected,
    State,
    Tally,
)
from worker.report import Account, as_json, as_text, duration, group_lines
from worker.wording import NOTHING_GIVEN

OUTCOMES: dict[str, Outcome] = {
    "created": Created("UT"),
    "existed": Existed("50433", "member"),
    "rejected": Rejected("20001", "bad"),
    "parked": Parked("45354", "closed"),
    "failed": Failed("not_sent", "not sent"),
    "in_doubt": InDoubt("lost", "may exist"),
}


def tally_of(*, input_rows: int | None = None, unread: int = 0, **counts: int) -> Tally:
    """Return the tally of a run in which all of these rows were settled or counted."""
    tally = Tally(read=sum(counts.values()))
    tally.input_rows = tally.read + unread if input_rows is None else input_rows
    for name, count in counts.items():
        setattr(tally, name, count)
        if name in OUTCOMES:
            tally.settled[State(name)] = count
    return tally


def account_of(tally: Tally, *causes: Cause, **others: Any) -> Account:
    """Return the account of a run whose ledger counted the same."""
    made: dict[str, Any] = {
        "run": 2,
        "recorded": dict(tally.settled),
        "elapsed_seconds": 10.0,
        "ledger": "./imports.db",
        "inputs": 1,
    }
    return Account(tally=tally, causes=causes, **(made | others))


# ---- exit codes -----------------------------------------------------------------------------------------------------


def cause(code: Exit) -> Cause:
    """Return a reason to end a run with this code."""
    return Cause(code, f"because of {code.name}")


@pytest.mark.parametrize(
    ("counts", "causes", "expected"),
    [
        ({"created": 1}, (), 0),
        ({"existed": 1, "already_done": 1, "duplicate": 1, "waived": 1}, (), 0),
        ({"closed": 1, "unread": 1}, (Exit.STOPPED,), 6),
        ({"closed": 1, "in_doubt": 1}, (), 4),
        ({}, (), 0),
        ({"created": 9, "rejected": 1}, (), 1),
        ({"parked": 1}, (), 1),
        ({"failed": 1}, (), 1),
        ({"in_doubt": 1, "rejected": 1, "failed": 1}, (), 4),
        ({"not_sent": 1}, (), 4),
        ({"not_sent": 1}, (Exit.STOPPED,), 6),
        ({"in_doubt": 1, "rejected": 1}, (Exit.STOPPED,), 6),
        ({"in_doubt": 1}, (Exit.STOPPED, Exit.SIGTERM), 143),
        ({}, (Exit.STOPPED, Exit.SIGINT, Exit.SIGTERM), 130),
        ({}, (Exit.SIGHUP, Exit.SIGINT), 129),
        ({"in_doubt": 1}, (Exit.SIGINT, Exit.HALTED), 3),
        ({}, (Exit.HALTED, Exit.HELD), 5),
        ({}, (Exit.HELD, Exit.USAGE), 2),
        ({"rejected": 1}, (Exit.USAGE, Exit.BUG), 70),
    ],
)
def test_the_most_serious_thing_that_is_true_is_the_exit_code(
    counts: dict[str, int], causes: Sequence[Exit], expected: int
) -> None:
    """70, 2, 5, 3, 129/130/143, 6, 4, 1, 0, in whatever order they came; the reason is that code's own."""
    for order in (causes, tuple(reversed(causes))):
        account = account_of(tally_of(**counts), *map(cause, order))
        assert account.exit_code == expected
        code = Exit(expected)
        assert account.reason == (cause(code).reason if code in causes else code.meaning)


@pytest.mark.parametrize(
    ("counts", "earlier", "ratio", "expected"),
    [
        ({"created": 99, "rejected": 1}, {}, 0.01, 0),
        ({"created": 71, "rejected": 10, "parked": 9, "failed": 10}, {}, 0.29, 0),
        ({"created": 98, "rejected": 1, "failed": 1}, {}, 0.01, 1),
        ({"created": 98}, {State.FAILED: 2}, 0.02, 0),
        ({"created": 97}, {State.FAILED: 2}, 0.02, 1),
        ({"rejected": 1}, {}, 1.0, 0),
        ({"created": 98, "rejected": 1, "in_doubt": 1}, {}, 0.5, 4),
    ],
)
def test_a_share_of_bad_rows_may_be_tolerated(
    counts: dict[str, int], earlier: dict[State, int], ratio: float, expected: int
) -> None:
    """Of all rows, those of earlier runs among them; a doubt never is. The reason still says how many there were."""
    tally = tally_of(**counts)
    tally.earlier = earlier
    account = account_of(tally, tolerate_ratio=ratio)
    assert account.exit_code == expected
    assert account.exit_code or "no more than exit.tolerate_ratio" in account.reason


def test_every_exit_code_has_a_meaning() -> None:
    """The contract's table is whole."""
    assert [int(code) for code in Exit] == [0, 1, 2, 3, 4, 5, 6, 70, 129, 130, 143]
    assert len({code.meaning for code in Exit}) == len(Exit)


# ---- the identity ---------------------------------------------------------------------------------------------------

EVERYTHING = {name: number for number, name in enumerate(BUCKETS, 1)}


def test_the_identity_holds_when_each_row_is_in_one_place() -> None:
    """Input = the sum of all outcomes + unread, and the ledger counted the same."""
    assert account_of(tally_of(**EVERYTHING, unread=5), cause(Exit.STOPPED)).identity_holds


def test_unread_rows_without_a_cause_are_a_bug() -> None:
    """A run that has no reason to stop reads everything."""
    account = account_of(tally_of(**EVERYTHING, unread=5))
    assert not account.identity_holds
    assert account.exit_code is Exit.BUG


@pytest.mark.parametrize("off_by", [-1, 1])
@pytest.mark.parametrize("name", ["read", *BUCKETS])
def test_a_count_that_is_off_is_a_bug_in_flex_import(name: str, off_by: int) -> None:
    """One row too many or too few anywhere ends 70, whatever else was true."""
    tally = tally_of(**EVERYTHING, unread=5)
    setattr(tally, name, getattr(tally, name) + off_by)
    account = account_of(tally, cause(Exit.SIGTERM))
    assert not account.identity_holds
    assert account.exit_code == Exit.BUG
    assert "identity DOES NOT HOLD" in as_text(account).splitlines()[-1]
    assert "Nothing lost" not in as_text(account)
    assert as_json(account)["identity_holds"] is False


def test_more_rows_than_the_input_has_is_a_bug() -> None:
    """Less than nothing cannot be left unread."""
    assert account_of(tally_of(created=3, input_rows=2)).exit_code == Exit.BUG


@pytest.mark.parametrize("state", [State(name) for name in OUTCOMES])
@pytest.mark.parametrize("off_by", [-1, 1])
def test_a_ledger_that_counted_otherwise_is_a_bug(state: State, off_by: int) -> None:
    """The ledger is asked, and believed no more than the run."""
    tally = tally_of(**EVERYTHING)
    recorded = tally.settled | {state: tally.settled[state] + off_by}
    assert account_of(tally, recorded=recorded).exit_code == Exit.BUG


@pytest.mark.parametrize(("name", "outcome"), OUTCOMES.items())
def test_a_settled_row_is_counted_in_its_place(name: str, outcome: Outcome) -> None:
    """In the account and in what the ledger is compared with."""
    tally = Tally(read=1)
    tally.settle(outcome)
    assert (getattr(tally, name), tally.settled, tally.holds()) == (1, {State(name): 1}, True)


@pytest.mark.parametrize("others", [{"already_done": 2}, {"rejected": 1}])
def test_rows_that_undo_closed_are_not_done(others: dict[str, int]) -> None:
    """The run sent everything else, but not these: as rows that were not sent, with a reason of their own."""
    account = account_of(tally_of(closed=3, **others))
    assert (account.exit_code, account.reason) == (4, "finished; 3 rows closed by undo and not sent")


# ---- text -----------------------------------------------------------------------------------------------------------

BIG = {
    "created": 1_170_936,
    "existed": 102,
    "already_done": 50,
    "duplicate": 168,
    "rejected": 1_655,
    "parked": 171,
    "failed": 9,
    "in_doubt": 5,
    "not_sent": 914,
}
PROXY = (
    "halted: the first 5 answers were not the API's (redirects, or no JSON of Twilio's); "
    "is the base URL right, is a proxy in the way?"
)
GROUPS = [
    Cluster(
        *("a07c1b2d3e4f5061", "a07c", "rejected", "invalid"),
        *("media_properties: is not JSON: Expecting value at character 1", 911, (("a.csv", 88), ("a.csv", 90))),
    ),
    Cluster("db70000000000000", "db70", "in_doubt", "lost", "no answer within 30 s", 5, (("b.csv", 7),)),
    Cluster("c418000000000000", "c418", "parked", "45354", "the conversation is closed", 3, (("b.csv", 9),)),
]


def big_account(*causes: Cause) -> Account:
    """Return the account of a large run with something of everything."""
    tally = tally_of(**BIG, unread=2_225_990)
    tally.changed, tally.requests, tally.retries, tally.throttled = 1_170_936, 1_172_204, 12_214, 10_096
    return account_of(tally, *causes, elapsed_seconds=8 * 3600.0, groups=GROUPS, inputs=3)


def summed(lines: Sequence[str]) -> tuple[int, int]:
    """Return the input and the sum of the lines between it and the identity, as a person would add them."""
    first = next(number for number, line in enumerate(lines) if line.startswith("  input"))
    last = next(number for number, line in enumerate(lines) if line.startswith("  identity"))
    counts = [int(line[14:25].replace(",", "")) for line in lines[first:last]]
    return counts[0], sum(counts[1:])


CAUSES = [(), (Cause(Exit.STOPPED, "stopped after 10 rows, as --limit says"),), (Cause(Exit.HALTED, PROXY),)]


@pytest.mark.parametrize("causes", CAUSES)
@pytest.mark.parametrize("rows", [EVERYTHING, BIG, {"created": 5_000}, {}])
def test_the_summary_adds_up_and_fits_a_terminal(rows: dict[str, int], causes: Sequence[Cause]) -> None:
    """The lines between input and identity sum to the input; nothing but the last line may be wider than 80."""
    tally = big_account().tally if rows is BIG else tally_of(**rows)
    *lines, last = as_text(account_of(tally, *causes, groups=GROUPS if "rejected" in rows else ())).splitlines()
    total = tally.read + tally.unread
    assert summed(lines) == (total, total)
    assert [line for line in lines if len(line) > 80] == []
    assert last.startswith("run 2 ")


def test_the_summary_of_a_large_run_is_folded_not_cut() -> None:
    """Long sentences go on in the next line, with all their words."""
    text = " ".join(as_text(big_account(Cause(Exit.HALTED, PROXY))).split())
    assert "Halted: the first 5 answers" in text
    assert "is a proxy in the way? Nothing lost." in text
    assert "8 h 00 min, 1,172,204 requests, 40.7/s, 12,214 retries, 10,096 times 429" in text
    assert "1,170,936 rows changed after being sent; the ledger keeps what was sent" in text
    assert all(one.reason in text for one in GROUPS)
    assert "rows in 3 files" in text


@pytest.mark.parametrize(
    ("counts", "causes", "steps"),
    [
        ({"created": 5}, (), ["flex-import export --state created -o ids.csv"]),
        ({"created": 5, "rejected": 1}, (), ["flex-import export --rejects fix/"]),
        ({"in_doubt": 1, "parked": 1}, (), ["flex-import reconcile", "flex-import export --rejects fix/"]),
        ({"created": 1, "unread": 9}, (Exit.STOPPED,), ["the same command"]),
        ({"already_done": 1, "closed": 2}, (), ["flex-import retry --state closed"]),
        ({"created": 1, "failed": 1}, (Exit.BUG,), ["flex-import status"]),
    ],
)
def test_the_summary_ends_with_what_to_type_next(
    counts: dict[str, int], causes: Sequence[Exit], steps: list[str]
) -> None:
    """For what is left, in doubt or bad; when all is well, for the crosswalk."""
    text = as_text(account_of(tally_of(**counts), *map(cause, causes)))
    block = text.partition("\nNext ")[2].splitlines()[:-1]
    assert [line.strip().partition("   ")[0] for line in block] == steps


def test_what_is_left_is_told_with_the_time_that_it_would_take() -> None:
    """As this run went; of a run that was not stopped nothing is left."""
    stopped = account_of(tally_of(created=100, unread=3_600), cause(Exit.STOPPED), elapsed_seconds=100.0)
    assert "  to go       3,600 rows, some 1 h 00 min at this pace" in as_text(stopped).splitlines()
    assert "to go" not in as_text(account_of(tally_of(created=100)))


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({"created": 5_000}, "run 2 finished, exit 0: 5,000 rows = 5,000 created; identity holds"),
        ({}, "run 2 finished, exit 0: 0 rows = 0; identity holds"),
        (
            {"created": 4_958, "in_doubt": 3, "unread": 39},
            "run 2 stopped, exit 6: 5,000 rows = 4,958 created + 3 in doubt + 39 unread; identity holds",
        ),
    ],
)
def test_the_last_line_alone_says_how_it_ended(counts: dict[str, int], expected: str) -> None:
    """It is what Kubernetes keeps: run, exit code, every count, the identity; one line, however long."""
    causes = (cause(Exit.STOPPED),) if "unread" in counts else ()
    assert as_text(account_of(tally_of(**counts), *causes)).splitlines()[-1] == expected


def test_the_last_line_has_every_count_that_is_not_zero() -> None:
    """And they add up to its total."""
    last = as_text(account_of(tally_of(**EVERYTHING, unread=11))).splitlines()[-1]
    total, *parts = (int(number.replace(",", "")) for number in re.findall(r"[\d,]+", last.partition(": ")[2]))
    assert total == sum(parts) == 77
    assert len(parts) == 12


@pytest.mark.parametrize(
    ("counts", "causes", "says"),
    [
        ({"created": 1}, (), "Finished. Nothing lost."),
        ({"already_done": 2, "closed": 1}, (), "Finished. Nothing lost."),
        ({"already_done": 3}, (), "Everything was already done; nothing was sent."),
        ({"created": 1}, (cause(Exit.SIGINT),), "Because of SIGINT. Nothing lost."),
    ],
)
def test_the_first_line_says_what_happened(counts: dict[str, int], causes: Sequence[Cause], says: str) -> None:
    """In words, for a person."""
    assert as_text(account_of(tally_of(**counts), *causes)).splitlines()[0] == says


def test_rows_of_stdin_have_no_files() -> None:
    """And nothing is known of what was not read."""
    tally = tally_of(created=3)
    tally.input_rows = None
    account = account_of(tally, inputs=0)
    assert "  input                 3   rows" in as_text(account).splitlines()
    assert account.identity_holds
    assert (as_json(account)["input_rows"], as_json(account)["unread"]) == (None, 0)


def test_groups_say_what_and_where() -> None:
    """The five largest with their ids, a code only when it is one of Twilio's, and the first few places."""
    assert group_lines(GROUPS[2:], NOTHING_GIVEN) == [
        "1 group needs attention; what to do: flex-import failures",
        "  c418         3  parked    45354 the conversation is closed",
        "                            b.csv:9",
    ]
    many = group_lines(GROUPS * 3, NOTHING_GIVEN)
    assert many[0] == "9 groups need attention, top 5; what to do: flex-import failures"
    assert [line[:6] for line in many if line[2] != " "] == ["9 grou", "  a07c", "  db70", "  c418", "  a07c", "  db70"]
    assert "a.csv:88, :90" in " ".join(many)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0.0 s"), (59.9, "59.9 s"), (60, "1 min"), (3_569, "59 min"), (3_599, "1 h 00 min"), (37_800, "10 h 30 min")],
)
def test_a_duration_is_said_the_way_people_say_it(seconds: float, said: str) -> None:
    """Seconds, minutes, hours: no more than needed."""
    assert duration(seconds) == said


# ---- JSON -----------------------------------------------------------------------------------------------------------


def test_the_json_object_is_the_contract_s() -> None:
    """Exactly these keys, in this order, as plain JSON."""
    tally = tally_of(**EVERYTHING, unread=5)
    tally.changed, tally.requests, tally.retries, tally.throttled = 1, 60, 5, 4
    account = account_of(
        tally, cause(Exit.STOPPED), elapsed_seconds=2.00049, last_request_at="2026-03-03T05:59:59.000Z"
    )
    assert list(json.loads(json.dumps(as_json(account))).items()) == [
        ("run", 2),
        ("input_rows", 71),
        ("read", 66),
        ("created", 1),
        ("existed", 2),
        ("already_done", 3),
        ("closed", 4),
        ("duplicate", 5),
        ("rejected", 6),
        ("parked", 7),
        ("waived", 8),
        ("failed", 9),
        ("in_doubt", 10),
        ("not_sent", 11),
        ("unread", 5),
        ("changed", 1),
        ("identity_holds", True),
        ("requests", 60),
        ("retries", 5),
        ("throttled", 4),
        ("elapsed_seconds", 2.0),
        ("rows_per_second", 0.5),
        ("last_request_at", "2026-03-03T05:59:59.000Z"),
        ("exit_code", 6),
        ("reason", "because of STOPPED"),
    ]


def test_a_run_that_took_no_time_has_no_pace() -> None:
    """Nothing is divided by zero, and nothing is infinite in JSON."""
    account = account_of(tally_of(), elapsed_seconds=0.0)
    assert (as_json(account)["rows_per_second"], as_json(account)["last_request_at"]) == (0.0, None)
    assert as_text(account)
