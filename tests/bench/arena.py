"""Where a contender meets a service: both are processes, started here and ended here by their pid."""

import asyncio
import json
import os
import sys
import time
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp

from tests.bench.figures import Record
from tests.bench.scenario import ADAPTIVE, OURS, SDK_429, Scenario
from tests.bench.series import STEP, Call, Sample, Series
from tests.samples_of import sid

ROOT = Path(__file__).parents[2]

STARTING_SECONDS = 30.0
"""How long a process may take until it does its work."""

ENDING_SECONDS = 30.0
"""How long a process may take to end after SIGTERM."""

FOREIGN_TIMEOUT = 10.0
FORM = {"Type": "customer", "MediaProperties": '{"address": "somebody@example.com"}'}
HEADERS = {"Authorization": aiohttp.encode_basic_auth("AC2", "x")}


class BrokenRunError(Exception):
    """A process did not do what it was there for."""


def write_rows(path: Path, rows: int) -> None:
    """Write a CSV whose rows have a channel of their own each."""
    with path.open("w", encoding="utf-8") as stream:
        stream.write("interaction_sid,channel_sid,type,media_properties.address\n")
        for number in range(rows):
            stream.write(f"{sid('KD', number)},{sid('UO', number)},customer,person.{number}@example.com\n")


def command_of(scenario: Scenario, contender: str, base_url: str, folder: Path, seconds: float) -> list[str | Path]:
    """Return the words of a contender's command, after the interpreter's name."""
    if contender in OURS:
        rows = folder / f"{scenario.name}.csv"
        if not rows.exists():
            write_rows(rows, round(scenario.limit * seconds * 2) + 2000)
        ledger = folder / f"{time.monotonic_ns()}.db"
        limits = ("--rate", str(scenario.ceiling), "--concurrency", str(scenario.concurrency))
        return ["worker", "run", rows, "--base-url", base_url, *limits, "--ledger", ledger, "--json", "-q"]
    repeated = ("--repeat", "429") if contender == SDK_429 else ()
    until = str(seconds + 2 * STARTING_SECONDS)
    return ["tests.bench.sdk_loop", base_url, "--tasks", str(scenario.tasks), "--seconds", until, *repeated]


async def compete(scenario: Scenario, contender: str, seconds: float, folder: Path) -> tuple[Record, Any]:
    """Let a contender work for so many seconds from its first create; return the record and its own account.

    Raises BrokenRunError when a process ends early or does not begin.
    """
    service_words = ("worker", "emulator", "--port", "0", "--forget")
    patience = asyncio.timeout(seconds + 2 * (STARTING_SECONDS + ENDING_SECONDS))
    async with patience, _running(service_words, folder, {}) as emulator:
        base_url = await _address_of(emulator)
        async with aiohttp.ClientSession(base_url, headers=HEADERS) as service:
            await _change(service, **scenario.behaviour())
            words = command_of(scenario, contender, base_url, folder, seconds)
            async with _running(words, folder, _settings(contender)) as process:
                record = await _watch(service, scenario, seconds, process)
                process.terminate()
                account = await _account_of(process)
    return record, account


# ---- what happens meanwhile


async def _watch(service: aiohttp.ClientSession, scenario: Scenario, seconds: float, process: Process) -> Record:
    samples: list[Sample] = []
    calls: list[Call] = []
    changed = None
    async with asyncio.TaskGroup() as group:
        begun = asyncio.Event()
        looking = group.create_task(_look(service, samples, begun))
        ending = group.create_task(_must_last(process))
        async with asyncio.timeout(STARTING_SECONDS):
            await begun.wait()
        began = samples[-1].at
        if between := scenario.changes(seconds):
            await _sleep_until(began + between[0])
            if scenario.lowered is not None:
                await _change(service, rate_per_second=scenario.lowered)
            since = time.monotonic()
            async with asyncio.TaskGroup() as others:
                if scenario.foreign:
                    others.create_task(_intrude(service, scenario.foreign, began + between[1], calls))
                await _sleep_until(began + between[1])
            await _change(service, rate_per_second=scenario.rate)
            changed = (since, time.monotonic())
        await _sleep_until(began + seconds + 2 * STEP)
        looking.cancel()
        ending.cancel()
    busiest = (await _stats(service))["busiest_second_arrived"]
    return Record(series=Series(samples), changed=changed, foreign=calls, busiest_second=busiest)


async def _look(service: aiohttp.ClientSession, samples: list[Sample], begun: asyncio.Event) -> None:
    """Sample the counters, until cancelled."""
    due = time.monotonic()
    while True:
        stats = await _stats(service)
        # the emulator's clock is time.monotonic, which is one for all processes of a machine
        samples.append(Sample(stats["at"], stats["arrived"], stats["accepted"]))
        if stats["arrived"]:
            begun.set()
        due = max(due + STEP, time.monotonic())
        await _sleep_until(due)


async def _intrude(service: aiohttp.ClientSession, rate: float, until: float, calls: list[Call]) -> None:
    """Be the foreign traffic: live, so evenly spread and never repeated."""
    due = time.monotonic()
    async with asyncio.TaskGroup() as group:
        while due < until:
            await _sleep_until(due)
            group.create_task(_call(service, calls))
            due += 1 / rate


async def _call(service: aiohttp.ClientSession, calls: list[Call]) -> None:
    at = time.monotonic()
    path = f"/v1/Interactions/{sid('KD', 'foreign')}/Channels/{sid('UO', 'foreign')}/Participants"
    async with service.post(path, data=FORM, timeout=aiohttp.ClientTimeout(FOREIGN_TIMEOUT)) as response:
        calls.append(Call(at, response.ok))


async def _change(service: aiohttp.ClientSession, **settings: float | None) -> None:
    async with service.post("/emulator/behaviour", json=settings) as response:
        if not response.ok:
            raise BrokenRunError(await response.text())


async def _stats(service: aiohttp.ClientSession) -> dict[str, Any]:
    async with service.get("/emulator/stats") as response:
        stats: dict[str, Any] = await response.json()
        return stats


async def _sleep_until(at: float) -> None:
    await asyncio.sleep(max(0.0, at - time.monotonic()))


# ---- processes


def _settings(contender: str) -> dict[str, str]:
    return {
        "TWILIO_ACCOUNT_SID": "AC1",
        "TWILIO_AUTH_TOKEN": "x",
        "FLEX_IMPORT__DOUBT__BASELINE": "false",
        "FLEX_IMPORT__LIMITS__ADAPTIVE": str(contender == ADAPTIVE).lower(),
    }


@asynccontextmanager
async def _running(words: Sequence[str | Path], folder: Path, env: dict[str, str]) -> AsyncIterator[Process]:
    """Run `python -m WORDS` while the block lasts, in an environment of its own."""
    kept = {name: value for name, value in os.environ.items() if name.startswith(("PATH", "HOME", "LANG", "TMPDIR"))}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        *map(str, words),
        cwd=folder,
        env={**kept, "PYTHONPATH": str(ROOT), **env},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=None if env else asyncio.subprocess.DEVNULL,  # what a contender complains about is to be seen
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()


async def _address_of(emulator: Process) -> str:
    assert emulator.stdout is not None
    async with asyncio.timeout(STARTING_SECONDS):
        if line := await emulator.stdout.readline():
            return line.decode().strip()
    raise BrokenRunError("the emulator did not start")


async def _must_last(process: Process) -> None:
    """Raise BrokenRunError when a contender ends before its time."""
    code = await process.wait()
    raise BrokenRunError(f"a contender ended too early, exit code {code}: {await _account_of(process)}")


async def _account_of(process: Process) -> Any:
    """Wait for a contender's end; return the JSON that it printed last. Raises BrokenRunError when there is none."""
    out, _ = await process.communicate()
    try:
        return json.loads(out)
    except ValueError:
        raise BrokenRunError(f"a contender left no account, exit code {process.returncode}") from None
