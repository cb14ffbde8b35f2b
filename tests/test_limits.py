"""Limits, hours and outages of the real command, against a service that halts, slows and breaks down."""

import asyncio
import json
import re
import signal
import socket
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.commands import CREDENTIALS, QUICK, finish, flex_import, start
from tests.test_command import csv_of, states
from worker.emulator import Answer, Behaviour, Call, Condition, Emulator, Fault, serve

CLOSED = {**QUICK, "FLEX_IMPORT__LIMITS__TIMETABLE": '["00:00-24:00 0"]'}


@pytest.fixture
async def service() -> AsyncIterator[tuple[Emulator, str]]:
    """An emulated service on loopback."""
    emulator = Emulator()
    async with serve(emulator) as base_url:
        yield emulator, base_url


def free_port() -> int:
    """Return a port on which nobody listens."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


# ---- hours ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [("run", "a.csv"), ("retry",), ("reconcile",)])
async def test_in_closed_hours_nothing_begins(
    tmp_path: Path, service: tuple[Emulator, str], words: tuple[str, ...]
) -> None:
    """Exit 6 at once, no ledger is made, and the words say what to do."""
    (tmp_path / "a.csv").write_text(csv_of(3))
    ended = await flex_import(*words, "--base-url", service[1], cwd=tmp_path, env=CLOSED)
    assert ended.code == 6
    assert "closed hours" in ended.err
    assert ended.err.endswith("exit 6, nothing was sent\n")
    assert not (tmp_path / "imports.db").exists()
    assert service[0].stats.arrived == 0


async def test_closed_hours_can_be_ignored_on_purpose(tmp_path: Path, service: tuple[Emulator, str]) -> None:
    """Only by this flag."""
    (tmp_path / "a.csv").write_text(csv_of(3))
    words = ("run", "a.csv", "--base-url", service[1], "--ignore-timetable")
    ended = await flex_import(*words, cwd=tmp_path, env=CLOSED)
    assert ended.code == 0, ended.err


async def test_a_run_sleeps_until_the_hours_open(tmp_path: Path, service: tuple[Emulator, str]) -> None:
    """It says until when, intends nothing meanwhile, and a signal ends the sleep."""
    (tmp_path / "a.csv").write_text(csv_of(3))
    closed = datetime.now(UTC) - timedelta(hours=1)
    entry = f"{closed:%H}:00-{closed + timedelta(hours=3):%H}:00 0"
    env = {**QUICK, "FLEX_IMPORT__LIMITS__TIMETABLE": json.dumps([entry])}
    process = await start("run", "a.csv", "--base-url", service[1], "--wait", cwd=tmp_path, env=env)
    assert process.stderr is not None
    said = b""
    while b"closed hours until" not in said:
        said += await process.stderr.readline()
    await asyncio.sleep(0.5)
    assert states(tmp_path) == {}
    process.send_signal(signal.SIGTERM)
    ended = await finish(process)
    assert ended.code == 143, ended.err
    assert "3 rows = 3 not sent; identity holds" in ended.out
    assert service[0].stats.arrived == 0


async def test_a_run_ends_after_the_time_that_it_was_given(tmp_path: Path, service: tuple[Emulator, str]) -> None:
    """Exit 6; the same command goes on."""
    (tmp_path / "a.csv").write_text(csv_of(60))
    words = ("run", "a.csv", "--base-url", service[1], "--max-duration", "2s")
    ended = await flex_import(*words, "--rate", "10", cwd=tmp_path, env=QUICK)
    assert ended.code == 6, ended.err
    assert "as --max-duration says. Nothing lost." in ended.out
    assert 10 <= states(tmp_path)["created"] <= 22
    ended = await flex_import(*words, "--rate", "inf", cwd=tmp_path, env=QUICK)
    assert ended.code == 0, ended.err
    assert service[0].stats.created == 60


async def test_until_is_an_option_of_all_that_send(tmp_path: Path, service: tuple[Emulator, str]) -> None:
    """A time that has passed just now is over."""
    (tmp_path / "a.csv").write_text(csv_of(3))
    passed = f"{datetime.now(UTC) - timedelta(minutes=2):%H:%M}"
    ended = await flex_import("run", "a.csv", "--base-url", service[1], "--until", passed, cwd=tmp_path, env=QUICK)
    assert ended.code == 6
    assert "the window is over" in ended.err


# ---- orders ---------------------------------------------------------------------------------------------------------


async def test_a_run_obeys_orders(tmp_path: Path, service: tuple[Emulator, str]) -> None:
    """Paused it sends nothing, resumed it goes on, drained it ends with exit 6 and nothing lost."""
    emulator, base_url = service
    (tmp_path / "a.csv").write_text(csv_of(2000))
    process = await start("run", "a.csv", "--base-url", base_url, "--rate", "50", cwd=tmp_path, env=QUICK)
    await emulator.until(lambda: emulator.stats.created >= 20)
    paused = await flex_import("control", "pause", cwd=tmp_path)
    assert paused.code == 0, paused.err
    await asyncio.sleep(1.5)
    before = emulator.stats.arrived
    await asyncio.sleep(1)
    assert emulator.stats.arrived == before
    assert (await flex_import("control", "resume", cwd=tmp_path)).code == 0
    await emulator.until(lambda: emulator.stats.created >= before + 20)
    assert (await flex_import("control", "drain", cwd=tmp_path)).code == 0
    ended = await finish(process)
    assert ended.code == 6, ended.err
    assert re.search(r"^Drained, as \S+ says\. Nothing lost\.$", ended.out, re.MULTILINE)
    assert "pause, as " in ended.err
    assert states(tmp_path)["created"] == emulator.stats.created
    assert set(states(tmp_path)) <= {"created", "failed"}  # failed: intended, and called back before they left
    refused = await flex_import("control", "pause", cwd=tmp_path)
    assert refused.code == 2


async def test_a_rate_that_is_ordered_holds_within_a_second(tmp_path: Path, service: tuple[Emulator, str]) -> None:
    """And is never above the configured one."""
    emulator, base_url = service
    (tmp_path / "a.csv").write_text(csv_of(3000))
    process = await start("run", "a.csv", "--base-url", base_url, "--rate", "100", cwd=tmp_path, env=QUICK)
    await emulator.until(lambda: emulator.stats.created >= 50)
    assert (await flex_import("control", "rate", "5", cwd=tmp_path)).code == 0
    await asyncio.sleep(1.5)
    before = emulator.stats.arrived
    await asyncio.sleep(2)
    assert emulator.stats.arrived - before <= 12
    process.send_signal(signal.SIGTERM)
    assert (await finish(process)).code == 143


# ---- outages --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [Fault.SERVER_ERROR, Fault.RESET])
async def test_no_row_is_burnt_by_an_outage(tmp_path: Path, service: tuple[Emulator, str], fault: Fault) -> None:
    """It waits, tries, goes on by itself, and all rows are made once."""
    emulator, base_url = service
    (tmp_path / "a.csv").write_text(csv_of(200))
    process = await start(
        "run", "a.csv", "--base-url", base_url, "--rate", "100", "--concurrency", "4", cwd=tmp_path, env=QUICK
    )
    await emulator.until(lambda: emulator.stats.created >= 20)
    emulator.change(faults_before={fault: 1.0})
    arrived = emulator.stats.arrived
    await asyncio.sleep(2)
    assert emulator.stats.arrived - arrived <= 16
    emulator.change(faults_before={})
    ended = await finish(process)
    assert ended.code == 0, ended.out + ended.err
    assert states(tmp_path) == {"created": 200}
    assert emulator.stats.created == 200
    assert "the service is down" in ended.err
    assert "the service is back" in ended.err


@pytest.mark.parametrize("baseline", ["true", "false"])
async def test_a_service_that_is_not_there_yet_is_waited_for(tmp_path: Path, baseline: str) -> None:
    """No connection, no attempt used up: when it comes, everything is sent."""
    (tmp_path / "a.csv").write_text(csv_of(40))
    port = free_port()
    words = ("run", "a.csv", "--base-url", f"http://127.0.0.1:{port}", "--rate", "inf")
    env = {**QUICK, "FLEX_IMPORT__RETRY__ATTEMPTS": "2", "FLEX_IMPORT__RETRY__INITIAL_SECONDS": "0.1"}
    env["FLEX_IMPORT__DOUBT__BASELINE"] = baseline
    process = await start(*words, cwd=tmp_path, env=env)
    assert process.stderr is not None
    said = b""
    while b"the service is down" not in said:
        said += await process.stderr.readline()
    await asyncio.sleep(2)
    emulator = Emulator()
    async with serve(emulator, port=port):
        ended = await finish(process)
    assert ended.code == 0, ended.out + ended.err
    assert emulator.stats.created == 40


async def test_an_outage_without_end_halts(tmp_path: Path) -> None:
    """Exit 3, and no row is worse off than before."""
    (tmp_path / "a.csv").write_text(csv_of(40))
    words = ("run", "a.csv", "--base-url", f"http://127.0.0.1:{free_port()}", "--rate", "inf")
    env = {**QUICK, "FLEX_IMPORT__STOP__OUTAGE_SECONDS": "3", "FLEX_IMPORT__DOUBT__BASELINE": "false"}
    ended = await flex_import(*words, cwd=tmp_path, env=env)
    assert ended.code == 3, ended.out + ended.err
    assert "the service was down for 3.0 s" in ended.out
    assert "identity holds" in ended.out
    assert set(states(tmp_path)) <= {"failed"}


# ---- thresholds -----------------------------------------------------------------------------------------------------


async def test_a_run_in_which_too_much_goes_wrong_halts(tmp_path: Path, service: tuple[Emulator, str]) -> None:
    """More than half of the first hundred rows refused: something is wrong with all of them."""
    emulator, base_url = service
    emulator.change(refusals={Call.CREATE: Answer(status=400, code=20001)})
    (tmp_path / "a.csv").write_text(csv_of(500))
    ended = await flex_import("run", "a.csv", "--base-url", base_url, "--rate", "inf", cwd=tmp_path, env=QUICK)
    assert ended.code == 3, ended.err
    assert "see stop.max_failure_ratio" in " ".join(ended.out.split())
    assert 100 <= states(tmp_path)["rejected"] <= 100 + 16


async def test_a_number_of_failures_that_is_too_high_halts(tmp_path: Path, service: tuple[Emulator, str]) -> None:
    """Parked rows count as well: they were not sent, and a person has to look."""
    emulator, base_url = service
    emulator.declare(csv_of(1).splitlines()[1].split(",")[1], Condition.CLOSED)
    (tmp_path / "a.csv").write_text(csv_of(500, 1))
    env = {**CREDENTIALS, "FLEX_IMPORT__STOP__MAX_FAILURES": "30", "FLEX_IMPORT__STOP__MAX_FAILURE_RATIO": "0"}
    ended = await flex_import("run", "a.csv", "--base-url", base_url, "--rate", "inf", cwd=tmp_path, env=env)
    assert ended.code == 3, ended.err
    assert "see stop.max_failures" in " ".join(ended.out.split())
    assert states(tmp_path) == {"rejected": 1, "parked": 29}


# ---- limits ---------------------------------------------------------------------------------------------------------


async def test_a_limit_that_nobody_told_is_found(tmp_path: Path) -> None:
    """The service allows fifty, we were told inf: hardly a refusal, and a line that says what was found."""
    emulator = Emulator(Behaviour(rate_per_second=50))
    (tmp_path / "a.csv").write_text(csv_of(200))
    async with serve(emulator) as base_url:
        ended = await flex_import("run", "a.csv", "--base-url", base_url, "--rate", "inf", cwd=tmp_path, env=QUICK)
    assert ended.code == 0, ended.err
    assert emulator.stats.created == 200
    assert emulator.stats.throttled < 60
    assert re.search(r"rate \S+, down from \S+ after 429 \(45780\)", ended.err)


async def test_an_absurd_retry_after_is_cut_and_said(tmp_path: Path) -> None:
    """A day's wait is not waited."""
    emulator = Emulator(Behaviour(rate_per_second=5, retry_after_seconds=86_400))
    (tmp_path / "a.csv").write_text(csv_of(8))
    env = {**QUICK, "FLEX_IMPORT__RETRY__MAX_RETRY_AFTER_SECONDS": "1"}
    async with serve(emulator) as base_url:
        ended = await flex_import("run", "a.csv", "--base-url", base_url, "--rate", "inf", cwd=tmp_path, env=env)
    assert ended.code == 0, ended.err
    assert "the service asked to wait 86,400 s; waiting 1 s" in " ".join(ended.err.split())
