"""Every command that a screen suggests works as it stands: it is pasted into a shell here, and is no usage error."""

import asyncio
import os
import re
import shutil
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.commands import CREDENTIALS, HOLDING, QUICK, ROOT, Ended
from tests.postgres import Postgres
from tests.samples_of import sid
from tests.test_command import csv_of
from worker.cli import call
from worker.cli.loading import configure, new_folder
from worker.config import Settings
from worker.emulator import Answer, Condition, Emulator, Fault, after, serve
from worker.wording import Given, clock, plural, share

QUICK_HOLDING = {**HOLDING, "FLEX_IMPORT__DOUBT__SETTLE_SECONDS": "0", "FLEX_IMPORT__LIMITS__RATE_PER_SECOND": "inf"}
SECONDS = 3
"""How long a worker may go on: it ends by a signal only."""


@pytest.fixture
async def service() -> AsyncIterator[tuple[Emulator, str]]:
    """An emulated service on loopback."""
    emulator = Emulator()
    async with serve(emulator) as base_url:
        yield emulator, base_url


async def paste(folder: Path, line: str, env: Mapping[str, str] = QUICK_HOLDING) -> Ended:
    """Have a shell run a line, as a person would who pastes it."""
    shims = folder.parent / "bin"
    if not shims.exists():
        shims.mkdir()
        (shims / "flex-import").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m worker "$@"\n')
        (shims / "flex-import").chmod(0o755)
    inherited = {name: value for name, value in os.environ.items() if name.startswith(("HOME", "COVERAGE", "LANG"))}
    process = await asyncio.create_subprocess_shell(
        line,
        cwd=folder,
        env={**inherited, "PATH": f"{shims}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), **env},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=PIPE,
        stderr=PIPE,
    )
    out, err = await process.communicate()
    return Ended(process.returncode or 0, out.decode(), err.decode())


def suggested(ended: Ended) -> list[str]:
    """Return the commands that a screen shows, each up to the gap before its note."""
    found = re.findall(r"flex-import [a-z].*", ended.out + ended.err)
    return list(dict.fromkeys(re.split(r" {3,}", one)[0].strip() for one in found))


async def all_work(folder: Path, ended: Ended, env: Mapping[str, str] = QUICK_HOLDING) -> list[str]:
    """Paste what a screen suggests, each command into a copy of the folder as it is now; return the commands."""
    commands = suggested(ended)
    for number, line in enumerate(commands):
        copy = folder.parent / f"{folder.name}-{number}"
        shutil.copytree(folder, copy)
        typed = line.replace("flex-import worker", f"timeout -s TERM {SECONDS} flex-import worker")
        pasted = await paste(copy, typed, env)
        assert pasted.code not in {2, 70, 126, 127}, f"{line}\n{pasted.out}{pasted.err}"
        shutil.rmtree(copy)
    return commands


async def troubled(folder: Path, service: tuple[Emulator, str], options: str) -> Ended:
    """Import rows of which some are refused, parked, in doubt, or no rows at all."""
    emulator, base_url = service
    emulator.declare(sid("UO", 0), Condition.CLOSED)
    emulator.script(sid("UO", 1), Answer(status=400, code=20001))
    emulator.script(sid("UO", 2), after(Fault.NULL_SID))
    (folder / "a b.csv").write_text(csv_of(6, 4) + "too,few\n")
    (folder / "fix").mkdir()  # an earlier repair
    return await paste(folder, f"flex-import run 'a b.csv' --base-url {base_url} {options}")


async def test_what_the_screens_of_a_troubled_import_suggest_works(
    tmp_path: Path, service: tuple[Emulator, str]
) -> None:
    """With a ledger and a config of their own, in a folder where rejects were exported before."""
    _, base_url = service
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "my config.toml").write_text('[ledger]\npath = "unused.db"\n')
    options = "--config 'my config.toml' --ledger 'my ledger.db'"
    ended = await troubled(folder, service, options)
    assert ended.code == 4, ended.err
    found = await all_work(folder, ended)
    assert f"flex-import export --rejects fix-2/ {options}" in found
    assert f"flex-import reconcile {options} --base-url {base_url}" in found
    screens = {
        "status": 1,
        "failures": 4,
        "failures --state in_doubt": 2,
        "export --rejects fix/": 1,
        "export --rejects fix/ --run 1": 1,
        "check 'a b.csv' --config 'my config.toml' --ledger 'my ledger.db'": 1,
        "check 'a b.csv' --rejects out/": 1,
        f"reconcile --base-url {base_url}": 2,
        f"retry --base-url {base_url}": 3,
        "waive --cluster 0 --reason x": 0,
        "history": 0,
        "retry --cluster '' ": 0,
        "control pause": 0,
        "undo --run 9 --yes": 0,
        "failures --run 9": 0,
        "report -o report.html": 0,
    }
    env = {**QUICK_HOLDING, "FLEX_IMPORT__API__BASE_URL": base_url}  # to look needs no address, to act does
    for words, least in screens.items():
        copy = tmp_path / "screen"
        shutil.copytree(folder, copy)
        given = "" if "--config" in words else f" {options}"
        ended = await paste(copy, f"flex-import {words}{given}", env)
        assert len(await all_work(copy, ended, env)) >= least, f"{words}\n{ended.out}{ended.err}"
        shutil.rmtree(copy)


async def test_a_reconcile_that_settled_nothing_does_not_suggest_itself(
    tmp_path: Path, service: tuple[Emulator, str]
) -> None:
    """It has just looked; what is left is for a person, who needs the candidates."""
    folder = tmp_path / "work"
    folder.mkdir()
    assert (await troubled(folder, service, "")).code == 4
    ended = await paste(folder, f"flex-import reconcile --base-url {service[1]}")
    found = await all_work(folder, ended)
    assert "flex-import failures --state in_doubt" in found
    assert not any(one.startswith("flex-import reconcile") for one in found)


async def test_what_a_check_without_a_ledger_suggests_makes_one(tmp_path: Path, service: tuple[Emulator, str]) -> None:
    """Off loopback a run is refused unless it says that the ledger is to be new; on loopback it is simply made."""
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "a.csv").write_text(csv_of(6, 4))
    ended = await paste(folder, "flex-import check a.csv")
    [run] = [one for one in suggested(ended) if one.startswith("flex-import run")]
    assert run == "flex-import run a.csv --new-ledger"
    ended = await paste(folder, "flex-import check a.csv", {**QUICK, "FLEX_IMPORT__API__BASE_URL": service[1]})
    assert suggested(ended)[-1] == "flex-import run a.csv"


async def test_what_a_halted_run_and_one_held_by_another_suggest_works(
    tmp_path: Path, service: tuple[Emulator, str]
) -> None:
    """A run that was refused at the door, and the message of one that found the ledger held."""
    emulator, base_url = service
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "a.csv").write_text(csv_of(40, 40))
    emulator.script_next(Answer(status=401, code=20003))
    options = f"--base-url {base_url} --ledger other.db"
    ended = await paste(
        folder, f"flex-import run a.csv {options}", {**CREDENTIALS, "FLEX_IMPORT__DOUBT__POLICY": "hold"}
    )
    assert ended.code == 3, ended.out
    await all_work(folder, ended)
    holding = asyncio.create_task(paste(folder, f"flex-import run a.csv {options} --rate 4"))
    await asyncio.sleep(2)
    ended = await paste(folder, f"flex-import run a.csv {options}")
    assert ended.code == 5
    assert suggested(ended) == ["flex-import status --ledger other.db"]
    await all_work(folder, ended)
    await holding


async def test_what_undone_rows_suggest_works(tmp_path: Path, service: tuple[Emulator, str]) -> None:
    """Closed rows are not sent, and each screen says what frees them."""
    _, base_url = service
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "a.csv").write_text(csv_of(6, 4).replace("customer", "agent"))
    options = f"--base-url {base_url} --ledger other.db"
    assert (await paste(folder, f"flex-import run a.csv {options}")).code == 0
    await all_work(folder, await paste(folder, f"flex-import undo --all --yes {options}"))
    ended = await paste(folder, f"flex-import run a.csv {options}")
    assert ended.code == 4
    found = await all_work(folder, ended)
    assert f"flex-import retry --state closed --ledger other.db --base-url {base_url}" in found
    await all_work(folder, await paste(folder, "flex-import check a.csv --ledger other.db"))


async def test_what_the_screens_of_a_fleet_suggest_works(
    tmp_path: Path, service: tuple[Emulator, str], server: Postgres
) -> None:
    """A worker where something is queued, and no worker where nothing is."""
    _, base_url = service
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "a.csv").write_text(csv_of(20, 4))
    options = f"--ledger {server.new_schema()} --base-url {base_url}"
    ended = await paste(folder, f"flex-import enqueue a.csv {options}")
    assert ended.code == 0, ended.err
    status = await paste(folder, f"flex-import status {options.partition(' --base')[0]}")
    found = await all_work(folder, ended)
    assert [one.split()[1] for one in found] == ["worker"]
    assert [one.split()[1] for one in suggested(status)] == ["worker"]
    again = await paste(folder, f"flex-import enqueue a.csv {options}")
    assert [one.split()[1] for one in await all_work(folder, again)] == ["status"]


def test_options_are_repeated_only_where_they_are_needed() -> None:
    """And only for a command that has them."""
    given = Given(config="my config.toml", ledger="l.db", base_url="http://127.0.0.1:1")
    assert given.command("status") == "flex-import status --config 'my config.toml' --ledger l.db"
    assert given.command("run", "a.csv").endswith("--ledger l.db --base-url http://127.0.0.1:1")
    assert Given().command("failures", "--state in_doubt") == "flex-import failures --state in_doubt"


def test_a_ledger_of_the_usual_name_is_not_repeated() -> None:
    """Nor a config that would be found anyway."""
    assert configure(None, Path(Settings().ledger.path), {}).given == Given()
    Path("config.toml").write_text('[ledger]\npath = "other.db"\n')
    assert configure(Path("config.toml"), Path("other.db"), {}).given == Given()
    assert configure(None, Path("imports.db"), {}).given == Given(ledger="imports.db")


def test_a_new_folder_is_one_that_is_not_there(tmp_path: Path) -> None:
    """The next number, when there is one already; a dangling link is something, too."""
    assert new_folder() == "fix/"
    (tmp_path / "fix").mkdir()
    (tmp_path / "fix-2").symlink_to("nowhere")
    assert new_folder() == "fix-3/"


@pytest.mark.parametrize(
    ("part", "whole", "said"),
    [(20_012, 20_015, "99.9 %"), (1, 1_000_000, "0.1 %"), (0, 9, "0.0 %"), (9, 9, "100.0 %"), (1, 8, "12.5 %")],
)
def test_all_is_all_and_nothing_is_nothing(part: int, whole: int, said: str) -> None:
    """A share is never rounded to 100 % or 0 %."""
    assert share(part, whole) == said


def test_one_is_one() -> None:
    """A count stands with its noun."""
    assert [plural(count, "row") for count in (0, 1, 2000)] == ["0 rows", "1 row", "2,000 rows"]
    assert plural(2, "retry", "retries") == "2 retries"


@pytest.mark.parametrize(
    ("words", "says", "help_for"),
    [
        (["run", "a", "--limit", "x"], 'Invalid value for --limit: "x" is not a whole number', "run"),
        (["failures", "--runn", "9"], "Unknown option: --runn. Did you mean --run?", "failures"),
        (["ledger", "info", "--jsn"], "Unknown option: --jsn. Did you mean --json?", "ledger info"),
        (["run"], "run: FILES is missing", "run"),
        (["status", "x"], "too many arguments: 'x'", "status"),
    ],
)
def test_a_typing_error_names_the_help_that_is_meant(
    words: list[str], says: str, help_for: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the command that was typed, in words that are not the parser's."""
    assert call(words) == 2
    said = capsys.readouterr().err
    assert f"error: {says}\nflex-import {help_for} --help shows its options\n" in said
    assert call([*help_for.split(), "--help"]) == 0


def test_a_time_is_said_as_far_as_it_needs_to_be() -> None:
    """Today's by its hour, this week's by its day, any other by its date; in the zone of now."""
    now = datetime(2026, 3, 2, 21, 30, tzinfo=UTC)
    times = [now.replace(hour=6), now + timedelta(days=2), now + timedelta(days=30)]
    assert [clock(at, now) for at in times] == ["06:30", "Wed 21:30", "01 Apr 2026 21:30"]
