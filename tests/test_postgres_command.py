"""The real command on a ledger in a real PostgreSQL."""

import csv
import io
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.commands import QUICK, finish, flex_import, start
from tests.postgres import Postgres, postgres
from tests.samples_of import sid
from tests.test_command import csv_of
from worker.emulator import Behaviour, Emulator, serve
from worker.ledger.view import Owner, View
from worker.place import Server


@pytest.fixture
async def service() -> AsyncIterator[tuple[Emulator, str]]:
    """Run the emulator; yield it with its address."""
    emulator = Emulator(Behaviour(latency_seconds=0.02))
    async with serve(emulator) as base_url:
        yield emulator, base_url


def run_words(place: Server, base_url: str, *words: str, rate: str = "inf") -> list[str]:
    """Return the words of an import."""
    return ["run", "a.csv", "--base-url", base_url, "--rate", rate, "--ledger", place, *words]


async def test_everything_that_a_ledger_is_for_works_on_a_database(
    tmp_path: Path, service: tuple[Emulator, str], server: Postgres
) -> None:
    """Import, resume, look, export, repair, decide, close, keep: each command finds its way to the server."""
    emulator, base_url = service
    place = server.new_schema()
    (tmp_path / "a.csv").write_text(csv_of(100, 20) + "too,few\n")

    async def told(*words: str, code: int = 0) -> str:
        ended = await flex_import(*words, "--ledger", place, cwd=tmp_path, env=QUICK)
        assert ended.code == code, ended.err
        return ended.out

    checked = await told("check", "a.csv", code=1)
    assert "100" in checked
    ended = await flex_import(*run_words(place, base_url, "--json"), cwd=tmp_path, env=QUICK)
    assert (ended.code, json.loads(ended.out)["created"]) == (1, 100), ended.err
    ended = await flex_import(*run_words(place, base_url, "--json"), cwd=tmp_path, env=QUICK)
    assert json.loads(ended.out)["already_done"] == 100
    assert json.loads(await told("status", "--json"))["created"] == 100
    assert len((await told("history")).splitlines()) == 3
    exported = list(csv.DictReader(io.StringIO(await told("export", "--state", "created"))))
    assert {one["sid"] for one in exported} == {one.sid for one in emulator.participants}
    [cluster] = json.loads(await told("failures", "--json"))
    await told("export", "--rejects", "rejects")
    assert "too,few" in next((tmp_path / "rejects").glob("a*.csv")).read_text()
    await told("waive", "--yes", "--cluster", cluster["id"], "--reason", "is a footer")
    assert json.loads(await told("failures", "--state", "waived", "--json"))[0]["id"] == cluster["id"]
    await told("unwaive", cluster["id"][:5])
    assert [one["id"] for one in json.loads(await told("failures", "--json"))] == [cluster["id"]]
    await told("waive", "--yes", "--group", cluster["id"], "--reason", "is a footer")
    assert json.loads(await told("verify", "--json", "--base-url", base_url))["confirmed"] == 100
    await told("report", "-o", "report.html")
    assert "100" in (tmp_path / "report.html").read_text()
    assert json.loads(await told("ledger", "info", "--json"))["rows"] == 100
    await told("ledger", "backup", "copy.db")
    with View(tmp_path / "copy.db") as view:
        assert view.counts() == {"created": 100, "waived": 1}
    assert "ok    ledger" in await told("doctor", "--base-url", base_url)
    await told("undo", "--run", "1", "--yes", "--base-url", base_url)
    assert json.loads(await told("status", "--json"))["closed"] == 100
    key, closed = exported[0]["key"], exported[0]["sid"]
    with View(place) as view:
        assert view.owners([closed.upper(), sid("UT", 0)]) == {closed.upper(): Owner(key, closed=True)}
    await told("control", "pause", code=2)
    assert emulator.stats.created == 100


async def test_a_run_is_steered_and_watched_and_alone(
    tmp_path: Path, service: tuple[Emulator, str], server: Postgres
) -> None:
    """Another run is refused while one is at work, and the one at work heeds what it is told."""
    emulator, base_url = service
    place = server.new_schema()
    (tmp_path / "a.csv").write_text(csv_of(2000, 400))
    process = await start(*run_words(place, base_url, rate="20"), cwd=tmp_path, env=QUICK)
    await emulator.until(lambda: emulator.stats.created >= 2)
    looked = await flex_import("status", "--json", "--ledger", place, cwd=tmp_path)
    assert str(json.loads(looked.out)["at_work"]).startswith(f"process {process.pid} on ")
    assert (await flex_import(*run_words(place, base_url), cwd=tmp_path)).code == 5
    assert (await flex_import("control", "drain", "--ledger", place, cwd=tmp_path)).code == 0
    assert (await finish(process)).code == 6


@pytest.mark.parametrize("what", ["worker", "server"])
async def test_no_death_makes_anybody_twice_or_loses_anybody(
    tmp_path: Path, service: tuple[Emulator, str], what: str
) -> None:
    """Kill -9 of the import, or a crash of the database under it: the same command again ends what was begun."""
    emulator, base_url = service
    with postgres() as server:
        place = server.new_schema()
        (tmp_path / "a.csv").write_text(csv_of(400, 80))
        process = await start(*run_words(place, base_url), cwd=tmp_path, env=QUICK)
        await emulator.until(lambda: emulator.stats.created >= 100)
        if what == "worker":
            process.kill()
            await process.wait()
        else:
            server.stop(signal.SIGQUIT)
            ended = await finish(process)
            assert ended.code == 3, ended.err
            assert ended.out.startswith("Halted:")
            server.start()
        made = emulator.stats.created
        assert made < 400
        ended = await flex_import(*run_words(place, base_url, "--json"), cwd=tmp_path, env=QUICK)
        account = json.loads(ended.out)
        assert (ended.code, account["identity_holds"]) == (0, True), ended.err
    assert emulator.stats.created == 400
    names = [one.media_properties["address"] for one in emulator.participants]
    assert len(set(names)) == len(names)


async def test_a_password_on_the_command_line_is_refused(tmp_path: Path) -> None:
    """Everybody on a host can read it there."""
    for name in ("postgresql://me:secret@127.0.0.1/x", "postgresql://127.0.0.1/x?password=secret"):
        ended = await flex_import("status", "--ledger", name, cwd=tmp_path)
        assert (ended.code, "PGPASSWORD" in ended.err, "secret" in ended.err) == (2, True, False)


async def test_a_server_that_is_not_there_is_said_in_one_line(tmp_path: Path) -> None:
    """Where, and what the system says."""
    ended = await flex_import("status", "--ledger", "postgresql://127.0.0.1:9/x", cwd=tmp_path)
    assert ended.code == 2
    assert ended.err.splitlines()[1:] == ["exit 2, nothing was sent"]
    assert "postgresql://127.0.0.1:9/x: cannot be reached: " in ended.err
