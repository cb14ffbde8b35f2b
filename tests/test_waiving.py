"""Signing off and taking it back, from the command line: the question, who and when, what the report says."""

import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.ledger_contract import at_work
from tests.test_command import states
from tests.test_ledger_sqlite import SqlitePlace
from worker.cli import call, waiving
from worker.ledger import Finding
from worker.model import Failed, InDoubt, Parked, Rejected

REASON = ("--reason", "test accounts")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A ledger with two parked rows, a rejected and a failed one, one in doubt, and two records that are no rows."""
    monkeypatch.chdir(tmp_path)
    with at_work(SqlitePlace(tmp_path / "imports.db")) as desk:
        for number in (1, 2):
            desk.bring(desk.row(number), Parked("45354", "the conversation is closed"))
        desk.bring(desk.row(3), Rejected("20001", "a parameter is invalid"))
        desk.bring(desk.row(4), Failed("503", "no answer"))
        desk.bring(desk.row(5), InDoubt("lost", "no answer"))
        for line in (7, 8):
            desk.ledger.write(
                [Finding("rejected", desk.source, line, None, "bad", "type: is bad", f"r{line}\n", "c***")]
            )
        desk.ledger.end_run(1, "finished", "{}")
    return tmp_path


def groups(capsys: pytest.CaptureFixture[str], *words: str) -> list[dict[str, Any]]:
    """Return what failures finds."""
    assert call(["failures", "--json", *words]) == 0
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return found


def id_of(capsys: pytest.CaptureFixture[str], code: str) -> str:
    """Return the id of a group."""
    [found] = [str(one["id"]) for one in groups(capsys) if one["code"] == code]
    return found


def test_a_waiver_is_asked_for(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a terminal the rows are shown as failures shows them, and no is no."""
    asked: list[tuple[str, str]] = []

    def answer(plan: str, question: str) -> bool:
        asked.append((plan, question))
        return len(asked) > 1

    monkeypatch.setattr(waiving, "at_terminal", lambda: True)
    monkeypatch.setattr(waiving, "agreed", answer)
    group = id_of(capsys, "45354")
    assert call(["failures"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert call(["waive", "--group", group[:4], *REASON]) == 2
    assert "nothing was signed off" in capsys.readouterr().err
    assert states(folder)["parked"] == 2
    plan, question = asked[0]
    lines = plan.splitlines()
    assert lines[0] == "2 rows would be signed off, and not sent any more: test accounts"
    assert question == "Sign off 2 rows?"
    [row] = [line for line in lines if line.startswith(group[:4])]
    assert row in shown
    assert [line for line in lines if "a.csv:3" in line] == [line for line in shown if "a.csv:3" in line] != []
    assert call(["waive", "--group", group[:4], *REASON]) == 0
    assert states(folder)["waived"] == 2


def test_where_nobody_can_be_asked_a_waiver_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It shows what it would sign off, and names --yes, with which it does."""
    group = id_of(capsys, "20001")
    assert call(["waive", "--cluster", group, *REASON]) == 2
    said = capsys.readouterr().err
    assert "1 row would be signed off" in said
    assert "20001 a parameter is invalid" in said
    assert "a.csv:5" in said
    assert "Nobody can be asked here; add --yes" in said
    assert "waived" not in states(folder)
    assert call(["waive", "--group", group, *REASON, "-y"]) == 0
    assert states(folder)["waived"] == 1


@pytest.mark.usefixtures("folder")
def test_hints_do_not_name_a_group_to_sign_off(capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever copies a hint must not sign the largest group off by it."""
    assert call(["failures"]) == 0
    assert 'Give up  waive --group ID --reason "…"' in capsys.readouterr().out


@pytest.mark.parametrize(
    ("code", "state", "count"), [("45354", "parked", 2), ("20001", "rejected", 1), ("503", "failed", 1)]
)
def test_rows_are_what_they_were_after_a_waiver_is_taken_back(
    folder: Path, capsys: pytest.CaptureFixture[str], code: str, state: str, count: int
) -> None:
    """With code and reason; the group has its id again, which a waived group never loses."""
    before, group = states(folder), id_of(capsys, code)
    assert call(["waive", "--group", group, *REASON, "--yes"]) == 0
    capsys.readouterr()
    [waived] = groups(capsys, "--state", "waived")
    assert (waived["id"], waived["state"], waived["state_before"], waived["rows"]) == (group, "waived", state, count)
    assert (waived["waiver_reason"], waived["run"]) == ("test accounts", 2)
    assert "@" in waived["waived_by"]
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", waived["waived_at"])
    assert call(["unwaive", group[:4]]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{group[:4]}  {count} row{'s' * (count != 1)} {state} again: {code} ")
    assert "\nNext  flex-import " in said
    assert states(folder) == before
    assert [one["rows"] for one in groups(capsys) if one["id"] == group] == [count]
    assert groups(capsys, "--state", "waived") == []


def test_records_are_read_anew_after_their_waiver_is_taken_back(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They stand in failures again, with their places."""
    group = id_of(capsys, "bad")
    assert call(["waive", "--group", group, *REASON, "--yes"]) == 0
    capsys.readouterr()
    assert "bad" not in {one["code"] for one in groups(capsys)}
    [waived] = groups(capsys, "--state", "waived")
    assert (waived["rows"], waived["state_before"], waived["examples"]) == (2, "rejected", ["/data/a.csv:7"])
    assert call(["unwaive", group]) == 0
    assert capsys.readouterr().out.startswith(f"{group[:4]}  2 rows rejected again: type: is bad\n")
    [found] = [one for one in groups(capsys) if one["id"] == group]
    assert (found["rows"], found["examples"]) == (2, ["/data/a.csv:7", "/data/a.csv:8"])
    assert folder.exists()


@pytest.mark.usefixtures("folder")
def test_waived_groups_are_shown_with_who_when_and_why(capsys: pytest.CaptureFixture[str]) -> None:
    """In 80 columns, and of one waiver alone."""
    assert call(["failures", "--state", "waived"]) == 0
    assert capsys.readouterr().out == "nothing is signed off\n"
    ids = [id_of(capsys, code) for code in ("45354", "bad")]
    assert call(["waive", "--yes", "--group", ids[0], "--reason", "an old channel"]) == 0
    assert call(["waive", "--yes", "--group", ids[1], "--reason", "spam"]) == 0
    capsys.readouterr()
    assert call(["failures", "--state", "waived"]) == 0
    said = capsys.readouterr().out
    lines = said.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0] == "4 rows signed off, in 2 groups (ledger imports.db)"
    assert re.search(rf"^{ids[1][:4]}      2  rejected  type: is bad\n +spam \(.*run 3\)", said, re.MULTILINE)
    assert re.search(
        rf"^{ids[0][:4]}      2  parked    45354 the conversation is closed\n +an old channel \(", said, re.MULTILINE
    )
    assert lines[-1] == "Take back  flex-import unwaive ID"
    assert [one["id"] for one in groups(capsys, "--state", "waived", "--run", "2")] == [ids[0]]
    assert call(["failures", "--state", "waived", "--run", "1"]) == 0
    assert capsys.readouterr().out == "nothing that run 1 signed off is still signed off\n"


@pytest.mark.usefixtures("folder")
def test_only_what_is_signed_off_is_taken_back(capsys: pytest.CaptureFixture[str]) -> None:
    """Other ids are refused, with those that there are; beside a run it waits for nobody."""
    group = id_of(capsys, "45354")
    assert call(["unwaive", group]) == 2
    assert "as nothing is signed off" in capsys.readouterr().err
    assert call(["waive", "--yes", "--group", group, *REASON]) == 0
    capsys.readouterr()
    assert call(["unwaive", "beef0"]) == 2
    said = capsys.readouterr().err
    assert f"unwaive: beef0: no waived group has this id; there are:\n  {group[:4]} parked, 2 rows: 45354 " in said
    assert call(["unwaive", ""]) == 2
    with at_work(SqlitePlace(Path("imports.db"))):
        assert call(["unwaive", group]) == 5
    assert call(["unwaive", group, "--ledger", "no.db"]) == 2


@pytest.mark.usefixtures("folder")
def test_the_report_says_what_people_decided(capsys: pytest.CaptureFixture[str]) -> None:
    """Rows and records that were signed off, and that this was taken back."""
    assert call(["report", "-o", "-"]) == 0
    assert "Nobody has decided anything by hand." in capsys.readouterr().out
    ids = [id_of(capsys, code) for code in ("45354", "bad")]
    assert call(["waive", "--yes", "--group", ids[1], "--reason", "spam"]) == 0
    assert call(["report", "-o", "-"]) == 0
    said = capsys.readouterr().out
    assert "Nobody has decided anything by hand." not in said
    assert "2 records: type: is bad" in said
    assert call(["waive", "--yes", "--group", ids[0], "--reason", "old"]) == 0
    assert call(["unwaive", ids[0]]) == 0
    assert call(["report", "-o", "-"]) == 0
    said = capsys.readouterr().out
    assert " and 1 more" in said
    assert {"waived", "unwaived"} <= set(re.findall(r"<td[^>]*>(\w+)</td>", said))


@pytest.mark.usefixtures("folder")
def test_waivers_of_an_older_version_are_taken_back(capsys: pytest.CaptureFixture[str]) -> None:
    """They do not say what a row was before: it is rejected then, which is not sent by itself."""
    ids = [id_of(capsys, code) for code in ("45354", "bad")]
    assert call(["waive", "--yes", "--group", ids[0], "--group", ids[1], *REASON]) == 0
    with closing(sqlite3.connect("imports.db")) as connection, connection:
        connection.execute("UPDATE decisions SET state = NULL")
        connection.execute("UPDATE waivers SET code = NULL, cause = NULL")
    capsys.readouterr()
    found = {one["code"]: one for one in groups(capsys, "--state", "waived")}
    assert {(code, one["state_before"], one["rows"]) for code, one in found.items()} == {
        ("45354", "rejected", 2),
        ("bad", "rejected", 2),
    }
    for one in found.values():
        assert call(["unwaive", str(one["id"])]) == 0
    capsys.readouterr()
    assert groups(capsys, "--state", "waived") == []
    assert {(one["code"], one["state"], one["rows"]) for one in groups(capsys) if one["code"] in found} == {
        ("45354", "rejected", 2),
        ("bad", "rejected", 2),
    }
    with closing(sqlite3.connect("imports.db")) as connection:
        assert connection.execute("SELECT count(*) FROM waivers").fetchone() == (0,)
