"""Verifying: what lists say about created rows, from the comparison to the command."""

import json
import re
import signal
import sqlite3
from collections.abc import AsyncIterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import pytest

from tests.commands import QUICK, Ended, finish, flex_import, start
from tests.ledger_contract import Desk, at_work
from tests.samples_of import sid
from tests.test_command import csv_of
from tests.test_ledger_sqlite import SqlitePlace
from worker.emulator import Answer, Call, Emulator, serve
from worker.ledger import Close, Member, Verification, Verified
from worker.ledger.verifying import CreatedRows, Scope
from worker.ledger.view import View
from worker.model import Created, Listed, Listing, Unlisted
from worker.verify import MOST_KEPT, Findings, compare

NEVER = 1e9
"""A lag of lists that never ends."""


def member(number: int) -> Member:
    """Return a created row."""
    return Member(number, f"k{number}", sid("UT", number), f"a.csv:{number}", sid("KD", 1), sid("UO", 1))


def listing(*numbers: int, status: Mapping[int, str] | None = None, nameless: int = 0) -> Listing:
    """Return a list with these participants, and others that have no sid."""
    here = [Listed(sid("UT", number), "customer", None) for number in numbers]
    statuses = {sid("UT", number).casefold(): text for number, text in (status or {}).items()}
    return Listing((*here, *[Listed(None, None, None)] * nameless), statuses)


# ---- what a list says -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "again", "expected"),
    [
        (listing(1, 2), False, Verification(1, Verified.CONFIRMED)),
        (listing(2), False, Verification(1, Verified.ABSENT)),
        (listing(2), True, Verification(1, Verified.MISSING)),
        (listing(), True, Verification(1, Verified.MISSING)),
        (listing(1), True, Verification(1, Verified.CONFIRMED)),
        (listing(1, status={1: "active"}), False, Verification(1, Verified.CONFIRMED, "active")),
        (listing(1, status={1: "Closed"}), False, Verification(1, Verified.DEPARTED, "Closed")),
        (listing(1, status={2: "closed"}), False, Verification(1, Verified.CONFIRMED)),
        (listing(1, nameless=1), False, Verification(1, Verified.CONFIRMED)),
        (listing(nameless=1), True, Verification(1, Verified.NOT_LISTABLE, "the list has participants without a sid")),
        (Unlisted("status 403", refused=True), False, Verification(1, Verified.NOT_LISTABLE, "status 403")),
        (Unlisted("lists are refused: status 403"), False, Verification(1, Verified.NOT_LISTABLE, "status 403")),
        (Unlisted("x" * 9999), True, Verification(1, Verified.NOT_LISTABLE, "x" * 200)),
    ],
)
def test_a_list_decides(found: Listing | Unlisted, again: bool, expected: Verification) -> None:
    """Only a second list makes a participant missing, and only a list that names everybody."""
    assert compare([member(1)], found, again=again) == [expected]


def test_the_case_of_a_sid_does_not_count() -> None:
    """The service may write it in another one."""
    shouted = Listing((Listed(sid("UT", 1).upper(), None, None),))
    assert compare([member(1)], shouted, again=False) == [Verification(1, Verified.CONFIRMED)]


def test_findings_are_counted_and_missing_rows_kept_up_to_a_bound() -> None:
    """Reasons by rows and channels; what was absent is counted as what the second list made of it."""
    findings = Findings()
    many = [member(number) for number in range(MOST_KEPT + 5)]
    findings.add(many, compare(many, listing(0), again=False), again=False)
    assert findings.counts[Verified.ABSENT] == MOST_KEPT + 4
    findings.add(many[1:], compare(many[1:], listing(1), again=True), again=True)
    for _ in range(2):
        findings.add(many[:3], compare(many[:3], Unlisted("status 404", missing=True), again=False), again=False)
    assert findings.counts == {
        Verified.CONFIRMED: 2,
        Verified.DEPARTED: 0,
        Verified.ABSENT: 0,
        Verified.MISSING: MOST_KEPT + 3,
        Verified.NOT_LISTABLE: 6,
    }
    assert len(findings.missing) == MOST_KEPT
    assert findings.unlisted == {"status 404": (6, 2)}


# ---- which rows -----------------------------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path: Path) -> SqlitePlace:
    """Return a ledger in which run 1 has created twelve rows in four channels, and undo has closed the first one."""
    place = SqlitePlace(tmp_path / "imports.db")
    with at_work(place) as desk:
        numbers = [desk.bring(desk.row(number, number % 4), Created(sid("UT", number))) for number in range(12)]
        desk.ledger.write([Close(numbers[0], desk.row(0).key)])
        desk.ledger.end_run(0, "finished", "{}")
    return place


def begin(desk: Desk, **scope: Any) -> CreatedRows:
    """Begin a verification and return its rows."""
    return CreatedRows(desk.ledger.path, Scope(desk.ledger.start_run("verify"), **scope))  # type: ignore[attr-defined]


def test_rows_come_by_channel_and_closed_ones_do_not(place: SqlitePlace) -> None:
    """One group for each channel, with where each row stood."""
    with at_work(place) as desk, closing(begin(desk)) as rows:
        assert rows.extent() == (11, 4, 0, 0)
        found = list(rows.left())
        assert [len(one) for one in found] == [2, 3, 3, 3]
        assert all(len({each.channel_sid for each in one}) == 1 for one in found)
        assert found[1][0].place == "/data/a.csv:3"
    with at_work(place) as desk, closing(begin(desk, run=2)) as rows:
        assert (rows.extent(), list(rows.left())) == ((0, 0, 0, 0), [])


def test_a_sample_is_the_same_each_time(place: SqlitePlace) -> None:
    """Of channels; a larger one holds the smaller one; a huge one is everything."""
    drawn = []
    for size in (2, 2, 3, 99):
        with at_work(place) as desk, closing(begin(desk, sample=size)) as rows:
            found = list(rows.left())
            assert rows.extent()[:2] == (sum(map(len, found)), len(found))
            drawn.append({one[0].channel_sid for one in found})
            desk.ledger.end_run(0, "finished", "{}")
    assert drawn[0] == drawn[1] < drawn[2] < drawn[3]
    assert list(map(len, drawn)) == [2, 2, 3, 4]


@pytest.mark.parametrize(("exit_code", "left"), [(0, 4), (1, 4), (4, 4), (6, 3), (3, 3), (130, 3), (None, 3)])
def test_a_verification_that_was_stopped_is_gone_on_with(place: SqlitePlace, exit_code: int | None, left: int) -> None:
    """Rows that were found need no second look; one that finished is over. Absent rows are looked for anew."""
    with at_work(place) as desk, closing(begin(desk)) as rows:
        first, second, *_ = rows.left()
        desk.ledger.write([Verification(one.number, Verified.CONFIRMED) for one in first])
        desk.ledger.write([Verification(second[0].number, Verified.ABSENT)])
        assert [one.number for channel in rows.absent() for one in channel] == [second[0].number]
        assert rows.results() == {Verified.CONFIRMED: 2, Verified.ABSENT: 1}
        if exit_code is not None:
            desk.ledger.end_run(exit_code, "ended", "{}")
    with at_work(place) as desk, closing(begin(desk)) as rows:
        assert len(list(rows.left())) == left
        assert rows.extent() == (11, 4, 0 if left == 4 else 2, 0)
        assert list(rows.absent()) == []


# ---- the command ----------------------------------------------------------------------------------------------------


@pytest.fixture
async def service() -> AsyncIterator[tuple[Emulator, str]]:
    """An emulated service on loopback."""
    emulator = Emulator()
    async with serve(emulator) as base_url:
        yield emulator, base_url


async def command(folder: Path, base_url: str, *words: str, **env: str) -> Ended:
    """Run a command against the service."""
    return await flex_import(*words, cwd=folder, env={**QUICK, "FLEX_IMPORT__API__BASE_URL": base_url, **env})


async def imported(folder: Path, base_url: str, rows: int = 9, channels: int = 4) -> None:
    """Import some rows."""
    (folder / "a.csv").write_text(csv_of(rows, channels))
    ended = await command(folder, base_url, "run", "a.csv", "--rate", "inf")
    assert ended.code == 0, ended.out + ended.err


def results(folder: Path) -> dict[str, int]:
    """Return how many rows the ledger has by result."""
    with closing(sqlite3.connect(folder / "imports.db")) as connection:
        return dict(connection.execute("SELECT result, count(*) FROM verifications GROUP BY 1").fetchall())


async def test_everybody_who_is_there_is_confirmed(tmp_path: Path, service: tuple[Emulator, str]) -> None:
    """With one list a channel; the text ends with what to type next; --quiet says nothing."""
    emulator, base_url = service
    await imported(tmp_path, base_url)
    listed = emulator.stats.listed
    ended = await command(tmp_path, base_url, "verify")
    assert (ended.code, emulator.stats.listed - listed) == (0, 4), ended.err
    assert "9 created = 9 confirmed + 0 departed + 0 missing + 0 not listable + 0 left" in ended.out
    assert ended.out.splitlines()[-1].startswith("Next   flex-import report -o report.html")
    assert results(tmp_path) == {"confirmed": 9}
    quiet = await command(tmp_path, base_url, "verify", "--quiet")
    assert (quiet.code, quiet.out, quiet.err) == (0, "", "")
    account = json.loads((await command(tmp_path, base_url, "verify", "--sample", "1", "--json")).out)
    assert (account["channels"], account["sample"], account["requests"]) == (1, 1, 1)
    assert account["rows"] == account["confirmed"] < 9
    history = await command(tmp_path, base_url, "history")
    assert re.search(r"^  2  verify .* 4 +0 +0 +0 .* 0$", history.out, re.MULTILINE), history.out
    assert (await command(tmp_path, base_url, "report")).code == 0


async def test_a_service_that_never_lists_anybody(tmp_path: Path, service: tuple[Emulator, str]) -> None:
    """It answers 201 all the same: the run ends 0, and only verify finds out."""
    emulator, base_url = service
    emulator.change(list_lag_seconds=NEVER)
    await imported(tmp_path, base_url)
    listed = emulator.stats.listed
    ended = await command(tmp_path, base_url, "verify")
    assert (ended.code, emulator.stats.listed - listed) == (1, 8), ended.err
    assert re.search(r"^  missing +9   not in two lists", ended.out, re.MULTILINE)
    assert sid("UO", 0) in ended.out
    assert "Next   look these conversations up in Flex" in ended.out.rpartition("exit 1")[2]
    assert results(tmp_path) == {"missing": 9}
    account = json.loads((await command(tmp_path, base_url, "verify", "--run", "1", "--json")).out)
    assert (account["exit_code"], account["missing"], account["left"], account["verified_run"]) == (1, 9, 0, 1)
    assert {one["channel_sid"] for one in account["missing_rows"]} == {sid("UO", number) for number in range(4)}


async def test_a_list_that_is_late_is_waited_for(tmp_path: Path, service: tuple[Emulator, str]) -> None:
    """A participant that only the second list shows is not missing."""
    emulator, base_url = service
    await imported(tmp_path, base_url, rows=4)
    emulator.script(sid("UO", 1), Answer(status=200, body=b'{"participants": [], "meta": {}}'), on=Call.LIST)
    ended = await command(tmp_path, base_url, "verify", "--json")
    account = json.loads(ended.out)
    assert (ended.code, account["confirmed"], account["missing"], account["requests"]) == (0, 4, 0, 5)
    assert account["elapsed_seconds"] > 0.5


async def test_who_has_left_is_told_apart(tmp_path: Path, service: tuple[Emulator, str]) -> None:
    """If a list shows a status at all."""
    emulator, base_url = service
    await imported(tmp_path, base_url, rows=4)
    gone = next(one.sid for one in emulator.participants if one.channel_sid == sid("UO", 1))
    listed = {"participants": [{"sid": gone, "status": "closed"}], "meta": {}}
    emulator.script(sid("UO", 1), Answer(status=200, body=json.dumps(listed).encode()), on=Call.LIST)
    ended = await command(tmp_path, base_url, "verify")
    assert ended.code == 0, ended.err
    assert "4 created = 3 confirmed + 1 departed" in ended.out
    assert re.search(r"^  departed +1   listed, with a status", ended.out, re.MULTILINE)


async def test_what_cannot_be_listed_is_grouped_by_its_reason(tmp_path: Path, service: tuple[Emulator, str]) -> None:
    """Exit 4: nothing can be said about it; 4 wins over 1, as everywhere."""
    emulator, base_url = service
    await imported(tmp_path, base_url, rows=9)
    emulator.script(sid("UO", 0), Answer(status=404, code=20404), on=Call.LIST)
    emulator.script(sid("UO", 1), Answer(status=403, code=20403), on=Call.LIST)
    empty = Answer(status=200, body=b'{"participants": [], "meta": {}}')
    emulator.script(sid("UO", 2), empty, empty, on=Call.LIST)
    ended = await command(tmp_path, base_url, "verify")
    assert ended.code == 4, ended.out + ended.err
    assert "3 in 1 channel: status 404" in ended.out
    assert "2 in 1 channel: status 403" in ended.out
    assert "9 created = 2 confirmed + 0 departed + 2 missing + 5 not listable + 0 left" in ended.out
    assert results(tmp_path) == {"confirmed": 2, "missing": 2, "not_listable": 5}


async def test_an_account_that_may_not_list(tmp_path: Path, service: tuple[Emulator, str]) -> None:
    """Is not asked for each channel; refused credentials halt, and so does a server that is not the API."""
    emulator, base_url = service
    await imported(tmp_path, base_url, rows=40, channels=40)
    emulator.change(refusals={Call.LIST: Answer(status=403, code=20403)})
    ended = await command(tmp_path, base_url, "verify", FLEX_IMPORT__LIMITS__CONCURRENCY="1")
    assert ended.code == 4, ended.out
    assert "40 in 40 channels: status 403" in ended.out
    assert re.search(r"^  effort .*, 5 requests$", ended.out, re.MULTILINE)
    emulator.change(refusals={Call.LIST: Answer(status=401, code=20003)})
    ended = await command(tmp_path, base_url, "verify")
    assert ended.code == 3
    assert "redentials were refused" in ended.out
    emulator.change(refusals={Call.LIST: Answer(status=200, body=b"<html>Welcome</html>", content_type="text/html")})
    ended = await command(tmp_path, base_url, "verify")
    assert ended.code == 3
    assert "not the API's" in ended.out


async def test_a_second_verification_while_one_is_at_work(tmp_path: Path, service: tuple[Emulator, str]) -> None:
    """The ledger is one command's; a signal ends the first one, and what it found is kept for the next one."""
    emulator, base_url = service
    await imported(tmp_path, base_url, rows=30, channels=30)
    emulator.change(latency_seconds=0.2)
    env = {**QUICK, "FLEX_IMPORT__API__BASE_URL": base_url, "FLEX_IMPORT__LIMITS__CONCURRENCY": "2"}
    process = await start("verify", cwd=tmp_path, env=env)
    listed = emulator.stats.listed
    while emulator.stats.listed < listed + 6:  # noqa: ASYNC110 - the emulator has no event for it
        await anyio.sleep(0.01)
    assert (await command(tmp_path, base_url, "verify")).code == 5
    process.send_signal(signal.SIGINT)
    ended = await finish(process)
    assert ended.code == 130, ended.err
    assert "Stopping" in ended.err
    assert "Next   flex-import verify   goes on where this one stopped" in ended.out
    found = results(tmp_path)["confirmed"]
    assert 0 < found < 30
    emulator.change(latency_seconds=0.0)
    account = json.loads((await command(tmp_path, base_url, "verify", "--json")).out)
    assert (account["rows"], account["confirmed"], account["left"]) == (30, 30, 0)
    assert account["requests"] == 30 - found


async def test_a_second_signal_aborts_the_lists_in_flight(tmp_path: Path, service: tuple[Emulator, str]) -> None:
    """What was recorded adds up, and the same command goes on."""
    emulator, base_url = service
    await imported(tmp_path, base_url, rows=30, channels=30)
    emulator.change(latency_seconds=30.0)
    process = await start("verify", cwd=tmp_path, env={**QUICK, "FLEX_IMPORT__API__BASE_URL": base_url})
    await emulator.until(lambda: emulator.stats.in_flight > 0)
    for _ in range(2):
        process.send_signal(signal.SIGTERM)
        await anyio.sleep(0.3)
    ended = await finish(process)
    assert ended.code == 143, ended.err
    assert "30 created = 0 confirmed + 0 departed + 0 missing + 0 not listable + 30 left" in ended.out


async def test_absent_rows_wait_for_their_second_list(tmp_path: Path, service: tuple[Emulator, str]) -> None:
    """A signal before it leaves them unsaid: nobody is missing after one list."""
    emulator, base_url = service
    emulator.change(list_lag_seconds=NEVER)
    await imported(tmp_path, base_url, rows=4)
    env = {**QUICK, "FLEX_IMPORT__API__BASE_URL": base_url, "FLEX_IMPORT__DOUBT__SETTLE_SECONDS": "60"}
    listed = emulator.stats.listed
    process = await start("verify", cwd=tmp_path, env=env)
    await emulator.until(lambda: emulator.stats.listed == listed + 4)
    await anyio.sleep(0.3)
    process.send_signal(signal.SIGINT)
    ended = await finish(process)
    assert ended.code == 130, ended.err
    assert re.search(r"^  left +4   not verified; 4 of them were not in a first list$", ended.out, re.MULTILINE)
    assert results(tmp_path) == {"absent": 4}


async def test_lists_that_are_down_for_ever(tmp_path: Path, service: tuple[Emulator, str]) -> None:
    """End with exit 3, as for every command."""
    emulator, base_url = service
    await imported(tmp_path, base_url, rows=40, channels=40)
    emulator.change(refusals={Call.LIST: Answer(status=500, code=20500)})
    ended = await command(tmp_path, base_url, "verify", FLEX_IMPORT__STOP__OUTAGE_SECONDS="1")
    assert ended.code == 3, ended.out
    assert "down for 1.0 s" in ended.out
    assert "(lists: status 500)" in ended.out


async def test_hours_and_rates_hold(tmp_path: Path, service: tuple[Emulator, str]) -> None:
    """Closed hours refuse it, and the list rate is kept."""
    _, base_url = service
    await imported(tmp_path, base_url, rows=8, channels=8)
    closed = {"FLEX_IMPORT__LIMITS__TIMETABLE": '["Mon-Sun 00:00-24:00 0"]'}
    assert (await command(tmp_path, base_url, "verify", **closed)).code == 6
    slow = await command(tmp_path, base_url, "verify", "--json", FLEX_IMPORT__LIMITS__LIST_RATE_PER_SECOND="10")
    assert json.loads(slow.out)["elapsed_seconds"] >= 0.6


@pytest.mark.parametrize(
    ("words", "says"), [(("--run", "7"), "--run: 7: there is no such run"), (("--sample", "0"), "--sample: 0")]
)
async def test_nonsense_is_refused(
    tmp_path: Path, service: tuple[Emulator, str], words: tuple[str, ...], says: str
) -> None:
    """With exit 2, before anything is asked."""
    _, base_url = service
    await imported(tmp_path, base_url, rows=1)
    ended = await command(tmp_path, base_url, "verify", *words)
    assert (ended.code, ended.out) == (2, "")
    assert says in ended.err


async def test_a_ledger_without_created_rows(tmp_path: Path, service: tuple[Emulator, str]) -> None:
    """Has nothing to verify; closed rows do not count."""
    emulator, base_url = service
    await imported(tmp_path, base_url, rows=2)
    assert (await command(tmp_path, base_url, "undo", "--all", "--yes")).code == 0
    arrived = emulator.stats.arrived
    ended = await command(tmp_path, base_url, "verify")
    assert (ended.code, emulator.stats.arrived) == (0, arrived)
    assert ended.out.startswith("Nothing to verify: all runs created no participant that undo has not closed.")
    with View(tmp_path / "imports.db") as view:
        assert view.last_run() is not None
