"""Every command that looks works at every moment of an import's life, in a file and in a database."""

import json
import re
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from tests.commands import QUICK, finish, flex_import, start
from tests.postgres import Postgres
from tests.test_command import csv_of
from worker.emulator import Behaviour, Emulator, serve
from worker.ledger.opening import create_ledger
from worker.place import Place

CODES = {"check": {0, 1}, "doctor": {0, 2}, "control": {0, 2}}
"""What a command may end with, when that is not 0: rows to repair; a ledger in use or none to steer."""


@pytest.fixture
async def service() -> AsyncIterator[tuple[Emulator, str]]:
    """Run the emulator; yield it with its address."""
    emulator = Emulator(Behaviour(latency_seconds=0.02))
    async with serve(emulator) as base_url:
        yield emulator, base_url


class Looker:
    """Looks with every command, and says which of them did not work."""

    def __init__(self, folder: Path, place: Place, base_url: str) -> None:
        self._folder = folder
        self._place = place
        self._base_url = base_url

    async def look(self, moment: str) -> None:
        """Run all commands; each must end well, its JSON be JSON, and its text have no Python in it."""
        folder = self._folder / moment.replace(" ", "_")
        folder.mkdir()
        process = await start(cwd=self._folder, env=QUICK, module=["tests.every_look"], stdin=PIPE)
        words = {"ledger": str(self._place), "service": self._base_url, "folder": str(folder)}
        ended = await finish(process, json.dumps(words).encode())
        assert ended.code == 0, ended.err
        assert [one for one in map(self._wrong, json.loads(ended.out)) if one] == [], moment

    def _wrong(self, found: Sequence[object]) -> str:
        words, code, out, err = found
        assert isinstance(words, list)
        said = f"{' '.join(words[:-2])}: exit {code}\n{out}{err}"
        if code not in CODES.get(words[0], {0}) or "Traceback" in said:
            return said
        if "--json" in words:
            json.loads(str(out))
        elif re.search(r"\bNone\b", str(out)):
            return said
        return ""


async def test_all_looks_work_at_every_moment_of_a_fleet(
    tmp_path: Path, service: tuple[Emulator, str], server: Postgres
) -> None:
    """A new ledger, queued, worked on, a worker killed, drained, queued again, and done."""
    emulator, base_url = service
    place = server.new_schema()
    (tmp_path / "a.csv").write_text(csv_of(400, 80) + "too,few\n")
    looker = Looker(tmp_path, place, base_url)
    worker = ["worker", "--base-url", base_url, "--ledger", place, "--rate"]

    async def told(*words: str, code: int = 0) -> None:
        ended = await flex_import(*words, "--ledger", place, cwd=tmp_path, env=QUICK)
        assert ended.code == code, ended.err

    create_ledger(place)
    await looker.look("new")
    await told("enqueue", "a.csv", "--base-url", base_url, code=1)
    await looker.look("queued")
    process = await start(*worker, "20", cwd=tmp_path, env=QUICK)
    await emulator.until(lambda: emulator.stats.created >= 20)
    await looker.look("working")
    process.kill()
    await process.wait()
    await looker.look("killed")
    process = await start(*worker, "20", cwd=tmp_path, env=QUICK)
    made = emulator.stats.created
    await emulator.until(lambda: emulator.stats.created >= made + 20)
    await told("control", "drain")
    assert (await finish(process)).code == 6
    await looker.look("drained")
    await told("enqueue", "a.csv", "--base-url", base_url, code=1)
    await looker.look("queued again")
    process = await start(*worker, "inf", cwd=tmp_path, env=QUICK)
    await emulator.until(lambda: emulator.stats.created >= 400)
    await told("control", "drain")
    assert (await finish(process)).code == 6
    await looker.look("done")


async def test_all_looks_work_at_every_moment_of_a_run(tmp_path: Path, service: tuple[Emulator, str]) -> None:
    """A new ledger, worked on, killed, resolved, done, undone."""
    emulator, base_url = service
    place = tmp_path / "imports.db"
    (tmp_path / "a.csv").write_text(csv_of(200, 40) + "too,few\n")
    looker = Looker(tmp_path, place, base_url)

    async def told(*words: str, code: int = 0) -> None:
        ended = await flex_import(*words, "--base-url", base_url, cwd=tmp_path, env=QUICK)
        assert ended.code == code, ended.err

    create_ledger(place)
    await looker.look("new")
    process = await start("run", "a.csv", "--rate", "20", "--base-url", base_url, cwd=tmp_path, env=QUICK)
    await emulator.until(lambda: emulator.stats.created >= 20)
    await looker.look("working")
    process.kill()
    await process.wait()
    await looker.look("killed")
    await told("reconcile", code=1)
    await looker.look("reconciled")
    await told("run", "a.csv", "--rate", "inf", code=1)
    await looker.look("done")
    await told("undo", "--all", "--yes")
    await looker.look("undone")
