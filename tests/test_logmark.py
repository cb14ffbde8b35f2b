"""A ledger's file without its log is refused, and nothing else is."""

import shutil
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.commands import CREDENTIALS, QUICK, finish, flex_import, start
from tests.ledger_contract import at_work
from tests.samples_of import sid
from tests.test_command import csv_of
from tests.test_ledger_sqlite import SqlitePlace
from worker.emulator import Behaviour, Emulator, serve
from worker.errors import LedgerRefusedError
from worker.ledger.keeping import back_up
from worker.ledger.opening import open_beside, open_ledger, open_readonly
from worker.ledger.schema import APPLICATION_ID, INCOMPLETE_ID
from worker.ledger.view import View
from worker.model import Created


@pytest.fixture
async def service() -> AsyncIterator[tuple[Emulator, str]]:
    """Run the emulator; yield it with its address."""
    emulator = Emulator(Behaviour(latency_seconds=0.02))
    async with serve(emulator) as base_url:
        yield emulator, base_url


def id_of(path: Path) -> int:
    """Return the application id that is in the header of a file."""
    return int.from_bytes(path.read_bytes()[68:72], "big")


def copied(path: Path, *suffixes: str) -> Path:
    """Copy a ledger's files into a folder of their own; return the copy."""
    folder = path.parent / "copy"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for suffix in ("", *suffixes):
        shutil.copy(path.with_name(path.name + suffix), folder / (path.name + suffix))
    return folder / path.name


async def test_a_copy_without_the_log_of_a_killed_run_is_refused(tmp_path: Path, service: tuple[Emulator, str]) -> None:
    """Kill -9, and only the file copied: no command takes it for a ledger in which nothing was sent."""
    emulator, base_url = service
    (tmp_path / "a.csv").write_text(csv_of(400, 80))
    words = ["a.csv", "--base-url", base_url]
    process = await start("run", *words, "--rate", "100", cwd=tmp_path, env=QUICK)
    await emulator.until(lambda: emulator.stats.created >= 50)
    process.kill()
    await finish(process)
    ledger, made = tmp_path / "imports.db", emulator.stats.created
    alone = copied(ledger)
    for command in (["run", *words], ["status"], ["check", "a.csv"], ["doctor"]):
        ended = await flex_import(*command, "--ledger", alone, cwd=tmp_path, env=CREDENTIALS)
        assert ended.code == 2, ended.out
        said = " ".join((ended.out + ended.err).split())
        assert "is incomplete: the log that stood beside it (imports.db-wal) is missing" in said
    assert emulator.stats.created <= made + 16  # those that were in flight
    assert id_of(alone) == INCOMPLETE_ID

    both = copied(ledger, "-wal")
    with View(both) as view:
        assert view.counts()["created"] > 0
    ended = await flex_import("run", *words, cwd=tmp_path, env=QUICK)
    assert ended.code == 0, ended.err
    assert emulator.stats.created == 400
    assert id_of(ledger) == APPLICATION_ID


def test_each_clean_end_and_every_copy_by_sqlite_is_complete(tmp_path: Path) -> None:
    """A close, a backup, a look that closes last, another program's checkpoint: none leaves a mark."""
    place = SqlitePlace(tmp_path / "imports.db")
    with at_work(place) as desk:
        for number in range(3):
            desk.bring(desk.row(number), Created(sid("UT", number)))
        assert id_of(place.path) == INCOMPLETE_ID
        back_up(place.path, tmp_path / "backup.db")
        with closing(sqlite3.connect(place.path)) as connection:
            connection.execute("VACUUM INTO ?", (str(tmp_path / "vacuum.db"),))
            with closing(sqlite3.connect(tmp_path / "online.db")) as target:
                connection.backup(target)
    for name in ("imports.db", "backup.db", "vacuum.db", "online.db"):
        assert id_of(tmp_path / name) == APPLICATION_ID
        with View(tmp_path / name) as view:
            assert view.counts() == {"created": 3}


@pytest.mark.parametrize("how", ["beside", "sqlite"])
def test_a_killed_run_whose_log_another_command_took_in_is_complete(tmp_path: Path, how: str) -> None:
    """The log is gone, but all of it is in the file: it opens, here and as a copy elsewhere."""
    place = SqlitePlace(tmp_path / "imports.db")
    with at_work(place) as desk:
        desk.bring(desk.row(1), Created(sid("UT", 1)))
        killed = copied(place.path, "-wal")
    with closing(open_beside(killed) if how == "beside" else sqlite3.connect(killed)) as connection:
        connection.execute("SELECT count(*) FROM rows").fetchone()
    assert not killed.with_name("imports.db-wal").exists()
    assert id_of(killed) == APPLICATION_ID
    open_ledger(killed).close()


def test_the_mark_is_renewed_after_each_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the middle of a long run, too, a copy of the file alone is refused."""
    monkeypatch.setattr("worker.ledger.sqlite._IDENTITY_SECONDS", 0)
    place = SqlitePlace(tmp_path / "imports.db")
    with at_work(place) as desk:
        for number in range(3):
            with closing(sqlite3.connect(place.path)) as connection:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            assert id_of(place.path) == APPLICATION_ID
            desk.bring(desk.row(number), Created(sid("UT", number)))
            assert id_of(place.path) == INCOMPLETE_ID
            alone = copied(place.path)
            for open_it in (open_readonly, open_ledger):
                with pytest.raises(LedgerRefusedError, match="is incomplete"):
                    open_it(alone)
        with View(place.path) as view:
            assert view.counts() == {"created": 3}
