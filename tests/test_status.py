"""`status` during a run and after it, and the accounts of a reconcile and a retry: true, and complete."""

import asyncio
import json
import re
import signal
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.commands import HOLDING, finish, flex_import, start
from tests.samples_of import sid
from tests.test_command import csv_of
from worker.cli.looking import _progress, _redrawn
from worker.emulator import Emulator, Fault, after, serve
from worker.ledger.view import Run
from worker.model import Sample

ENV = {**HOLDING, "FLEX_IMPORT__LIMITS__RATE_PER_SECOND": "inf"}
NOW = datetime(2026, 3, 2, 18, 20, tzinfo=UTC)


@pytest.fixture
async def service() -> AsyncIterator[tuple[Emulator, str]]:
    """An emulated service on loopback."""
    emulator = Emulator()
    async with serve(emulator) as base_url:
        yield emulator, base_url


def sample(settled: int, accounted: int | None, input_rows: int | None) -> Sample:
    """Return a sample of a run."""
    return Sample(settled, settled, settled, 0, 0, 1, 15.0, 16, None, None, None, accounted, input_rows)


@pytest.mark.parametrize(
    ("last", "says"),
    [
        (sample(300, 815, 5_015), "run 1: 815 of 5,015 (16 %), 15/s, done 18:24"),
        (sample(300, 20_012, 20_015), "run 1: 20,012 of 20,015 (99 %), 15/s, done 18:20"),
        (sample(300, 5, 5_015), "run 1: 5 of 5,015 (1 %), 15/s, done 18:25"),
        (sample(300, 5_015, 5_015), "run 1: 5,015 of 5,015 (100 %), 15/s"),
        (sample(150, 815, 5_015), "run 1: 815 of 5,015 (16 %), 0/s"),
        (sample(300, 815, None), "run 1: 815 rows, 15/s"),
        (sample(300, None, None), "run 1: at work"),
    ],
)
def test_the_first_line_says_how_far_it_is(last: Sample, says: str) -> None:
    """How much of the input, how fast over the last ten seconds, and when that is done."""
    run = Run(1, "run", 0, None, None, None, None)
    samples = [(0, sample(0, 0, 5_015)), (10_000, sample(150, 400, 5_015)), (20_000, last)]
    assert _progress(run, samples, NOW) == says
    assert _progress(run, [], NOW) == "run 1: at work"


async def test_a_paused_run_is_called_paused(tmp_path: Path, service: tuple[Emulator, str]) -> None:
    """With the command that ends the pause; afterwards nothing of it is left."""
    _, base_url = service
    (tmp_path / "a.csv").write_text(csv_of(400, 40))
    first = await start("run", "a.csv", "--base-url", base_url, "--rate", "50", cwd=tmp_path, env=HOLDING)
    await asyncio.sleep(2.5)
    running = await flex_import("status", cwd=tmp_path)
    assert re.match(r"run 1: [\d,]+ of 400 \(\d+ %\), [\d.]+/s", running.out), running.out
    assert "paused" not in running.out
    assert (await flex_import("control", "pause", cwd=tmp_path)).code == 0
    paused = await flex_import("status", cwd=tmp_path)
    assert re.search(r"\n  paused by .+; to go on:  flex-import control resume\n", paused.out)
    assert (await flex_import("control", "resume", cwd=tmp_path)).code == 0
    assert "paused" not in (await flex_import("status", cwd=tmp_path)).out
    assert (await finish(first)).code == 0
    assert re.match(r"run 1 \(run\) ended \d\d:\d\d, exit 0: ", (await flex_import("status", cwd=tmp_path)).out)


async def test_a_status_that_is_watched_is_drawn_again(tmp_path: Path, service: tuple[Emulator, str]) -> None:
    """In place on a terminal, one after the other in a pipe; Ctrl-C is no failure."""
    _, base_url = service
    (tmp_path / "a.csv").write_text(csv_of(3))
    assert (await flex_import("run", "a.csv", "--base-url", base_url, cwd=tmp_path, env=ENV)).code == 0
    piped = await start("status", "--watch", cwd=tmp_path)
    await asyncio.sleep(4)
    piped.send_signal(signal.SIGINT)
    ended = await finish(piped)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.count("run 1 (run) ended") >= 2
    assert "\x1b" not in ended.out
    refused = await flex_import("status", "--watch", "--json", cwd=tmp_path)
    assert (refused.code, "leave out --json" in refused.err) == (2, True)


async def test_a_reconcile_says_what_it_looked_at(tmp_path: Path, service: tuple[Emulator, str]) -> None:
    """How many rows, how many of them are settled, how many need a person."""
    emulator, base_url = service
    for number in range(3):
        emulator.script(sid("UO", number), after(Fault.NULL_SID))
    (tmp_path / "a.csv").write_text(csv_of(5))
    assert (await flex_import("run", "a.csv", "--base-url", base_url, cwd=tmp_path, env=ENV)).code == 4
    ended = await flex_import("reconcile", "--base-url", base_url, cwd=tmp_path, env=ENV)
    assert ended.out.startswith("Looked at 3 rows in doubt: 0 settled, 3 need you.\n")
    assert "  in doubt              3" in ended.out
    assert ended.out.splitlines()[-1] == "run 2 finished, exit 4: 3 rows = 3 in doubt; identity holds"
    env = {**ENV, "FLEX_IMPORT__DOUBT__POLICY": "reconcile", "FLEX_IMPORT__DOUBT__SETTLE_SECONDS": "0"}
    (tmp_path / "b.csv").write_text(csv_of(1, first=9))
    assert (await flex_import("reconcile", "--ledger", "none.db", cwd=tmp_path, env=env)).code == 2
    fresh = await flex_import("run", "b.csv", "--base-url", base_url, "--ledger", "b.db", cwd=tmp_path, env=env)
    assert fresh.code == 0
    nothing = await flex_import("reconcile", "--base-url", base_url, "--ledger", "b.db", cwd=tmp_path, env=env)
    assert (nothing.code, nothing.out.splitlines()[0]) == (0, "No rows are in doubt.")


async def test_a_retry_does_not_call_rows_done_that_it_cannot_send(
    tmp_path: Path, service: tuple[Emulator, str]
) -> None:
    """Rows that were rejected before they were sent stay rejected, and neither screen says that all is well."""
    _, base_url = service
    (tmp_path / "a.csv").write_text(csv_of(2) + "too,few\n" * 155)
    assert (await flex_import("run", "a.csv", "--base-url", base_url, cwd=tmp_path, env=ENV)).code == 1
    ended = await flex_import("retry", "--base-url", base_url, cwd=tmp_path, env=ENV)
    assert ended.code == 1
    assert ended.out.startswith("No rows to send again.\n")
    assert "155 rows rejected before being sent: repair them" in ended.out
    assert "flex-import export --rejects fix/" in ended.out
    status = await flex_import("status", cwd=tmp_path)
    assert "every row is done" not in status.out
    assert ", exit 1: finished; some rows were rejected" in status.out.splitlines()[0]
    parked = await flex_import("retry", "--state", "parked", "--base-url", base_url, "--json", cwd=tmp_path, env=ENV)
    assert (parked.code, json.loads(parked.out)["exit_code"]) == (0, 0)


def test_a_drawn_screen_covers_the_one_before() -> None:
    """Each line is cleared to its end, and so is what is below the last one."""
    assert _redrawn("a\nb") == "\x1b[Ha\x1b[K\nb\x1b[K\n\x1b[J"
