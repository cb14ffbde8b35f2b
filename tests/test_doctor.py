"""`doctor`: what it finds here and there, and what it would have people do about it."""

import json
import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import pytest

from tests.commands import CREDENTIALS, flex_import
from tests.ledger_contract import OUTCOMES, at_work
from tests.samples_of import sid
from tests.test_ledger_sqlite import SqlitePlace
from worker.cli import call, doctoring
from worker.cli.doctoring import Check, Grade, _judged
from worker.emulator import Answer as Canned
from worker.emulator import Call, Emulator, serve
from worker.model import Answer, Lost, NotSent, Reply

NOBODY_THERE = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)


def examined(capsys: pytest.CaptureFixture[str], code: int, *words: str) -> dict[str, tuple[str, str]]:
    """Run the command on a service that is not there; return what it found by name."""
    assert call(["doctor", "--json", "--base-url", NOBODY_THERE, *words]) == code
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert told["exit_code"] == code
    return {one["name"]: (one["grade"], one["found"]) for one in told["checks"]}


def left_in(folder: Path) -> list[str]:
    """Return the names in a folder."""
    return [path.name for path in folder.iterdir()]


# ---- here -----------------------------------------------------------------------------------------------------------


def test_missing_credentials_are_exit_2_and_the_rest_is_looked_at(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that is wrong shows at once; without credentials nobody is called."""
    monkeypatch.delenv("TWILIO_AUTH_TOKEN")
    found = examined(capsys, 2)
    assert found["credentials"][0] == "FAIL"
    assert "TWILIO_AUTH_TOKEN is not" in found["credentials"][1]
    assert found["disk"][0] == found["commit"][0] == "ok"
    assert "service" not in found


def test_a_key_without_its_account_is_a_warning(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It works, but the ledger does not know whose it is."""
    monkeypatch.delenv("TWILIO_ACCOUNT_SID")
    monkeypatch.setenv("TWILIO_API_KEY", "SK" + "2" * 32)
    monkeypatch.setenv("TWILIO_API_SECRET", "s")
    grade, found = examined(capsys, 3)["credentials"]
    assert (grade, found) == ("warn", "an API key; set TWILIO_ACCOUNT_SID too, so that the ledger knows its account")


@pytest.mark.parametrize(
    ("variable", "says"),
    [("TWILIO_ACCOUNT_SID", "is not an account sid"), ("TWILIO_API_KEY", "is not the sid of an API")],
)
def test_malformed_sids_are_refused_off_loopback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, variable: str, says: str
) -> None:
    """They would be bound to the ledger. Their values are not shown, as one may be a secret in the wrong variable."""
    monkeypatch.setenv("TWILIO_API_SECRET", "s")
    monkeypatch.setenv(variable, "hello-there")
    assert examined(capsys, 3)["credentials"][0] == "ok"
    assert call(["doctor", "--json", "--base-url", "https://flex.example.invalid"]) == 2
    out = capsys.readouterr().out
    [found] = [one for one in json.loads(out)["checks"] if one["name"] == "credentials"]
    assert found["grade"] == "FAIL"
    assert f"{variable}: {says}" in found["found"]
    assert "hello" not in out


def test_an_account_that_is_not_named_is_refused_for_a_ledger_that_has_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An API key of another account would take that ledger's rows for its own."""
    account = CREDENTIALS["TWILIO_ACCOUNT_SID"]
    SqlitePlace(tmp_path / "imports.db").open().close()
    with closing(sqlite3.connect(tmp_path / "imports.db")) as connection, connection:
        fields = (("target", "flex.example.invalid"), ("account", account))
        connection.executemany("INSERT INTO binding (field, value) VALUES (?, ?)", fields)
    monkeypatch.delenv("TWILIO_ACCOUNT_SID")
    monkeypatch.setenv("TWILIO_API_KEY", "SK" + "2" * 32)
    monkeypatch.setenv("TWILIO_API_SECRET", "s")
    for words in (["doctor"], ["retry"], ["reconcile"]):
        assert call([*words, "--base-url", "https://flex.example.invalid"]) == 2
        told = capsys.readouterr()
        assert "Set TWILIO_ACCOUNT_SID" in " ".join((told.out + told.err).split())


def test_a_ledger_is_told_by_what_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """None yet, ours, in use, or another target's, which is exit 2."""
    assert examined(capsys, 3)["ledger"][0] == "warn"
    with at_work(SqlitePlace(tmp_path / "imports.db")) as desk:
        desk.bring(desk.row(1), OUTCOMES[0])
        grade, found = examined(capsys, 3)["ledger"]
        assert (grade, "is working on it" in found) == ("ok", True)
    assert examined(capsys, 3)["ledger"] == ("ok", "imports.db: 1 rows created, nobody works on it")
    assert examined(capsys, 2, "--ledger", "absent/imports.db")["ledger"][0] == "FAIL"
    (tmp_path / "text.db").write_text("no ledger, but long enough to be taken for a file of something else")
    assert "is not a ledger" in examined(capsys, 2, "--ledger", "text.db")["ledger"][1]


async def test_another_targets_ledger_is_exit_2(tmp_path: Path) -> None:
    """Before a night is lost on it."""
    (tmp_path / "a.csv").write_text("interaction_sid,channel_sid,type,media_properties.address\n")
    emulator = Emulator()
    async with serve(emulator) as base_url:
        env = {**CREDENTIALS, "FLEX_IMPORT__SOURCE__ALLOW_EMPTY": "true"}
        assert (await flex_import("run", "a.csv", "--base-url", base_url, cwd=tmp_path, env=env)).code == 0
    ended = await flex_import("doctor", "--base-url", "https://flex.example.invalid", cwd=tmp_path, env=CREDENTIALS)
    assert ended.code == 2
    assert "this ledger belongs to this machine" in " ".join(ended.out.split())


def test_a_full_disk_and_a_slow_one_are_warnings(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are found out before the night, not in it."""
    usage = shutil.disk_usage(".")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1_000_000))
    monkeypatch.setattr(doctoring, "_commit_seconds", lambda _: 0.2)
    found = examined(capsys, 3)
    assert found["disk"] == ("warn", "0.0 GB free: room for some 1,000 rows")
    assert found["commit"] == ("warn", "200.0 ms until it is on the disk; that is slow: is it a network disk?")


@pytest.mark.parametrize(
    ("timetable", "grade", "says"),
    [
        ("[]", "ok", "always, at 15/s"),
        ('["Mon-Sun 00:00-24:00 6"]', "ok", "open (UTC)"),
        ('["Mon-Sun 00:00-24:00 0"]', "warn", "closed hours (UTC): a run stops at once"),
    ],
)
def test_the_hours_are_told(
    timetable: str, grade: str, says: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever starts a run in closed hours would wonder."""
    monkeypatch.setenv("FLEX_IMPORT__LIMITS__TIMETABLE", timetable)
    found = examined(capsys, 3)["hours"]
    assert (found[0], says in found[1]) == (grade, True)


# ---- there ----------------------------------------------------------------------------------------------------------


def reply(status: int, code: int | None = None) -> Reply:
    """Return an answer in the API's form."""
    body = {"status": status, "message": "no", "code": code} if code else {"participants": [], "meta": {}}
    return Reply(status, json.dumps(body).encode(), None, None, None)


@pytest.mark.parametrize(
    ("answer", "known", "grades", "says"),
    [
        (reply(200), True, ["ok", "ok"], "allowed"),
        (reply(404, 20404), False, ["ok", "ok"], "there is no channel of ours yet"),
        (reply(404, 20404), True, ["ok", "ok"], "its newest channel is gone"),
        (reply(401, 20003), True, ["FAIL"], "but the credentials were refused (20003)"),
        (reply(403, 20403), True, ["ok", "warn"], "refused: no baselines"),
        (reply(429, 45780), True, ["ok", "warn"], "ask again later"),
        (reply(500, 20500), True, ["FAIL"], "not as the API does (status 500)"),
        (Reply(302, b"", None, None, None), True, ["FAIL"], "is the base URL right?"),
        (Reply(404, b"<html>", None, None, None), True, ["FAIL"], "is the base URL right?"),
        (NotSent("no route"), True, ["FAIL"], "host cannot be reached: no route"),
        (Lost("no answer within 30 s"), True, ["FAIL"], "host gives no answer: no answer within 30 s"),
    ],
)
def test_an_answer_says_whether_a_run_would_work(answer: Answer, known: bool, grades: list[str], says: str) -> None:
    """Service, credentials and lists by one call."""
    found: list[Check] = _judged(answer, "host answers in 1 ms", "host", known=known)
    assert [one.grade for one in found] == grades
    assert any(says in one.found for one in found)


async def test_a_service_that_is_there_is_called_once_and_nothing_is_changed(tmp_path: Path) -> None:
    """With a channel of ours, once there is one; the screen fits, and no secret is on it."""
    emulator = Emulator()
    async with serve(emulator) as base_url:
        ended = await flex_import("doctor", "--base-url", base_url, cwd=tmp_path)
        assert ended.code == 0, ended.out
        assert ended.out.splitlines()[-1] == "exit 0: ready"
        assert max(map(len, ended.out.splitlines())) <= 80
        assert CREDENTIALS["TWILIO_AUTH_TOKEN"] not in ended.out + ended.err
        assert CREDENTIALS["TWILIO_ACCOUNT_SID"] not in ended.out + ended.err
        assert (emulator.stats.listed, emulator.stats.arrived) == (1, 0)
        assert left_in(tmp_path) == []
        with at_work(SqlitePlace(tmp_path / "imports.db")) as desk:
            desk.bring(desk.row(7), OUTCOMES[0])
        no = Canned(status=403, code=20403, message="no")
        emulator.script(sid("UO", 7), no, on=Call.LIST)
        ended = await flex_import("doctor", "--base-url", base_url, cwd=tmp_path)
    assert ended.code == 0
    assert "warn  lists       refused" in ended.out


@pytest.mark.parametrize(("off", "grade"), [(0, Grade.OK), (3600, Grade.WARN)])
async def test_a_clock_that_is_wrong_is_found_out(
    off: int, grade: Grade, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Hours go by this machine's clock."""

    async def probe(*_: object) -> tuple[Answer, float | None]:
        await anyio.lowlevel.checkpoint()
        return reply(200), time.time() - off

    monkeypatch.setattr("worker.api.Api.probe", probe)
    assert await anyio.to_thread.run_sync(call, ["doctor", "--json"]) == 0
    checks = json.loads(capsys.readouterr().out)["checks"]
    assert [one["grade"] for one in checks if one["name"] == "clock"] == [grade]
