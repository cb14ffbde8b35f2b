"""What needs attention, in clusters, from the command line: failures, retry --group, waive, export --for-excel."""

import csv
import io
import json
import re
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.commands import CREDENTIALS, HOLDING, Ended, flex_import
from tests.ledger_contract import SOURCE, at_work
from tests.samples_of import sid
from tests.test_command import account_of, csv_of, states
from tests.test_ledger_sqlite import SqlitePlace
from worker.cli import call
from worker.emulator import Answer, Condition, Emulator, Fault, after, serve
from worker.ledger import Finding
from worker.model import Failed, InDoubt, Parked, Rejected


@pytest.fixture
async def service() -> AsyncIterator[tuple[Emulator, str]]:
    """An emulated service on loopback."""
    emulator = Emulator()
    async with serve(emulator) as base_url:
        yield emulator, base_url


async def command(folder: Path, base_url: str, *words: str) -> Ended:
    """Run a command against the service."""
    env = {**HOLDING, "FLEX_IMPORT__API__BASE_URL": base_url, "FLEX_IMPORT__LIMITS__RATE_PER_SECOND": "inf"}
    return await flex_import(*words, cwd=folder, env=env)


async def troubled(folder: Path, service: tuple[Emulator, str]) -> dict[str, str]:
    """Import nine rows of which two go through; returns code and first letter of the state → id of each group.

    Rows 0 and 4 are in a channel that is closed, row 1 is refused, row 2 is in doubt, the last three are no rows.
    """
    emulator, base_url = service
    emulator.declare(sid("UO", 0), Condition.CLOSED)
    emulator.script(sid("UO", 1), Answer(status=400, code=20001))
    emulator.script(sid("UO", 2), after(Fault.NULL_SID))
    lines = csv_of(6, 4).splitlines(keepends=True)
    lines += [f"{sid('KD', 7)},{sid('UO', 7)},{kind},x@example.com\r\n" for kind in ("client", "klient")]
    (folder / "a.csv").write_text("".join([*lines, "too,few\n"]), newline="")
    ended = await command(folder, base_url, "run", "a.csv")
    assert ended.code == 4, ended.out + ended.err
    assert states(folder) == {"created": 2, "rejected": 2, "parked": 1, "in_doubt": 1}
    return {one["code"] + one["state"][:1]: one["id"][:4] for one in await groups(folder, base_url)}


async def groups(folder: Path, base_url: str, *words: str) -> list[dict[str, Any]]:
    """Return what failures finds, as a program gets it."""
    found: list[dict[str, Any]] = json.loads((await command(folder, base_url, "failures", "--json", *words)).out)
    return found


# ---- failures -------------------------------------------------------------------------------------------------------


async def test_failures_run_and_status_name_the_same_groups(tmp_path: Path, service: tuple[Emulator, str]) -> None:
    """By the same ids, with what to do and the first places; what to type next stands at the end."""
    _, base_url = service
    ids = await troubled(tmp_path, service)
    shown = await command(tmp_path, base_url, "failures")
    assert shown.out.splitlines() == [
        "7 rows need attention, in 6 groups (ledger imports.db, after run 1)",
        "",
        "ID     ROWS  STATE     WHY, AND WHAT TO DO",
        f"{ids['invalidr']}      2  rejected  type: must be agent, customer, supervisor, external or",
        "                       unknown",
        '                       repair it in the file; a.csv:8 (type is "cl***"), :9',
        f"{ids['no_sidi']}      1  in doubt  accepted, without a participant's sid: probably exists",
        "                       look at its candidates; a.csv:4",
        "                       flex-import failures --state in_doubt",
        f"{ids['45354p']}      1  parked    45354 the conversation is closed",
        "                       open it again, then send its rows again; a.csv:6",
        f"                       flex-import retry --group {ids['45354p']}",
        f"{ids['20001r']}      1  rejected  20001 a parameter is invalid",
        "                       repair it in the file; a.csv:3",
        f"{ids['45354r']}      1  rejected  45354 the conversation is closed",
        "                       open it again, then send its rows again; a.csv:2",
        f"                       flex-import retry --group {ids['45354r']}",
        f"{ids['malformedr']}      1  rejected  has 2 fields, the header has 4",
        "                       repair it in the file; a.csv:10",
        "",
        "Repair   flex-import export --rejects fix/     original records, reasons beside",
        'Give up  waive --group ID --reason "…"     asks before it signs off',
    ]
    again = await command(tmp_path, base_url, "run", "a.csv")
    status = await command(tmp_path, base_url, "status")
    for ended in (again, status):
        assert "6 groups need attention, top 5; what to do: flex-import failures" in ended.out
        listed = re.findall(r"^  ([0-9a-f]{4}) ", ended.out, re.MULTILINE)
        assert listed == [ids[name] for name in ("invalidr", "no_sidi", "45354p", "20001r", "45354r")]


async def test_failures_can_be_asked_for_a_state_or_a_run(tmp_path: Path, service: tuple[Emulator, str]) -> None:
    """Both at once, too; what a later run found again is the later run's."""
    _, base_url = service
    await troubled(tmp_path, service)
    await command(tmp_path, base_url, "run", "a.csv")
    assert [one["code"] for one in await groups(tmp_path, base_url, "--state", "parked")] == ["45354"]
    of_runs = [
        {(one["code"], one["rows"]) for one in await groups(tmp_path, base_url, "--run", run)} for run in ("1", "2")
    ]
    assert of_runs == [{("no_sid", 1), ("45354", 1), ("20001", 1)}, {("invalid", 2), ("malformed", 1)}]
    of_run = await command(tmp_path, base_url, "failures", "--run", "1", "--state", "rejected")
    assert of_run.out.startswith("2 rows need attention, in 2 groups (ledger imports.db, only of run 1)\n")
    doubt = await command(tmp_path, base_url, "failures", "--run", "2", "--state", "in_doubt")
    assert doubt.out == "no rows are in doubt\n"
    nothing = await command(tmp_path, base_url, "failures", "--run", "2", "--state", "parked")
    assert (nothing.code, nothing.out) == (0, "no rows of run 2 need attention\n")


@pytest.mark.parametrize("words", [("failures",), ("undo", "--yes"), ("export",), ("export", "--rejects", "fix/")])
async def test_a_run_that_is_not_there_is_a_mistake(
    tmp_path: Path, service: tuple[Emulator, str], words: tuple[str, ...]
) -> None:
    """An empty result would read as if all were well."""
    _, base_url = service
    await troubled(tmp_path, service)
    for number, there_are in (("99", "run 1 only"), ("0", "run 1 only")):
        ended = await command(tmp_path, base_url, *words, "--run", number)
        assert (ended.code, ended.out) == (2, "")
        assert f"--run: {number}: there is no such run; this ledger has {there_are}\n" in ended.err
    await command(tmp_path, base_url, "run", "a.csv")
    ended = await command(tmp_path, base_url, *words, "--run", "99")
    assert "this ledger has runs 1 to 2\n" in ended.err


async def test_a_program_gets_whole_ids_and_fields(tmp_path: Path, service: tuple[Emulator, str]) -> None:
    """One object a group: a field where one was wrong before it was sent, an id that never grows."""
    _, base_url = service
    await troubled(tmp_path, service)
    found = await groups(tmp_path, base_url)
    assert found[0] == {
        "id": found[0]["id"],
        "state": "rejected",
        "code": "invalid",
        "field": "type",
        "problem": "must be agent, customer, supervisor, external or unknown",
        "reason": "type: must be agent, customer, supervisor, external or unknown",
        "rows": 2,
        "examples": ["a.csv:8", "a.csv:9"],
    }
    assert {len(one["id"]) for one in found} == {16}
    assert {one["field"] for one in found[1:]} == {None}


def test_a_new_ledger_needs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In words for a person, as an empty list for a program."""
    monkeypatch.chdir(tmp_path)
    SqlitePlace(tmp_path / "imports.db").open().close()
    assert call(["failures"]) == 0
    assert call(["failures", "--json"]) == 0
    assert capsys.readouterr().out == "no rows need attention\n[]\n"


def test_failures_fit_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Long reasons, long paths, many rows, masked values, a control character in data: 80 columns, and no command
    is broken.
    """  # noqa: D205 - one sentence
    monkeypatch.chdir(tmp_path)
    with at_work(SqlitePlace(tmp_path / "imports.db")) as desk:
        source = desk.ledger.register(SOURCE._replace(path="/data/" + "deep/" * 8 + "a.csv"))
        reason = "media_properties.address: " + "is not an address " * 8
        detail = '"j***\x1b[2J"'
        found = Finding("rejected", source, 2, None, "invalid", reason, "x\n", detail)
        desk.ledger.write([found, *[found] * 1234])
        desk.bring(desk.row(1), Parked("45354", "the conversation is closed"))
        desk.bring(desk.row(2), Parked("45999", "x"))
        desk.bring(desk.row(3), InDoubt("lost", "no answer"))
        desk.ledger.end_run(1, "finished", "{}")
    assert call(["failures"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert sum("flex-import retry --group" in line for line in lines) == 2
    assert any(line.endswith("  flex-import failures --state in_doubt") for line in lines)
    assert re.search(r"a\.csv:2 \(\"j\*\*\*\\x1b\[2J\"\), :2, :2", " ".join("\n".join(lines).split()))
    assert re.search(r"^[0-9a-f]{4}  1,235  rejected  media_properties", "\n".join(lines), re.MULTILINE)


@pytest.mark.parametrize(("ended", "says"), [(True, "after run 1"), (False, "run 1 has not ended")])
def test_failures_say_how_far_the_ledger_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ended: bool, says: str
) -> None:
    """A row alone, beside a run or after it; what only failed needs no repair."""
    monkeypatch.chdir(tmp_path)
    with at_work(SqlitePlace(tmp_path / "imports.db")) as desk:
        desk.bring(desk.row(1), Failed("no_connection", "refused"))
        if ended:
            desk.ledger.end_run(1, "finished", "{}")
        call(["failures"])
    said = capsys.readouterr().out
    assert said.startswith(f"1 row needs attention, in 1 group (ledger imports.db, {says})\n")
    assert "Repair" not in said
    assert "Give up" in said


# ---- retry ----------------------------------------------------------------------------------------------------------


async def test_one_cluster_is_sent_again(tmp_path: Path, service: tuple[Emulator, str]) -> None:
    """Only its rows, from their stored records; the others stay as they are."""
    emulator, base_url = service
    ids = await troubled(tmp_path, service)
    (tmp_path / "a.csv").unlink()
    emulator.declare(sid("UO", 0), Condition.OPEN)
    arrived = emulator.stats.arrived
    ended = await command(tmp_path, base_url, "retry", "--cluster", ids["45354p"], "--json")
    assert json.loads(ended.out)["requests"] == 1, ended.err
    assert emulator.stats.arrived == arrived + 1
    assert states(tmp_path) == {"created": 3, "rejected": 2, "in_doubt": 1}
    both = await command(tmp_path, base_url, "retry", "--cluster", ids["45354r"], "--state", "rejected", "--json")
    assert json.loads(both.out)["requests"] == 1, both.err
    assert states(tmp_path) == {"created": 4, "rejected": 1, "in_doubt": 1}
    gone = await command(tmp_path, base_url, "retry", "--cluster", ids["45354r"])
    assert (gone.code, "no group has this id" in gone.err) == (2, True)


@pytest.mark.parametrize(
    ("cluster", "more", "says"),
    [
        ("beef", (), "--group: beef: no group has this id; there are:\n  {invalidr} rejected, 2 rows: type: must"),
        ("", (), "--group: is empty"),
        ("{invalidr}", (), "nothing can be sent again: 2 rows rejected before being sent\n  (type: must be agent"),
        ("{malformedr}", (), "run the repaired files:\n  flex-import export --rejects fix/"),
        (
            "{no_sidi}",
            (),
            "so they are not sent again.\n  See which:  flex-import failures --state in_doubt",
        ),
        ("{45354p}", ("--state", "rejected"), "--state: rejected: the rows of group {45354p} are parked"),
        ("{45354p}", ("--state", "created"), "--state: created: only rejected, parked, failed and closed rows"),
    ],
)
async def test_what_cannot_be_sent_again_is_refused(
    tmp_path: Path, service: tuple[Emulator, str], cluster: str, more: tuple[str, ...], says: str
) -> None:
    """With the reason and what to do instead; nothing is sent."""
    emulator, base_url = service
    ids = await troubled(tmp_path, service)
    arrived, before = emulator.stats.arrived, states(tmp_path)
    ended = await command(tmp_path, base_url, "retry", "--cluster", cluster.format_map(ids), *more)
    assert (ended.code, ended.out) == (2, "")
    assert says.format_map(ids) in ended.err
    assert (emulator.stats.arrived, states(tmp_path)) == (arrived, before)


def test_an_id_is_found_by_what_is_unique_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As git does: the whole of it, or less; too little, or another, lists what there is, ten of them at most."""
    monkeypatch.chdir(tmp_path)
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    with at_work(SqlitePlace(tmp_path / "imports.db")) as desk:
        for number in range(40):
            desk.bring(desk.row(number), Rejected("20001", f"reason {number:02} " + "and so on " * 20))
    call(["failures", "--json"])
    ids = [one["id"] for one in json.loads(capsys.readouterr().out)]
    first = next(one[0] for one in ids if [other[0] for other in ids].count(one[0]) > 1)
    alike = sorted(one for one in ids if one[0] == first)

    assert call(["waive", "--cluster", first, "--reason", "x"]) == 2
    said = capsys.readouterr().err
    assert f"--group: {first}: several groups begin so; write more of it:\n" in said
    assert sorted(re.findall(r"^  ([0-9a-f]+) rejected, 1 row: 20001 reason", said, re.MULTILINE)) == sorted(
        one[:4] for one in alike[:10]
    )
    assert max(map(len, said.splitlines())) <= 80
    assert call(["waive", "--cluster", "xyz", "--reason", "x"]) == 2
    said = capsys.readouterr().err
    assert len(re.findall(r"^  [0-9a-f]{4} ", said, re.MULTILINE)) == 10
    assert "\n  and 30 more; all of them: flex-import failures\n" in said
    assert (
        call(["waive", "-y", "--group", ids[0], "--cluster", ids[1][:6], "--group", ids[0][:5], "--reason", "x"]) == 0
    )
    assert len(capsys.readouterr().out.splitlines()) == 2, "named twice is signed off once"
    assert states(tmp_path) == {"rejected": 38, "waived": 2}


def test_without_anything_wrong_there_is_no_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A list of nothing would be no help."""
    monkeypatch.chdir(tmp_path)
    SqlitePlace(tmp_path / "imports.db").open().close()
    assert call(["retry", "--cluster", "a"]) == 2
    assert "--group: a: no group has this id, as no rows need attention" in capsys.readouterr().err


# ---- waive ----------------------------------------------------------------------------------------------------------


async def test_what_is_signed_off_counts_as_waived_from_then_on(tmp_path: Path, service: tuple[Emulator, str]) -> None:
    """Refused, parked and unsent rows: the next run of the file ends 0, its account adds up, and nothing is shown."""
    emulator, base_url = service
    ids = await troubled(tmp_path, service)
    made = next(one.sid for one in emulator.participants if one.channel_sid == sid("UO", 2))
    with closing(sqlite3.connect(tmp_path / "imports.db")) as connection:
        [doubt] = connection.execute("SELECT key FROM rows WHERE state = 'in_doubt'").fetchone()
    assert (await command(tmp_path, base_url, "resolve", doubt, "--created", made, "--force")).code == 0
    arrived = emulator.stats.arrived

    names = ("45354p", "45354r", "20001r", "invalidr")
    named = [word for name in names for word in ("--cluster", ids[name])]
    ended = await command(tmp_path, base_url, "waive", "-y", *named, "--reason", "test accounts")
    assert ended.code == 0, ended.err
    assert ended.out.splitlines() == [
        f"{ids['45354p']}  1 row waived, parked until now: 45354 the conversation is closed",
        f"{ids['45354r']}  1 row waived, rejected until now: 45354 the conversation is closed",
        f"{ids['20001r']}  1 row waived, rejected until now: 20001 a parameter is invalid",
        f"{ids['invalidr']}  2 rows waived, rejected until now: type: must be agent, customer, supervisor, external or unknown",  # noqa: E501 - as it is
    ]
    assert ended.err == "Take back  flex-import unwaive ID     flex-import failures --state waived shows them\n"
    assert states(tmp_path) == {"created": 3, "waived": 3}
    status = await command(tmp_path, base_url, "status")
    assert "exit 0: 5 rows waived by" in status.out
    assert "test accounts" in status.out
    assert "1 group needs attention" in status.out
    assert [one["code"] for one in await groups(tmp_path, base_url)] == ["malformed"]

    again = await command(tmp_path, base_url, "run", "a.csv", "--json")
    account = json.loads(again.out)
    assert (again.code, account["rejected"], account["waived"], account["identity_holds"]) == (1, 1, 5, True)
    check = json.loads((await command(tmp_path, base_url, "check", "a.csv", "--json")).out)
    assert (check["rejected"], check["waived"], check["to_send"]) == (1, 5, 0)

    assert (
        await command(tmp_path, base_url, "waive", "--yes", "--cluster", ids["malformedr"], "--reason", "x")
    ).code == 0
    last = await command(tmp_path, base_url, "run", "a.csv")
    assert last.code == 0, last.out
    assert account_of(last) | {"input": 9, "waived": 6, "already done": 3} == account_of(last)
    assert re.search(r"identity +holds   9 = the sum", last.out)
    assert emulator.stats.arrived == arrived, "nothing is sent"
    assert (await command(tmp_path, base_url, "failures")).out == "no rows need attention\n"
    exported = await command(tmp_path, base_url, "export", "--rejects", "fix")
    assert exported.out == "nothing is rejected, parked or failed: no files were made\n"
    retry = await command(tmp_path, base_url, "retry", "--json")
    assert (retry.code, json.loads(retry.out)["requests"]) == (0, 0)


async def test_a_record_is_signed_off_in_every_file(tmp_path: Path, service: tuple[Emulator, str]) -> None:
    """Renamed, reordered, with other line ends or cut out: the same record is known; another one like it is not."""
    _, base_url = service
    (tmp_path / "a.csv").write_text(csv_of(2) + "too,few\nother,few\n")
    assert (await command(tmp_path, base_url, "run", "a.csv")).code == 1
    [group] = await groups(tmp_path, base_url)
    assert (await command(tmp_path, base_url, "waive", "--yes", "--cluster", group["id"], "--reason", "spam")).code == 0
    lines = csv_of(2).splitlines()
    (tmp_path / "b.csv").write_text("\r\n".join([lines[0], "other,few", lines[2], "too,few"]), newline="")
    ended = await command(tmp_path, base_url, "run", "b.csv")
    assert (ended.code, account_of(ended)["waived"]) == (0, 2), ended.out
    (tmp_path / "c.csv").write_text(lines[0] + "\nToo,few\n")
    ended = await command(tmp_path, base_url, "run", "c.csv")
    assert (ended.code, account_of(ended)["rejected"]) == (1, 1), ended.out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--cluster", "{no_sidi}", "--reason", "x"), "1 row in doubt, so they may exist and cannot be waived"),
        (("--cluster", "{45354p}", "--cluster", "{no_sidi}", "--reason", "x"), "cannot be waived"),
        (("--cluster", "{45354p}", "--cluster", "beef", "--reason", "x"), "--group: beef: no group has this id"),
        (("--cluster", "{45354p}", "--reason", " "), "--reason: is empty"),
        (("--cluster", "{45354p}"), "--reason"),
        (("--reason", "x"), "--group"),
        (("--cluster", "{45354p}", "--reason", "x", "--ledger", "no.db"), "there is no ledger at"),
    ],
)
async def test_a_waiver_that_makes_no_sense_changes_nothing(
    tmp_path: Path, service: tuple[Emulator, str], words: tuple[str, ...], says: str
) -> None:
    """Rows in doubt, unknown groups, no reason, no ledger: refused with exit 2, all or nothing."""
    _, base_url = service
    ids = await troubled(tmp_path, service)
    before = states(tmp_path)
    ended = await command(tmp_path, base_url, "waive", *(word.format_map(ids) for word in words))
    assert (ended.code, ended.out) == (2, "")
    assert says in ended.err
    assert states(tmp_path) == before
    assert len(await groups(tmp_path, base_url)) == 6


def test_a_waiver_waits_for_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """While a run holds the ledger it is refused with exit 5; afterwards it is taken, and needs no credentials."""
    monkeypatch.chdir(tmp_path)
    with at_work(SqlitePlace(tmp_path / "imports.db")) as desk:
        desk.bring(desk.row(1), Failed("no_connection", "refused"))
        call(["failures", "--json"])
        [group] = json.loads(capsys.readouterr().out)
        assert call(["waive", "--yes", "--cluster", group["id"], "--reason", "x"]) == 5
    assert call(["waive", "--yes", "--cluster", group["id"], "--reason", "x"]) == 0
    assert states(tmp_path) == {"waived": 1}


# ---- for Excel ------------------------------------------------------------------------------------------------------

FORMULAS = ("=1+1", "+44 1", "-1", "@SUM(A1)", "\tx", "\rx")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A ledger with keys that a spreadsheet would run, and one that it would not."""
    monkeypatch.chdir(tmp_path)
    with at_work(SqlitePlace(tmp_path / "imports.db")) as desk:
        for number, key in enumerate((*FORMULAS, "é=1", "a-b")):
            desk.bring(desk.row(number, key=key), Rejected("20001", "=cmd|' /C calc'!A1" if number else "bad"))
    return tmp_path


def test_a_spreadsheet_runs_nothing_of_an_export_for_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It reads UTF-8, and each text that could be a formula is marked as text; all else is as in any export."""
    assert call(["export"]) == 0
    plain = capsys.readouterr().out
    target = folder / "for.csv"
    assert call(["export", "--for-excel", "-o", "for.csv"]) == 0
    assert call(["export", "--for-excel", "--format", "csv"]) == 0
    assert capsys.readouterr().out.encode() == target.read_bytes()
    assert not plain.startswith("\ufeff")
    written = target.read_bytes().decode()
    assert written.startswith("\ufeffkey,")
    rows, marked = (list(csv.reader(io.StringIO(text, newline=""))) for text in (plain, written[1:]))
    assert [row[0] for row in rows[1:]] == [*FORMULAS, "é=1", "a-b"]
    assert [row[0] for row in marked[1:]] == [*(f"'{key}" for key in FORMULAS), "é=1", "a-b"]
    assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for row in marked for cell in row)
    assert [[cell.removeprefix("'") for cell in row] for row in marked] == rows


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--format", "ndjson"), "leave out --format ndjson, or --for-excel"),
        (("--rejects", "fix"), "--rejects: writes original records into files of their own; leave out --for-excel"),
    ],
)
def test_only_csv_is_for_a_spreadsheet(
    folder: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], says: str
) -> None:
    """What programs read back is never marked: it would not be what it was."""
    assert call(["export", "--for-excel", *words]) == 2
    said = capsys.readouterr()
    assert (said.out, says in said.err) == ("", True)
    assert sorted(path.name for path in folder.iterdir()) == ["imports.db", "imports.db.lock"]
